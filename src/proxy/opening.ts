import type { Channel, ChannelSink } from "../channel/channel.ts";
import type { Link, Output } from "../channel/transform.ts";
import { release } from "../core/bytes.ts";
import { NoRouteError, type RouteAttempt, RouteError } from "../core/errors.ts";
import type { Target } from "../protocol/mtproto/dc.ts";
import { asksForQuickAck, beginsLikePacket } from "../protocol/mtproto/first-answer.ts";
import { PacketBoundaries } from "../protocol/mtproto/packet-boundaries.ts";
import { Race, type RaceListener } from "../upstream/race.ts";
import type { Upstream, Way } from "../upstream/route.ts";
import type { Standings } from "../upstream/standings.ts";
import {
  DOUBT_GAP_FACTOR,
  DOUBT_MS,
  FAIR_FACTOR,
  FAIR_LEAST_MS,
  IDLE_CLOSE_MS,
  MOST_TRIALS,
  OPEN_LIMIT_MS,
  SECOND_CHANCE_MS,
  SILENT_FOR_ONE_WHO_LEFT_MS,
  SILENT_MS,
  STUCK_LOOKS,
  UPLOAD_LOOK_MS,
} from "./patience.ts";
import { Replay, type ReplayBudget } from "./replay.ts";
import { Trial, type TrialListener } from "./trial.ts";

const SLICE = 64 * 1024;
/** What is held for a client before any way is open. One read of the operating system may go over it. */
const HOLD_LIMIT = 64 * 1024;

/** What an opening came to. */
export interface Opened {
  readonly way: Way;
  readonly upstream: Upstream;
  /** Milliseconds from start to open. */
  readonly openMs: number;
  /** It has answered the client. */
  readonly proved: boolean;
  /** It has, or it had its time and there is nothing more to say about its silence. */
  readonly judged: boolean;
}

/** What happens before an opening is over. */
export interface OpeningListener {
  onAttempt(way: Way): void;
  onAttemptFailed(attempt: RouteAttempt): void;
  /** The first way is open; the client's bytes go there for now. */
  onConnected(way: Way, upstream: Upstream, openMs: number): void;
}

/** What an opening joins. */
export interface OpeningParts {
  readonly client: Channel;
  /** The client's own link: decrypts what it sends. */
  readonly link: Link;
  readonly target: Target;
  /** The target, as standings and logs name it. */
  readonly name: string;
  readonly ways: readonly Way[];
  readonly standings: Standings;
  readonly counts: { up: number; down: number };
  /** Shared by all sessions. */
  readonly replays: ReplayBudget;
  readonly listener: OpeningListener;
}

/**
 * The time between a client's handshake and the first byte that Telegram answers.
 *
 * Opening is not health: Telegram meets a good init with silence, a Worker's 101 says nothing about its own
 * connection, and some networks let a connection open and nothing through. So the client's first packets are
 * kept, and sent again over the next way when none comes back; MTProto knows a message that comes twice
 * by its id. The first way to answer is the session's, and the others are closed.
 */
export class Opening implements ChannelSink, RaceListener, TrialListener, Output {
  /** Settles when a way has answered, or is the best guess; rejects with {@link NoRouteError}, or a bug. */
  readonly done: Promise<Opened>;
  /** The client left before that. */
  abandoned = false;
  readonly #parts: OpeningParts;
  readonly #resolve: (opened: Opened) => void;
  readonly #reject: (error: unknown) => void;
  readonly #race: Race;
  readonly #boundaries: PacketBoundaries;
  /** Open ways without an answer, the best one first. */
  #trials: Trial[] = [];
  /** Ways that opened beside another one and wait for doubt. */
  #standby: Trial[] = [];
  #doubting = false;
  /** What the client has sent so far, decrypted. */
  readonly #replay: Replay;
  /** When the client had sent a whole packet, which should be answered: `performance.now()`. */
  #askedAt: number | undefined;
  #wantsQuickAck = false;
  /** The client waits until a way is open. */
  #held = false;
  #clientEnded = false;
  #doubt: ReturnType<typeof setTimeout> | undefined;
  #patienceMs: number = DOUBT_MS.least;
  #limit: ReturnType<typeof setTimeout> | undefined;
  #chosen: Trial | undefined;
  /** A way has opened, whatever came of it. */
  #connected = false;
  /** What an open way had still to send when it was last looked at. */
  #lastQueued = Number.POSITIVE_INFINITY;
  #stuckLooks = 0;
  readonly #startedAt = performance.now();
  #settled = false;

