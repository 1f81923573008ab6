import { write, writeSync } from "node:fs";
import type { LogLevel } from "../core/logger.ts";
import { formatText, type LogFormatter, type LogRecord, type LogSink } from "./log-record.ts";

const STDERR = 2;

/** consola on a terminal. Loaded by need: it, and the streams it writes to, cost 5 MiB of memory. */
export async function openPrettyTerminal(): Promise<LogSink> {
  const { createConsola, LogLevels } = await import("consola");
  let text = "";
  // It makes the text only. Its stream would wait for a terminal that was stopped (Ctrl-S), and every session with it.
  const stream: NodeJS.WriteStream = Object.create(process.stderr, {
    write: { value: (made: string) => (text += made) },
  });
  const consola = createConsola({
    level: LogLevels.debug, // who writes has chosen already
    stdout: stream,
    stderr: stream,
    throttle: 0, // repeats are folded before they come here
    formatOptions: { date: true },
  });
  return new LineTerminal((record) => {
    text = "";
    consola[record.level](formatText(record));
    return text.replace(/\n$/, "");
  });
}

/** What may wait for a reader of standard error that does not keep up, in characters. */
const WAITING_LIMIT = 64 * 1024;
/** A pipe that says it is full is tried again after so long, in milliseconds. */
const AGAIN_MS = 50;
/** How long the last lines may take, in milliseconds. */
const LAST_LINES_MS = 500;

/**
 * Writes one line a record to standard error, for systemd and files.
 *
 * Lines of one turn of the event loop go out in one write: a burst of sessions would cost a system call each.
 * A write never blocks the proxy: behind a reader that has stopped, lines are dropped, and counted.
 */
export class LineTerminal implements LogSink {
  readonly #format: LogFormatter;
  #lines = "";
  /** Records in {@link LineTerminal.#lines}. */
  #count = 0;
  #dropped = 0;
  #lost = 0;
  #writing = false;
  #onIdle: (() => void) | undefined;

  constructor(format: LogFormatter) {
    this.#format = format;
    process.on("exit", () => this.#writeLast());
  }

  get lost(): number {
    return this.#lost;
  }

  write(record: LogRecord): void {
    if (this.#lines.length > WAITING_LIMIT) {
      this.#lose(1);
      return;
    }
    if (this.#lines === "" && !this.#writing) setImmediate(() => this.#write());
    this.#lines += `${this.#format(record)}\n`;
    this.#count += 1;
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
    const [count, dropped] = [this.#count, this.#dropped];
    const bytes = Buffer.from(this.#take());
    this.#writing = true;
    const next = (rest: Buffer): void => {
      write(STDERR, rest, (error, written) => {
        if (error === null && written < rest.length) return next(rest.subarray(written));
        if (error?.code === "EAGAIN") return void setTimeout(next, AGAIN_MS, rest).unref(); // somebody shares it
        // Whoever read the log is gone, or the disk is full: the proxy goes on without.
        if (error !== null) {
          this.#lose(count);
          this.#dropped += dropped; // who reads next has not heard of those either
        }
        this.#writing = false;
        if (this.#lines === "") this.#onIdle?.();
        else this.#write();
      });
    };
    next(bytes);
  }

  #take(): string {
    const lines = this.#lines + this.#note();
    this.#lines = "";
    this.#count = 0;
    this.#dropped = 0;
    return lines;
  }

  #lose(count: number): void {
    this.#dropped += count;
    this.#lost += count;
  }

  #note(): string {
    if (this.#dropped === 0) return "";
    const message = `${this.#dropped} lines were dropped here`;
    return `${this.#format({ time: Date.now(), level: "warn", message, fields: undefined })}\n`;
  }

  #writeLast(): void {
    try {
      if (!this.#writing && this.#lines !== "") writeSync(STDERR, this.#take());
    } catch {
      // Nobody is there to read it.
    }
  }
}

/** `12:34:56Z info  message` (UTC: local time would load a MiB of time zones). */
export function newPlainFormatter(): LogFormatter {
  let second = 0;
  let clock = "";
  return (record) => {
    const now = Math.floor(record.time / 1000);
    if (now !== second) {
      second = now;
      clock = new Date(record.time).toISOString().slice(11, 19);
    }
    return `${clock}Z ${padLevel(record.level)} ${formatText(record)}`;
  };
}

function padLevel(level: LogLevel): string {
  return level.padEnd(5);
}
