import type { ChannelSink } from "../channel/channel.ts";
import type { Upstream, Way } from "../upstream/route.ts";

/** Who waits for a {@link Trial} to come out. */
export interface TrialListener {
  /** The first bytes have come back, and each time more do. */
  onAnswered(trial: Trial): void;
  /** The other side has gone, or has said its last. Comes again with each sign of it. */
  onTrialEnded(trial: Trial, error: Error | undefined): void;
}

/** A way that has opened, and whether anything comes back over it. */
export class Trial implements ChannelSink {
  readonly way: Way;
  readonly upstream: Upstream;
  /** Milliseconds from start to open. */
  readonly openMs: number;
  readonly #listener: TrialListener;
  readonly #openedAt = performance.now();
  #heard: Uint8Array[] = [];

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

  /** How long it has owed an answer to what was asked at `askedAt`, in milliseconds. */
  waitedMs(askedAt: number | undefined, now: number): number {
    return askedAt === undefined ? 0 : now - Math.max(askedAt, this.#openedAt);
  }

  send(plain: Uint8Array): void {
    this.upstream.link.up.push(plain, this.upstream.channel);
  }

  takeHeard(): Uint8Array[] {
    const heard = this.#heard;
    this.#heard = [];
    return heard;
  }

  onChunk(chunk: Uint8Array): void {
    this.#heard.push(chunk);
    this.#listener.onAnswered(this);
  }

  onEnd(): void {
    this.#listener.onTrialEnded(this, undefined);
  }

  onDrain(): void {}

  onClose(error?: Error): void {
    this.#listener.onTrialEnded(this, error);
  }
}
