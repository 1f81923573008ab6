import { readdirSync, readFileSync, statSync } from "node:fs";

/** What a process costs the machine. A JSON value. */
export interface ProcessFigures {
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** `undefined` when there is no descriptor left to find out with. */
  readonly rssBytes: number | undefined;
  readonly cpuUserSeconds: number;
  readonly cpuSystemSeconds: number;
  /** `undefined` where the system does not tell. */
  readonly openFds: number | undefined;
  readonly maxFds: number | undefined;
  /** The longest that a timer was late, in the last minute or two; 0 without a {@link LagWatch}. */
  readonly loopLagMs: number;
}

const STARTED_AT = Math.round(Date.now() - process.uptime() * 1_000);

/** Reads what this process costs, in a fraction of a millisecond. */
export function readProcessFigures(lag?: LagWatch): ProcessFigures {
  const { user, system } = process.cpuUsage();
  return {
    pid: process.pid,
    startedAt: STARTED_AT,
    rssBytes: readRss(),
    cpuUserSeconds: user / 1_000_000,
    cpuSystemSeconds: system / 1_000_000,
    openFds: countOpenFds(),
    maxFds: readMaxFds(),
    loopLagMs: lag?.maxMs ?? 0,
  };
}

/** How often the event loop is measured. */
const LAG_EVERY_MS = 500;
/** What was measured is told for so long at least: whoever asks comes every few seconds, and there may be several. */
const LAG_TOLD_MS = 60_000;

/** Measures how late timers fire: for so long, no session moved. */
export class LagWatch {
  readonly #timer: ReturnType<typeof setInterval>;
  #due = performance.now() + LAG_EVERY_MS;
  #maxMs = 0;
  /** Of the time before `#begunAt`. */
  #maxBeforeMs = 0;
  #begunAt = performance.now();

  /** @param toldMs For how long a lag is told; it may be twice as long. */
  constructor(toldMs = LAG_TOLD_MS) {
    this.#timer = setInterval(() => {
      const now = performance.now();
      if (now - this.#begunAt >= toldMs) {
        this.#maxBeforeMs = this.#maxMs;
        this.#maxMs = 0;
        this.#begunAt = now;
      }
      this.#maxMs = Math.max(this.#maxMs, now - this.#due);
      this.#due = now + LAG_EVERY_MS;
    }, LAG_EVERY_MS);
    this.#timer.unref();
  }

  /** The longest lag of late, in milliseconds; one that is under way counts. To ask changes nothing. */
  get maxMs(): number {
    const max = Math.max(this.#maxMs, this.#maxBeforeMs, performance.now() - this.#due, 0);
    return Math.round(max * 1_000) / 1_000;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

function readRss(): number | undefined {
  try {
    return process.memoryUsage.rss();
  } catch {
    return undefined;
  }
}

function countOpenFds(): number | undefined {
  if (process.platform === "win32") return undefined;
  try {
    if (process.platform === "linux") {
      const { size } = statSync("/proc/self/fd"); // their number since Linux 6.2: no need to list 10,000
      if (size > 0) return size;
    }
    return readdirSync(process.platform === "linux" ? "/proc/self/fd" : "/dev/fd").length;
  } catch {
    return undefined; // without /proc, or without a descriptor left to read it with
  }
}

function readMaxFds(): number | undefined {
  if (process.platform !== "linux") return undefined;
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
