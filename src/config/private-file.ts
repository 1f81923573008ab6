import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  fsyncSync,
  lchownSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";

/** Reads a small file of ours and takes the rights of others away; `undefined` when there is none. */
export function readPrivate(path: string): string | undefined {
  try {
    const text = readFileSync(path, "utf8");
    keepPrivate(path);
    return text;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

/**
 * Writes `text` to a temporary file beside `path`, readable by its owner only, and lets `place` move it there.
 *
 * So a file appears whole or not at all. The folder is made when it is missing (0700); the temporary file is
 * gone afterwards, whatever happened.
 */
export function writeBeside<T>(path: string, text: string | Uint8Array, place: (temporary: string) => T): T {
  // In a container every start has the same process id: chance tells two programs apart.
  const temporary = `${path}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, text, { mode: 0o600, flag: "wx" });
    ownLikeFolder(temporary);
    return place(temporary);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Waits until the disk has a file: one that is put in its place before that may be empty after a power cut. */
export function syncFile(path: string): void {
  const fd = openSync(path, "r+");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Gives a new file to whom the folder belongs that it is in, where root has made it: `sudo tgws users add` in the folder
 * of a service must not make a file that the service cannot read.
 */
export function ownLikeFolder(path: string): void {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = statSync(dirname(path));
  if (uid !== 0) lchownSync(path, uid, gid); // whoever owns the folder could have put a link there
}

/** What a person needs of a file system's error: `EACCES`. */
export function reasonOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

/** What to look at when the disk itself refuses, whoever asks; `undefined` for another error. */
export function hintOnDisk(error: unknown): string | undefined {
  const full = ["ENOSPC", "EDQUOT", "EROFS", "EIO", "SQLITE_FULL"].some((code) => hasCode(error, code));
  return full ? "see whether the disk is full or read-only" : undefined;
}

/** Whether the file system refused with `code`. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

/** Takes the rights of others away where that is possible: a file of somebody else, or read-only, still serves. */
function keepPrivate(path: string): void {
  if (process.platform === "win32" || (statSync(path).mode & 0o077) === 0) return;
  try {
    chmodSync(path, 0o600);
  } catch (error) {
    if (!hasCode(error, "EPERM") && !hasCode(error, "EROFS")) throw error;
  }
}
