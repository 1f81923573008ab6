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
import { type Handshake, readClientHandshake } from "./handshake.ts";

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
  /** So often the upstream is asked whether it is still there. */
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
  readonly #onGone: (session: Session) => void;
  #splice: Splice | undefined;
  #upstream: Channel | undefined;
  /** Stops the opening of a route, while one is being opened. */
  #opening: AbortController | undefined;
  /** The client went away while a route was being opened. */
  #abandoned = false;
  /** Why it is being ended from here, if it is. */
  #stoppedFor: EndReason | undefined;
  #lastTotal = 0;
  #lastQueued = 0;
  #quietMs = 0;

  /** @param onGone Called when the session is over. */
  constructor(
    id: number,
    client: string,
    channel: Channel,
    deps: SessionDeps,
    onGone: (session: Session) => void,
  ) {
    this.id = id;
    this.client = client;
    this.#channel = channel;
    this.#deps = deps;
    this.#onGone = onGone;
  }

  /** The session's whole life. Never rejects. */
  async run(): Promise<void> {
    this.#deps.observe({ type: "started", session: this });
    try {
      this.#splice = await this.#open(new ByteReader(this.#channel));
      if (this.#splice === undefined) return this.#ended("stranger");
      const end = await this.#splice.ended;
      this.#ended(reasonOf(end), end.error);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#channel.destroy();
      this.#upstream?.destroy();
      this.#onGone(this);
    }
  }

  /**
   * From the first byte to two joined channels; `undefined` when the client turned out to be a stranger.
   *
   * Apart from `run`, so that what only the opening needs is not held for as long as the session lives.
   */
  async #open(reader: ByteReader): Promise<Splice | undefined> {
    const { secrets, routes, cooldowns, observe, adjustTarget } = this.#deps;
    const client = await this.#readHandshake(reader, secrets);
    if (client.kind === "stranger") return undefined;
    const target = adjustTarget(client.target);
    this.secret = client.secret;
    this.target = describeTarget(target);
    observe({ type: "identified", session: this });

    const { signal } = this.#watchAbandonment(reader);
    const { route, upstream } = await openFirst(routes, target, cooldowns, signal, (attempt) =>
      observe({ type: "route-failed", session: this, attempt }),
    );
    reader.onEnded = undefined;
    this.#opening = undefined;
    this.#upstream = upstream.channel;
    this.route = route.id;
    observe({ type: "connected", session: this, warm: upstream.warm });

    return new Splice({
      client: this.#channel,
      upstream: upstream.channel,
      link: joinLinks(client.link, upstream.link),
      counts: this.counts,
      early: reader.rest(),
    });
  }

  /** Reads the client's init; a stranger is kept until the deadline, since closing at once would tell it apart. */
  async #readHandshake(reader: ByteReader, secrets: readonly NamedSecret[]): Promise<Handshake> {
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(), this.#deps.handshakeTimeoutMs);
    try {
      const handshake = await readClientHandshake(reader, secrets, deadline.signal);
      if (handshake.kind === "stranger") await reader.discard(deadline.signal);
      return handshake;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Stops the opening of a route when the client goes away meanwhile. */
  #watchAbandonment(reader: ByteReader): AbortController {
    const opening = new AbortController();
    this.#opening = opening;
    reader.onEnded = () => {
      if (!reader.abandoned) return;
      this.#abandoned = true;
      opening.abort();
    };
    reader.onEnded();
    return opening;
  }

  /** Looks whether something crossed since the last look, `elapsedMs` ago; pings or ends what is quiet. */
  look(elapsedMs: number, limits: QuietLimits): void {
    const splice = this.#splice;
    if (splice === undefined) return;
    // What leaves a queue is progress, too: a slow client may take the rest long after its data centre has gone.
    const queued = splice.queuedBytes;
    const total = this.counts.up + this.counts.down;
    const quiet = total === this.#lastTotal && queued === this.#lastQueued;
    this.#quietMs = quiet ? this.#quietMs + elapsedMs : 0;
    this.#lastTotal = total;
    this.#lastQueued = queued;
    if (splice.closing) {
      if (this.#quietMs >= limits.closingMs) splice.destroy(); // it ends for the reason for which it began to
    } else if (this.#quietMs >= limits.idleMs) {
      this.stop("idle");
    } else if (this.#quietMs > 0 && this.#quietMs % limits.pingMs < elapsedMs) {
      this.#upstream?.ping();
    }
  }

  /** A route to its data centre is open. */
  get connected(): boolean {
    return this.#splice !== undefined;
  }

  /** Ends the session now. */
  stop(reason: EndReason): void {
    this.#stoppedFor ??= reason;
    this.#opening?.abort();
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
      this.#ended(this.#abandoned ? "left-early" : "no-route", error);
    } else {
      this.#ended("internal-error", error instanceof Error ? error : new Error(String(error)));
    }
  }
}

function reasonOf({ endedBy, error }: SpliceEnd): EndReason {
  if (endedBy === "client") return error === undefined ? "client-closed" : "client-error";
  return error === undefined ? "upstream-closed" : "upstream-error";
}
