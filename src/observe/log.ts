import { rmSync, write, writeSync } from "node:fs";
import { isatty } from "node:tty";
import type { RotatingFileStream } from "rotating-file-stream";
import { StartError } from "../core/errors.ts";
import type { LogFields, Logger } from "../core/logger.ts";

/** Where the log goes besides the terminal. */
export interface LogFileOptions {
  readonly path: string;
  /** A new file is started at about this size. */
  readonly maxBytes: number;
  /** Old files kept, as `path.1`, `path.2`, ...; 0 keeps none. */
  readonly backups: number;
}

/** A log that can be closed: what was written is then on disk. */
export interface ClosableLogger extends Logger {
  close(): Promise<void>;
}

const STDERR = 2;

type Level = "debug" | "info" | "warn" | "error";

/**
 * Writes lines to standard error (pretty on a terminal, plain when piped) and, if asked, to a file.
 *
 * Standard output stays free for what a command prints.
 *
 * @throws {StartError} `FILE` when the log file cannot be written.
 */
export async function createLogger(options: {
  readonly verbose: boolean;
  readonly file: LogFileOptions | undefined;
}): Promise<ClosableLogger> {
  const terminal = isatty(STDERR) ? await prettyTerminal(options.verbose) : new PlainTerminal();
  const file = options.file === undefined ? undefined : await openFile(options.file);
  return new TerminalAndFileLogger(terminal, file, options.verbose);
}

/** Takes one line, without its end. */
interface LineSink {
  line(level: Level, text: string): void;
  /** Waits until what was written is out. */
  close?(): Promise<void>;
}

/** consola on a terminal. Loaded by need: it, and the streams it writes to, cost 5 MiB of memory. */
async function prettyTerminal(verbose: boolean): Promise<LineSink> {
  const { createConsola, LogLevels } = await import("consola");
  const consola = createConsola({
    level: verbose ? LogLevels.debug : LogLevels.info,
    stdout: process.stderr,
    stderr: process.stderr,
    formatOptions: { date: true },
  });
  return { line: (level, text) => consola[level](text) };
}

/** What may wait for a reader of standard error that does not keep up, in characters. */
const PLAIN_LIMIT = 64 * 1024;
/** How long the last lines may take, in milliseconds. */
const LAST_LINES_MS = 500;

/**
 * Writes `12:34:56Z info  message` (UTC: local time would load a MiB of time zones) for systemd and files.
 *
 * Lines of one turn of the event loop go out in one write: a burst of sessions would cost a system call each.
 * A write never blocks the proxy: behind a reader that has stopped, lines are dropped, and counted.
 */
class PlainTerminal implements LineSink {
  #lines = "";
  #dropped = 0;
  #writing = false;
  #onIdle: (() => void) | undefined;
  #second = 0;
  #time = "";

  constructor() {
    process.on("exit", () => this.#writeLast());
  }

  line(level: Level, text: string): void {
    const now = Date.now();
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#time = new Date(now).toISOString().slice(11, 19);
    }
    if (this.#lines.length > PLAIN_LIMIT) {
      this.#dropped += 1;
      return;
    }
    if (this.#lines === "" && !this.#writing) setImmediate(() => this.#write());
    this.#lines += `${this.#time}Z ${level.padEnd(5)} ${text}\n`;
  }

  /** Gives a reader that has stopped a moment, no more. */
  close(): Promise<void> {
    this.#write();
    if (!this.#writing) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onIdle = resolve;
    setTimeout(resolve, LAST_LINES_MS);
    return promise;
  }

  /** Writes what there is, one write at a time; on another thread, since a pipe may be full. */
  #write(): void {
    if (this.#lines === "" || this.#writing) return;
    const bytes = Buffer.from(this.#take());
    this.#writing = true;
    const next = (rest: Buffer): void => {
      write(STDERR, rest, (error, written) => {
        // An error means that whoever read the log is gone: the proxy goes on without.
        if (error === null && written < rest.length) return next(rest.subarray(written));
        this.#writing = false;
        if (this.#lines === "") this.#onIdle?.();
        else this.#write();
      });
    };
    next(bytes);
  }

  #take(): string {
    const note = this.#dropped > 0 ? `${this.#time}Z warn  ${this.#dropped} lines were dropped here\n` : "";
    const lines = this.#lines + note;
    this.#lines = "";
    this.#dropped = 0;
    return lines;
  }

  #writeLast(): void {
    try {
      if (!this.#writing && this.#lines !== "") writeSync(STDERR, this.#take());
    } catch {
      // Nobody is there to read it.
    }
  }
}

class TerminalAndFileLogger implements ClosableLogger {
  readonly #terminal: LineSink;
  readonly #verbose: boolean;
  #file: RotatingFileStream | undefined;

  constructor(terminal: LineSink, file: RotatingFileStream | undefined, verbose: boolean) {
    this.#terminal = terminal;
    this.#verbose = verbose;
    this.#file = file;
    file?.on("error", (error) => {
      // A full disk must not end the proxy. The terminal still has the log.
      this.#file = undefined;
      terminal.line("error", `Cannot write the log file, which is given up: ${error.message}`);
    });
  }

  debug(message: string, fields?: LogFields): void {
    if (this.#verbose) this.#write("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    this.#write("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("error", message, fields);
  }

  async close(): Promise<void> {
    await this.#terminal.close?.();
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#file === undefined) resolve();
    else this.#file.end(() => resolve());
    await promise;
  }

  #write(level: Level, message: string, fields: LogFields | undefined): void {
    const line = formatLine(message, fields);
    this.#terminal.line(level, line);
    this.#file?.write(`${new Date().toISOString()} ${level.toUpperCase().padEnd(5)} ${line}\n`);
  }
}

/** `message key=value key="two words"`; what is undefined is left out. Line breaks become spaces. */
export function formatLine(message: string, fields: LogFields = {}): string {
  const parts = [message.replaceAll(/\s*[\r\n]+\s*/g, " ")];
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = String(value);
    parts.push(`${key}=${/[\s"=]/.test(text) ? JSON.stringify(text) : text}`);
  }
  return parts.join(" ");
}

async function openFile({ path, maxBytes, backups }: LogFileOptions): Promise<RotatingFileStream> {
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
  try {
    await promise;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError(
      "FILE",
      `Cannot write the log file ${path}: ${reason}`,
      "choose another file: --log-file",
      error,
    );
  }
  stream.removeListener("error", reject);
  return stream;
}
