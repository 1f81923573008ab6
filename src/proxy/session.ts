import type { Channel, GatherChannel } from "../channel/channel.ts";
import { type ByteCounts, Splice, type SpliceEnd } from "../channel/splice.ts";
import { joinLinks, joinTransforms } from "../channel/transform.ts";
import { formatBytes } from "../core/bytes.ts";
import { HandshakeError, NoRouteError, RefusedError, type RouteAttempt, RouteError } from "../core/errors.ts";
import type { EndReason, MaskReason, Observer, RefusalReason, SessionView } from "../core/events.ts";
import { describeTarget, type Target } from "../protocol/mtproto/dc.ts";
import type { Route, Upstream, Way } from "../upstream/route.ts";
import type { Standings } from "../upstream/standings.ts";
import { Entrance, type EntranceDeps, type EntranceListener, type Entry } from "./entrance.ts";
import type { Grant, RateBucket, Visit } from "./gate.ts";
import type { Mask } from "./mask.ts";
import { Opening, type OpeningListener } from "./opening.ts";
import { PacketWatch } from "./packet-watch.ts";
import type { ReplayBudget } from "./replay.ts";

/** What every session of a server shares. */
export interface SessionDeps extends EntranceDeps {
  /** Ordered: the best first. */
  readonly routes: readonly Route[];
  readonly standings: Standings;
  readonly replays: ReplayBudget;
  /** Hears which way served a target: it may not be the best that there could be. */
  readonly onServed: (target: Target, ways: readonly Way[], by: Way) => void;
  readonly observe: Observer;
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
  /** Telegram stopped within a packet, early in the connection, while the client waits. */
  readonly stalledMs: number;
  /** A client's bytes are without any answer since the session began. */
  readonly silentMs: number;
}

/** A client that left after so much silence has left because of it, in milliseconds. */
const PATIENCE_MS = 2_500;

const NOTHING = { up: 0, down: 0 } as const satisfies ByteCounts;

/** One client connection, from accept until both of its sides are closed. */
export class Session implements SessionView, OpeningListener, EntranceListener {
  readonly id: number;
  client: string;
  readonly startedAt = performance.now();
  readonly counts = { up: 0, down: 0 };
  secret: string | undefined;
  target: string | undefined;
  dc = 0;
  route: string | undefined;
  endpoint: string | undefined;
  readonly #channel: GatherChannel;
  readonly #deps: SessionDeps;
  readonly #onGone: (session: Session) => void;
  #visit: Visit | undefined;
  #grant: Grant | undefined;
  /** It goes as fast as its user's rate lets it. */
  #throttled = false;
  #user: string | undefined;
  /** Users it may not show itself as. */
  #barred: ReadonlySet<string> | undefined;
  /** What its user says and hears: around the channel may be more. */
  #client: Channel;
  /** From accept to handshake. */
  #entrance: Entrance | undefined;
  /** From handshake to the first answer. */
  #opening: Opening | undefined;
  #splice: Splice | undefined;
  #mask: Mask | undefined;
  #way: Way | undefined;
  #upstream: Channel | undefined;
  #watch: PacketWatch | undefined;
  /** The way has carried an answer. */
  #proved = false;
  /** It has, or there is nothing more to say about its silence. */
  #judged = false;
  /** There is no other way. */
  #alone = false;
  /** Why it is being ended from here, if it is. */
  #stoppedFor: EndReason | undefined;
  /** What was queued, and had crossed, when it was last weighed; and since when that is so. */
  #weighed = 0;
  #weighedTotal = 0;
  #stalledAt: number | undefined;
  #tallied: Readonly<ByteCounts> = NOTHING;
  #lastTotal = 0;
  #lastDown = 0;
  #lastQueued = 0;
  #quietMs = 0;
  #quietDownMs = 0;
  /** How things stood when it was last asked whether it lives. */
  #asked: { readonly down: number; readonly queued: number } | undefined;

  /** @param onGone Called when the session is over. */
  constructor(
    id: number,
    client: string,
    channel: GatherChannel,
    deps: SessionDeps,
    onGone: (session: Session) => void,
  ) {
    this.id = id;
    this.client = client;
    this.#channel = channel;
    this.#client = channel;
    this.#deps = deps;
    this.#onGone = onGone;
  }

