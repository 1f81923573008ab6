import type { Cancel } from "../core/cancel.ts";
import { RouteError, type RouteErrorCode } from "../core/errors.ts";
import { type DcTarget, describeTarget } from "../protocol/mtproto/dc.ts";
import type { Way } from "./route.ts";
import type { Standings } from "./standings.ts";

/** Opens a way and has a real exchange over it. @throws {RouteError} */
export type Probe = (
  way: Way,
  target: DcTarget,
  options: { readonly deep: boolean; readonly signal: Cancel },
) => Promise<{ readonly openMs: number }>;

/** What a probe found out; `code` is absent when the way is good again. */
export interface ProbeReport {
  readonly target: string;
  readonly way: Way;
  readonly code: RouteErrorCode | undefined;
}

/** Probes at the same time, over all targets. */
const MOST_PROBES = 2;
/** Out of the way of the client that has just been served, in milliseconds. */
const DELAY_MS = 1_000;
/** What has failed by carrying too little is only good again when it carries much. */
const NEEDS_DEPTH: readonly (RouteErrorCode | undefined)[] = ["STALLED", "SILENT"];

/**
 * Brings better ways back.
 *
 * A way that works stays first as long as it works, so clients alone would never find out that a better one,
 * by the order of the routes, works again. When a client was served by another way than the best, the best one
 * whose time is over is probed in the background: clients do not pay for finding out.
 */
export class Restorer {
  readonly #standings: Standings;
  readonly #probe: Probe;
  readonly #onReport: (report: ProbeReport) => void;
  readonly #closing = new AbortController();
  /** Targets that a probe is planned or under way for. */
  readonly #busy = new Set<string>();

  constructor(standings: Standings, probe: Probe, onReport: (report: ProbeReport) => void) {
    this.#standings = standings;
    this.#probe = probe;
    this.#onReport = onReport;
  }

  /** @param ways In the order of the user's routes. */
  consider(target: DcTarget, ways: readonly Way[], servedBy: Way): void {
    if (ways[0] === servedBy) return;
    const name = describeTarget(target);
    if (this.#busy.has(name) || this.#busy.size >= MOST_PROBES || this.#closing.signal.aborted) return;
    const way = this.#best(name, ways, servedBy);
    if (way === undefined) return;
    this.#busy.add(name);
    setTimeout(() => void this.#restore(target, name, way), DELAY_MS).unref();
  }

  close(): void {
    this.#closing.abort();
  }

  /** The first way before `servedBy` that may be good without anybody knowing. */
  #best(name: string, ways: readonly Way[], servedBy: Way): Way | undefined {
    for (const way of ways) {
      if (way === servedBy) return undefined;
      if (this.#standings.good(name, way)) return undefined; // will be tried anyway
      if (this.#standings.failureOf(name, way)?.cooling !== true) return way;
    }
    return undefined;
  }

  async #restore(target: DcTarget, name: string, way: Way): Promise<void> {
    const deep = NEEDS_DEPTH.includes(this.#standings.failureOf(name, way)?.code);
    try {
      if (this.#closing.signal.aborted || this.#standings.good(name, way)) return;
      const { openMs } = await this.#probe(way.cold ?? way, target, { deep, signal: this.#closing.signal });
      if (this.#closing.signal.aborted) return;
      this.#standings.opened(name, way, openMs);
      this.#standings.proved(name, way);
      this.#onReport({ target: name, way, code: undefined });
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      if (this.#closing.signal.aborted) return;
      if (HEALTH_CODES.includes(error.code)) this.#standings.failedToCarry(name, way, error.code);
      else this.#standings.failedToOpen(way, error.code);
      this.#onReport({ target: name, way, code: error.code });
    } finally {
      this.#busy.delete(name);
    }
  }
}

/** Failures of a way for one target, not of its endpoint. */
const HEALTH_CODES: readonly RouteErrorCode[] = ["SILENT", "STALLED", "CLOSED"];
