import { renameSync, statSync } from "node:fs";
import { TgwsError } from "../core/errors.ts";
import { readPrivate, reasonOf, writeBeside } from "./private-file.ts";

/** The largest state file, in bytes: everything that is kept is a list of a few names. */
export const MAX_STATE_BYTES = 1024 * 1024;

/** A state file that cannot be read or written: what it holds is then learned anew at each start. */
export class StateFileError extends TgwsError<"READ" | "WRITE"> {}

/**
 * A small text file in the configuration folder, for what can be learned anew.
 *
 * Nothing here throws: a read-only folder, a full disk or a damaged file must not stop the proxy. The first
 * failure of a row goes to `onFailed`, so that an hourly attempt does not fill the log.
 */
export class StateFile {
  readonly #path: string;
  readonly #onFailed: (error: StateFileError) => void;
  readonly #failing = new Set<"READ" | "WRITE">();

  /** @param onFailed Must not throw. */
  constructor(path: string, onFailed: (error: StateFileError) => void = () => {}) {
    this.#path = path;
    this.#onFailed = onFailed;
  }

  /** Returns the text; `undefined` when there is no such file, or it cannot be read. */
  read(): string | undefined {
    try {
      const text = hasSaneSize(this.#path) ? readPrivate(this.#path) : undefined;
      this.#failing.delete("READ");
      return text;
    } catch (error) {
      this.#failed("READ", error);
      return undefined;
    }
  }

  /** Replaces the file as a whole, for its owner only (0600); makes the folder (0700) when it is missing. */
  write(text: string): void {
    try {
      if (Buffer.byteLength(text) > MAX_STATE_BYTES) throw new RangeError("more than 1 MiB");
      writeBeside(this.#path, text, (temporary) => renameSync(temporary, this.#path));
      this.#failing.delete("WRITE");
    } catch (error) {
      this.#failed("WRITE", error);
    }
  }

  #failed(code: "READ" | "WRITE", error: unknown): void {
    if (this.#failing.has(code)) return;
    this.#failing.add(code);
    const reason = error instanceof RangeError ? error.message : reasonOf(error);
    this.#onFailed(new StateFileError(code, `Cannot ${code.toLowerCase()} ${this.#path}: ${reason}`, error));
  }
}

/** Whether there is a file; it is looked at before it is opened, since opening a pipe would wait for ever. */
function hasSaneSize(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false }); // an error at the start costs MiBs of memory for good
  if (stats === undefined) return false;
  if (!stats.isFile()) throw new RangeError("not a file");
  if (stats.size > MAX_STATE_BYTES) throw new RangeError("more than 1 MiB");
  return true;
}
