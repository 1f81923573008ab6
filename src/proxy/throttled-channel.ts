import type { Channel, ChannelSink } from "../channel/channel.ts";
import { release } from "../core/bytes.ts";
import type { RateBucket } from "./gate.ts";

/** Moved at a time: small, so that a slow rate does not come in lumps. */
const SLICE = 4 * 1024;

/**
 * A channel whose bytes, both ways together, go as fast as a bucket lets them.
 *
 * What is read too early is held, at most one read, and pauses the channel; what is written too early is queued, and
 * makes it congested. So both ends of a session slow down, and nothing piles up here.
 */
export class ThrottledChannel implements Channel, ChannelSink {
  readonly #inner: Channel;
  readonly #bucket: RateBucket;
  #sink: ChannelSink | undefined;
  /** Read, and not passed on yet, oldest first. */
  readonly #held: Uint8Array[] = [];
  /** So much of the first of them has been passed on. */
  #heldAt = 0;
  /** The sink wants nothing for now. */
  #paused = false;
  #peerEnded = false;
  /** The channel has closed, and the sink has not heard it yet. */
  #closing = false;
  #closed = false;
  /** Written, and not passed on yet, oldest first. */
  readonly #queue: Uint8Array[] = [];
  /** So much of the first of them has been passed on. */
  #queueAt = 0;
  #queued = 0;
  #announceDrain = false;
  /** What comes after the queue. */
  #last: "end" | "close" | "reset" | undefined;
  #stopWaiting: (() => void) | undefined;

  constructor(inner: Channel, bucket: RateBucket) {
    this.#inner = inner;
    this.#bucket = bucket;
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink;
    this.#inner.attach(this);
    if (this.#held.length > 0 || this.#peerEnded || this.#closing) queueMicrotask(() => this.#move());
  }

  write(bytes: Uint8Array): void {
    if (this.#closed || this.#last !== undefined) return;
    let at = 0;
    if (this.#queued === 0) {
      while (at < bytes.length && !this.#bucket.empty) {
        const slice = bytes.subarray(at, at + SLICE);
        this.#bucket.spend(slice.length);
        this.#inner.write(slice);
        at += slice.length;
      }
    }
    if (at === bytes.length) return;
    const rest = new Uint8Array(bytes.subarray(at)); // not `slice`: a Buffer's does not copy
    this.#queue.push(rest);
    this.#queued += rest.length;
    this.#wait();
  }

  get congested(): boolean {
    if (this.#queued > 0) {
      this.#announceDrain = true;
      return true;
    }
    return this.#inner.congested;
  }

  get queuedBytes(): number {
    return this.#queued + this.#inner.queuedBytes;
  }

  pause(): void {
    this.#paused = true;
    this.#inner.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#held.length === 0) this.#inner.resume();
    else this.#wait();
  }

  end(): void {
    this.#finish("end");
  }

  close(): void {
    this.#finish("close");
  }

  reset(): void {
    this.#finish("reset");
  }

  destroy(): void {
    this.#drop();
    this.#inner.destroy();
  }

  ping(): void {
    this.#inner.ping();
  }

  get answersPings(): boolean {
    return this.#inner.answersPings;
  }

  get unanswered(): boolean {
    return this.#inner.unanswered;
  }

  onChunk(chunk: Uint8Array): void {
    if (this.#held.length === 0 && chunk.length <= SLICE && !this.#paused && !this.#bucket.empty) {
      this.#bucket.spend(chunk.length);
      this.#sink?.onChunk(chunk);
      return;
    }
    this.#held.push(chunk);
    this.#move();
  }

  onEnd(): void {
    this.#peerEnded = true;
    if (this.#held.length === 0) this.#sink?.onEnd();
  }

  onDrain(): void {
    if (this.#queued > 0) {
      this.#move();
      return;
    }
    this.#announceDrain = false;
    this.#sink?.onDrain();
  }

  onClose(error?: Error): void {
    this.#closed = true;
    if (error === undefined && this.#held.length > 0) {
      this.#dropQueue();
      this.#closing = true; // what the peer has sent before it went is delivered first
      return;
    }
    this.#drop();
    this.#sink?.onClose(error);
  }

  #finish(how: "end" | "close" | "reset"): void {
    if (this.#last === undefined || this.#last === "end") this.#last = how;
    if (this.#queued === 0) this.#sayLast();
  }

  #sayLast(): void {
    if (this.#last === "end") this.#inner.end();
    else if (this.#last === "close") this.#inner.close();
    else if (this.#last === "reset") this.#inner.reset();
  }

  #drop(): void {
    this.#stopWaiting?.();
    this.#stopWaiting = undefined;
    for (const chunk of this.#held.splice(0)) release(chunk);
    this.#heldAt = 0;
    this.#dropQueue();
  }

  #dropQueue(): void {
    for (const rest of this.#queue.splice(0)) release(rest);
    this.#queueAt = 0;
    this.#queued = 0;
  }

  /** In line for the bucket, once for both directions. */
  #wait(): void {
    this.#stopWaiting ??= this.#bucket.whenReady(() => {
      this.#stopWaiting = undefined;
      this.#move();
    });
  }

  /** Moves what waits in both directions, a slice of each in turn, until the bucket is empty. */
  #move(): void {
    let moved = true;
    while (moved && !this.#bucket.empty) {
      const out = this.#moveOut();
      moved = this.#moveIn() || out;
    }
    const waitsIn = this.#held.length > 0 && !this.#paused && this.#sink !== undefined;
    const waitsOut = this.#queued > 0 && !this.#inner.congested;
    if (this.#held.length > 0) this.#inner.pause();
    if (waitsIn || waitsOut) this.#wait();
  }

  #moveOut(): boolean {
    const [first] = this.#queue;
    if (first === undefined || this.#inner.congested) return false;
    const slice = first.subarray(this.#queueAt, this.#queueAt + SLICE);
    this.#bucket.spend(slice.length);
    this.#inner.write(slice);
    this.#queued -= slice.length;
    this.#queueAt += slice.length;
    if (this.#queueAt === first.length) {
      this.#queueAt = 0;
      this.#queue.shift();
      release(first);
    }
    if (this.#queued > 0) return true;
    if (this.#last !== undefined) this.#sayLast();
    else if (this.#announceDrain && !this.#inner.congested) {
      this.#announceDrain = false;
      this.#sink?.onDrain();
    }
    return true;
  }

  #moveIn(): boolean {
    const [first] = this.#held;
    const sink = this.#sink;
    if (sink === undefined || this.#paused) return false;
    if (first === undefined) return false;
    // A copy, since the sink may give its memory back.
    const slice = new Uint8Array(first.subarray(this.#heldAt, this.#heldAt + SLICE));
    this.#bucket.spend(slice.length);
    this.#heldAt += slice.length;
    if (this.#heldAt === first.length) {
      this.#heldAt = 0;
      this.#held.shift();
      release(first);
    }
    sink.onChunk(slice);
    if (this.#held.length > 0) return true;
    if (this.#closing) {
      this.#closing = false;
      this.#stopWaiting?.();
      this.#stopWaiting = undefined;
      if (this.#peerEnded) sink.onEnd();
      sink.onClose();
      return false;
    }
    if (this.#peerEnded) sink.onEnd();
    else if (!this.#paused) this.#inner.resume();
    return true;
  }
}
