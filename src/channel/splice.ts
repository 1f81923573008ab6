import { release } from "../core/bytes.ts";
import type { Channel, ChannelSink } from "./channel.ts";
import type { Link, Transform } from "./transform.ts";

/**
 * A chunk, which can be 512 KiB, goes through the transforms in slices of this many bytes: those stay in the
 * processor's cache, and the allocator can use the memory of one for the next.
 */
const SLICE = 64 * 1024;

/** Bytes that crossed in each direction, as they arrived. Counted while the splice runs. */
export interface ByteCounts {
  up: number;
  down: number;
}

/** Which side ended first; `error` when that was not a clean close. */
export interface SpliceEnd {
  readonly endedBy: "client" | "upstream";
  readonly error?: Error;
}

/** What {@link Splice} joins. */
export interface SpliceParts {
  readonly client: Channel;
  readonly upstream: Channel;
  readonly link: Link;
  readonly counts: ByteCounts;
  /** When a side breaks, the other is broken, too, instead of closed: nobody can tell that something is between. */
  readonly passResets?: boolean;
}

/**
 * Joins two channels until both have closed.
 *
 * A congested side pauses the side that feeds it, so memory per session stays bounded by one read and one
 * queue. A half-close is passed on: the other direction keeps flowing. When one side is gone, the other is
 * closed, not dropped: it still gets what was sent before. Nothing here watches a clock; whoever holds the
 * splice calls {@link Splice.destroy} when one that is {@link Splice.closing} makes no progress.
 */
export class Splice {
  /** Settles when both channels have closed; rejects when a transform throws, which is a bug. */
  readonly ended: Promise<SpliceEnd>;
  /** See {@link SpliceParts}. */
  readonly passResets: boolean;
  #client: Channel;
  readonly #upstream: Channel;
  readonly #up: Pump;
  readonly #down: Pump;
  readonly #resolve: (end: SpliceEnd) => void;
  readonly #reject: (error: unknown) => void;
  /** How it began to end. */
  #first: SpliceEnd | undefined;
  /** Channels that are not closed yet. */
  #open = 2;

  constructor({ client, upstream, link, counts, passResets = false }: SpliceParts) {
    const { promise, resolve, reject } = Promise.withResolvers<SpliceEnd>();
    this.ended = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#client = client;
    this.#upstream = upstream;
    this.passResets = passResets;
    this.#up = new Pump(this, "up", client, upstream, link.up, counts);
    this.#down = new Pump(this, "down", upstream, client, link.down, counts);
    client.attach(this.#up);
    upstream.attach(this.#down);
    // Whoever read from them before may have paused them when it had enough.
    if (!upstream.congested) client.resume();
    if (!client.congested) upstream.resume();
  }

  /** One of the sides has ended: what is left is to deliver what is under way. */
  get closing(): boolean {
    return this.#up.sourceEnded || this.#down.sourceEnded;
  }

  /** Bytes that wait to be sent, on both sides. */
  get queuedBytes(): number {
    return this.#client.queuedBytes + this.#upstream.queuedBytes;
  }

  /**
   * Has what the client says and hears go through `around` from now on, which is around the channel that it had.
   *
   * @returns False when it has begun to end: then it goes on as it was.
   */
  replaceClient(around: Channel): boolean {
    if (this.closing) return false;
    this.#client = around;
    this.#up.from = around;
    this.#down.to = around;
    around.attach(this.#up);
    if (this.#upstream.congested) around.pause(); // it has not heard of that; it will hear of the end
    return true;
  }

  /** Drops both channels and what they have queued. */
  destroy(): void {
    this.#client.destroy();
    this.#upstream.destroy();
  }

  /** Called by the pumps: the channel that feeds `direction` has said its last, or broke. */
  onEnded(direction: Direction, error: Error | undefined): void {
    const endedBy = direction === "up" ? "client" : "upstream";
    if (this.#first === undefined || (error !== undefined && this.#first.endedBy === endedBy)) {
      this.#first = error === undefined ? { endedBy } : { endedBy, error };
    }
  }

  /** Called by each pump once: the channel that feeds `direction` is gone. */
  onClosed(direction: Direction): void {
    const opposite = direction === "up" ? this.#down : this.#up;
    opposite.targetGone = true;
    this.#open -= 1;
    if (this.#open === 0 && this.#first !== undefined) this.#resolve(this.#first);
  }

  /** Called by the pumps: a transform threw. */
  onFault(error: unknown): void {
    this.#reject(error);
    this.destroy();
  }
}

type Direction = keyof ByteCounts;

/** One direction: what `from` brings goes through `transform` to `to`. Also hears when `from` can take more. */
class Pump implements ChannelSink {
  sourceEnded = false;
  /** Nobody is there to take what comes. */
  targetGone = false;
  from: Channel;
  to: Channel;
  readonly #splice: Splice;
  readonly #direction: Direction;
  readonly #transform: Transform;
  readonly #counts: ByteCounts;

  constructor(
    splice: Splice,
    direction: Direction,
    from: Channel,
    to: Channel,
    transform: Transform,
    counts: ByteCounts,
  ) {
    this.#splice = splice;
    this.#direction = direction;
    this.from = from;
    this.to = to;
    this.#transform = transform;
    this.#counts = counts;
  }

  onChunk(chunk: Uint8Array): void {
    if (this.targetGone) {
      // Not counted either: a client that talks to nobody must not keep its session alive.
      release(chunk);
      return;
    }
    this.#counts[this.#direction] += chunk.length;
    try {
      if (chunk.length <= SLICE) this.#transform.push(chunk, this.to);
      else
        for (let at = 0; at < chunk.length; at += SLICE) {
          this.#transform.push(chunk.subarray(at, at + SLICE), this.to);
        }
    } catch (error) {
      this.#splice.onFault(error);
      return;
    }
    release(chunk);
    if (this.to.congested) this.from.pause();
  }

  onEnd(): void {
    if (this.sourceEnded) return;
    this.sourceEnded = true;
    this.#splice.onEnded(this.#direction, undefined);
    this.to.end();
  }

  onDrain(): void {
    // `from` takes bytes again: those come from `to`.
    this.to.resume();
  }

  onClose(error?: Error): void {
    this.sourceEnded = true;
    this.#splice.onEnded(this.#direction, error);
    if (error !== undefined && this.#splice.passResets) this.to.reset();
    else this.to.close();
    // Nothing can be written to `from` any more, so reading `to` only serves to notice its end.
    this.to.resume();
    this.#splice.onClosed(this.#direction);
  }
}
