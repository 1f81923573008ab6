import type { RouteErrorCode } from "../core/errors.ts";
import { COOLDOWN_MS, LONGEST_COOLDOWN_MS } from "./cooldown-times.ts";
import type { RouteId, Way } from "./route.ts";
import {
  type Failure,
  formatRecords,
  MOST_RECORDS,
  parseRecords,
  type Standing,
} from "./standings-records.ts";

/** What a way without a record gets before the next one starts, and the bounds for one with a record. */
const HEAD_START_MS = { unknown: 300, least: 200, most: 1_200 } as const;

/** One route must not use up the time of the others: so many of its ways are candidates of a session. */
export const WAYS_PER_ROUTE = 8;

/** How a way stands, for people. */
export interface WayReport {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly state: "good" | "untried" | "failed";
  readonly openMs: number | undefined;
  /** Why it failed. */
  readonly reason: RouteErrorCode | undefined;
  /** Milliseconds until it is tried again in its old place; 0 when that time is over. */
  readonly again: number | undefined;
  readonly wonAt: number | undefined;
}

/**
 * Remembers which ways carry data for which data centre, and in which order to try them.
 *
 * Two things are kept apart. Not opening is a property of the endpoint, whichever data centre was asked for.
 * Opening and then carrying nothing is one of the endpoint *for a target*: media can starve on a way that
 * serves messages well.
 *
 * Times are those of the wall clock, since they are kept across restarts.
 */
export class Standings {
  /** By route and endpoint. */
  readonly #endpoints = new Map<string, Failure>();
  /** By target, then by route and endpoint. */
  readonly #targets = new Map<string, Map<string, Standing>>();
  /** Failures to carry, by target, route and group: they concern the ways beside the one that failed, too. */
  readonly #groups = new Map<string, Failure>();
  /**
   * Failures to open of any target, by route and group, until one succeeds: what hangs on the way to one data
   * centre most likely hangs on the way to another. Only the order of what was never tried depends on it.
   */
  readonly #hints = new Map<string, Failure>();
  readonly #now: () => number;
  /** Something is worth being kept. */
  changed = false;

