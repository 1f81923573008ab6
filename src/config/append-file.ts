import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { hasCode, reasonOf, writeBeside } from "./private-file.ts";
import { StateFileError } from "./state-file.ts";

/** The largest file that is read, in bytes. */
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * A binary file in the configuration folder that grows at its end, readable by its owner only (0600).
 *
 * Nothing here throws: after the first failure, which goes to `onFailed`, nothing more is written.
 */
export class AppendFile {
  readonly #path: string;
  readonly #onFailed: (error: StateFileError) => void;
  #fd: number | undefined;
  #failed = false;

  /** @param onFailed Must not throw. */
  constructor(path: string, onFailed: (error: StateFileError) => void) {
    this.#path = path;
    this.#onFailed = onFailed;
  }

  /** Returns what is in it; nothing when there is no such file, or it cannot be read. */
  read(): Uint8Array {
    try {
      const fd = openSync(this.#path, "r");
      try {
        const status = fstatSync(fd);
        if (!status.isFile() || status.size > MAX_BYTES) throw new RangeError("not a file of ours");
        return readFileSync(fd);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      if (!hasCode(error, "ENOENT")) this.#fail("READ", error);
      return new Uint8Array(0);
    }
  }

  append(bytes: Uint8Array): void {
    if (this.#failed) return;
    try {
      if (this.#fd === undefined) {
        mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
        this.#fd = openSync(this.#path, "a", 0o600);
      }
      writeSync(this.#fd, bytes);
    } catch (error) {
      this.#fail("WRITE", error);
    }
  }

  /** Puts `bytes` in the place of all that is in it, whole or not at all. */
  replace(bytes: Uint8Array): void {
    if (this.#failed) return;
    try {
      this.close();
      writeBeside(this.#path, bytes, (temporary) => renameSync(temporary, this.#path));
    } catch (error) {
      this.#fail("WRITE", error);
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #fail(code: "READ" | "WRITE", error: unknown): void {
    this.#failed = true;
    const reason = error instanceof RangeError ? error.message : reasonOf(error);
    this.#onFailed(new StateFileError(code, `Cannot ${code.toLowerCase()} ${this.#path}: ${reason}`, error));
  }
}
