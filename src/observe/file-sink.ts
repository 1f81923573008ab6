import { closeSync, fstatSync, openSync, readSync, rmSync } from "node:fs";
import type { RotatingFileStream } from "rotating-file-stream";
import { StartError } from "../core/errors.ts";
import type { LogFormatter, LogRecord, LogSink } from "./log-record.ts";

/** Where the log goes besides the terminal. */
export interface LogFileOptions {
  readonly path: string;
  /** A new file is started at about this size. */
  readonly maxBytes: number;
  /** Old files kept, as `path.1`, `path.2`, ...; 0 keeps none. */
  readonly backups: number;
}

/** After a failure the file is tried again so often. */
const RETRY_MS = 60_000;
/** What may wait for a disk that does not keep up, in bytes. */
const WAITING_LIMIT = 1024 * 1024;
const NEW_LINE = 0x0a;

/** Lines in a file with a date, and a new file when it gets too big. A file that fails is tried again later. */
export class FileSink implements LogSink {
  readonly #options: LogFileOptions;
  readonly #format: LogFormatter;
  readonly #say: (record: LogRecord) => void;
  readonly #retryMs: number;
  #stream: RotatingFileStream | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #reopened: Promise<void> = Promise.resolve();
  #closed = false;
  #lost = 0;
  /** It has been said that the file cannot be written, and not yet that it can be again. */
  #failing = false;
  /** Lines that were lost since the file failed. */
  #missing = 0;

  private constructor(options: LogFileOptions, { format, say, retryMs = RETRY_MS }: FileSinkDeps) {
    this.#options = options;
    this.#format = format;
    this.#say = say;
    this.#retryMs = retryMs;
  }

  /** @throws {StartError} `FILE` when it cannot be written, unless that is for want of a place for the old one. */
  static async open(options: LogFileOptions, deps: FileSinkDeps): Promise<FileSink> {
    const sink = new FileSink(options, deps);
    try {
      sink.#use(await openStream(options));
      return sink;
    } catch (error) {
      if (isAboutMoving(error)) {
        sink.#fail(error); // it was fine until it got too big: no reason not to start
        return sink;
      }
      throw new StartError(
        "FILE",
        `Cannot write the log file ${options.path}: ${describe(error)}`,
        "choose another file: --log-file",
        error,
      );
    }
  }

  get lost(): number {
    return this.#lost;
  }

  write(record: LogRecord): void {
    if (this.#stream === undefined || this.#stream.writableLength > WAITING_LIMIT) this.#lose();
    else this.#stream.write(`${this.#format(record)}\n`, this.#onWritten);
  }

  /** One after the other: each stream that was opened is ended once. */
  async reopen(): Promise<boolean> {
    this.#reopened = this.#reopened.then(() => this.#reopen());
    await this.#reopened;
    return this.#stream !== undefined;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#reopened;
    if (this.#stream !== undefined) await endStream(this.#stream);
  }

  async #reopen(): Promise<void> {
    if (this.#closed) return;
    const old = this.#stream;
    try {
      this.#use(await openStream(this.#options)); // until it is open, lines go to the old one
    } catch (error) {
      this.#fail(error);
    }
    if (old !== undefined) await endStream(old);
  }

  readonly #onWritten = (error: Error | null | undefined): void => {
    if (error) this.#lose();
  };

  #lose(): void {
    this.#lost += 1;
    this.#missing += 1;
  }

  #use(stream: RotatingFileStream): void {
    clearTimeout(this.#retry);
    const cut = this.#stream === undefined && endsInsideLine(this.#options.path) ? "\n" : "";
    this.#stream = stream;
    stream.on("error", (error) => {
      if (stream === this.#stream) this.#fail(error);
    });
    const missing = this.#missing;
    if (missing === 0) {
      this.#failing = false;
      if (cut !== "") stream.write(cut);
      return;
    }
    const message = `the log file is written again; ${missing} lines are not in it`;
    const record: LogRecord = { time: Date.now(), level: "warn", message, fields: undefined };
    // A full disk opens the file as always: only what was written tells.
    stream.write(`${cut}${this.#format(record)}\n`, (error) => {
      if (error) return;
      this.#failing = false;
      this.#missing -= missing;
      this.#say(record);
    });
  }

  /** A full disk must not end the proxy. The terminal still has the log. */
  #fail(error: unknown): void {
    this.#stream = undefined;
    if (!this.#failing) {
      this.#failing = true;
      const message = `Cannot write the log file, which is tried again every minute: ${describe(error)}`;
      this.#say({ time: Date.now(), level: "error", message, fields: undefined });
    }
    clearTimeout(this.#retry);
    if (this.#closed) return;
    this.#retry = setTimeout(() => void this.reopen(), this.#retryMs);
    this.#retry.unref();
  }
}

/** What a {@link FileSink} needs besides its file. */
export interface FileSinkDeps {
  readonly format: LogFormatter;
  /** Hears what is wrong with the file. */
  readonly say: (record: LogRecord) => void;
  readonly retryMs?: number;
}

async function openStream({ path, maxBytes, backups }: LogFileOptions): Promise<RotatingFileStream> {
  const { createStream } = await import("rotating-file-stream");
  const stream = createStream(path, {
    size: `${Math.max(1, Math.round(maxBytes / 1024))}K`,
    rotate: Math.max(1, backups), // the library cannot keep none
    mode: 0o600,
  });
  if (backups === 0) stream.on("rotated", (old) => rmSync(old, { force: true }));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  stream.once("open", () => resolve());
  stream.once("error", reject);
  await promise;
  stream.removeListener("error", reject);
  return stream;
}

/** Waits until it is on disk, or has failed. */
function endStream(stream: RotatingFileStream): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (stream.destroyed) resolve();
  stream.once("error", () => resolve());
  stream.end(() => resolve());
  return promise;
}

/** Whether the old file could not be moved away: a new one would need a place in its folder, too. */
function isAboutMoving(error: unknown): boolean {
  return error instanceof Error && "syscall" in error && error.syscall === "rename";
}

/** Whether the last line has no end: a full disk takes a part of what is written. */
function endsInsideLine(path: string): boolean {
  try {
    const file = openSync(path, "r");
    try {
      const { size } = fstatSync(file);
      const last = new Uint8Array(1);
      return size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== NEW_LINE;
    } finally {
      closeSync(file);
    }
  } catch {
    return false; // it may be written, and not read
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