  /** @param now `Date.now()`. */
  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /**
   * Puts `ways` in the order of trying: those that carried data last time, those never tried (last those whose like
   * fail on the way to other data centres), those that failed longer ago, and last those that failed lately: first
   * the ones that only stand beside one that failed, then the one whose time is over first. Within each, the
   * order of `ways` stays.
   */
  order(target: string, ways: readonly Way[]): Way[] {
    const now = this.#now();
    const ranked = ways.map((way) => ({ way, ...this.#rank(target, way, now) }));
    ranked.sort((a, b) => a.rank - b.rank || a.until - b.until);
    const perRoute = new Map<RouteId, number>();
    const chosen: Way[] = [];
    for (const { way } of ranked) {
      const already = perRoute.get(way.route) ?? 0;
      if (already >= WAYS_PER_ROUTE) continue;
      perRoute.set(way.route, already + 1);
      chosen.push(way);
    }
    return chosen;
  }

  /** The first of `ways` that carried data last time: what {@link Standings.order} puts first, but sooner known. */
  best(target: string, ways: readonly Way[]): Way | undefined {
    const now = this.#now();
    return ways.find((way) => this.#rank(target, way, now).rank === RANK.good);
  }

  /** How long `way` should have the field to itself before the next one starts, in milliseconds. */
  headStartMs(target: string, way: Way): number {
    const openMs = this.openMs(target, way);
    if (openMs === undefined) return HEAD_START_MS.unknown;
    return Math.min(Math.max(2 * openMs, HEAD_START_MS.least), HEAD_START_MS.most);
  }

  /** How long opening it takes, in milliseconds. */
  openMs(target: string, way: Way): number | undefined {
    return this.#targets.get(target)?.get(keyOf(way))?.openMs;
  }

  /** It opened: what kept it from opening before is over. */
  opened(target: string, way: Way, openMs: number): void {
    if (this.#endpoints.delete(keyOf(way))) this.changed = true;
    const standing = this.#standing(target, way);
    standing.openMs = standing.openMs === undefined ? openMs : (standing.openMs * 3 + openMs) / 4;
  }

  /** It carried an answer. */
  proved(target: string, way: Way): void {
    const standing = this.#standing(target, way);
    if (standing.wonAt === undefined || standing.failure !== undefined) this.changed = true;
    delete standing.failure;
    if (this.#endpoints.delete(keyOf(way))) this.changed = true;
    if (this.#groups.delete(`${target} ${groupOf(way)}`)) this.changed = true;
    this.#hints.delete(groupOf(way));
    standing.wonAt = this.#now();
  }

  /** It did not open. */
  failedToOpen(way: Way, code: RouteErrorCode): void {
    const key = keyOf(way);
    const failure = this.#strike(this.#endpoints.get(key), code);
    if (failure === undefined) return;
    this.#endpoints.set(key, failure);
    dropOldest(this.#endpoints, key, ({ at }) => at);
    if (!ABOUT_ONE_ENDPOINT.includes(code)) this.#hint(way, failure);
    this.changed = true;
  }

  /** It opened for `target`, and then carried nothing, or stopped. */
  failedToCarry(target: string, way: Way, code: RouteErrorCode): void {
    const standing = this.#standing(target, way);
    const failure = this.#strike(standing.failure, code);
    if (failure === undefined) return;
    standing.failure = failure;
    this.changed = true;
    if (this.#carries(target, standing.group, standing)) return;
    const key = `${target} ${standing.group}`;
    this.#groups.set(key, failure);
    dropOldest(this.#groups, key, ({ at }) => at);
  }

  /** The server said how long it wants to be left alone. */
  postpone(way: Way, ms: number): void {
    const key = keyOf(way);
    const failure = this.#endpoints.get(key);
    if (failure === undefined) return;
    const until = this.#now() + Math.min(ms, LONGEST_COOLDOWN_MS);
    this.#endpoints.set(key, { ...failure, until });
    this.changed = true;
  }

  /** None of all ways opened for a session: it is not them, so what kept them from opening is forgotten. */
  excuse(ways: readonly Way[]): void {
    for (const way of ways) {
      const key = keyOf(way);
      const failure = this.#endpoints.get(key);
      if (failure === undefined) continue;
      this.#endpoints.delete(key);
      this.#hints.delete(groupOf(way));
      this.changed = true;
    }
  }

  /** Why `way` is not good for `target`, if something is known against it or its group. */
  failureOf(
    target: string,
    way: Way,
  ): { readonly code: RouteErrorCode; readonly cooling: boolean } | undefined {
    const failure = this.#failure(target, way) ?? this.#groups.get(`${target} ${groupOf(way)}`);
    return failure && { code: failure.code, cooling: this.#cools(failure, this.#now()) };
  }

  /** Whether `way` is known to carry data for `target`. */
  good(target: string, way: Way): boolean {
    return this.#rank(target, way, this.#now()).rank === RANK.good;
  }

  /** Ends every wait: the network has changed, and old failures say nothing about the new one. */
  forgive(): void {
    this.#endpoints.clear();
    this.#groups.clear();
    this.#hints.clear();
    for (const standings of this.#targets.values()) {
      for (const standing of standings.values()) delete standing.failure;
    }
    this.changed = true;
  }

  /** How `ways` stand, in the order of trying. */
  report(target: string, ways: readonly Way[]): WayReport[] {
    const now = this.#now();
    return this.order(target, ways).map((way) => {
      const failure = this.#failure(target, way) ?? this.#groups.get(`${target} ${groupOf(way)}`);
      const standing = this.#targets.get(target)?.get(keyOf(way));
      const good = standing?.wonAt !== undefined;
      return {
        route: way.route,
        endpoint: way.endpoint,
        state: failure !== undefined ? "failed" : good ? "good" : "untried",
        openMs: standing?.openMs,
        reason: failure?.code,
        again: failure && Math.max(0, this.#cools(failure, now) ? failure.until - now : 0),
        wonAt: standing?.wonAt,
      };
    });
  }

  /** Everything that is worth keeping, as text for {@link Standings.load}. */
  save(): string {
    this.changed = false;
    return formatRecords(
      { endpoints: this.#endpoints, groups: this.#groups, targets: this.#targets },
      this.#now(),
    );
  }

  /** Takes over what was saved. @returns Whether the text was understood. */
  load(text: string): boolean {
    const records = parseRecords(text);
    if (records === undefined) return false;
    for (const [key, failure] of records.endpoints) this.#endpoints.set(key, failure);
    for (const [key, failure] of records.groups) this.#groups.set(key, failure);
    for (const [target, standings] of records.targets) this.#targets.set(target, standings);
    return true;
  }

  #rank(target: string, way: Way, now: number): { rank: number; until: number } {
    const failure = this.#failure(target, way);
    if (failure !== undefined) {
      return this.#cools(failure, now)
        ? { rank: RANK.cooling, until: failure.until }
        : { rank: RANK.failed, until: 0 };
    }
    const besides = this.#groups.get(`${target} ${groupOf(way)}`);
    if (besides !== undefined) {
      return this.#cools(besides, now) ? { rank: RANK.besides, until: 0 } : { rank: RANK.failed, until: 0 };
    }
    if (this.#targets.get(target)?.get(keyOf(way))?.wonAt !== undefined) return { rank: RANK.good, until: 0 };
    const hint = this.#hints.get(groupOf(way));
    const doubtful = hint !== undefined && this.#cools(hint, now);
    return { rank: doubtful ? RANK.doubtful : RANK.untried, until: 0 };
  }

  /** The failure that lasts longer, of the endpoint or of the endpoint for this target. */
  #failure(target: string, way: Way): Failure | undefined {
    const key = keyOf(way);
    const toOpen = this.#endpoints.get(key);
    const toCarry = this.#targets.get(target)?.get(key)?.failure;
    if (toOpen === undefined || toCarry === undefined) return toOpen ?? toCarry;
    return toOpen.until > toCarry.until ? toOpen : toCarry;
  }

  /** A clock that was set back must not make a wait longer: a failure from the future is none. */
  #cools({ at, until }: Failure, now: number): boolean {
    return until > now && at <= now + CLOCK_SLACK_MS && until - now <= LONGEST_COOLDOWN_MS;
  }

  /** Sessions that fail at the same time are one failure: while it cools, there are no further strikes. */
  #strike(before: Failure | undefined, code: RouteErrorCode): Failure | undefined {
    const [first, most] = COOLDOWN_MS[code];
    if (first === 0) return undefined;
    const now = this.#now();
    const strikes =
      before === undefined ? 1 : this.#cools(before, now) ? before.strikes : Math.min(before.strikes + 1, 16);
    const until = now + Math.min(first * 2 ** (strikes - 1), most);
    if (before !== undefined && this.#cools(before, now) && before.until >= until) return before;
    return { code, until, strikes, at: now };
  }

  #hint(way: Way, failure: Failure): void {
    const key = groupOf(way);
    for (const target of this.#targets.keys()) if (this.#carries(target, key, undefined)) return;
    const before = this.#hints.get(key);
    if (before !== undefined && this.#cools(before, this.#now()) && before.until > failure.until) return;
    this.#hints.set(key, failure);
    dropOldest(this.#hints, key, ({ at }) => at);
  }

  /** Whether another way of `group` than `failed` has carried data for `target` lately. */
  #carries(target: string, group: string, failed: Standing | undefined): boolean {
    const now = this.#now();
    for (const standing of this.#targets.get(target)?.values() ?? []) {
      if (standing === failed || standing.group !== group || standing.failure !== undefined) continue;
      if (standing.wonAt !== undefined && now - standing.wonAt < NEIGHBOUR_MS) return true;
    }
    return false;
  }

  #standing(target: string, way: Way): Standing {
    let standings = this.#targets.get(target);
    if (standings === undefined) {
      standings = new Map();
      this.#targets.set(target, standings);
    }
    const key = keyOf(way);
    let standing = standings.get(key);
    if (standing === undefined) {
      standing = { group: groupOf(way), touchedAt: this.#now() };
      standings.set(key, standing);
      dropOldest(standings, key, ({ touchedAt }) => touchedAt);
    }
    standing.touchedAt = this.#now();
    return standing;
  }
}

const RANK = { good: 0, untried: 1, doubtful: 2, failed: 3, besides: 4, cooling: 5 } as const;
/** A clock that is set back by less is only being adjusted, in milliseconds. */
const CLOCK_SLACK_MS = 5_000;
/** A neighbour that carried within this time shows that the group is not what fails, in milliseconds. */
const NEIGHBOUR_MS = 10 * 60_000;
/** Failures that say nothing about other endpoints of the route. */
const ABOUT_ONE_ENDPOINT: readonly RouteErrorCode[] = ["REDIRECT", "STATUS"];

function keyOf({ route, endpoint }: Way): string {
  return `${route} ${endpoint}`;
}

function groupOf({ route, group }: Way): string {
  return `${route} ${group}`;
}

/** Makes room when `added` was one too many. It stays itself, even when a clock that was set back makes it the oldest. */
function dropOldest<T>(records: Map<string, T>, added: string, ageOf: (record: T) => number): void {
  if (records.size <= MOST_RECORDS) return;
  let oldest: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const [key, record] of records) {
    if (key === added || ageOf(record) >= least) continue;
    least = ageOf(record);
    oldest = key;
  }
  if (oldest !== undefined) records.delete(oldest);
}
