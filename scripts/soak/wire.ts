import { randomInt } from "node:crypto";
import type { Stream } from "../../test/support/obfuscated2.ts";
import { encodeLength, type TestTransport } from "../../test/support/packets.ts";
import { bodyBytes } from "../bench/wire.ts";

/**
 * What the clients of the soak and its data centre say to each other: the payloads of MTProto packets.
 *
 *      0      4         8     12         16            20
 *      +------+---------+-----+----------+-------------+------+---------
 *      | kind | session | seq | argument | body length | body | padding
 *      +------+---------+-----+----------+-------------+------+---------
 *
 * All numbers are uint32 LE. `session` tells the connections of a run apart, so that bytes which end up in another one
 * are found; `seq` counts a connection's requests, and answers come in their order. Padding only where the transport
 * has it. Where kind and session are 0, it is an unencrypted message of MTProto: the proxy's own question.
 */
const HEADER_LENGTH = 20;
const PLAIN_MARK_LENGTH = 8;
/** Longer ones are nobody's question. */
const LONGEST_PLAIN = 1024;
const MOST_PADDING = 16;
/** Bodies are made and sent in pieces of this size. */
const PIECE_LENGTH = 64 * 1024;
const LONG = 0x7f;

/** What a message asks for, or answers. */
export const KIND = {
  /** Asks for the same message back. */
  echo: 1,
  /** Asks for a `data` message with `argument` bytes of body. */
  fetch: 2,
  /** Carries a body; asks for a `stored` message without one. */
  store: 3,
  /** Asks the data centre to stop reading for `argument` milliseconds. Not answered. */
  stall: 4,
  data: 5,
  stored: 6,
} as const;

/** A message without its body, which follows from `session` and `seq`. */
export interface Message {
  readonly kind: number;
  readonly session: number;
  readonly seq: number;
  readonly argument: number;
  /** A multiple of 4. */
  readonly bodyLength: number;
}

/** Hears what a {@link MessageReader} reads. */
export interface MessageSink {
  /** A message has come, whole and as it was sent. */
  onMessage(message: Message): void;
  /** An unencrypted message of MTProto, padding included. */
  onPlain(payload: Uint8Array): void;
}

/** The bytes came, but not as they were sent: what must never happen. */
export class CorruptionError extends Error {
  override readonly name = "CorruptionError";
}

/** Reads messages out of a decrypted stream, and compares every byte of their bodies. */
export class MessageReader {
  readonly #transport: TestTransport;
  readonly #sink: MessageSink;
  /** Of the length and the header, as much as there is. */
  #head = Buffer.alloc(0);
  #message: Message | undefined;
  #bodyAt = 0;
  #padding = 0;

  constructor(transport: TestTransport, sink: MessageSink) {
    this.#transport = transport;
    this.#sink = sink;
  }

