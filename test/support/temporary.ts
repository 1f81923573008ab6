import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folders: string[] = [];
// For scripts. It is too late for test files: with `--isolate`, their listeners are gone by then, see test/preload.ts.
process.once("exit", removeTemporaryFolders);

/** Makes a folder for what a whole test file, or a script, needs. It is removed at the end. */
export function temporaryFolder(prefix: string): string {
  const folder = mkdtempSync(join(tmpdir(), prefix));
  folders.push(folder);
  return folder;
}

/** Removes the folders. */
export function removeTemporaryFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}
