import { formatBytes } from "../core/bytes.ts";
import type { EndReason, SessionEvent, SessionView } from "../core/events.ts";

/** Pool counts that somebody else keeps. */
export interface PoolFigures {
  readonly hits: number;
  readonly misses: number;
}

/** The counters of tg-ws-proxy, by their names there. */
export interface StatsSnapshot {
  readonly connections_total: number;
  readonly connections_active: number;
  readonly connections_ws: number;
  /** Strangers: a wrong secret, or no Telegram client. */
  readonly connections_bad: number;
  /** Attempts to open a WebSocket for a client that failed. */
  readonly ws_errors: number;
  readonly bytes_up: number;
  readonly bytes_down: number;
  readonly pool_hits: number;
  readonly pool_misses: number;
}

/** Counts what happens to sessions. Bytes of live sessions are read when asked for, not per chunk. */
export class Stats {
  readonly #pool: PoolFigures;
  readonly #live = new Set<SessionView>();
  readonly #endings = new Map<EndReason, number>();
  #total = 0;
  #connected = 0;
  #routeErrors = 0;
  #endedUp = 0;
  #endedDown = 0;

  constructor(pool: PoolFigures) {
    this.#pool = pool;
  }

  readonly observe = (event: SessionEvent): void => {
    switch (event.type) {
      case "started":
        this.#total += 1;
        this.#live.add(event.session);
        break;
      case "connected":
        this.#connected += 1;
        break;
      case "route-failed":
        this.#routeErrors += 1;
        break;
      case "ended":
        this.#live.delete(event.session);
        this.#endings.set(event.reason, (this.#endings.get(event.reason) ?? 0) + 1);
        this.#endedUp += event.session.counts.up;
        this.#endedDown += event.session.counts.down;
        break;
    }
  };

  snapshot(): StatsSnapshot {
    let up = this.#endedUp;
    let down = this.#endedDown;
    for (const { counts } of this.#live) {
      up += counts.up;
      down += counts.down;
    }
    return {
      connections_total: this.#total,
      connections_active: this.#live.size,
      connections_ws: this.#connected,
      connections_bad: this.#endings.get("stranger") ?? 0,
      ws_errors: this.#routeErrors,
      bytes_up: up,
      bytes_down: down,
      pool_hits: this.#pool.hits,
      pool_misses: this.#pool.misses,
    };
  }

  /** One line for a person, in tg-ws-proxy's format. */
  summary(): string {
    const now = this.snapshot();
    const taken = now.pool_hits + now.pool_misses;
    return [
      `total=${now.connections_total}`,
      `active=${now.connections_active}`,
      `ws=${now.connections_ws}`,
      `bad=${now.connections_bad}`,
      `err=${now.ws_errors}`,
      `pool=${taken === 0 ? "n/a" : `${now.pool_hits}/${taken}`}`,
      `up=${formatBytes(now.bytes_up)}`,
      `down=${formatBytes(now.bytes_down)}`,
    ].join(" ");
  }
}