  /** @throws {CorruptionError} When the stream is not what the other side sent. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      at = this.#message === undefined ? this.#readHead(chunk, at) : this.#readRest(this.#message, chunk, at);
    }
  }

  #readHead(chunk: Uint8Array, from: number): number {
    const to = Math.min(chunk.length, from + this.#needed() - this.#head.length);
    this.#head = Buffer.concat([this.#head, chunk.subarray(from, to)]);
    if (this.#head.length >= this.#needed()) this.#openMessage();
    return to;
  }

  /** How long the head has to be before more can be said. */
  #needed(): number {
    const head = this.#head;
    const prefix = this.#prefixLength();
    if (head.length < prefix) return prefix;
    const length = this.#frameLength();
    const known = prefix + Math.min(HEADER_LENGTH, length);
    if (head.length < known) return known;
    return this.#isPlain() ? prefix + length : known;
  }

  #openMessage(): void {
    const head = this.#head;
    const length = this.#frameLength();
    const payload = head.subarray(this.#prefixLength());
    this.#head = Buffer.alloc(0);
    if (length < HEADER_LENGTH)
      throw new CorruptionError(`a packet of ${length} bytes: ${head.toString("hex")}`);
    if (payload.readUInt32LE(0) === 0) {
      this.#sink.onPlain(payload);
      return;
    }
    const [kind, session, seq, argument, bodyLength] = [0, 4, 8, 12, 16].map((at) =>
      payload.readUInt32LE(at),
    );
    this.#message = {
      kind: kind ?? 0,
      session: session ?? 0,
      seq: seq ?? 0,
      argument: argument ?? 0,
      bodyLength: bodyLength ?? 0,
    };
    this.#bodyAt = 0;
    this.#padding = length - HEADER_LENGTH - this.#message.bodyLength;
    const most = this.#transport === "padded" ? MOST_PADDING : 1;
    if (this.#message.kind > KIND.stored || this.#padding < 0 || this.#padding >= most) {
      throw new CorruptionError(`a packet that nobody sent: ${head.toString("hex")}`);
    }
    this.#finish();
  }

  #readRest(message: Message, chunk: Uint8Array, from: number): number {
    const bodyTo = Math.min(chunk.length, from + message.bodyLength - this.#bodyAt);
    if (bodyTo > from) {
      const part = chunk.subarray(from, bodyTo);
      if (!bodyOf(message, this.#bodyAt, this.#bodyAt + part.length).equals(part)) {
        throw new CorruptionError(
          `session ${message.session}, message ${message.seq}: its body differs between bytes ${this.#bodyAt} and ${this.#bodyAt + part.length} of ${message.bodyLength}`,
        );
      }
      this.#bodyAt += part.length;
    }
    const to = Math.min(chunk.length, bodyTo + this.#padding);
    this.#padding -= to - bodyTo;
    this.#finish();
    return to;
  }

  #finish(): void {
    const message = this.#message;
    if (message === undefined || this.#bodyAt < message.bodyLength || this.#padding > 0) return;
    this.#message = undefined;
    this.#sink.onMessage(message);
  }

  #prefixLength(): number {
    const [first] = this.#head;
    if (first === undefined) return 1;
    return this.#transport === "abridged" && (first & LONG) !== LONG ? 1 : 4;
  }

  #frameLength(): number {
    const head = this.#head;
    if (this.#prefixLength() === 1) return ((head[0] ?? 0) & LONG) * 4;
    return this.#transport === "abridged" ? head.readUIntLE(1, 3) * 4 : head.readUInt32LE(0) & 0x7fff_ffff;
  }

  #isPlain(): boolean {
    const payload = this.#head.subarray(this.#prefixLength());
    return (
      this.#frameLength() <= LONGEST_PLAIN &&
      payload.subarray(0, PLAIN_MARK_LENGTH).every((byte) => byte === 0)
    );
  }
}

/** A message that is being sent. */
interface Outgoing {
  /** Everything before the body. */
  readonly head: Buffer;
  readonly message: Message | undefined;
  readonly padding: number;
}

/** Turns a queue of messages into encrypted pieces, made one at a time when there is room for them. */
export class MessageWriter {
  readonly #transport: TestTransport;
  readonly #cipher: Stream;
  #queue: Outgoing[] = [];
  /** Bytes of the first that are sent. */
  #sent = 0;

  constructor(transport: TestTransport, cipher: Stream) {
    this.#transport = transport;
    this.#cipher = cipher;
  }

  add(message: Message): void {
    const padding = this.#transport === "padded" ? randomInt(MOST_PADDING) : 0;
    const header = Buffer.alloc(HEADER_LENGTH);
    const { kind, session, seq, argument, bodyLength } = message;
    for (const [index, value] of [kind, session, seq, argument, bodyLength].entries()) {
      header.writeUInt32LE(value, index * 4);
    }
    const prefix = encodeLength(this.#transport, HEADER_LENGTH + bodyLength + padding);
    this.#queue.push({ head: Buffer.concat([prefix, header]), message, padding });
  }

  /** Adds an unencrypted message of MTProto; its length is a multiple of 4. */
  addPlain(payload: Uint8Array): void {
    const prefix = encodeLength(this.#transport, payload.length);
    this.#queue.push({ head: Buffer.concat([prefix, payload]), message: undefined, padding: 0 });
  }

  /** Makes the next piece, of one message at most; `undefined` when everything is sent. */
  next(): Uint8Array | undefined {
    const [first] = this.#queue;
    if (first === undefined) return undefined;
    const { head, message, padding } = first;
    const bodyEnd = head.length + (message?.bodyLength ?? 0);
    const from = this.#sent;
    const to = Math.min(from + PIECE_LENGTH, bodyEnd + padding);
    const piece = Buffer.alloc(to - from);
    if (from < head.length) head.copy(piece, 0, from);
    if (message !== undefined) {
      const bodyFrom = Math.max(0, from - head.length);
      const bodyTo = Math.min(to, bodyEnd) - head.length;
      if (bodyTo > bodyFrom) bodyOf(message, bodyFrom, bodyTo).copy(piece, head.length + bodyFrom - from);
    }
    this.#sent = to;
    if (to === bodyEnd + padding) {
      this.#queue.shift();
      this.#sent = 0;
    }
    return this.#cipher.update(piece);
  }
}

/** Part of a message's body: a view, not to be changed. */
function bodyOf({ session, seq }: Message, from: number, to: number): Buffer {
  return bodyBytes(session * 7 + seq, from, to);
}
