import { type RouteAttempt, RouteError } from "../core/errors.ts";
import type { Target } from "../protocol/mtproto/dc.ts";
import type { RouteId, Upstream, Way } from "./route.ts";
import { type Standings, WAYS_PER_ROUTE } from "./standings.ts";

/**
 * All candidates have been started this long after the race began, however many there are, in milliseconds:
 * Android clients give up after about 5 s, and the last candidate needs time to open and to answer.
 */
const START_WINDOW_MS = 1_800;
/** Between two starts there is at least this long, in milliseconds. */
const LEAST_GAP_MS = 30;
/** An attempt that is given up without a winner failed when it had this long, in milliseconds. */
const FAIR_TRIAL_MS = 2_000;
/** Opening a WebSocket takes three round trips more than TCP: who lost by less than this is not slow, in milliseconds. */
const OVERTAKEN_MS = 1_000;
/** A server that says "too many" is asked for how long. */
const BUSY_STATUSES: readonly (number | undefined)[] = [429, 503];

/** What a race tells its owner. */
export interface RaceListener {
  onStarted(way: Way): void;
  onOpened(way: Way, upstream: Upstream, openMs: number): void;
  onFailed(attempt: RouteAttempt): void;
  /** Nothing is under way, and nothing is left to start. */
  onExhausted(): void;
  /** A bug: something else than a {@link RouteError} was thrown. */
  onFault(error: unknown): void;
}

/**
 * Opens the ways to one target one after the other, each with a head start over the next, until told to stop.
 *
 * A way that fails makes room for the next at once. When one opens, no more are started, for it may be the one;
 * those under way go on, for it may not carry anything. The owner calls {@link Race.won} when one has carried,
 * {@link Race.hold} to give the others up, or {@link Race.go} to go on. What opens in spite of having been given up is
 * closed.
 *
 * @see RFC 8305, whose 250 ms between attempts is meant for TCP alone.
 */
export class Race {
  /** What failed, in the order in which it did. */
  readonly failed: RouteAttempt[] = [];
  readonly #target: Target;
  readonly #name: string;
  readonly #standings: Standings;
  readonly #listener: RaceListener;
  readonly #startedAt = performance.now();
  readonly #ways: readonly Way[];
  /** Not started yet, the first to be started first; put in order when the first one did not do. */
  #waiting: Way[] | undefined;
  #surplus = 0;
  #first: Way | undefined;
  readonly #running = new Map<Way, Attempt>();
  readonly #failedWays: Way[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Set while the owner doubts what has opened: the routes of that. */
  #doubted: ReadonlySet<RouteId> | undefined;
  /** Something is open: what fails now is not replaced. */
  #paused = false;
  #stopped = false;

  /** @param name The target, as {@link Standings} know it. */
  constructor(
    ways: readonly Way[],
    target: Target,
    name: string,
    standings: Standings,
    listener: RaceListener,
  ) {
    this.#ways = ways;
    this.#target = target;
    this.#name = name;
    this.#standings = standings;
    this.#listener = listener;
  }

  /** Attempts under way. */
  get running(): number {
    return this.#running.size;
  }

  /** Ways that have not been tried, whether they wait for their turn or are too many for one race. */
  get left(): number {
    return this.#rest().length + this.#surplus;
  }

