import { type Census, PASSING, UPSTREAM } from "./census.ts";
import type { Judge } from "./judge.ts";
import type { Phases } from "./phases.ts";
import type { ReportedState } from "./proxy.ts";
import { type Sample, spreadOver, totalRss } from "./samples.ts";

/** Something that has to hold, and whether it did. */
export interface Criterion {
  readonly name: string;
  readonly holds: boolean;
  /** For a person, a line each. */
  readonly details: readonly string[];
}

/** RSS may grow by so much over the plateau, where the soak is long enough to have one. */
const GROWTH_SHARE = 0.05;
const PLATEAU_FROM_MS = 10 * 60_000;
/** In shorter ones heaps are still growing into their load: this finds only what runs away. */
const SHORT_GROWTH_SHARE = 0.5;
/** The load must be there, or its figures say nothing. */
const LEAST_LOAD_SHARE = 0.85;
/** In short ones, guests that are away and victims that come back weigh more. */
const SHORT_LEAST_LOAD_SHARE = 0.5;

/** A process of the proxy, and its descriptors. */
export interface Counted {
  readonly pid: number;
  readonly role: string;
  readonly rssKib: number;
  readonly census: Census;
}

/**
 * Compares descriptors: each process with one of its role before the load.
 *
 * @param mostKept Connections to data centres that a process may keep ready.
 */
export function judgeDescriptors(
  before: readonly Counted[],
  after: readonly Counted[],
  mostKept: number,
): Criterion {
  const details = after.flatMap(({ pid, role, census }) => {
    const peers = before.filter((one) => one.role === role);
    const differences = peers.map((peer) => differencesOf(peer.census, census, mostKept));
    const best = differences.sort((a, b) => a.length - b.length)[0] ?? ["there was no such process before"];
    return best.map((difference) => `${role} ${pid}: ${difference}`);
  });
  if (before.length !== after.length)
    details.push(`${before.length} processes before, ${after.length} after`);
  return { name: "descriptors are those before the load", holds: details.length === 0, details };
}

function differencesOf(before: Census, after: Census, mostKept: number): string[] {
  const kinds = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return kinds.flatMap((kind) => {
    const [was, is] = [before[kind] ?? 0, after[kind] ?? 0];
    if (isAsBefore(kind, was, is, mostKept)) return [];
    return [`${is} of "${kind}", ${was} before`];
  });
}

/** A process that is younger may not have needed yet what the runtime opens once, for its threads. */
function isAsBefore(kind: string, was: number, is: number, mostKept: number): boolean {
  if (kind === UPSTREAM) return is <= mostKept;
  return kind.startsWith("anon_inode:") ? is <= was : is === was;
}

/** Whether nothing of a session is left in a process. */
export function isCalm({ census }: Counted, mostKept: number): boolean {
  return PASSING.every((kind) => (census[kind] ?? 0) === 0) && (census[UPSTREAM] ?? 0) <= mostKept;
}

/** Compares the memory in both windows of the plateau. */
export function judgeMemory(samples: readonly Sample[], { early, late, end }: Phases): Criterion {
  const [before, after] = [spreadOver(samples, early, totalRss), spreadOver(samples, late, totalRss)];
  const share = end >= PLATEAU_FROM_MS ? GROWTH_SHARE : SHORT_GROWTH_SHARE;
  const growth = after.median / Math.max(1, before.median) - 1;
  return {
    name: `RSS grows by no more than ${share * 100} % over the plateau`,
    holds: before.count > 0 && after.count > 0 && growth <= share,
    details: [`${(growth * 100).toFixed(1)} %`],
  };
}

/** Whether the load was there that was asked for. */
export function judgeLoad(
  samples: readonly Sample[],
  { early, late, end }: Phases,
  wanted: number,
): Criterion {
  const share = end >= PLATEAU_FROM_MS ? LEAST_LOAD_SHARE : SHORT_LEAST_LOAD_SHARE;
  const lives = [early, late].map((window) => spreadOver(samples, window, ({ live }) => live).median);
  return {
    name: "the load is there in both windows",
    holds: lives.every((live) => live >= wanted * share),
    details: [`${lives.join(" and ")} of ${wanted} sessions`],
  };
}

/** Whether every failure was a fault's. */
export function judgeFailures({ unexcused, unexcusedCount, corruptions }: Judge): readonly Criterion[] {
  const shown = unexcused.slice(0, 20).map((failure) => {
    const { session, who, port, startedAt, failedAt, doing, message } = failure;
    const time = new Date(failedAt).toISOString().slice(11, 23);
    return `${time} session ${session} of ${who} (port ${port}, ${failedAt - startedAt} ms old), ${doing}: ${message}`;
  });
  return [
    {
      name: "no byte is lost or changed",
      holds: corruptions === 0,
      details: corruptions ? [`${corruptions} times`] : [],
    },
    {
      name: "no session fails without a fault of the soak's own",
      holds: unexcusedCount === 0,
      details: unexcusedCount > shown.length ? [...shown, `${unexcusedCount} in all`] : shown,
    },
  ];
}

/** Whether the proxy itself knows of nobody any more. */
export function judgeCounts(state: ReportedState): Criterion {
  const { connections } = state.figures;
  const details = state.users
    .filter((user) => user.connections !== 0 || user.addresses !== 0)
    .map(({ name, ...user }) => `${name}: ${user.connections} connections from ${user.addresses} addresses`);
  if (connections.active !== 0) details.push(`${connections.active} sessions`);
  const bugs = connections.ended["internal-error"] ?? 0;
  if (bugs > 0) details.push(`${bugs} ended by internal-error`);
  return { name: "it counts nobody when nobody is there", holds: details.length === 0, details };
}

/** Whether there is nothing in a list of what should not be. */
export function judgeList(name: string, list: readonly string[]): Criterion {
  return { name, holds: list.length === 0, details: list.slice(0, 20) };
}

/** Whether the proxy has ended as it should. */
export function judgeExit(code: number | undefined): Criterion {
  return {
    name: "it ends with code 0",
    holds: code === 0,
    details: code === 0 ? [] : [`${code ?? "it did not end"}`],
  };
}

/** Whether the log has nothing in it that must never happen. */
export function judgeLog(text: string): Criterion {
  const bad = text.split("\n").filter((line) => /a bug, please|internal-error/.test(line));
  return { name: "the log tells of no bug", holds: bad.length === 0, details: bad.slice(0, 10) };
}
