import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { injectEach, injectFaults } from "./fault-plan.ts";
import type { Rig } from "./faults.ts";
import { Judge } from "./judge.ts";
import type { Options, Part } from "./options.ts";
import type { LoadFigures, LoadOrder } from "./orders.ts";
import { type Phases, planPhases } from "./phases.ts";
import { type Features, findFeatures } from "./proxy.ts";
import { Random } from "./random.ts";
import { formatProgress, type SoakResult } from "./report.ts";
import type { Sample } from "./samples.ts";
import { type Load, Stage } from "./stage.ts";
import {
  judgeCounts,
  judgeDescriptors,
  judgeExit,
  judgeFailures,
  judgeList,
  judgeLoad,
  judgeLog,
  judgeMemory,
} from "./verdict.ts";

const SAMPLE_MS = 1_000;
const PROGRESS_MS = 10_000;
/** Before the baseline, so many sessions per worker make everything open that opens once. */
const TOUCH_SESSIONS = 40;
const TOUCH_MS = 8_000;
/** Shorter ones have shorter faults, and more of them. */
const SHORT_MS = 5 * 60_000;
const MOST_COMPLAINTS = 100;
const NO_FIGURES: LoadFigures = {
  ...{ live: 0, started: 0, finished: 0, failed: 0, bytesUp: 0, bytesDown: 0, messages: 0, slowestMs: 0 },
  ...{ strangers: {}, habits: {}, users: {} },
};

/** One soak, from the start of everything to its end. */
export class Soak {
  readonly #options: Options;
  readonly #folder: string;
  readonly #random: Random;
  readonly #phases: Phases;
  readonly #features: Features;
  readonly #parts: ReadonlySet<Part>;
  readonly #judge = new Judge();
  readonly #samples: Sample[] = [];
  readonly #faults: Record<string, number> = {};
  /** What did not have its effect. */
  readonly #complaints: string[] = [];
  /** What data centres got and no client has sent. */
  readonly #troubles: string[] = [];
  #figures = NO_FIGURES;
  #stopped = false;

  /** @param folder For what the processes write. */
  constructor(options: Options, folder: string) {
    this.#options = options;
    this.#folder = folder;
    this.#random = new Random(options.seed);
    this.#phases = planPhases(options.durationMs);
    this.#features = findFeatures(options.binary);
    this.#parts = possibleParts(options, this.#features);
  }

  /** Ends the load at its next look. */
  stop(): void {
    this.#stopped = true;
  }

