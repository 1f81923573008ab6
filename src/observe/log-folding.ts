import type { LogFields, LogLevel } from "../core/logger.ts";
import type { LogCounts } from "./figures.ts";
import type { LogRecord, LogSink } from "./log-record.ts";

/** Of lines that are the same but for details, so many pass in a minute. Who asks for details gets more. */
const PASS: Readonly<Record<LogLevel, number>> = { error: 5, warn: 5, info: 5, debug: 50 };
/** Repeats, and lines that were left out, are told so often. */
export const FOLD_MS = 60_000;
/** Different lines that are watched at a time. Beyond that only the budget holds. */
const FOLD_LIMIT = 1_000;
/** Two lines with the same text are the same unless they differ in one of these. */
const TELLING: readonly string[] = ["reason", "why", "route", "code", "worker"];

/**
 * Lines per second that a level may have for long, and how many it may have at once: of 300 bytes each, 1.3 GB a day
 * for `info` at most, and a level never takes another's.
 */
export const LINE_BUDGETS: Readonly<
  Record<LogLevel, { readonly perSecond: number; readonly burst: number }>
> = {
  error: { perSecond: 10, burst: 200 },
  warn: { perSecond: 10, burst: 200 },
  info: { perSecond: 50, burst: 500 },
  debug: { perSecond: 100, burst: 1_000 },
};

/** The same line several times. */
interface Fold {
  readonly first: LogRecord;
  times: number;
}

/** What is left of a level's budget. */
interface Purse {
  lines: number;
  filledAt: number;
  /** Lines that were left out since this was last told. */
  dropped: number;
}

/**
 * Keeps a flood from filling the log: repeats are counted instead of written, and every level has a budget.
 *
 * Once a minute it tells how often something was repeated, and how many lines were left out. Lines about a client
 * that was let in (those with a `user`) are no repeats of each other, unless they say `why` it was refused.
 */
export class FoldingSink implements LogSink {
  readonly #sink: LogSink;
  readonly #folds = new Map<string, Fold>();
  readonly #purses = new Map<LogLevel, Purse>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #since = 0;
  #written = 0;
  #folded = 0;
  #dropped = 0;

  constructor(sink: LogSink) {
    this.#sink = sink;
  }

  /** `time` is the only clock that is looked at. */
  write(record: LogRecord): void {
    if (this.#timer === undefined) this.#begin(record.time);
    if (this.#isRepeat(record)) {
      this.#folded += 1;
    } else if (this.#pay(record)) {
      this.#written += 1;
      this.#sink.write(record);
    } else {
      this.#dropped += 1;
    }
  }

  get counts(): LogCounts {
    const lost = this.#sink.lost ?? 0;
    return { written: this.#written - lost, folded: this.#folded, dropped: this.#dropped + lost };
  }

  /** Ends the minute: tells what was repeated and left out. The timer does so by itself. */
  tell(now = Date.now()): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const seconds = Math.max(1, Math.round((now - this.#since) / 1_000));
    for (const { first, times } of this.#folds.values()) {
      if (times <= PASS[first.level]) continue;
      const fields = tellingOf(first.fields);
      this.#add({ ...first, time: now, fields, repeated: { times, seconds } });
    }
    this.#folds.clear();
    for (const [level, purse] of this.#purses) {
      if (purse.dropped === 0) continue;
      const lines = purse.dropped.toLocaleString("en-US");
      const message = `${lines} ${level} lines left out: there were more than the log takes`;
      this.#add({ time: now, level: "warn", message, fields: undefined });
      purse.dropped = 0;
    }
  }

  async reopen(): Promise<boolean> {
    return (await this.#sink.reopen?.()) ?? false;
  }

  async close(): Promise<void> {
    this.tell();
    await this.#sink.close?.();
  }

  #begin(now: number): void {
    this.#since = now;
    this.#timer = setTimeout(() => this.tell(), FOLD_MS);
    this.#timer.unref();
  }

  #isRepeat(record: LogRecord): boolean {
    const { level, message, fields } = record;
    if (fields?.["user"] !== undefined && fields["why"] === undefined) return false;
    const key =
      fields === undefined
        ? level + message
        : `${level}${message}\0${fields["reason"]}\0${fields["why"]}\0${fields["route"]}\0${fields["code"]}`;
    const fold = this.#folds.get(key);
    if (fold !== undefined) {
      fold.times += 1;
      return fold.times > PASS[level];
    }
    if (this.#folds.size < FOLD_LIMIT) this.#folds.set(key, { first: record, times: 1 });
    return false;
  }

  #pay({ level, time }: LogRecord): boolean {
    const { perSecond, burst } = LINE_BUDGETS[level];
    let purse = this.#purses.get(level);
    if (purse === undefined) {
      purse = { lines: burst, filledAt: time, dropped: 0 };
      this.#purses.set(level, purse);
    }
    const earned = Math.max(0, ((time - purse.filledAt) / 1_000) * perSecond);
    purse.lines = Math.min(burst, purse.lines + earned);
    purse.filledAt = time;
    if (purse.lines < 1) {
      purse.dropped += 1;
      return false;
    }
    purse.lines -= 1;
    return true;
  }

  #add(record: LogRecord): void {
    this.#written += 1;
    this.#sink.write(record);
  }
}

function tellingOf(fields: LogFields | undefined): LogFields {
  const known = Object.entries(fields ?? {}).filter(([key]) => TELLING.includes(key));
  return Object.fromEntries(known);
}
