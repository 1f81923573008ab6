import type { ChannelSink } from "../channel/channel.ts";
import type { Output } from "../channel/transform.ts";
import { concatBytes, release } from "../core/bytes.ts";
import type { Upstream, Way } from "../upstream/route.ts";

/** A middlebox says less than this, and closes sooner. */
const DOUBTFUL_BYTES = 1024;
const DOUBTFUL_MS = 300;

/** Who waits for a {@link Trial} to come out. */
export interface TrialListener {
  /** The first bytes have come back, and each time more do. */
  onAnswered(trial: Trial): void;
  /** Whether what has come back begins like an answer; `undefined` when that cannot be told yet. */
  isAnswer(plain: Uint8Array): boolean | undefined;
  /** The other side has gone, or has said its last. Comes again with each sign of it. */
  onTrialEnded(trial: Trial, error: Error | undefined): void;
}

/** A way that has opened, and whether anything comes back over it. */
export class Trial implements ChannelSink, Output {
  readonly way: Way;
  readonly upstream: Upstream;
  /** Milliseconds from start to open. */
  readonly openMs: number;
  readonly #listener: TrialListener;
  readonly #openedAt = performance.now();
  /** When it got its first byte of the client. */
  #sentAt: number | undefined;
  #heard: Uint8Array[] = [];
  /** Bytes that have come back, as they came. */
  received = 0;
  #answered = false;
  #suspicion: ReturnType<typeof setTimeout> | undefined;

  constructor(listener: TrialListener, way: Way, upstream: Upstream, openMs: number) {
    this.#listener = listener;
    this.way = way;
    this.upstream = upstream;
    this.openMs = openMs;
    upstream.channel.attach(this);
  }

  /** Milliseconds since it opened. */
  get ageMs(): number {
    return performance.now() - this.#openedAt;
  }

  /** When it began to be opened, `performance.now()`. */
  get startedAt(): number {
    return this.#openedAt - this.openMs;
  }

  /** How long it has owed an answer to what was asked at `askedAt`, in milliseconds. */
  waitedMs(askedAt: number | undefined, now: number): number {
    return askedAt === undefined || this.#sentAt === undefined ? 0 : now - Math.max(askedAt, this.#sentAt);
  }

  send(plain: Uint8Array): void {
    this.#sentAt ??= performance.now();
    this.upstream.link.up.push(plain, this.upstream.channel);
  }

  /** What has come back, decrypted; it belongs to the caller. */
  takeHeard(): Uint8Array[] {
    const heard = this.#heard;
    this.#heard = [];
    return heard;
  }

  onChunk(chunk: Uint8Array): void {
    this.received += chunk.length;
    this.upstream.link.down.push(chunk, this);
    release(chunk);
    if (this.#answered || this.#isAnswer()) this.#answer();
  }

  /** What the way's link has decrypted. */
  write(plain: Uint8Array): void {
    this.#heard.push(new Uint8Array(plain)); // not `slice`: a Buffer's does not copy
  }

  /**
   * What is no packet may be a middlebox that answers in Telegram's place: those say little and close. Who says
   * more, or stays, is taken for what it claims to be.
   */
  #isAnswer(): boolean {
    const [first = new Uint8Array(0)] = this.#heard;
    const answer = this.#listener.isAnswer(first.length < 4 ? concatBytes(this.#heard) : first);
    if (answer === true || this.received > DOUBTFUL_BYTES) return true;
    this.#suspicion ??= setTimeout(() => this.#answer(), DOUBTFUL_MS);
    return false;
  }

  #answer(): void {
    clearTimeout(this.#suspicion);
    this.#answered = true;
    this.#listener.onAnswered(this);
  }

  onEnd(): void {
    clearTimeout(this.#suspicion);
    this.#listener.onTrialEnded(this, undefined);
  }

  onDrain(): void {}

  onClose(error?: Error): void {
    clearTimeout(this.#suspicion);
    this.#listener.onTrialEnded(this, error);
  }
}
