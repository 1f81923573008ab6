import { ProxyHeaderError } from "../core/errors.ts";
import type { EndReason, SessionEvent, SessionView } from "../core/events.ts";
import type { Figures, LogCounts, PoolFigures, RouteFigures, UserTraffic } from "./figures.ts";
import { countTime, type GrowingHistogram, newHistogram } from "./histogram.ts";
import { formatStatLines, formatSummary } from "./stats-text.ts";

/** What others count, read when figures are asked for. */
export interface StatsSources {
  /** Warm connections to Telegram. */
  readonly pool: PoolFigures;
  /** Those through Workers and domains behind Cloudflare. */
  readonly cfPool: PoolFigures;
  /** Bytes that wait in the queues of all sessions. */
  readonly queuedBytes?: () => number;
  /** Connections that were closed before they became sessions. */
  readonly shed?: () => number;
  readonly log?: () => LogCounts;
}

/** A count of bytes that grows. */
interface Bytes {
  bytesUp: number;
  bytesDown: number;
}

type Growing<T> = { -readonly [Key in keyof T]: T[Key] };
type GrowingRoute = Growing<Omit<RouteFigures, "failures" | "opening">> & {
  readonly failures: Map<string, number>;
  readonly opening: GrowingHistogram;
};
type GrowingUser = Growing<UserTraffic>;

/** What is known of a session while it lives: where its bytes are counted, without looking up any name. */
interface Live {
  route: GrowingRoute | undefined;
  user: GrowingUser | undefined;
  stranger: boolean;
  connected: boolean;
  /** What has been counted for a route that it had before, although that had answered. */
  movedUp: number;
  movedDown: number;
}

/** Users beyond that are not told apart; a configuration has fewer. */
const USER_LIMIT = 10_000;

/** Counts what happens to sessions. Bytes of live sessions are read when asked for, not per chunk. */
export class Stats {
  readonly #sources: StatsSources;
  readonly #live = new Map<SessionView, Live>();
  readonly #endings = new Map<string, number>();
  readonly #masks = new Map<string, number>();
  readonly #refusals = new Map<string, number>();
  /** Connections that no trusted load balancer brought, by what was wrong. */
  readonly #badHeaders = new Map<string, number>();
  /** By route and data centre: 36 at most. */
  readonly #routes = new Map<string, GrowingRoute>();
  readonly #users = new Map<string, GrowingUser>();
  readonly #setUp = newHistogram();
  readonly #ended: Bytes = { bytesUp: 0, bytesDown: 0 };
  readonly #endedStrangers: Bytes = { bytesUp: 0, bytesDown: 0 };
  #total = 0;

  constructor(sources: StatsSources) {
    this.#sources = sources;
  }