  /** The session's whole life. Never rejects. */
  async run(): Promise<void> {
    this.#deps.observe({ type: "started", session: this });
    try {
      this.#entrance = new Entrance(this.#channel, this.#deps, this);
      const entry = await this.#entrance.enter(this.client);
      this.#entrance = undefined;
      if (entry.kind === "stranger") return this.#ended("stranger");
      if (entry.kind === "masked") return await this.#show(entry.mask);
      this.#channel.keepAlive(); // web servers do without: a stranger could tell
      this.#splice = await this.#open(entry);
      void this.slow(); // the rate may have come while it opened
      const end = await this.#splice.ended;
      if (end.endedBy === "client") this.#blameForOneWhoLeft();
      this.#ended(reasonOf(end), end.error);
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#client.destroy();
      this.#channel.destroy();
      this.#upstream?.destroy();
      this.#visit?.leave();
      this.#onGone(this);
    }
  }

  /**
   * From a client that is in to two joined channels.
   *
   * Apart from `run`, so that what only the opening needs is not held for as long as the session lives.
   */
  async #open({ channel: own, reader, client, grant }: Extract<Entry, { kind: "client" }>): Promise<Splice> {
    const { routes, standings, replays, observe, adjustTarget } = this.#deps;
    const target = adjustTarget(client.target);
    const name = describeTarget(target);
    this.#grant = grant;
    const { rate } = grant;
    this.#throttled = rate !== undefined;
    const channel = rate === undefined ? own : await throttle(own, rate);
    const early = reader.rest();
    rate?.spend(early.length);
    this.#client = channel;
    this.secret = client.secret;
    this.target = name;
    this.dc = target.dc;
    observe({ type: "identified", session: this });

