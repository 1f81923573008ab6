import type { ChannelSink, GatherChannel } from "../../src/channel/channel.ts";
import type { Link, Output, Transform } from "../../src/channel/transform.ts";

/** The real one, so that channels go on while a test has fake timers. */
const onNextTurn = setImmediate;

/**
 * One end of a connection that lives in memory, with the manners of a TCP socket.
 *
 * What is written is copied into a queue and delivered, one write a turn of the event loop, while the peer
 * listens and is not paused. The queue is the backpressure: from `highWater` on the writer is congested, and
 * `onDrain` follows when the peer has taken it. When both ends have ended, both close; when one end closes,
 * both do as soon as the peer has taken what was sent to it.
 */
export class MemoryChannel implements GatherChannel {
  /** How often {@link Channel.ping} was called. */
  pings = 0;
  /** As a WebSocket's, unless a test says something else. */
  answersPings = true;
  /** A peer in memory is there, unless a test says something else. */
  unanswered = false;
  readonly #highWater: number;
  #peer: MemoryChannel | undefined;
  #sink: ChannelSink | undefined;
  /** Written by the peer, not delivered yet, oldest first. */
  #inbox: Uint8Array[] = [];
  #inboxBytes = 0;
  #inboxEnded = false;
  #endDelivered = false;
  #paused = false;
  #ending = false;
  #closing = false;
  #announceDrain = false;
  #closed: { readonly error: Error | undefined } | undefined;
  #closeDelivered = false;
  #turnPlanned = false;

  constructor(highWater: number) {
    this.#highWater = highWater;
  }

  /** Makes two channels the ends of one connection. */
  static join(one: MemoryChannel, other: MemoryChannel): void {
    one.#peer = other;
    other.#peer = one;
  }

  /** Bytes that this end has written and the other has not taken. */
  get undelivered(): number {
    const peer = this.#peer;
    return peer === undefined ? 0 : peer.#inboxBytes;
  }

  get paused(): boolean {
    return this.#paused;
  }

  get closed(): boolean {
    return this.#closed !== undefined;
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink;
    // A new listener hears again what is lasting, as with the other channels.
    this.#endDelivered = false;
    this.#closeDelivered = false;
    this.#plan();
  }

  write(bytes: Uint8Array): void {
    const peer = this.#peer;
    if (this.#ending || this.#closed !== undefined || peer === undefined || bytes.length === 0) return;
    if (peer.#closing) return; // it takes what comes, and looks at none of it
    peer.#inbox.push(Uint8Array.from(bytes));
    peer.#inboxBytes += bytes.length;
    peer.#plan();
  }

  keepAlive(): void {}

  writeAll(parts: readonly Uint8Array[]): void {
    for (const part of parts) this.write(part);
  }

  get queuedBytes(): number {
    return this.undelivered;
  }

  get congested(): boolean {
    const congested = this.undelivered >= this.#highWater;
    if (congested) this.#announceDrain = true;
    return congested;
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#plan();
  }

  end(): void {
    const peer = this.#peer;
    if (this.#ending || this.#closed !== undefined || peer === undefined) return;
    this.#ending = true;
    peer.#inboxEnded = true;
    peer.#plan();
    this.#plan();
  }

  close(): void {
    if (this.#closing || this.#closed !== undefined) return;
    this.end();
    this.#closing = true;
    this.#inbox = [];
    this.#inboxBytes = 0;
    if (this.#peer !== undefined) this.#peer.#plan(); // it may be waiting for this end to take more
    this.#plan();
  }

  reset(): void {
    this.destroy();
  }

  destroy(): void {
    this.#close(undefined);
    const peer = this.#peer;
    if (peer !== undefined) peer.#close(new Error("connection reset by peer"));
  }

  ping(): void {
    this.pings += 1;
  }

  #close(error: Error | undefined): void {
    if (this.#closed !== undefined) return;
    this.#closed = { error };
    this.#inbox = [];
    this.#inboxBytes = 0;
    this.#plan();
  }

  #plan(): void {
    if (this.#turnPlanned) return;
    this.#turnPlanned = true;
    onNextTurn(() => {
      this.#turnPlanned = false;
      this.#turn();
    });
  }

  #turn(): void {
    const sink = this.#sink;
    if (sink === undefined) return;
    if (this.#closed !== undefined) {
      if (this.#inboxEnded && !this.#endDelivered) {
        this.#endDelivered = true;
        sink.onEnd();
      }
      if (this.#closeDelivered) return;
      this.#closeDelivered = true;
      sink.onClose(this.#closed.error);
      return;
    }
    const peer = this.#peer;
    if (this.#closing && this.undelivered === 0 && peer !== undefined) {
      this.#close(undefined);
      peer.#close(undefined);
      return;
    }
    const chunk = this.#paused ? undefined : this.#inbox.shift();
    if (chunk !== undefined) {
      this.#inboxBytes -= chunk.length;
      if (peer !== undefined) peer.#plan();
      this.#plan();
      sink.onChunk(chunk);
      return;
    }
    if (this.#announceDrain && this.undelivered < this.#highWater) {
      this.#announceDrain = false;
      this.#plan();
      sink.onDrain();
      return;
    }
    if (!this.#inboxEnded || this.#inbox.length > 0) return;
    if (!this.#endDelivered) {
      this.#endDelivered = true;
      this.#plan();
      sink.onEnd();
      return;
    }
    if (this.#ending && this.undelivered === 0 && peer !== undefined) {
      this.#close(undefined);
      peer.#close(undefined);
    }
  }
}

/**
 * Returns the two ends of a new connection in memory.
 *
 * @param highWater Undelivered bytes from which on the writing end is congested.
 */
export function memoryChannelPair(highWater = 64 * 1024): [MemoryChannel, MemoryChannel] {
  const one = new MemoryChannel(highWater);
  const other = new MemoryChannel(highWater);
  MemoryChannel.join(one, other);
  return [one, other];
}

/** A transform that changes nothing. */
export const unchanged: Transform = { push: (chunk, output) => output.write(chunk) };

/** A link that changes nothing. */
export const plainLink: Link = { up: unchanged, down: unchanged };

/** An output that calls `write`. Its bytes are only borrowed. */
export function toOutput(write: (message: Uint8Array) => void): Output {
  return { write };
}

/** Keeps what a channel tells its listener, in order, and lets a test wait for it. */
export class RecordingSink implements ChannelSink {
  readonly chunks: Uint8Array[] = [];
  /** `chunk`, `end`, `drain` and `close`, as they came. */
  readonly calls: string[] = [];
  error: Error | undefined;
  #waiting: (() => void)[] = [];

  get bytes(): Uint8Array {
    return Buffer.concat(this.chunks);
  }

  get length(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  onChunk(chunk: Uint8Array): void {
    this.chunks.push(chunk);
    this.#heard("chunk");
  }

  onEnd(): void {
    this.#heard("end");
  }

  onDrain(): void {
    this.#heard("drain");
  }

  onClose(error?: Error): void {
    this.error = error;
    this.#heard("close");
  }

  heard(call: string): boolean {
    return this.calls.includes(call);
  }

  /** Resolves as soon as `condition` holds, which is looked at after every call. */
  async until(condition: (sink: this) => boolean): Promise<void> {
    while (!condition(this)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    }
  }

  #heard(call: string): void {
    this.calls.push(call);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** Lets the event loop turn until nothing is left to deliver between memory channels. */
export async function settle(turns = 20): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    await new Promise<void>((resolve) => {
      onNextTurn(resolve);
    });
  }
}