  /** Ways that failed to open, of routes all of whose ways were candidates: when nothing opens, it is not them. */
  get excusable(): readonly Way[] {
    const sizes = new Map<RouteId, number>();
    for (const { route } of this.#ways) sizes.set(route, (sizes.get(route) ?? 0) + 1);
    return this.#failedWays.filter(({ route }) => (sizes.get(route) ?? 0) <= WAYS_PER_ROUTE);
  }

  /** Starts the next candidate now, and the others after it, each after the head start of the one before. */
  go(): void {
    this.#paused = false;
    this.#doubted = undefined;
    this.#startNext();
  }

  /** Starts one more for an owner who doubts what has opened: first of routes that are neither in `doubted` nor hang. */
  goOn(doubted: ReadonlySet<RouteId>): void {
    this.#paused = false;
    this.#doubted = doubted;
    this.#startNext(new Set([...doubted, ...this.#hangingRoutes()]));
  }

  /** Puts a way that has opened, and is worth another attempt, in front of those that wait. */
  retry(way: Way): void {
    if (!this.#running.has(way)) this.#rest().unshift(way);
  }

  /**
   * Ends it: one that was started at `winnerStartedAt` (`performance.now()`) has carried something. What had a head
   * start over it and is not even open is slow at best, and not first the next time.
   */
  won(winnerStartedAt: number): void {
    const now = performance.now();
    for (const [way, { startedAt, headStartMs }] of this.#running) {
      const took = now - startedAt;
      if (startedAt >= winnerStartedAt || took < Math.max(headStartMs, OVERTAKEN_MS)) continue;
      this.#fail(way, new RouteError("TIMEOUT", `${describeLate(took)}, another way was faster`));
    }
    for (const { abort } of this.#running.values()) abort.abort();
    this.#running.clear();
    this.stop();
  }

  /** Gives up what is under way, and starts nothing more until told to go on. What had a fair time has failed. */
  hold(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const now = performance.now();
    for (const [way, { startedAt, abort }] of this.#running) {
      abort.abort();
      const took = now - startedAt;
      if (took >= FAIR_TRIAL_MS) this.#fail(way, new RouteError("TIMEOUT", describeLate(took)));
      this.#rest().push(way);
    }
    this.#running.clear();
  }

  /** Ends it for good. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.hold();
  }

  /**
   * @param unlike Routes that hang, or are doubted: what is wrong with one way of a route is often wrong with the
   * other. After a refusal the order stays, since that cost no time.
   */
  #startNext(unlike: ReadonlySet<RouteId> | undefined = this.#doubted): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#stopped) return;
    const isFirst = this.#first === undefined;
    const way = isFirst ? this.#takeFirst() : this.#takeNext(unlike);
    if (way === undefined) {
      if (this.#running.size === 0) this.#listener.onExhausted();
      return;
    }
    const gap = isFirst ? this.#standings.headStartMs(this.#name, way) : this.#gapAfter(way);
    void this.#attempt(way, gap);
    if (this.#doubted !== undefined || (!isFirst && this.#rest().length === 0)) return;
    this.#timer = setTimeout(() => this.#startNext(this.#hangingRoutes()), gap);
  }

  /** The best of all has its head start undivided; those after it share what is left of the time. */
  #gapAfter(way: Way): number {
    const headStart = this.#standings.headStartMs(this.#name, way);
    const left = START_WINDOW_MS - (performance.now() - this.#startedAt);
    return Math.max(LEAST_GAP_MS, Math.min(headStart, left / Math.max(this.#rest().length, 1)));
  }

  /** Most sessions get along with the one that worked last, and need not put all others in order. */
  #takeFirst(): Way | undefined {
    this.#first = this.#standings.best(this.#name, this.#ways) ?? this.#rest().shift();
    return this.#first;
  }

  #takeNext(unlike: ReadonlySet<RouteId> | undefined): Way | undefined {
    const rest = this.#rest();
    const other = unlike === undefined ? 0 : rest.findIndex((way) => this.#promises(way, unlike));
    return rest.splice(Math.max(other, 0), 1)[0];
  }

  #rest(): Way[] {
    if (this.#waiting === undefined) {
      const candidates = this.#standings.order(this.#name, this.#ways);
      this.#surplus = this.#ways.length - candidates.length;
      this.#waiting = candidates.filter((way) => way !== this.#first);
    }
    return this.#waiting;
  }

  #hangingRoutes(): Set<RouteId> {
    return new Set([...this.#running.keys()].map(({ route }) => route));
  }

  /** Another route is worth going before its turn unless it failed lately itself. */
  #promises(way: Way, unlike: ReadonlySet<RouteId>): boolean {
    return !unlike.has(way.route) && this.#standings.failureOf(this.#name, way)?.cooling !== true;
  }

  async #attempt(way: Way, headStartMs: number): Promise<void> {
    const attempt: Attempt = { startedAt: performance.now(), headStartMs, abort: new AbortController() };
    this.#running.set(way, attempt);
    this.#listener.onStarted(way);
    try {
      const upstream = await way.open(this.#target, attempt.abort.signal);
      const openMs = performance.now() - attempt.startedAt;
      if (attempt.abort.signal.aborted) {
        upstream.channel.destroy();
        return;
      }
      this.#running.delete(way);
      if (!upstream.warm) this.#standings.opened(this.#name, way, openMs);
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#paused = this.#doubted === undefined;
      this.#listener.onOpened(way, upstream, openMs);
    } catch (error) {
      // The way may be under way anew, if this attempt was given up.
      const given = attempt.abort.signal.aborted;
      if (!given) this.#running.delete(way);
      if (!(error instanceof RouteError)) {
        this.#listener.onFault(error);
        return;
      }
      if (given) return;
      this.#fail(way, error);
      if (!this.#paused) this.#startNext();
    }
  }

  #fail(way: Way, error: RouteError): void {
    const attempt = { route: way.route, endpoint: way.endpoint, error };
    this.failed.push(attempt);
    this.#failedWays.push(way);
    this.#standings.failedToOpen(way, error.code);
    this.#listener.onFailed(attempt);
    if (BUSY_STATUSES.includes(error.status)) void this.#postpone(way);
  }

  /** Off the path of the client, who does not wait for it. */
  async #postpone(way: Way): Promise<void> {
    const ms = await way.readRetryAfter?.();
    if (ms !== undefined) this.#standings.postpone(way, ms);
  }
}

interface Attempt {
  readonly startedAt: number;
  /** What it got, which may be less than it should have got. */
  readonly headStartMs: number;
  readonly abort: AbortController;
}

function describeLate(ms: number): string {
  return `not open after ${(ms / 1000).toFixed(1)} s`;
}
