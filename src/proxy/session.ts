import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import { Splice, type SpliceEnd } from "../channel/splice.ts";
import { joinLinks } from "../channel/transform.ts";
import { HandshakeError, NoRouteError } from "../core/errors.ts";
import type { EndReason, Observer, SessionView } from "../core/events.ts";
import { describeTarget, type Target } from "../protocol/mtproto/dc.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { openFirst } from "../upstream/chain.ts";
import type { Cooldowns } from "../upstream/cooldowns.ts";
import type { Route } from "../upstream/route.ts";
import { readClientHandshake } from "./handshake.ts";

/** What every session of a server shares. */
export interface SessionDeps {
  readonly secrets: readonly NamedSecret[];
  /** Ordered: the best first. */
  readonly routes: readonly Route[];
  readonly cooldowns: Cooldowns;
  readonly observe: Observer;
  /** From accept to a complete init, and how long a stranger is kept, in milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** Last look at what a client asks for: `--force-test-dc` changes it here. */
  readonly adjustTarget: (target: Target) => Target;
}

/** How long nothing may cross a session, in milliseconds. */
export interface QuietLimits {
  /** Both sides are open. */
  readonly idleMs: number;
  /** One side has ended, and the other does not take what is left for it. */
  readonly closingMs: number;
  /** From here on, the upstream is asked whether it is still there. */
  readonly pingMs: number;
}

/** One client connection, from accept until both of its sides are closed. */
export class Session implements SessionView {
  readonly id: number;
  readonly client: string;
  readonly startedAt = performance.now();
  readonly counts = { up: 0, down: 0 };
  secret: string | undefined;
  target: string | undefined;
  route: string | undefined;
  readonly #channel: Channel;
  readonly #deps: SessionDeps;
  readonly #abandoned = new AbortController();
  #splice: Splice | undefined;
  #upstream: Channel | undefined;
  /** Why it is being ended from here, if it is. */
  #stoppedFor: EndReason | undefined;
  #lastTotal = 0;
  #quietMs = 0;

  constructor(id: number, client: string, channel: Channel, deps: SessionDeps) {
    this.id = id;
    this.client = client;
    this.#channel = channel;
    this.#deps = deps;
  }

  /** The session's whole life. Never rejects. */
  async run(): Promise<void> {
    const { secrets, routes, cooldowns, observe, handshakeTimeoutMs, adjustTarget } = this.#deps;
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), handshakeTimeoutMs);
    observe({ type: "started", session: this });
    try {
      const reader = new ByteReader(this.#channel);
      const client = await readClientHandshake(reader, secrets, deadline.signal);
      if (client.kind === "stranger") {
        await reader.discard(deadline.signal); // closing at once would tell a wrong secret from a slow server
        return this.#ended("stranger");
      }
      clearTimeout(timer);
      const target = adjustTarget(client.target);
      this.secret = client.secret;
      this.target = describeTarget(target);
      observe({ type: "identified", session: this });

      reader.onEnded = () => reader.abandoned && this.#abandoned.abort();
      reader.onEnded();
      const { route, upstream } = await openFirst(
        routes,
        target,
        cooldowns,
        this.#abandoned.signal,
        (attempt) => observe({ type: "route-failed", session: this, attempt }),
      );
      this.route = route.id;
      this.#upstream = upstream.channel;
      observe({ type: "connected", session: this, warm: upstream.warm });

      this.#splice = new Splice({
        client: this.#channel,
        upstream: upstream.channel,
        link: joinLinks(client.link, upstream.link),
        counts: this.counts,
        early: reader.rest(),
      });
      const end = await this.#splice.ended;
      this.#ended(reasonOf(end), end.error);
    } catch (error) {
      this.#failed(error);
    } finally {
      clearTimeout(timer);
      this.#channel.destroy();
      this.#upstream?.destroy();
    }
  }

  /** Looks whether something crossed since the last look, `elapsedMs` ago; pings or ends what is quiet. */
  look(elapsedMs: number, limits: QuietLimits): void {
    const splice = this.#splice;
    if (splice === undefined) return;
    const total = this.counts.up + this.counts.down;
    this.#quietMs = total === this.#lastTotal ? this.#quietMs + elapsedMs : 0;
    this.#lastTotal = total;
    if (this.#quietMs >= (splice.closing ? limits.closingMs : limits.idleMs)) this.stop("idle");
    else if (this.#quietMs >= limits.pingMs) this.#upstream?.ping();
  }

  /** Ends the session now. */
  stop(reason: EndReason): void {
    this.#stoppedFor ??= reason;
    this.#abandoned.abort();
    this.#splice?.destroy();
    this.#channel.destroy();
  }

  #ended(reason: EndReason, error?: Error): void {
    this.#deps.observe({ type: "ended", session: this, reason: this.#stoppedFor ?? reason, error });
  }

  /** The only place that turns errors into reasons. */
  #failed(error: unknown): void {
    if (error instanceof HandshakeError) {
      this.#ended(error.code === "TIMEOUT" ? "stranger" : "left-early", error);
    } else if (error instanceof NoRouteError) {
      this.#ended(this.#abandoned.signal.aborted ? "left-early" : "no-route", error);
    } else {
      this.#ended("internal-error", error instanceof Error ? error : new Error(String(error)));
    }
  }
}

function reasonOf({ endedBy, error }: SpliceEnd): EndReason {
  if (endedBy === "client") return error === undefined ? "client-closed" : "client-error";
  return error === undefined ? "upstream-closed" : "upstream-error";
}
