import { ProxyHeaderError } from "../core/errors.ts";
import type { SessionEvent, SessionView } from "../core/events.ts";
import type { LogFields } from "../core/logger.ts";
import type { LevelLogger } from "./log.ts";

/** What to do where connections come without a header that can be read. */
const HEADER_HINT = "set send-proxy-v2 (HAProxy) or proxy_protocol on (nginx), or leave out --proxy-protocol";

/** A warning that strangers, or clients that try again, can cause is said again only after this time, in milliseconds. */
const REPEAT_MS = 60_000;
/** Different ones that are remembered. */
const WARNING_LIMIT = 1_000;

/**
 * Writes what happens to sessions.
 *
 * One line when a session that reached a data centre ends. Strangers and clients that left early are debug:
 * a public port sees them all day. What everybody should know is a warning, each once a minute with a count,
 * whatever its words are this time.
 */
export class SessionLog {
  readonly #log: LevelLogger;
  readonly #now: () => number;
  /** When each was last said, and how often it was not since. */
  readonly #warnings = new Map<string, { readonly saidAt: number; repeats: number }>();
  /** Who to ask was said. */
  #hinted = false;

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
    const silent = error.code === "SILENT" || error.code === "STALLED";
    const what = `${route} ${endpoint} ${session.target}`;
    const fields = { dc: session.target, route, code: error.code };
    if (silent && this.#warn(what, `${text}; other routes go first now`, fields)) return;
    this.#log.debug(text, { session: session.id, user: session.secret, route, code: error.code });
  }

  /** Warns unless the same was said within the last minute. @returns Whether it was said now. */
  #warn(what: string, message: string, fields?: LogFields): boolean {
    const now = this.#now();
    const last = this.#warnings.get(what);
    if (last !== undefined && now - last.saidAt < REPEAT_MS) {
      last.repeats += 1;
      return false;
    }
    if (this.#warnings.size >= WARNING_LIMIT) this.#warnings.clear();
    this.#warnings.set(what, { saidAt: now, repeats: 0 });
    const repeats = last?.repeats ?? 0;
    this.#log.warn(
      repeats > 0 ? `${message} (and ${repeats} more since this was last said)` : message,
      fields,
    );
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
      this.#warn("cover", `the cover site cannot be reached: ${error.message}`);
      this.#log.debug("session ended", { ...fields, error: error.message });
    } else if (reason === "bad-proxy-header") {
      const hint = error instanceof ProxyHeaderError && error.why !== "untrusted" ? `; ${HEADER_HINT}` : "";
      this.#warn("proxy header", `refused ${session.client}: ${error?.message}${hint}`);
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
    this.#warn(
      "clock",
      `${client} has the right secret, but ${detail}, or repeats what somebody sent. ` +
        "If it is every client, set this machine's clock",
    );
  }

  #sayNoRoute(target: string, message: string): void {
    if (!this.#warn(`no route ${target}`, message) || this.#hinted) return;
    this.#hinted = true;
    this.#log.info("tgws doctor, with the same flags, tries every route and says what to do");
  }

  #where({ id, secret, target, route }: SessionView): LogFields {
    return { session: id, user: secret, dc: target, route };
  }
}