  readonly observe = (event: SessionEvent): void => {
    const { session } = event;
    switch (event.type) {
      case "started":
        this.#total += 1;
        this.#live.set(session, newLive());
        break;
      case "identified":
        this.#onIdentified(session);
        break;
      case "attempt":
        this.#route(event.route, session.dc).attempts += 1;
        break;
      case "route-failed":
        count(this.#route(event.attempt.route, session.dc).failures, event.attempt.error.code);
        break;
      case "connected":
      case "rerouted":
        this.#onRoute(event);
        break;
      case "masked":
        count(this.#masks, event.why);
        this.#onMasked(session);
        break;
      case "refused":
        count(this.#refusals, event.why);
        break;
      case "ended":
        this.#onEnded(session, event.reason);
        if (event.error instanceof ProxyHeaderError) count(this.#badHeaders, event.error.why);
        break;
    }
  };

  /** Everything, live sessions included, in one pass over them. */
  figures(): Figures {
    const clients = { ...this.#ended };
    const strangers = { ...this.#endedStrangers };
    const routes = new Map<GrowingRoute, Bytes>();
    for (const one of this.#routes.values()) routes.set(one, bytesOf(one));
    const users = new Map<GrowingUser, Bytes>();
    for (const one of this.#users.values()) users.set(one, bytesOf(one));
    for (const [session, live] of this.#live) {
      const { up, down } = session.counts;
      if (up === 0 && down === 0) continue;
      add(live.stranger ? strangers : clients, up, down);
      if (live.route !== undefined && down > 0) {
        add(routes.get(live.route), up - live.movedUp, down - live.movedDown);
      }
      if (live.user !== undefined) add(users.get(live.user), up, down);
    }
    const { pool, cfPool, queuedBytes, shed, log } = this.#sources;
    return {
      connections: {
        total: this.#total,
        active: this.#live.size,
        ended: Object.fromEntries(this.#endings),
        masked: Object.fromEntries(this.#masks),
        refused: Object.fromEntries(this.#refusals),
        badHeaders: Object.fromEntries(this.#badHeaders),
        shed: shed?.() ?? 0,
      },
      bytes: {
        up: clients.bytesUp,
        down: clients.bytesDown,
        maskedUp: strangers.bytesUp,
        maskedDown: strangers.bytesDown,
      },
      routes: [...routes].map(([one, bytes]) => ({
        ...one,
        ...bytes,
        failures: Object.fromEntries(one.failures),
        opening: { counts: [...one.opening.counts], sumMicros: one.opening.sumMicros },
      })),
      setUp: { counts: [...this.#setUp.counts], sumMicros: this.#setUp.sumMicros },
      users: Object.fromEntries([...this.#users].map(([name, one]) => [name, { ...one, ...users.get(one) }])),
      pools: { routes: { ...pool }, cf: { ...cfPool } },
      queuedBytes: queuedBytes?.() ?? 0,
      log: log?.() ?? { written: 0, folded: 0, dropped: 0 },
    };
  }

  /** Forgets users whom nobody has named, and who are not connected: after the configuration has changed. */
  forgetUsersBut(names: ReadonlySet<string>): void {
    for (const [name, { active }] of this.#users) {
      if (active === 0 && !names.has(name)) this.#users.delete(name);
    }
  }

  /** One line for a person, in tg-ws-proxy's format. */
  summary(): string {
    return formatSummary(this.figures());
  }

  /** One line for those who were not served, where there are any, and for each route and data centre. */
  lines(): string[] {
    return formatStatLines(this.figures());
  }

  #onIdentified(session: SessionView): void {
    const live = this.#live.get(session);
    const name = session.secret;
    if (live === undefined || name === undefined || live.user !== undefined) return;
    let user = this.#users.get(name);
    if (user === undefined) {
      if (this.#users.size >= USER_LIMIT) return;
      user = { active: 0, sessions: 0, bytesUp: 0, bytesDown: 0 };
      this.#users.set(name, user);
    }
    user.active += 1;
    user.sessions += 1;
    live.user = user;
  }

  /** What it moves from now on is nobody's, even if it has shown a user's secret. */
  #onMasked(session: SessionView): void {
    const live = this.#live.get(session);
    if (live === undefined) return;
    live.stranger = true;
    if (live.user === undefined) return;
    live.user.active -= 1;
    live.user = undefined;
  }

  /**
   * A route's bytes count from its first answer on, until when another route may get the same: a counter
   * never goes back.
   */
  #onRoute(event: Extract<SessionEvent, { type: "connected" | "rerouted" }>): void {
    const { session, warm, openMs } = event;
    const route = this.#route(session.route ?? "", session.dc);
    route.sessions += 1;
    if (!warm) countTime(route.opening, openMs);
    const live = this.#live.get(session);
    if (live === undefined) return;
    if (live.route !== undefined) {
      live.route.lost += 1;
      if (session.counts.down > 0) this.#move(session, live);
    }
    live.route = route;
    if (live.connected) return;
    live.connected = true;
    countTime(this.#setUp, performance.now() - session.startedAt);
  }

  #onEnded(session: SessionView, reason: EndReason): void {
    count(this.#endings, reason);
    const live = this.#live.get(session);
    if (live === undefined) return;
    this.#live.delete(session);
    const { up, down } = session.counts;
    add(live.stranger ? this.#endedStrangers : this.#ended, up, down);
    if (live.user !== undefined) {
      live.user.active -= 1;
      add(live.user, up, down);
    }
    if (live.route === undefined) return;
    if (reason === "no-route") live.route.lost += 1; // it opened, and did not serve
    this.#move(session, live);
  }

  /** Counts what the session's route has carried since it has it. */
  #move({ counts: { up, down } }: SessionView, live: Live): void {
    add(live.route, up - live.movedUp, down - live.movedDown);
    live.movedUp = up;
    live.movedDown = down;
  }

  #route(route: string, dc: number): GrowingRoute {
    const key = `${route} ${dc}`;
    let figures = this.#routes.get(key);
    if (figures === undefined) {
      figures = {
        route,
        dc,
        attempts: 0,
        sessions: 0,
        lost: 0,
        failures: new Map(),
        opening: newHistogram(),
        bytesUp: 0,
        bytesDown: 0,
      };
      this.#routes.set(key, figures);
    }
    return figures;
  }
}

function newLive(): Live {
  return {
    route: undefined,
    user: undefined,
    stranger: false,
    connected: false,
    movedUp: 0,
    movedDown: 0,
  };
}

function bytesOf({ bytesUp, bytesDown }: Bytes): Bytes {
  return { bytesUp, bytesDown };
}

function add(sum: Bytes | undefined, up: number, down: number): void {
  if (sum === undefined) return;
  sum.bytesUp += up;
  sum.bytesDown += down;
}

function count(tally: Map<string, number>, name: string): void {
  tally.set(name, (tally.get(name) ?? 0) + 1);
}
