import { RouteError } from "../core/errors.ts";
import type { Inspection } from "../net/inspect-endpoint.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import { probeWay } from "../upstream/probe.ts";
import type { Route, WayAddress } from "../upstream/route.ts";
import { allReachable, failedStage, type TargetDiagnosis, type WayDiagnosis } from "./doctor-diagnosis.ts";
import { concludeTarget, type Job, planTarget, type TargetPlan } from "./doctor-plan.ts";
import type { ProgressSink } from "./doctor-progress.ts";
import { dcName, describeBest } from "./doctor-summary.ts";

/** Ways that are looked at at the same time. */
const WAYS_AT_ONCE = 16;
/** Of those, the ones to the same host and port. */
const WAYS_PER_HOST = 4;
/** For each look at the stages of an address, in milliseconds. */
const INSPECT_TIMEOUT_MS = 5_000;
/** For the opening, and anew for the answers, in milliseconds; a deep probe has its own. */
const LIGHT_PROBE_MS = 4_000;
/** A way that hangs at first and then freezes, in milliseconds. */
const SLOWEST_WAY_MS = { light: INSPECT_TIMEOUT_MS + LIGHT_PROBE_MS, deep: INSPECT_TIMEOUT_MS + 20_000 };

/**
 * Goes through the stages of opening an address, one by one. Rejects when `signal` aborts, or for a bug.
 *
 * Returns `undefined` for an address behind an outbound proxy, where there are no stages to see.
 */
export type InspectFunction = (
  address: WayAddress,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
) => Promise<Inspection> | undefined;

/** What an examination looks at, and how. */
export interface ExaminationOptions {
  /** In the order of trying, without a pool before them. */
  readonly routes: readonly Route[];
  readonly targets: readonly DcTarget[];
  /** Move more than 64 KiB over every way, which finds flows that freeze. */
  readonly deep: boolean;
  readonly inspect: InspectFunction;
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
  readonly #inspections = new Map<string, Promise<Inspection> | undefined>();
  /** Servers that a first way is going to, so that others wait for what comes of it. */
  readonly #firstLooks = new Set<string>();
  /** Servers that were seen to be there. */
  readonly #alive = new Set<string>();
  /** What became of servers, or of all that is at a host and port, which nothing got through to. */
  readonly #lost = new Map<string, Pick<WayDiagnosis, "inspection" | "outcome">>();
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
      for (const { jobs } of this.#plans) for (const job of jobs) concludeEarly(job);
      this.#end.resolve();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    for (const { target, jobs } of this.#plans) if (jobs.length === 0) this.#reportDc(target);
    if (this.#total > 0) this.#reportAdvance();
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
      const lost = this.#lost.get(job.host) ?? this.#lost.get(job.server);
      if (lost === undefined && !this.#hasRoom(job)) continue;
      this.#waiting = this.#waiting.filter((other) => other !== job);
      if (lost !== undefined) {
        job.diagnosis = { ...describeJob(job), ...lost };
        this.#onDone(job);
        continue;
      }
      this.#perHost.set(job.host, (this.#perHost.get(job.host) ?? 0) + 1);
      this.#running += 1;
      void this.#do(job);
    }
    if (this.#running === 0) this.#end.resolve();
  }

  #hasRoom({ host, server }: Job): boolean {
    if (this.#firstLooks.has(server)) return false;
    return this.#running < WAYS_AT_ONCE && (this.#perHost.get(host) ?? 0) < WAYS_PER_HOST;
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
    this.#onDone(job);
    this.#startMore();
  }

  #onDone(job: Job): void {
    this.#reportAdvance();
    this.#reportDc(job.target);
  }

  #reportAdvance(): void {
    const left = this.#waiting.length + this.#running;
    const slowest = SLOWEST_WAY_MS[this.#options.deep ? "deep" : "light"];
    const most = Math.ceil(left / WAYS_AT_ONCE) * slowest;
    this.#options.progress.advanced(this.#total - left, this.#total, most);
  }

  /** First the stages, then the real thing: both together would be two connections in one place. */
  async #examine(job: Job): Promise<WayDiagnosis> {
    const { target, way, server } = job;
    const { deep, timeouts = {} } = this.#options;
    const looking = this.#inspect(way.address);
    if (looking !== undefined && !this.#alive.has(server)) this.#firstLooks.add(server);
    const inspection = await looking;
    if (!this.#stop.signal.aborted) job.inspection = inspection;
    const scope = scopeOfFailure(job);
    if (scope === undefined) this.#onAlive(server);
    let outcome: WayDiagnosis["outcome"];
    try {
      outcome = await probeWay(way, target, {
        deep,
        signal: this.#stop.signal,
        timeoutMs: timeouts.probeMs ?? (deep ? undefined : LIGHT_PROBE_MS),
        stallMs: timeouts.stallMs,
      });
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      outcome = error;
    }
    this.#firstLooks.delete(server);
    if (scope !== undefined && outcome instanceof RouteError) this.#lost.set(scope, { inspection, outcome });
    return { ...describeJob(job), inspection, outcome };
  }

  #onAlive(server: string): void {
    this.#alive.add(server);
    if (this.#firstLooks.delete(server)) this.#startMore();
  }

  /** Looks at each address once, however many ways lead over it. */
  #inspect(address: WayAddress): Promise<Inspection> | undefined {
    const { inspect, timeouts } = this.#options;
    const key = JSON.stringify(address);
    if (!this.#inspections.has(key)) {
      const inspection = inspect(address, {
        timeoutMs: timeouts?.inspectMs ?? INSPECT_TIMEOUT_MS,
        signal: this.#stop.signal,
      });
      this.#inspections.set(key, inspection);
    }
    return this.#inspections.get(key);
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

function describeJob({
  target,
  way: { route, endpoint, address },
}: Job): Omit<WayDiagnosis, "inspection" | "outcome"> {
  return { target, route, endpoint, address };
}

/** What else fails with a way whose stages ended early: all at its host and port, or only that server there. */
function scopeOfFailure({ inspection, host, server }: Job): string | undefined {
  const stage = failedStage({ inspection })?.name;
  if (stage === "dns" || stage === "tcp") return host;
  return stage === "tls" ? server : undefined;
}

/** A way that was stopped has failed already when one of its stages has. */
function concludeEarly(job: Job): void {
  const { inspection, diagnosis } = job;
  const outcome = failedStage({ inspection })?.error;
  if (diagnosis === undefined && outcome !== undefined) {
    job.diagnosis = { ...describeJob(job), inspection, outcome };
  }
}
