import { formatBytes } from "../core/bytes.ts";
import { ProxyHeaderError, type RouteErrorCode } from "../core/errors.ts";
import type { EndReason, MaskReason, SessionEvent, SessionView } from "../core/events.ts";

/** Pool counts that somebody else keeps. */
export interface PoolFigures {
  readonly hits: number;
  readonly misses: number;
}

/** The counters of tg-ws-proxy, by their names there. */
export interface StatsSnapshot {
  readonly connections_total: number;
  readonly connections_active: number;
  /** Served over Telegram's own WebSocket front ends. */
  readonly connections_ws: number;
  readonly connections_tcp_fallback: number;
  /** Served through a Worker or a domain behind Cloudflare. */
  readonly connections_cfproxy: number;
  /** Strangers: a wrong secret, or no Telegram client. */
  readonly connections_bad: number;
  /** Those that were shown the cover site. */
  readonly connections_masked: number;
  /** Attempts to open a WebSocket for a client that failed. */
  readonly ws_errors: number;
  readonly bytes_up: number;
  readonly bytes_down: number;
  /** Between strangers and the cover site: in none of the other two. */
  readonly masked_bytes_up: number;
  readonly masked_bytes_down: number;
  readonly pool_hits: number;
  readonly pool_misses: number;
  readonly cf_pool_hits: number;
  readonly cf_pool_misses: number;
}

/** What one route did for one data centre. */
export interface RouteFigures {
  readonly route: string;
  readonly dc: number;
  attempts: number;
  /** Sessions that it serves, or served. */
  wins: number;
  readonly failures: Map<RouteErrorCode, number>;
  /** Connections that were opened for a client, and how long that took in all, in milliseconds. */
  opened: number;
  openMs: number;
  bytesUp: number;
  bytesDown: number;
}

const CF_ROUTES: readonly string[] = ["cf-worker", "cf-domain"];
const WS_ROUTES: readonly string[] = ["direct-ws", "fronted-ws"];

/** Counts what happens to sessions. Bytes of live sessions are read when asked for, not per chunk. */
export class Stats {
  readonly #pools: { readonly pool: PoolFigures; readonly cfPool: PoolFigures };
  readonly #live = new Set<SessionView>();
  readonly #endings = new Map<EndReason, number>();
  readonly #masks = new Map<MaskReason, number>();
  /** Connections that no trusted load balancer brought, by what was wrong. */
  readonly #refusals = new Map<string, number>();
  /** By route and data centre: 36 at most. */
  readonly #routes = new Map<string, RouteFigures>();
  #total = 0;
  readonly #ended = { up: 0, down: 0 };
  /** Live sessions of strangers, which are in `#live`, too. */
  readonly #strangers = new Set<SessionView>();
  readonly #endedStrangers = { up: 0, down: 0 };

  constructor(pools: { readonly pool: PoolFigures; readonly cfPool: PoolFigures }) {
    this.#pools = pools;
  }

  readonly observe = (event: SessionEvent): void => {
    const { session } = event;
    switch (event.type) {
      case "started":
        this.#total += 1;
        this.#live.add(session);
        break;
      case "attempt":
        this.#figures(event.route, session.dc).attempts += 1;
        break;
      case "route-failed": {
        const { failures } = this.#figures(event.attempt.route, session.dc);
        const { code } = event.attempt.error;
        failures.set(code, (failures.get(code) ?? 0) + 1);
        break;
      }
      case "rerouted":
        this.#figures(event.from, session.dc).wins -= 1;
        this.#won(event);
        break;
      case "connected":
        this.#won(event);
        break;
      case "masked":
        this.#masks.set(event.why, (this.#masks.get(event.why) ?? 0) + 1);
        this.#strangers.add(session);
        break;
      case "ended":
        this.#onEnded(session, event.reason);
        if (event.error instanceof ProxyHeaderError)
          this.#refusals.set(event.error.why, (this.#refusals.get(event.error.why) ?? 0) + 1);
        break;
    }
  };

