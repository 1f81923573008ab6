import { addHistograms, type Histogram, newHistogram } from "./histogram.ts";

/** How often each of several things happened. */
export type Tally = Readonly<Record<string, number>>;

/** What one route did for one data centre. Counters, since the start. */
export interface RouteFigures {
  readonly route: string;
  readonly dc: number;
  /** Ways that began to open. */
  readonly attempts: number;
  /** Sessions that it was the first to open for, or took over. */
  readonly sessions: number;
  /** Of those, the ones that another way took over, or that nothing served in the end. */
  readonly lost: number;
  /** Ways that did not open or carried nothing, by {@link RouteErrorCode}. */
  readonly failures: Tally;
  /** How long opening took, for a client that waited for it. */
  readonly opening: Histogram;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** What one user did. */
export interface UserTraffic {
  /** Right now. */
  readonly active: number;
  /** Since the start. */
  readonly sessions: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** How often a pool had a warm connection for a client, and how often not. */
export interface PoolFigures {
  readonly hits: number;
  readonly misses: number;
}

/** Log lines since the start, by what became of them. */
export interface LogCounts {
  readonly written: number;
  /** Repeats that were only counted. */
  readonly folded: number;
  /** Over the budget of their level, or more than the output took. */
  readonly dropped: number;
}

/**
 * Everything that a process counts, as one JSON value: a worker sends it to its supervisor as it is.
 *
 * `active` and `queuedBytes` say how it is now; all else only ever grows.
 */
export interface Figures {
  readonly connections: {
    readonly total: number;
    readonly active: number;
    /** By {@link EndReason}. */
    readonly ended: Tally;
    /** Shown the cover site, by {@link MaskReason}. */
    readonly masked: Tally;
    /** Over a limit, by {@link RefusalReason}. */
    readonly refused: Tally;
    /** Without a PROXY header that can be used, by {@link ProxyHeaderFault}. */
    readonly badHeaders: Tally;
    /** Closed before they became sessions, because descriptors or memory were short. */
    readonly shed: number;
  };
  readonly bytes: {
    readonly up: number;
    readonly down: number;
    /** Between strangers and the cover site: in none of the other two. */
    readonly maskedUp: number;
    readonly maskedDown: number;
  };
  /** At most one for each route and data centre: 36. */
  readonly routes: readonly RouteFigures[];
  /** From accept until a way to the data centre is open. */
  readonly setUp: Histogram;
  /** By name. */
  readonly users: Readonly<Record<string, UserTraffic>>;
  readonly pools: { readonly routes: PoolFigures; readonly cf: PoolFigures };
  /** Bytes that wait for a client or for a data centre. */
  readonly queuedBytes: number;
  readonly log: LogCounts;
}

/** The figures of a process that has not done anything. */
export const NO_FIGURES: Figures = {
  connections: { total: 0, active: 0, ended: {}, masked: {}, refused: {}, badHeaders: {}, shed: 0 },
  bytes: { up: 0, down: 0, maskedUp: 0, maskedDown: 0 },
  routes: [],
  setUp: newHistogram(),
  users: {},
  pools: { routes: { hits: 0, misses: 0 }, cf: { hits: 0, misses: 0 } },
  queuedBytes: 0,
  log: { written: 0, folded: 0, dropped: 0 },
};

/** The figures of two processes as one; in whatever order several are added, the result is the same. */
export function addFigures(a: Figures, b: Figures): Figures {
  const { connections: one, bytes, pools, log } = a;
  const { connections: two } = b;
  return {
    connections: {
      total: one.total + two.total,
      active: one.active + two.active,
      ended: addTallies(one.ended, two.ended),
      masked: addTallies(one.masked, two.masked),
      refused: addTallies(one.refused, two.refused),
      badHeaders: addTallies(one.badHeaders, two.badHeaders),
      shed: one.shed + two.shed,
    },
    bytes: {
      up: bytes.up + b.bytes.up,
      down: bytes.down + b.bytes.down,
      maskedUp: bytes.maskedUp + b.bytes.maskedUp,
      maskedDown: bytes.maskedDown + b.bytes.maskedDown,
    },
    routes: addRoutes(a.routes, b.routes),
    setUp: addHistograms(a.setUp, b.setUp),
    users: addUsers(a.users, b.users),
    pools: {
      routes: addPools(pools.routes, b.pools.routes),
      cf: addPools(pools.cf, b.pools.cf),
    },
    queuedBytes: a.queuedBytes + b.queuedBytes,
    log: {
      written: log.written + b.log.written,
      folded: log.folded + b.log.folded,
      dropped: log.dropped + b.log.dropped,
    },
  };
}

/**
 * What stays of a process that has ended: its counters. Added to those of the living, they never go
 * backwards.
 */
export function retireFigures(figures: Figures): Figures {
  const users = Object.entries(figures.users).map(([name, user]) => [name, { ...user, active: 0 }]);
  return {
    ...figures,
    connections: { ...figures.connections, active: 0 },
    users: Object.fromEntries(users),
    queuedBytes: 0,
  };
}

/** The figures without users whom nobody has named. */
export function forgetUsersBut(figures: Figures, names: ReadonlySet<string>): Figures {
  const users = Object.entries(figures.users).filter(([name]) => names.has(name));
  return { ...figures, users: Object.fromEntries(users) };
}

/** How many in all. */
export function sumOf(tally: Tally): number {
  let sum = 0;
  for (const count of Object.values(tally)) sum += count;
  return sum;
}

function addTallies(a: Tally, b: Tally): Tally {
  const sum = new Map(Object.entries(a));
  for (const [name, count] of Object.entries(b)) sum.set(name, (sum.get(name) ?? 0) + count);
  return Object.fromEntries(sum);
}

function addPools(a: PoolFigures, b: PoolFigures): PoolFigures {
  return { hits: a.hits + b.hits, misses: a.misses + b.misses };
}

function addUsers(a: Figures["users"], b: Figures["users"]): Figures["users"] {
  const sum = new Map(Object.entries(a));
  for (const [name, user] of Object.entries(b)) {
    const other = sum.get(name);
    sum.set(name, other === undefined ? user : addTraffic(other, user));
  }
  return Object.fromEntries(sum);
}

function addTraffic(a: UserTraffic, b: UserTraffic): UserTraffic {
  return {
    active: a.active + b.active,
    sessions: a.sessions + b.sessions,
    bytesUp: a.bytesUp + b.bytesUp,
    bytesDown: a.bytesDown + b.bytesDown,
  };
}

/** Ordered by route and data centre. */
function addRoutes(a: readonly RouteFigures[], b: readonly RouteFigures[]): readonly RouteFigures[] {
  const sum = new Map<string, RouteFigures>();
  for (const one of [...a, ...b]) {
    const key = `${one.route} ${one.dc}`;
    const other = sum.get(key);
    sum.set(key, other === undefined ? one : addRoute(other, one));
  }
  return [...sum.values()].sort((x, y) => (x.route === y.route ? x.dc - y.dc : x.route < y.route ? -1 : 1));
}

function addRoute(a: RouteFigures, b: RouteFigures): RouteFigures {
  return {
    route: a.route,
    dc: a.dc,
    attempts: a.attempts + b.attempts,
    sessions: a.sessions + b.sessions,
    lost: a.lost + b.lost,
    failures: addTallies(a.failures, b.failures),
    opening: addHistograms(a.opening, b.opening),
    bytesUp: a.bytesUp + b.bytesUp,
    bytesDown: a.bytesDown + b.bytesDown,
  };
}