    const ways = routes.flatMap((route) => route.ways(target));
    const { link } = client;
    const { counts } = this;
    const parts = { client: channel, link, target, name, ways, standings, replays, counts };
    this.#opening = new Opening({ ...parts, listener: this });
    this.#opening.start(early);
    const { way, upstream, openMs, proved, judged } = await this.#opening.done;
    if (way !== this.#way) this.#moveTo(way, upstream, openMs);
    if (proved) this.#deps.onServed(target, ways, way);
    this.#proved = proved;
    this.#judged = judged;
    this.#alone = ways.length === 1;

    this.#watch = new PacketWatch(target.transport);
    const toClient = joinTransforms(this.#watch, link.down);
    for (const plain of this.#opening.takeAnswer()) toClient.push(plain, channel);
    this.#opening = undefined;
    return new Splice({
      client: channel,
      upstream: upstream.channel,
      link: joinLinks(link, { up: upstream.link.up, down: joinTransforms(upstream.link.down, this.#watch) }),
      counts: this.counts,
    });
  }

  /** Lets a stranger see the cover site for as long as it wants to. */
  async #show(mask: Mask): Promise<void> {
    this.#mask = mask;
    await mask.ended;
    this.#ended("masked");
  }

  onAddress(address: string): void {
    this.client = address;
  }

  onArrived(visit: Visit): void {
    this.#visit = visit;
  }

  onUser(user: string): void {
    if (this.#barred?.has(user) === true) throw new RefusedError("user-disabled");
    this.#user = user;
  }

  onRefused(why: RefusalReason, user: string | undefined): void {
    this.#user = undefined;
    this.secret = user;
    this.#deps.observe({ type: "refused", session: this, why });
  }

  onMasked(why: MaskReason, detail: string): void {
    this.#deps.observe({ type: "masked", session: this, why, detail });
  }

  onAttempt({ route, endpoint }: Way): void {
    this.#deps.observe({ type: "attempt", session: this, route, endpoint });
  }

  onAttemptFailed(attempt: RouteAttempt): void {
    this.#deps.observe({ type: "route-failed", session: this, attempt });
  }

  onConnected(way: Way, upstream: Upstream, openMs: number): void {
    this.#use(way, upstream);
    this.#deps.observe({ type: "connected", session: this, warm: upstream.warm, openMs });
  }

  #moveTo(way: Way, upstream: Upstream, openMs: number): void {
    const from = this.route ?? "";
    this.#use(way, upstream);
    this.#deps.observe({ type: "rerouted", session: this, from, warm: upstream.warm, openMs });
  }

  #use(way: Way, { channel }: Upstream): void {
    this.#way = way;
    this.#upstream = channel;
    this.route = way.route;
    this.endpoint = way.endpoint;
  }

  /** Looks whether something crossed since the last look, `elapsedMs` ago; pings or ends what is quiet. */
  look(elapsedMs: number, limits: QuietLimits): void {
    const splice = this.#splice;
    this.#mask?.look(elapsedMs);
    if (this.#upstream === undefined) return;
    // What leaves a queue is progress, too: a slow client may take the rest long after its data centre has gone.
    const queued = splice?.closing === true ? splice.queuedBytes : 0;
    const { up, down } = this.counts;
    const quiet = up + down === this.#lastTotal && queued === this.#lastQueued;
    this.#quietMs = quiet ? this.#quietMs + elapsedMs : 0;
    this.#quietDownMs = quiet || down === this.#lastDown ? this.#quietDownMs + elapsedMs : 0;
    this.#lastTotal = up + down;
    this.#lastDown = down;
    this.#lastQueued = queued;
    if (splice?.closing === true) {
      if (this.#quietMs >= limits.closingMs) splice.destroy(); // it ends for the reason for which it began to
    } else if (this.#quietMs >= limits.idleMs) {
      this.stop("idle");
    } else if (splice !== undefined && this.#stalled(limits)) {
      this.stop("stalled");
    } else if (this.#quietMs > 0 && this.#quietMs % limits.pingMs < elapsedMs) {
      this.#upstream.ping();
    }
  }

  /** Opening is not health: tells what way carries, and what does not. `true` when the client is better off elsewhere. */
  #stalled({ stalledMs, silentMs }: QuietLimits): boolean {
    const { up, down } = this.counts;
    if (!this.#proved && down > 0) {
      this.#proved = true;
      if (this.#way !== undefined) this.#deps.standings.proved(this.target ?? "", this.#way);
      this.#way?.served?.();
    } else if (!this.#proved && !this.#judged && up > 0 && this.#quietMs >= silentMs) {
      this.#blameSilence();
      return !this.#alone;
    }
    if (this.#quietDownMs < stalledMs || this.#watch?.withinPacket !== true || this.#client.queuedBytes > 0) {
      return false;
    }
    this.#blame(new RouteError("STALLED", `stopped within a packet after ${formatBytes(down)}`));
    return true;
  }

  /** A client that sent more than can be sent again, waited in vain and left: its next connection goes elsewhere. */
  #blameForOneWhoLeft(): void {
    if (this.#proved || this.#judged || this.counts.down > 0 || this.counts.up === 0) return;
    if (this.#quietMs >= PATIENCE_MS) this.#blameSilence();
  }

  #blameSilence(): void {
    this.#judged = true;
    this.#blame(new RouteError("SILENT", `open, but no answer for ${this.#quietMs / 1000} s`));
  }

  #blame(error: RouteError): void {
    const way = this.#way;
    if (way === undefined) return;
    this.#deps.standings.failedToCarry(this.target ?? "", way, error.code);
    way.failed?.();
    this.onAttemptFailed({ route: way.route, endpoint: way.endpoint, error });
  }

  /** The network may have changed under the connection: asks its data centre for a sign of life. */
  ask(): void {
    const upstream = this.#upstream;
    upstream?.ping();
    this.#asked = upstream && { down: this.counts.down, queued: upstream.queuedBytes };
  }

  /**
   * Some time after {@link Session.ask}: ends a session whose data centre gave no sign of life.
   *
   * @param withoutPings Also one that there is no way to ask: TCP that has been quiet.
   */
  dropIfDead({ withoutPings }: { readonly withoutPings: boolean }): void {
    const upstream = this.#upstream;
    const asked = this.#asked;
    if (upstream === undefined || asked === undefined || this.counts.down !== asked.down) return;
    const stuck = asked.queued > 0 && upstream.queuedBytes >= asked.queued;
    if (stuck || (upstream.unanswered && (upstream.answersPings || withoutPings)))
      this.stop("network-changed");
  }

  /**
   * Has it go no faster than its user's rate from now on, if there is one, and it does not yet.
   *
   * Sessions of users without a rate have nothing around their channel that could be told to.
   */
  async slow(): Promise<void> {
    const splice = this.#splice;
    const rate = this.#grant?.rate;
    if (splice === undefined || rate === undefined || this.#throttled) return;
    this.#throttled = true;
    const channel = await throttle(this.#client, rate);
    if (!this.stopped && splice.replaceClient(channel)) this.#client = channel;
  }

  /** Whose secret it has shown, unless that was refused: known a little sooner than {@link Session.secret}. */
  get user(): string | undefined {
    return this.#user;
  }

  /**
   * Ends it, as `revoked`, when it is for one of these users.
   *
   * @param current What those get who come now. Who has something older knows secrets that may be revoked as well, and
   * may be about to show one.
   */
  revoke(users: ReadonlySet<string>, current: SessionDeps): void {
    if (this.#user !== undefined) {
      if (users.has(this.#user)) this.stop("revoked");
    } else if (this.#entrance !== undefined && this.#deps !== current) {
      this.#barred = this.#barred === undefined ? users : new Set([...this.#barred, ...users]);
    }
  }

  /** Bytes that wait to be sent, on both sides. */
  get queuedBytes(): number {
    if (this.stopped) return 0;
    return (this.#splice ?? this.#mask ?? this.#upstream)?.queuedBytes ?? 0;
  }

  /** It was told to end, and is about to. */
  get stopped(): boolean {
    return this.#stoppedFor !== undefined;
  }

  /** Returns {@link Session.queuedBytes}, and notes whether they are on the move. @param now `performance.now()`. */
  weigh(now: number): number {
    const queued = this.queuedBytes;
    if (queued === 0 && this.#weighed === 0) return 0;
    const total = this.counts.up + this.counts.down;
    const stalled = queued > 0 && queued === this.#weighed && total === this.#weighedTotal;
    this.#weighed = queued;
    this.#weighedTotal = total;
    if (!stalled) this.#stalledAt = undefined;
    else this.#stalledAt ??= now;
    return queued;
  }

  /** For how long nothing has moved although something is queued, when it was last weighed; in milliseconds. */
  stalledMs(now: number): number {
    return this.#stalledAt === undefined ? 0 : now - this.#stalledAt;
  }

  /**
   * How well it can be done without, by what it is: 0 a stranger, or one who may be; 1 a client.
   *
   * And how long it has been of no use, in milliseconds.
   */
  get use(): { readonly rank: 0 | 1; readonly quietMs: number } {
    if (this.#mask !== undefined) return { rank: 0, quietMs: this.#mask.quietMs };
    if (this.#entrance !== undefined) return { rank: 0, quietMs: performance.now() - this.startedAt };
    return { rank: 1, quietMs: this.#quietMs };
  }

  /** Adds what has crossed it since the last call to what its user has moved. */
  tally(usage: Map<string, { up: number; down: number }>): void {
    const user = this.#user;
    const { up, down } = this.counts;
    const total = up + down;
    if (user === undefined || total === this.#tallied.up + this.#tallied.down) return;
    let of = usage.get(user);
    if (of === undefined) {
      of = { up: 0, down: 0 };
      usage.set(user, of);
    }
    of.up += up - this.#tallied.up;
    of.down += down - this.#tallied.down;
    this.#tallied = { up, down };
  }

  /** A way to its data centre is open, and has answered or is the best guess. */
  get connected(): boolean {
    return this.#splice !== undefined;
  }

  /** Ends the session now. */
  stop(reason: EndReason): void {
    this.#stoppedFor ??= reason;
    this.#entrance?.stop();
    this.#opening?.stop();
    this.#splice?.destroy();
    this.#mask?.destroy();
    this.#client.destroy();
    this.#channel.destroy();
  }

  #ended(reason: EndReason, error?: Error): void {
    const stopped = this.#stoppedFor;
    // What breaks because it is being ended from here is no news.
    const why = stopped === undefined ? { reason, error } : { reason: stopped, error: undefined };
    this.#deps.observe({ type: "ended", session: this, ...why });
  }

  /** The only place that turns errors into reasons. */
  #failed(error: unknown): void {
    if (error instanceof HandshakeError && error.code === "BAD_PROXY_HEADER") {
      this.#ended("bad-proxy-header", error);
    } else if (error instanceof RefusedError) {
      this.#ended("refused");
    } else if (error instanceof RouteError) {
      // The cover site is out of reach, unless nobody waits for it any more; of the routes it would be a NoRouteError.
      this.#ended("masked", error.code === "ABORTED" ? undefined : error);
    } else if (error instanceof HandshakeError) {
      this.#ended(error.code === "TIMEOUT" ? "stranger" : "left-early", error);
    } else if (error instanceof NoRouteError) {
      this.#ended(this.#opening?.abandoned === true ? "left-early" : "no-route", error);
    } else {
      this.#ended("internal-error", error instanceof Error ? error : new Error(String(error)));
    }
  }
}

/** Loaded by need: few have such a limit. */
async function throttle(channel: Channel, rate: RateBucket): Promise<Channel> {
  const { ThrottledChannel } = await import("./throttled-channel.ts");
  return new ThrottledChannel(channel, rate);
}

function reasonOf({ endedBy, error }: SpliceEnd): EndReason {
  if (endedBy === "client") return error === undefined ? "client-closed" : "client-error";
  return error === undefined ? "upstream-closed" : "upstream-error";
}
