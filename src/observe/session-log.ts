import { ProxyHeaderError } from "../core/errors.ts";
import type { SessionEvent, SessionView } from "../core/events.ts";
import type { LogFields } from "../core/logger.ts";
import type { LevelLogger } from "./log.ts";

/** What to do where connections come without a header that can be read. */
const HEADER_HINT = "set send-proxy-v2 (HAProxy) or proxy_protocol on (nginx), or leave out --proxy-protocol";

/** Why clients get no data centre is said again only after this time, in milliseconds. */
const REPEAT_MS = 60_000;
const HEALTH_LIMIT = 1_000;

/**
 * Writes what happens to sessions.
 *
 * One line when a session that reached a data centre ends. Strangers and clients that left early are debug:
 * a public port sees them all day. A data centre without a route is a warning, once a minute with a count.
 */
export class SessionLog {
  readonly #log: LevelLogger;
  readonly #now: () => number;
  /** By target: two dozen at most. */
  readonly #noRoute = new Map<string, { saidAt: number; repeats: number }>();
  /** Who to ask was said. */
  #hinted = false;
  /** When a route was last said to carry nothing, by route and target. */
  readonly #health = new Map<string, number>();

  constructor(log: LevelLogger, now = (): number => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  readonly observe = (event: SessionEvent): void => {
    const { session } = event;
    switch (event.type) {
      case "started":
        this.#log.debug("connected", { session: session.id, client: session.client });
        break;
      case "identified":
        this.#log.debug("client", {
          session: session.id,
          client: session.client,
          user: session.secret,
          dc: session.target,
        });
        break;
      case "masked":
        this.#log.debug("shown the cover site", {
          session: session.id,
          client: session.client,
          why: event.why,
          detail: event.detail,
        });
        if (event.why === "skew") this.#sayClock(session.client, event.detail);
        break;
      case "refused":
        this.#log.debug("over a limit: refused", {
          session: session.id,
          user: session.secret,
          client: session.client,
          why: event.why,
        });
        break;
      case "attempt":
        this.#log.debug(`opening ${event.endpoint}`, {
          session: session.id,
          user: session.secret,
          route: event.route,
        });
        break;
      case "route-failed":
        this.#failed(event);
        break;
      case "connected":
        this.#log.debug("route open", {
          ...this.#where(session),
          endpoint: session.endpoint,
          warm: event.warm,
          ms: Math.round(event.openMs),
        });
        break;
      case "rerouted":
        this.#log.debug(`served by another route than ${event.from}`, {
          ...this.#where(session),
          endpoint: session.endpoint,
        });
        break;
      case "ended":
        this.#ended(event);
        break;
    }
  };

  /** What opens and does not carry looks fine from everywhere else: that is worth a line for everybody. */
  #failed({ session, attempt }: Extract<SessionEvent, { type: "route-failed" }>): void {
    const { route, endpoint, error } = attempt;
    const text = `${endpoint}: ${error.message}`;
    const health = error.code === "SILENT" || error.code === "STALLED";
    if (health && this.#isNews(`${route} ${endpoint} ${session.target}`)) {
      this.#log.warn(`${text}; other routes go first now`, { dc: session.target, route, code: error.code });
    } else {
      this.#log.debug(text, { session: session.id, user: session.secret, route, code: error.code });
    }
  }

  /** Whether it was not said within the last minute. */
  #isNews(what: string): boolean {
    const now = this.#now();
    const last = this.#health.get(what);
    if (last !== undefined && now - last < REPEAT_MS) return false;
    if (this.#health.size >= HEALTH_LIMIT) this.#health.clear();
    this.#health.set(what, now);
    return true;
  }

  #ended({ session, reason, error }: Extract<SessionEvent, { type: "ended" }>): void {
    const fields: LogFields = {
      ...this.#where(session),
      client: session.client,
      reason,
      up: session.counts.up,
      down: session.counts.down,
      seconds: Number(((performance.now() - session.startedAt) / 1000).toFixed(1)),
    };
    if (reason === "internal-error") {
      this.#log.error(
        `session ended by a bug: ${(this.#log.enabled("debug") && error?.stack) || error?.message}`,
        fields,
      );
    } else if (reason === "no-route") {
      this.#sayNoRoute(session.target ?? "", error?.message ?? "");
      this.#log.debug("session ended", fields);
    } else if (reason === "masked" && error !== undefined) {
      if (this.#isNews("cover")) this.#log.warn(`the cover site cannot be reached: ${error.message}`);
      this.#log.debug("session ended", { ...fields, error: error.message });
    } else if (reason === "bad-proxy-header") {
      if (this.#isNews("proxy header")) {
        const hint = error instanceof ProxyHeaderError && error.why !== "untrusted" ? `; ${HEADER_HINT}` : "";
        this.#log.warn(`refused ${session.client}: ${error?.message}${hint}`);
      }
      this.#log.debug("session ended", { ...fields, error: error?.message });
    } else if (reason === "revoked" || reason === "overload") {
      this.#log.info("session ended", fields);
    } else if (session.route === undefined) {
      this.#log.debug(reason === "stranger" ? "not a client: dropped" : "session ended", fields);
    } else {
      this.#log.info("session ended", { ...fields, error: error?.message });
    }
  }

  /** A clock of our own that is wrong shuts all clients out. */
  #sayClock(client: string, detail: string): void {
    if (!this.#isNews("clock")) return;
    this.#log.warn(
      `${client} has the right secret, but ${detail}, or repeats what somebody sent. ` +
        "If it is every client, set this machine's clock",
    );
  }

  /** Clients try again every second, and each time the words may differ a little: one line a minute. */
  #sayNoRoute(target: string, message: string): void {
    const now = this.#now();
    const last = this.#noRoute.get(target);
    if (last !== undefined && now - last.saidAt < REPEAT_MS) {
      last.repeats += 1;
      return;
    }
    const repeated =
      last !== undefined && last.repeats > 0 ? ` (and ${last.repeats} more since this was last said)` : "";
    this.#noRoute.set(target, { saidAt: now, repeats: 0 });
    this.#log.warn(`${message}${repeated}`);
    if (this.#hinted) return;
    this.#hinted = true;
    this.#log.info("tgws doctor, with the same flags, tries every route and says what to do");
  }

  #where({ id, secret, target, route }: SessionView): LogFields {
    return { session: id, user: secret, dc: target, route };
  }
}