  snapshot(): StatsSnapshot {
    const clients = { ...this.#ended };
    const strangers = { ...this.#endedStrangers };
    for (const session of this.#live) {
      addTo(this.#strangers.has(session) ? strangers : clients, session.counts);
    }
    const { pool, cfPool } = this.#pools;
    return {
      connections_total: this.#total,
      connections_active: this.#live.size,
      connections_ws: this.#wins(WS_ROUTES),
      connections_tcp_fallback: this.#wins(["direct-tcp"]),
      connections_cfproxy: this.#wins(CF_ROUTES),
      connections_bad: this.#endings.get("stranger") ?? 0,
      connections_masked: sumOf(this.#masks),
      ws_errors: this.#webSocketErrors(),
      bytes_up: clients.up,
      bytes_down: clients.down,
      masked_bytes_up: strangers.up,
      masked_bytes_down: strangers.down,
      pool_hits: pool.hits,
      pool_misses: pool.misses,
      cf_pool_hits: cfPool.hits,
      cf_pool_misses: cfPool.misses,
    };
  }

  /** What every route did for every data centre, live sessions included. */
  routes(): readonly RouteFigures[] {
    const figures = new Map(
      [...this.#routes].map(([key, one]) => {
        return [key, { ...one, failures: new Map(one.failures) }];
      }),
    );
    for (const { route, dc, counts } of this.#live) {
      const one = figures.get(`${route} ${dc}`);
      if (one === undefined) continue;
      one.bytesUp += counts.up;
      one.bytesDown += counts.down;
    }
    return [...figures.values()];
  }

  /** Who was shown the cover site, by the reason. */
  masks(): ReadonlyMap<MaskReason, number> {
    return this.#masks;
  }

  /** Connections that were refused for their PROXY header: `missing`, `malformed`, `untrusted`. */
  refusals(): ReadonlyMap<string, number> {
    return this.#refusals;
  }

  /** One line for a person, in tg-ws-proxy's format. */
  summary(): string {
    const now = this.snapshot();
    return [
      `total=${now.connections_total}`,
      `active=${now.connections_active}`,
      `ws=${now.connections_ws}`,
      `tcp_fb=${now.connections_tcp_fallback}`,
      `cf=${now.connections_cfproxy}`,
      `bad=${now.connections_bad}`,
      `masked=${now.connections_masked}`,
      `err=${now.ws_errors}`,
      `pool=${formatHits(now.pool_hits, now.pool_misses)}`,
      `cf_pool=${formatHits(now.cf_pool_hits, now.cf_pool_misses)}`,
      `up=${formatBytes(now.bytes_up)}`,
      `down=${formatBytes(now.bytes_down)}`,
    ].join(" ");
  }

  /** One line for those who were not served, where there are any, and for each route and data centre. */
  lines(): string[] {
    const lines: string[] = [];
    if (this.#masks.size > 0) {
      const { masked_bytes_up: up, masked_bytes_down: down } = this.snapshot();
      lines.push(`masked ${formatCounts(this.#masks)} up=${formatBytes(up)} down=${formatBytes(down)}`);
    }
    if (this.#refusals.size > 0) lines.push(`refused ${formatCounts(this.#refusals)}`);
    return [...lines, ...this.#routeLines()];
  }

  #routeLines(): string[] {
    return this.routes().map(
      ({ route, dc, attempts, wins, failures, opened, openMs, bytesUp, bytesDown }) => {
        const failed = [...failures].map(([code, count]) => `${code}:${count}`).join(",");
        return [
          `route=${route}`,
          `dc=${dc}`,
          `attempts=${attempts}`,
          `wins=${wins}`,
          `failed=${failed || "none"}`,
          `open=${opened === 0 ? "n/a" : `${Math.round(openMs / opened)}ms`}`,
          `up=${formatBytes(bytesUp)}`,
          `down=${formatBytes(bytesDown)}`,
        ].join(" ");
      },
    );
  }

  #won({ session, warm, openMs }: Extract<SessionEvent, { type: "connected" | "rerouted" }>): void {
    const figures = this.#figures(session.route ?? "", session.dc);
    figures.wins += 1;
    if (warm) return;
    figures.opened += 1;
    figures.openMs += openMs;
  }

  #onEnded(session: SessionView, reason: EndReason): void {
    const { up, down } = session.counts;
    this.#live.delete(session);
    this.#endings.set(reason, (this.#endings.get(reason) ?? 0) + 1);
    addTo(this.#strangers.delete(session) ? this.#endedStrangers : this.#ended, session.counts);
    if (session.route === undefined) return;
    const figures = this.#figures(session.route, session.dc);
    if (reason === "no-route") figures.wins -= 1; // it opened, and did not serve
    figures.bytesUp += up;
    figures.bytesDown += down;
  }

  #wins(routes: readonly string[]): number {
    let wins = 0;
    for (const figures of this.#routes.values()) if (routes.includes(figures.route)) wins += figures.wins;
    return wins;
  }

  #webSocketErrors(): number {
    let errors = 0;
    for (const { route, failures } of this.#routes.values()) {
      if (route === "direct-tcp") continue;
      for (const count of failures.values()) errors += count;
    }
    return errors;
  }

  #figures(route: string, dc: number): RouteFigures {
    const key = `${route} ${dc}`;
    let figures = this.#routes.get(key);
    if (figures === undefined) {
      figures = {
        route,
        dc,
        attempts: 0,
        wins: 0,
        failures: new Map(),
        opened: 0,
        openMs: 0,
        bytesUp: 0,
        bytesDown: 0,
      };
      this.#routes.set(key, figures);
    }
    return figures;
  }
}

function addTo(sum: { up: number; down: number }, { up, down }: SessionView["counts"]): void {
  sum.up += up;
  sum.down += down;
}

function sumOf(counts: ReadonlyMap<string, number>): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

function formatCounts(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, count]) => `${name}=${count}`).join(" ");
}

function formatHits(hits: number, misses: number): string {
  return hits + misses === 0 ? "n/a" : `${hits}/${hits + misses}`;
}