  /** @throws {Error} When it cannot be carried out. */
  async run(): Promise<SoakResult> {
    const stage = await Stage.setUp({
      ...this.#options,
      ...{ folder: this.#folder, features: this.#features, parts: this.#parts, drainMs: this.#drainMs },
      onTrouble: (message) => note(this.#troubles, message),
    });
    const before = await this.#touch(stage);
    await this.#work(stage);
    const after = await stage.calm();
    const state = await stage.proxy.report();
    const exitCode = await stage.tearDown();
    const log = readFileSync(join(this.#folder, "proxy.log"), "utf8");
    const criteria = [
      ...judgeFailures(this.#judge),
      judgeList("whatever is tried has the effect that it should have", this.#complaints),
      judgeList("data centres get only what clients have sent", this.#troubles),
      judgeLoad(this.#samples, this.#phases, this.#options.sessions),
      judgeMemory(this.#samples, this.#phases),
      judgeDescriptors(before, after, stage.mostKept),
      ...(state === undefined ? [] : [judgeCounts(state)]),
      judgeLog(log),
      judgeExit(exitCode),
    ];
    return {
      ...{ seed: this.#options.seed, phases: this.#phases, figures: this.#figures, faults: this.#faults },
      ...{ excused: this.#judge.excused, samples: this.#samples, atRest: { before, after }, criteria },
      endings: state?.figures.connections.ended ?? countEndings(log),
    };
  }

  get #drainMs(): number {
    return Math.max(3, Math.min(60, Math.round(this.#options.durationMs / 30_000))) * 1000;
  }

  get #isShort(): boolean {
    return this.#options.durationMs < SHORT_MS;
  }

  /** Lets everything happen once, so that what opens once is open, and counts descriptors when all is quiet again. */
  async #touch(stage: Stage) {
    console.error("a first load, for the baseline");
    const load = this.#startLoad(stage, "touch");
    const sessions = TOUCH_SESSIONS * this.#options.workers;
    const order = this.#startOrder(stage);
    load.send({ ...order, sessions, ramp: 60, longestLifeMs: TOUCH_MS / 2, strangers: order.strangers * 2 });
    await Promise.all([Bun.sleep(TOUCH_MS), injectEach(this.#rig(stage, load), this.#parts)]);
    await stage.end(load);
    const before = await stage.calm();
    await load.kill();
    this.#judge.settle(Number.POSITIVE_INFINITY);
    return before;
  }

  /** The soak itself. */
  async #work(stage: Stage): Promise<void> {
    console.error(`${this.#options.sessions} sessions for ${this.#options.durationMs / 60_000} min`);
    const load = this.#startLoad(stage, "load");
    this.#figures = NO_FIGURES;
    load.send(this.#startOrder(stage));
    const startedAt = performance.now();
    const isOver = (): boolean => this.#stopped || performance.now() - startedAt >= this.#phases.end;
    const faults = injectFaults(this.#rig(stage, load), {
      ...{
        parts: this.#parts,
        phases: this.#phases,
        gapMs: this.#isShort ? 1_000 : 5_000,
        startedAt,
        isOver,
      },
      note: (part, what) => this.#onFault(part, what),
    });
    faults.catch(() => this.stop()); // it is thrown when the loop has ended
    let saidAt = 0;
    while (!isOver()) {
      await Bun.sleep(SAMPLE_MS);
      const at = performance.now() - startedAt;
      this.#sample(stage, at);
      if (at - saidAt < PROGRESS_MS) continue;
      saidAt = at;
      this.#sayProgress();
    }
    await faults;
    console.error("all leave");
    await stage.end(load);
    await load.kill();
    this.#judge.settle(Number.POSITIVE_INFINITY);
  }

  #sample({ proxy }: Stage, at: number): void {
    if (!proxy.running) throw new Error(`the proxy has ended: see ${this.#folder}`);
    this.#samples.push({ at, live: this.#figures.live, processes: proxy.sample() });
    this.#judge.settle(Date.now());
  }

  #sayProgress(): void {
    const sample = this.#samples.at(-1);
    if (sample === undefined) return;
    const faults = Object.values(this.#faults).reduce((total, count) => total + count, 0);
    console.error(formatProgress(sample, this.#figures, { faults, unexcused: this.#judge.unexcusedCount }));
  }

  /** Counts it, and writes down when it was, for whoever looks into a failure. */
  #onFault(part: Part, what: "begins" | "is over"): void {
    if (what === "begins") this.#faults[part] = (this.#faults[part] ?? 0) + 1;
    appendFileSync(join(this.#folder, "faults.log"), `${new Date().toISOString()} ${part} ${what}\n`);
  }

  #startLoad(stage: Stage, name: string): Load {
    const load = stage.startLoad(name);
    load.onReport = (report) => {
      if (report.type === "figures" || report.type === "stopped") this.#figures = report.figures;
      else if (report.type === "failure") this.#judge.hear(report.failure);
    };
    return load;
  }

  #startOrder({ proxy, domain, users }: Stage): Extract<LoadOrder, { readonly type: "start" }> {
    const { seed, sessions, durationMs } = this.#options;
    return {
      ...{ type: "start", port: proxy.port, proxyPid: proxy.pid, seed, sessions, domain },
      ramp: Math.max(20, sessions / (durationMs / 1000 / 8)),
      longestLifeMs: Math.min(10 * 60_000, durationMs / 2),
      identities: [...users.residents, ...(proxy.configurable ? users.guests : [])],
      stalls: this.#parts.has("stalls"),
      strangers: this.#parts.has("strangers") ? (this.#isShort ? 4 : 2) : 0,
    };
  }

  #rig({ proxy, dc, users }: Stage, load: Load): Rig {
    return {
      ...{ proxy, dc, load, judge: this.#judge, random: this.#random, ...users },
      longestMs: this.#isShort ? 2_000 : 10_000,
      drainMs: this.#drainMs,
      liveOf: (user) => this.#figures.users[user] ?? 0,
      complain: (what) => note(this.#complaints, `${new Date().toISOString().slice(11, 23)} ${what}`),
    };
  }
}

/** What this proxy can do, of what is asked for. */
function possibleParts({ parts, workers }: Options, features: Features): ReadonlySet<Part> {
  const supervised = features.workers && workers > 1;
  const needs: Readonly<Partial<Record<Part, boolean>>> = {
    ...{ reloads: features.config, limits: features.config, scrapes: features.status },
    ...{ kills: supervised, restarts: supervised },
  };
  const left = [...parts].filter((part) => needs[part] === false);
  if (left.length > 0) console.error(`left out, for lack of what they need: ${left.join(", ")}`);
  return new Set([...parts].filter((part) => needs[part] !== false));
}

function note(list: string[], what: string): void {
  if (list.length < MOST_COMPLAINTS) list.push(what);
}

/** Reads how sessions ended from the log. */
function countEndings(log: string): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const [, reason = ""] of log.matchAll(/session ended\b.*?\breason=([\w-]+)/g)) {
    counts[reason] = (counts[reason] ?? 0) + 1;
  }
  return counts;
}
