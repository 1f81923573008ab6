import { RouteError } from "../core/errors.ts";
import type { Inspection } from "../net/inspect-endpoint.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import { probeWay } from "../upstream/probe.ts";
import type { Route, WayAddress } from "../upstream/route.ts";
import { allReachable, type TargetDiagnosis, type WayDiagnosis } from "./doctor-diagnosis.ts";
import { concludeTarget, type Job, planTarget, type TargetPlan } from "./doctor-plan.ts";
import type { ProgressSink } from "./doctor-progress.ts";
import { dcName, describeBest } from "./doctor-summary.ts";

/** Ways that are looked at at the same time. */
const WAYS_AT_ONCE = 8;
/** Of those, the ones to the same host and port. */
const WAYS_PER_HOST = 2;
/** For each look at the stages of an address, in milliseconds. */
const INSPECT_TIMEOUT_MS = 5_000;

/** Goes through the stages of opening an address, one by one. Rejects when `signal` aborts, or for a bug. */
export type InspectFunction = (
  address: WayAddress,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<Inspection>;

/** What an examination looks at, and how. */
export interface ExaminationOptions {
  /** In the order of trying, without a pool before them. */
  readonly routes: readonly Route[];
  readonly targets: readonly DcTarget[];
  /** Move more than 64 KiB over every way, which finds flows that freeze. */
  readonly deep: boolean;
  /** `undefined` with an outbound proxy, behind which there are no stages to see. */
  readonly inspect: InspectFunction | undefined;
  /** Ends it early: what is known by then is the result. */
  readonly signal: AbortSignal;
  readonly progress: ProgressSink;
  /** In milliseconds; for tests. See `ProbeOptions`. */
  readonly timeouts?: {
    readonly probeMs?: number;
    readonly stallMs?: number;
    readonly inspectMs?: number;
  };
}

/** Tries ways to every target: many at a time, but few to the same host. Rejects for a bug only. */
export async function examine(options: ExaminationOptions): Promise<TargetDiagnosis[]> {
  const plans = options.targets.map((target) => planTarget(target, options.routes));
  await new Examination(plans, options).run();
  return plans.map(concludeTarget);
}

/** Goes through the jobs of all plans, many at a time, but few to the same host. */
class Examination {
  readonly #plans: readonly TargetPlan[];
  readonly #options: ExaminationOptions;
  readonly #total: number;
  readonly #stop = new AbortController();
  readonly #inspections = new Map<string, Promise<Inspection>>();
  #waiting: Job[];
  #running = 0;
  readonly #perHost = new Map<string, number>();
  /** Data centres whose line is out. */
  readonly #reported = new Set<string>();
  readonly #end = Promise.withResolvers<void>();

  constructor(plans: readonly TargetPlan[], options: ExaminationOptions) {
    this.#plans = plans;
    this.#options = options;
    this.#waiting = plans.flatMap(({ jobs }) => jobs);
    this.#total = this.#waiting.length;
  }

  /** Resolves when everything is looked at, or at once when the caller's signal aborts; rejects for a bug. */
  async run(): Promise<void> {
    const { signal } = this.#options;
    const onAbort = (): void => {
      this.#stop.abort();
      this.#end.resolve();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    for (const { target, jobs } of this.#plans) if (jobs.length === 0) this.#reportDc(target);
    this.#startMore();
    try {
      await this.#end.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#stop.abort();
    }
  }

  #startMore(): void {
    if (this.#stop.signal.aborted) return;
    for (const job of this.#waiting) {
      if (this.#running >= WAYS_AT_ONCE) break;
      const busy = this.#perHost.get(job.host) ?? 0;
      if (busy >= WAYS_PER_HOST) continue;
      this.#perHost.set(job.host, busy + 1);
      this.#running += 1;
      this.#waiting = this.#waiting.filter((other) => other !== job);
      void this.#do(job);
    }
    if (this.#running === 0) this.#end.resolve();
  }

  async #do(job: Job): Promise<void> {
    try {
      const diagnosis = await this.#examine(job);
      if (this.#stop.signal.aborted) return;
      job.diagnosis = diagnosis;
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#end.reject(error);
      this.#stop.abort();
      return;
    }
    this.#running -= 1;
    this.#perHost.set(job.host, (this.#perHost.get(job.host) ?? 1) - 1);
    this.#options.progress.advanced(this.#total - this.#waiting.length - this.#running, this.#total);
    this.#reportDc(job.target);
    this.#startMore();
  }

  /** First the stages, then the real thing: both together would be two connections in one place. */
  async #examine({ target, way }: Job): Promise<WayDiagnosis> {
    const { deep, timeouts = {} } = this.#options;
    const { route, endpoint, address } = way;
    const inspection = await this.#inspect(address);
    let outcome: WayDiagnosis["outcome"];
    try {
      outcome = await probeWay(way, target, {
        deep,
        signal: this.#stop.signal,
        timeoutMs: timeouts.probeMs,
        stallMs: timeouts.stallMs,
      });
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      outcome = error;
    }
    return { target, route, endpoint, address, inspection, outcome };
  }

  /** Looks at each address once, however many ways lead over it. */
  #inspect(address: WayAddress): Promise<Inspection> | undefined {
    const { inspect, timeouts } = this.#options;
    if (inspect === undefined) return undefined;
    const key = JSON.stringify(address);
    let inspection = this.#inspections.get(key);
    if (inspection === undefined) {
      inspection = inspect(address, {
        timeoutMs: timeouts?.inspectMs ?? INSPECT_TIMEOUT_MS,
        signal: this.#stop.signal,
      });
      this.#inspections.set(key, inspection);
    }
    return inspection;
  }

  /** Says how a data centre is when the last of its ways has been looked at. */
  #reportDc(target: DcTarget): void {
    const name = dcName(target);
    const plans = this.#plans.filter((plan) => dcName(plan.target) === name);
    const targets = plans.map(concludeTarget);
    if (this.#reported.has(name) || targets.some(({ missing }) => missing > 0)) return;
    this.#reported.add(name);
    const outcome = allReachable(targets) ? "good" : "bad";
    this.#options.progress.finished(`${name}: ${describeBest(targets)}`, outcome);
  }
}
