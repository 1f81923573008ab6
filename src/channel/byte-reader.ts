import { concatBytes, release } from "../core/bytes.ts";
import type { Cancel } from "../core/cancel.ts";
import { HandshakeError } from "../core/errors.ts";
import type { Channel, ChannelSink } from "./channel.ts";

/** What a {@link ByteReader} holds before it pauses the channel. One read of the operating system may go over it. */
const HOLD_LIMIT = 64 * 1024;

/** What {@link ByteReader.discard} swallows before it stops reading. */
const DISCARD_LIMIT = 256 * 1024;

/**
 * Reads exact numbers of bytes from the start of a channel, then hands the rest over.
 *
 * Bytes that arrived in one piece are returned as a view of that piece, without a copy.
 */
export class ByteReader implements ChannelSink {
  /** Called when the peer ends or closes the channel, maybe for each: for a caller that waits for something else. */
  onEnded: (() => void) | undefined;
  readonly #channel: Channel;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #wanted = 0;
  #waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #discarded: number | undefined;
  #ended = false;
  #closed = false;

  constructor(channel: Channel) {
    this.#channel = channel;
    channel.attach(this);
  }

  /** The peer is gone, or has said its last and nothing of it is held: there is nobody to serve. */
  get abandoned(): boolean {
    return this.#closed || (this.#ended && this.#heldBytes === 0);
  }

  /** The peer has said its last. */
  get ended(): boolean {
    return this.#ended;
  }

  /**
   * Waits for `length` bytes and takes them.
   *
   * @throws {HandshakeError} `CLOSED` when the channel ends first; `TIMEOUT` when `signal` aborts first.
   */
  async read(length: number, signal: Cancel): Promise<Uint8Array> {
    await this.#ensure(length, signal);
    return this.take(length);
  }

  /**
   * Waits until `length` bytes are there, and returns all that are, without taking them.
   *
   * @throws {HandshakeError} As {@link ByteReader.read}. What is held stays.
   */
  async peek(length: number, signal: Cancel): Promise<Uint8Array> {
    await this.#ensure(length, signal);
    return this.#join();
  }

  /** How many bytes are held. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  #ensure(length: number, signal: Cancel): Promise<void> {
    if (this.#heldBytes >= length) return Promise.resolve();
    if (this.#ended) return Promise.reject(closedError());
    if (signal.aborted) return Promise.reject(timeoutError());
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#wanted = length;
    this.#waiting = { resolve, reject };
    const onAbort = (): void => {
      this.#waiting = undefined;
      reject(timeoutError());
    };
    signal.addEventListener("abort", onAbort, { once: true });
    return promise.finally(() => signal.removeEventListener("abort", onAbort));
  }

  /** Takes the first `length` bytes of what is held. */
  take(length: number): Uint8Array {
    const all = this.#join();
    this.#held = all.length > length ? [all.subarray(length)] : [];
    this.#heldBytes = Math.max(0, all.length - length);
    return all.subarray(0, length);
  }

  /** Puts back what was taken last. */
  putBack(bytes: Uint8Array): void {
    this.#held.unshift(bytes);
    this.#heldBytes += bytes.length;
  }

  /** Takes everything that is held. The next sink gets what comes after it. */
  rest(): Uint8Array {
    return this.take(this.#heldBytes);
  }

  /**
   * Drops what is held and what still comes, until the peer ends or `signal` aborts.
   *
   * After 256 KiB it stops reading, so that a flood costs its sender more than us.
   */
  discard(signal: Cancel): Promise<void> {
    this.#held = [];
    this.#heldBytes = 0;
    this.#discarded = 0;
    if (this.#ended || signal.aborted) return Promise.resolve();
    this.#channel.resume();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.onEnded = resolve;
    signal.addEventListener("abort", resolve, { once: true });
    return promise;
  }

  onChunk(chunk: Uint8Array): void {
    if (this.#discarded !== undefined) {
      this.#discarded += chunk.length;
      release(chunk);
      if (this.#discarded >= DISCARD_LIMIT) this.#channel.pause();
      return;
    }
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    const waiting = this.#waiting;
    if (waiting !== undefined && this.#heldBytes >= this.#wanted) {
      this.#waiting = undefined;
      waiting.resolve();
    }
    if (this.#heldBytes >= HOLD_LIMIT) this.#channel.pause();
  }

  onEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#waiting?.reject(closedError());
    this.#waiting = undefined;
    this.onEnded?.();
  }

  onDrain(): void {}

  onClose(): void {
    this.#closed = true;
    this.onEnd();
    this.onEnded?.();
  }

  #join(): Uint8Array {
    if (this.#held.length > 1) this.#held = [concatBytes(this.#held)];
    return this.#held[0] ?? new Uint8Array(0);
  }
}

function timeoutError(): HandshakeError {
  return new HandshakeError("TIMEOUT", "Cannot read handshake: it was not complete in time");
}

function closedError(): HandshakeError {
  return new HandshakeError("CLOSED", "Cannot read handshake: the client left before it was complete");
}
