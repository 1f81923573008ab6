import { chmodSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeHome } from "./proxy.ts";

/** A configuration folder whose `config.toml` a test rewrites. */
export class ConfigHome implements Disposable {
  readonly path = makeHome();
  readonly file = join(this.path, "config.toml");

  constructor(text: string) {
    this.write(text);
  }

  /** Puts a new file in the place of the old one, as careful editors do. */
  write(text: string): void {
    const next = `${this.file}.next`;
    writeFileSync(next, text);
    chmodSync(next, 0o600);
    renameSync(next, this.file);
  }

  /** Writes another file of the folder, and returns its path. */
  add(name: string, text: string): string {
    const path = join(this.path, name);
    writeFileSync(path, text);
    return path;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