  constructor(parts: OpeningParts) {
    const { promise, resolve, reject } = Promise.withResolvers<Opened>();
    this.done = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#parts = parts;
    this.#boundaries = new PacketBoundaries(parts.target.transport);
    this.#replay = new Replay(parts.replays);
    this.#race = new Race(parts.ways, parts.target, parts.name, parts.standings, this);
  }

  /** @param early What was read from the client before; belongs to the opening. */
  start(early: Uint8Array): void {
    this.#limit = setTimeout(() => this.#giveUp(), OPEN_LIMIT_MS);
    if (early.length > 0) this.onChunk(early);
    this.#parts.client.attach(this);
    if (!this.#held) this.#parts.client.resume();
    this.#race.go();
  }

  /** What came over the chosen way before the caller attached itself to it, decrypted; it belongs to the caller. */
  takeAnswer(): readonly Uint8Array[] {
    this.#parts.counts.down += this.#chosen?.received ?? 0;
    return this.#chosen?.takeHeard() ?? [];
  }

  /** Ends it, and everything that it has opened. */
  stop(): void {
    this.#race.stop(); // first, so that what is under way counts as refused, too
    if (!this.#connected && !this.abandoned) this.#parts.standings.excuse(this.#race.excusable);
    this.#fail(new NoRouteError(this.#parts.name, this.#race.failed));
  }

  // The client.

  onChunk(chunk: Uint8Array): void {
    this.#parts.counts.up += chunk.length;
    const { up } = this.#parts.link;
    try {
      for (let at = 0; at < chunk.length; at += SLICE) up.push(chunk.subarray(at, at + SLICE), this);
    } catch (error) {
      this.#fail(error); // a bug in a transform, the client's or a way's
      return;
    }
    release(chunk);
    if (this.#settled) return;
    const [first] = this.#trials;
    if (first === undefined && this.#replay.overflowed) {
      // Nobody to take it, and no room to keep it: better no session than one with a hole in it.
      const why = "too many clients wait, there is no memory for its first packets";
      this.#fail(new NoRouteError(this.#parts.name, this.#race.failed, why));
    } else if (first === undefined) {
      this.#held = this.#replay.bytes.length >= HOLD_LIMIT;
      if (this.#held) this.#parts.client.pause();
    } else if (this.#replay.overflowed) {
      this.#choose(first);
    }
  }

  /** What the client's link has decrypted. */
  write(plain: Uint8Array): void {
    if (this.#chosen !== undefined) {
      this.#chosen.send(plain);
      return;
    }
    if (this.#replay.empty) this.#wantsQuickAck = asksForQuickAck(plain, this.#parts.target.transport);
    this.#replay.add(plain);
    for (const trial of this.#trials) trial.send(plain);
    if (this.#askedAt !== undefined) return;
    this.#boundaries.advance(plain, 0);
    // The end of the first packet, or of its quick-ack twin: one is enough, what follows is not looked at.
    if (!this.#boundaries.atBoundary && !this.#boundaries.broken) return;
    this.#askedAt = performance.now();
    this.#watchSilence();
  }

  onEnd(): void {
    if (this.#clientEnded) return;
    this.#clientEnded = true;
    if (this.#settled) return;
    const [first] = this.#trials;
    const judged = this.#blameForOneWhoLeft(); // apps leave by a FIN, too
    if (this.#replay.empty) this.#abandon();
    else if (first !== undefined) this.#choose(first, { proved: false, judged });
  }

  onDrain(): void {}

  onClose(): void {
    this.#abandon();
  }

  // The race.

  onStarted(way: Way): void {
    this.#parts.listener.onAttempt(way);
  }

  onOpened(way: Way, upstream: Upstream, openMs: number): void {
    if (this.#settled) {
      upstream.channel.destroy();
      return;
    }
    const trial = new Trial(this, way, upstream, openMs);
    if (!this.#connected) this.#parts.listener.onConnected(way, upstream, openMs);
    this.#connected = true;
    if (this.#trials.length > 0 && !this.#doubting) {
      this.#standby.push(trial); // the client's packets are not sent twice without need
      return;
    }
    this.#activate(trial);
    if (this.#askedAt === undefined) this.#race.hold(); // nobody waits for an answer: one is enough
  }

  onFailed(attempt: RouteAttempt): void {
    this.#parts.listener.onAttemptFailed(attempt);
  }

  onExhausted(): void {
    if (this.#trials.length === 0) this.stop();
  }

  onFault(error: unknown): void {
    this.#fail(error);
  }

  // The trials.

  /** Lets a way have what the client has sent, and will send. */
  #activate(trial: Trial): void {
    this.#trials.push(trial);
    const { bytes } = this.#replay;
    for (let at = 0; at < bytes.length; at += SLICE) trial.send(bytes.subarray(at, at + SLICE));
    this.#parts.client.resume();
    if (this.#clientEnded || this.#replay.overflowed) this.#choose(trial);
    else this.#watchSilence();
  }

  isAnswer(plain: Uint8Array): boolean | undefined {
    return beginsLikePacket(plain, this.#parts.target.transport, { wantsQuickAck: this.#wantsQuickAck });
  }

  /** Called by a trial: the first bytes have come back. */
  onAnswered(trial: Trial): void {
    if (this.#settled) return;
    if (!this.#trials.includes(trial)) {
      this.#dropStandby(trial); // it speaks although nobody has asked: not Telegram
      return;
    }
    this.#parts.standings.proved(this.#parts.name, trial.way);
    trial.way.served?.();
    this.#race.won(trial.startedAt);
    const now = performance.now();
    const fair = Math.max(trial.waitedMs(this.#askedAt, now) * FAIR_FACTOR, FAIR_LEAST_MS);
    for (const other of this.#trials) {
      if (other !== trial && other.waitedMs(this.#askedAt, now) >= fair) this.#blame(other, now);
    }
    this.#choose(trial, { proved: true, judged: true });
  }

  /** Called by a trial: the other side has gone, or has said its last without a word. */
  onTrialEnded(trial: Trial, error: Error | undefined): void {
    if (this.#settled) return;
    if (!this.#trials.includes(trial)) {
      this.#dropStandby(trial);
      return;
    }
    if (this.#askedAt === undefined && trial.ageMs >= IDLE_CLOSE_MS) {
      this.#choose(trial); // what comes next is the end of a session, and the client will come again
      return;
    }
    this.#trials = this.#trials.filter((other) => other !== trial);
    trial.upstream.channel.destroy();
    const cause = error === undefined ? {} : { cause: error };
    this.#report(trial, new RouteError("CLOSED", "closed before it answered", cause));
    if (this.#trials.length > 0) return;
    clearTimeout(this.#doubt);
    this.#doubt = undefined;
    this.#doubting = false;
    const next = this.#standby.shift();
    if (next !== undefined) {
      this.#activate(next);
      return;
    }
    const left = OPEN_LIMIT_MS - (performance.now() - this.#startedAt);
    clearTimeout(this.#limit);
    this.#limit = setTimeout(() => this.#giveUp(), Math.max(left, SECOND_CHANCE_MS));
    this.#race.go();
  }

  #dropStandby(trial: Trial): void {
    if (!this.#standby.includes(trial)) return;
    this.#standby = this.#standby.filter((other) => other !== trial);
    trial.upstream.channel.destroy();
  }

  /** Doubt begins some time after the client has asked something, and a way is open that should have answered. */
  #watchSilence(): void {
    const [first] = this.#trials;
    if (this.#askedAt === undefined || first === undefined || this.#doubt !== undefined) return;
    const openMs = this.#parts.standings.openMs(this.#parts.name, first.way) ?? 0;
    this.#patienceMs = Math.min(Math.max(openMs * DOUBT_MS.factor, DOUBT_MS.least), DOUBT_MS.most);
    this.#doubt = setTimeout(() => this.#onDoubt(), this.#patienceMs);
  }

  #onDoubt(): void {
    let queued = 0;
    for (const { upstream } of this.#trials) queued += upstream.channel.queuedBytes;
    this.#stuckLooks = queued < this.#lastQueued ? 0 : this.#stuckLooks + 1;
    this.#lastQueued = queued;
    if (queued > 0 && this.#stuckLooks < STUCK_LOOKS) {
      this.#doubt = setTimeout(() => this.#onDoubt(), UPLOAD_LOOK_MS);
      return;
    }
    this.#doubting = true;
    clearTimeout(this.#limit);
    const left = SILENT_MS - (performance.now() - (this.#askedAt ?? 0));
    this.#limit = setTimeout(() => this.#giveUpWaiting(), Math.max(left, SECOND_CHANCE_MS));
    // A connection that was opened ahead may have died since: the same way, afresh, is the best bet.
    const stale = this.#trials.find(({ upstream }) => upstream.warm);
    if (stale === undefined) this.#tryAnother();
    else this.#tryAfresh(stale);
  }

  #tryAfresh({ way }: Trial): void {
    way.failed?.();
    this.#doubt = setTimeout(() => this.#tryAnother(), this.#patienceMs * DOUBT_GAP_FACTOR);
    this.#race.retry(way);
    this.#race.goOn(new Set());
  }

  /** Each gets a moment before there is one more. */
  #tryAnother(): void {
    this.#doubt = setTimeout(() => this.#tryAnother(), this.#patienceMs * DOUBT_GAP_FACTOR);
    if (this.#trials.length >= MOST_TRIALS) return;
    const ready = this.#standby.shift();
    if (ready !== undefined) this.#activate(ready);
    else if (this.#race.running < MOST_TRIALS)
      this.#race.goOn(new Set(this.#trials.map(({ way }) => way.route)));
  }

  /** Nobody has opened in time. */
  #giveUp(): void {
    if (this.#trials.length === 0) this.stop();
  }

  /** Nobody has answered: the best one goes on, for the client may have asked what needs no answer. */
  #giveUpWaiting(): void {
    const [first] = this.#trials;
    if (first === undefined) {
      this.stop();
      return;
    }
    // When all that there are say nothing, it is not them: the network is down, or the client wants no answer.
    const compared = this.#race.running > 0 || this.#race.left > 0;
    const now = performance.now();
    if (compared) for (const trial of this.#trials) this.#blame(trial, now);
    this.#choose(first, { proved: false, judged: true });
  }

  #blame(trial: Trial, now: number): void {
    const seconds = (trial.waitedMs(this.#askedAt, now) / 1000).toFixed(1);
    this.#report(trial, new RouteError("SILENT", `open, but no answer for ${seconds} s`));
  }

  #report({ way, upstream }: Trial, error: RouteError): void {
    way.failed?.();
    if (upstream.warm) {
      // A connection that was opened ahead may have died since: that says little of the way, which is tried afresh.
      this.#note(way, new RouteError("CLOSED", "the connection that was kept ready had died"));
      this.#race.retry(way);
    } else {
      this.#parts.standings.failedToCarry(this.#parts.name, way, error.code);
      this.#note(way, error);
    }
  }

  #note({ route, endpoint }: Way, error: RouteError): void {
    const attempt = { route, endpoint, error };
    this.#race.failed.push(attempt);
    this.#parts.listener.onAttemptFailed(attempt);
  }

  #choose(chosen: Trial, verdict: Pick<Opened, "proved" | "judged"> = UNJUDGED): void {
    if (!this.#settle()) return;
    this.#chosen = chosen;
    this.#dropAllBut(chosen);
    const { way, upstream, openMs } = chosen;
    this.#resolve({ way, upstream, openMs, ...verdict });
  }

  #abandon(): void {
    if (this.#settled) return;
    this.abandoned = true;
    this.#blameForOneWhoLeft();
    this.stop();
  }

  /** @returns Whether the client had waited so long that somebody is to blame. */
  #blameForOneWhoLeft(): boolean {
    const now = performance.now();
    const silent = this.#trials.filter((trial) => {
      return trial.waitedMs(this.#askedAt, now) >= SILENT_FOR_ONE_WHO_LEFT_MS;
    });
    for (const trial of silent) this.#blame(trial, now);
    return silent.length > 0;
  }

  #fail(error: unknown): void {
    if (!this.#settle()) return;
    this.#dropAllBut(undefined);
    this.#reject(error);
  }

  #dropAllBut(chosen: Trial | undefined): void {
    for (const trial of [...this.#trials, ...this.#standby]) {
      if (trial !== chosen) trial.upstream.channel.destroy();
    }
    this.#trials = [];
    this.#standby = [];
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    this.#replay.clear();
    clearTimeout(this.#doubt);
    clearTimeout(this.#limit);
    this.#race.stop();
    return true;
  }
}

const UNJUDGED = { proved: false, judged: false } as const;
