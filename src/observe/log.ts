import { isatty } from "node:tty";
import { LOG_LEVELS, type LogFields, type LogFormat, type Logger, type LogLevel } from "../core/logger.ts";
import type { LogCounts } from "./figures.ts";
import type { LogFileOptions } from "./file-sink.ts";
import { FoldingSink } from "./log-folding.ts";
import { hideKeys } from "./log-guard.ts";
import { formatJson, formatText, type LogFormatter, type LogRecord, type LogSink } from "./log-record.ts";
import { LineTerminal, newPlainFormatter, openPrettyTerminal } from "./terminal-sink.ts";

/** How a process logs. */
export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  readonly file: LogFileOptions | undefined;
  /** Takes out of a text what nobody may read, besides what looks like a key, which always goes. */
  readonly redact?: (text: string) => string;
}

/** A logger that knows beforehand whether anybody wants a line. */
export interface LevelLogger extends Logger {
  enabled(level: LogLevel): boolean;
}

const STDERR = 2;

/**
 * Writes lines to standard error and, if asked, to a file.
 *
 * Standard output stays free for what a command prints.
 *
 * @throws {StartError} `FILE` when the log file cannot be written.
 */
export async function createLogger(options: LoggerOptions): Promise<ProcessLogger> {
  const { level, format, file, redact } = options;
  const terminal = await openTerminal(format);
  if (file === undefined) return new ProcessLogger(level, terminal, redact);
  const { FileSink } = await import("./file-sink.ts");
  const deps = { format: format === "json" ? formatJson : formatDated, say: terminal.write.bind(terminal) };
  return new ProcessLogger(level, new BothSinks(terminal, await FileSink.open(file, deps)), redact);
}

/** Hands records to somebody who writes them: a worker's logger. They come folded, and within the budget. */
export function createRecordLogger(options: {
  readonly level: LogLevel;
  readonly write: (record: LogRecord) => void;
  readonly redact?: (text: string) => string;
}): ProcessLogger {
  return new ProcessLogger(options.level, { write: options.write }, options.redact);
}

/** The log of a process: its lines, by level, without repeats and floods; and the records of others. */
export class ProcessLogger implements LevelLogger {
  readonly #output: LogSink;
  readonly #folding: FoldingSink;
  #level: LogLevel;
  #rank: number;

  constructor(level: LogLevel, output: LogSink, redact: (text: string) => string = (text) => text) {
    this.#level = level;
    this.#rank = LOG_LEVELS.indexOf(level);
    this.#output = output;
    this.#folding = new FoldingSink(guard(output, (text) => redact(hideKeys(text))));
  }

  get level(): LogLevel {
    return this.#level;
  }

  /** Holds for the lines to come. */
  setLevel(level: LogLevel): void {
    this.#level = level;
    this.#rank = LOG_LEVELS.indexOf(level);
  }

  enabled(level: LogLevel): boolean {
    return LOG_LEVELS.indexOf(level) <= this.#rank;
  }

  debug(message: string, fields?: LogFields): void {
    if (this.#rank >= 3) this.#log("debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    if (this.#rank >= 2) this.#log("info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    if (this.#rank >= 1) this.#log("warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#log("error", message, fields);
  }

  /** Writes what another process has said: that process has chosen what to say. */
  write(record: LogRecord): void {
    this.#output.write(record);
  }

  /** Lines of this process. */
  get counts(): LogCounts {
    return this.#folding.counts;
  }

  /** The log file was moved away: what comes from now on goes to a new one. Nothing is lost. */
  async reopen(): Promise<boolean> {
    return (await this.#output.reopen?.()) ?? false;
  }

  /** What was written is then out. */
  close(): Promise<void> {
    return this.#folding.close();
  }

  #log(level: LogLevel, message: string, fields: LogFields | undefined): void {
    this.#folding.write({ time: Date.now(), level, message, fields });
  }
}

class BothSinks implements LogSink {
  readonly #terminal: LogSink;
  readonly #file: LogSink;

  constructor(terminal: LogSink, file: LogSink) {
    this.#terminal = terminal;
    this.#file = file;
  }

  /** What neither of them could write. */
  get lost(): number {
    return Math.min(this.#terminal.lost ?? 0, this.#file.lost ?? 0);
  }

  write(record: LogRecord): void {
    this.#terminal.write(record);
    this.#file.write(record);
  }

  async reopen(): Promise<boolean> {
    return (await this.#file.reopen?.()) ?? false;
  }

  async close(): Promise<void> {
    await this.#terminal.close?.();
    await this.#file.close?.();
  }
}

function openTerminal(format: LogFormat): LogSink | Promise<LogSink> {
  if (format === "json") return new LineTerminal(formatJson);
  const pretty = format === "pretty" || (format === "auto" && isatty(STDERR));
  return pretty ? openPrettyTerminal() : new LineTerminal(newPlainFormatter());
}

/** `2026-01-31T12:34:56.789Z INFO  message key=value`, for files. */
const formatDated: LogFormatter = (record) =>
  `${new Date(record.time).toISOString()} ${record.level.toUpperCase().padEnd(5)} ${formatText(record)}`;

/** Passes records on with `redact` applied to every text in them. */
function guard(sink: LogSink, redact: (text: string) => string): LogSink {
  return {
    write(record) {
      const fields = Object.entries(record.fields ?? {}).map(([key, value]) => {
        return [key, typeof value === "string" ? redact(value) : value];
      });
      sink.write({ ...record, message: redact(record.message), fields: Object.fromEntries(fields) });
    },
    reopen: async () => (await sink.reopen?.()) ?? false,
    close: async () => sink.close?.(),
    get lost() {
      return sink.lost ?? 0;
    },
  };
}
