import { isRouteErrorCode, type RouteErrorCode } from "../core/errors.ts";

/** Records of one target, and endpoints: names of public domains change, the oldest ones go. */
export const MOST_RECORDS = 128;

/** Records that nobody touched for so long are forgotten, in milliseconds. */
const FORGET_AFTER_MS = 14 * 24 * 60 * 60_000;
const VERSION = 1;

/** A failure that has not been made good. */
export interface Failure {
  readonly code: RouteErrorCode;
  /** `Date.now()` until when others go first. */
  readonly until: number;
  /** Failures in a row. */
  readonly strikes: number;
  readonly at: number;
}

/** What is known of one way for one target. */
export interface Standing {
  /** See `Way.group`; with the route before it. */
  readonly group: string;
  /** Time from start to open, smoothed, in milliseconds. */
  openMs?: number;
  /** When it last carried an answer, `Date.now()`. */
  wonAt?: number;
  /** It opened, and then did not carry. */
  failure?: Failure;
  touchedAt: number;
}

/** What {@link formatRecords} writes and {@link parseRecords} reads. */
export interface Records {
  /** By route and endpoint. */
  readonly endpoints: ReadonlyMap<string, Failure>;
  /** By target, route and group. */
  readonly groups: ReadonlyMap<string, Failure>;
  /** By target, then by route and endpoint. */
  readonly targets: ReadonlyMap<string, Map<string, Standing>>;
}

/** Writes what was touched lately enough as JSON. @param now `Date.now()`. */
export function formatRecords(records: Records, now: number): string {
  const targets: Record<string, Record<string, Standing>> = {};
  for (const [target, standings] of records.targets) {
    const kept = [...standings].filter(([, { touchedAt }]) => now - touchedAt < FORGET_AFTER_MS);
    if (kept.length > 0) targets[target] = Object.fromEntries(kept);
  }
  const fresh = ([, { at }]: readonly [string, Failure]): boolean => now - at < FORGET_AFTER_MS;
  const endpoints = Object.fromEntries([...records.endpoints].filter(fresh));
  const groups = Object.fromEntries([...records.groups].filter(fresh));
  return `${JSON.stringify({ version: VERSION, endpoints, groups, targets }, null, 1)}\n`;
}

/**
 * Reads what {@link formatRecords} wrote; `undefined` when the text is something else.
 *
 * A record that does not have the right form is passed over: at worst, a way is tried that was known to fail.
 */
export function parseRecords(text: string): Records | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
  if (!isRecord(parsed) || parsed["version"] !== VERSION) return undefined;
  const targets = new Map<string, Map<string, Standing>>();
  for (const [target, ways] of entriesOf(parsed["targets"])) targets.set(target, readAll(ways, readStanding));
  return {
    endpoints: readAll(parsed["endpoints"], readFailure),
    groups: readAll(parsed["groups"], readFailure),
    targets,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function entriesOf(value: unknown): [string, unknown][] {
  return isRecord(value) ? Object.entries(value).slice(0, MOST_RECORDS) : [];
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function readAll<T>(value: unknown, readOne: (entry: unknown) => T | undefined): Map<string, T> {
  const all = new Map<string, T>();
  for (const [key, entry] of entriesOf(value)) {
    const one = readOne(entry);
    if (one !== undefined) all.set(key, one);
  }
  return all;
}

function readFailure(value: unknown): Failure | undefined {
  if (!isRecord(value)) return undefined;
  const { code, until, strikes, at } = value;
  if (!isRouteErrorCode(code) || !isTime(until) || !isTime(strikes) || !isTime(at)) return undefined;
  return { code, until, strikes: Math.min(Math.max(Math.round(strikes), 1), 16), at };
}

function readStanding(value: unknown): Standing | undefined {
  if (!isRecord(value)) return undefined;
  const { group, openMs, wonAt, failure, touchedAt } = value;
  if (typeof group !== "string" || !isTime(touchedAt)) return undefined;
  const read = readFailure(failure);
  return {
    group,
    touchedAt,
    ...(isTime(openMs) ? { openMs } : {}),
    ...(isTime(wonAt) ? { wonAt } : {}),
    ...(read === undefined ? {} : { failure: read }),
  };
}
