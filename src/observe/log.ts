import { rmSync, writeSync } from "node:fs";
import { isatty } from "node:tty";
import { type ConsolaInstance, createConsola, LogLevels, type LogObject } from "consola/core";
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
  const level = options.verbose ? LogLevels.debug : LogLevels.info;
  const plain = new PlainReporter();
  const terminal = isatty(STDERR) ? await prettyConsola(level) : createConsola({ level, reporters: [plain] });
  const file = options.file === undefined ? undefined : await openFile(options.file);
  process.on("exit", () => plain.flush());
  return new TerminalAndFileLogger(terminal, file, options.verbose);
}

/** Loaded by need: this half of consola, and the streams it writes to, cost 5 MiB of memory. */
async function prettyConsola(level: number): Promise<ConsolaInstance> {
  const consola = await import("consola");
  return consola.createConsola({
    level,
    stdout: process.stderr,
    stderr: process.stderr,
    formatOptions: { date: true },
  });
}

/**
 * Writes `12:34:56 info  message` for systemd and files.
 *
 * Lines of one turn of the event loop go out in one write: a burst of sessions would cost a system call each.
 */
class PlainReporter {
  #lines = "";

  log({ date, type, args }: LogObject): void {
    if (this.#lines === "") setImmediate(() => this.flush());
    this.#lines += `${date.toISOString().slice(11, 19)} ${type.padEnd(5)} ${args.join(" ")}\n`;
  }

  flush(): void {
    const lines = this.#lines;
    this.#lines = "";
    try {
      if (lines !== "") writeSync(STDERR, lines);
    } catch {
      // Whoever read the log is gone, or does not keep up: the proxy goes on without.
    }
  }
}

class TerminalAndFileLogger implements ClosableLogger {
  readonly #terminal: ConsolaInstance;
  readonly #verbose: boolean;
  #file: RotatingFileStream | undefined;

  constructor(terminal: ConsolaInstance, file: RotatingFileStream | undefined, verbose: boolean) {
    this.#terminal = terminal;
    this.#file = file;
    this.#verbose = verbose;
    file?.on("error", (error) => {
      // A full disk must not end the proxy. The terminal still has the log.
      this.#file = undefined;
      terminal.error(`Cannot write the log file, which is given up: ${error.message}`);
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

  close(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    if (this.#file === undefined) resolve();
    else this.#file.end(() => resolve());
    return promise;
  }

  #write(level: Level, message: string, fields: LogFields | undefined): void {
    const line = formatLine(message, fields);
    this.#terminal[level](line);
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
