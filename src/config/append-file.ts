import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { hasCode, reasonOf, writeBeside } from "./private-file.ts";
import { StateFileError } from "./state-file.ts";

/** The largest file that is read, in bytes. */
const MAX_BYTES = 64 * 1024 * 1024;

/**
 * A binary file in the configuration folder that grows at its end, readable by its owner only (0600).
 *
 * Nothing here throws: the first failure of a row goes to `onFailed`. A file that cannot be read is left alone for good,
 * since it may be somebody else's.
 */
export class AppendFile {
  readonly #path: string;
  readonly #onFailed: (error: StateFileError) => void;
  #fd: number | undefined;
  #foreign = false;
  #failing = false;

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

  /** @returns Whether it is there now; if not, a part of it may be: only {@link AppendFile.replace} mends that. */
  append(bytes: Uint8Array): boolean {
    return this.#write(() => {
      if (this.#fd === undefined) {
        mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
        this.#fd = openSync(this.#path, "a", 0o600);
      }
      if (writeSync(this.#fd, bytes) < bytes.length) throw new RangeError("no space left");
    });
  }

  /** Puts `bytes` in the place of all that is in it, whole or not at all. @returns Whether that worked. */
  replace(bytes: Uint8Array): boolean {
    return this.#write(() => {
      this.close();
      writeBeside(this.#path, bytes, (temporary) => renameSync(temporary, this.#path));
    });
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #write(work: () => void): boolean {
    if (this.#foreign) return false;
    try {
      work();
      this.#failing = false;
      return true;
    } catch (error) {
      this.#fail("WRITE", error);
      return false;
    }
  }

  #fail(code: "READ" | "WRITE", error: unknown): void {
    this.#foreign ||= code === "READ";
    if (this.#failing) return;
    this.#failing = true;
    const reason = error instanceof RangeError ? error.message : reasonOf(error);
    this.#onFailed(new StateFileError(code, `Cannot ${code.toLowerCase()} ${this.#path}: ${reason}`, error));
  }
}
