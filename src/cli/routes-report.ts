import type { WayReport } from "../upstream/standings.ts";

/** What is known of the ways to one data centre, in the order in which they will be tried. */
export interface TargetRoutes {
  /** For a person: `DC 4 media`. */
  readonly target: string;
  readonly ways: readonly WayReport[];
}

/** {@link TargetRoutes} for programs. Times are in milliseconds, moments in ISO 8601; `null` is unknown. */
export interface TargetRoutesJson {
  readonly target: string;
  readonly ways: readonly {
    readonly route: string;
    readonly endpoint: string;
    readonly state: WayReport["state"];
    readonly openMs: number | null;
    /** The code of its last failure. */
    readonly reason: string | null;
    /** Until it is tried in its old place again. */
    readonly againMs: number | null;
    /** When it last carried an answer. */
    readonly wonAt: string | null;
  }[];
}

/**
 * Formats the learned order, one way a line, the first to be tried first. Without colours: it is all text.
 *
 * @param now `Date.now()`.
 * @returns Lines.
 */
export function formatRoutes(targets: readonly TargetRoutes[], now: number): string[] {
  const ways = targets.flatMap((target) => target.ways);
  const routeWidth = Math.max(0, ...ways.map(({ route }) => route.length));
  const endpointWidth = Math.max(0, ...ways.map(({ endpoint }) => endpoint.length));
  const lines: string[] = [];
  for (const { target, ways } of targets) {
    lines.push(target);
    if (ways.length === 0) lines.push("  no route serves it");
    for (const [index, way] of ways.entries()) {
      const place = `${index + 1}.`.padStart(4);
      const what = `${way.route.padEnd(routeWidth)}  ${toLine(way.endpoint).padEnd(endpointWidth)}`;
      lines.push(`${place} ${what}  ${describeState(way, now)}`);
    }
  }
  return lines;
}

/** Returns the learned order as a value for `JSON.stringify`. */
export function routesToJson(targets: readonly TargetRoutes[]): TargetRoutesJson[] {
  return targets.map(({ target, ways }) => ({
    target,
    ways: ways.map(({ route, endpoint, state, openMs, reason, again, wonAt }) => ({
      route,
      endpoint,
      state,
      openMs: openMs === undefined ? null : roundMs(openMs),
      reason: reason ?? null,
      againMs: again === undefined ? null : Math.round(again),
      wonAt: formatMoment(wonAt),
    })),
  }));
}

/** Formats a time for a person, in one unit: `43 ms`, `4 s`, `12 min`, `3 h`, `2 days`. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 100) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

/** Makes text from a server or a file harmless to a terminal: one line, without control characters. */
export function toLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll(/[\p{Cc}\p{Cf}]/gu, "?");
}

/** A tenth of a millisecond is more than a clock under load can say. */
export function roundMs(ms: number): number {
  return Math.round(ms * 10) / 10;
}

function describeState({ state, openMs, reason, again, wonAt }: WayReport, now: number): string {
  const opened = openMs === undefined ? "" : `, opens in ${formatDuration(openMs)}`;
  const won = wonAt === undefined ? "" : `, carried data ${describeAge(now - wonAt)}`;
  if (state === "good") return `good${opened}${won}`;
  if (state === "untried") return `untried${opened}`;
  const next =
    again === undefined || again <= 0
      ? "may be tried again"
      : `goes last for another ${formatDuration(again)}`;
  const why = reason === "STATUS" ? "STATUS (an HTTP error)" : (reason ?? "UNKNOWN");
  return `failed: ${why}, ${next}${won}`;
}

/** A clock that was set back makes ages negative. */
function describeAge(ms: number): string {
  return ms < 1000 ? "just now" : `${formatDuration(ms)} ago`;
}

/** A moment from a file may be any number. */
function formatMoment(at: number | undefined): string | null {
  if (at === undefined || Math.abs(at) > 8.64e15) return null;
  return new Date(at).toISOString();
}
