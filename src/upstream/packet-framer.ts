import type { Output, StreamCipher, Transform } from "../channel/transform.ts";
import { release } from "../core/bytes.ts";
import { PacketBoundaries } from "../protocol/mtproto/packet-boundaries.ts";
import type { Transport } from "../protocol/mtproto/transport.ts";

/** Pieces smaller than this are copied together: a packet that comes byte by byte must not cost an object a byte. */
const SMALL_PIECE = 4 * 1024;

/** Where packets that came in pieces are put together. One is enough: it is only used within a call. */
export class Scratch {
  /** The size that serves every packet of real clients; longer ones get memory of their own. */
  static readonly #SIZE = 1024 * 1024 + 1024;
  #bytes: Uint8Array | undefined;

  /** Returns `length` bytes of memory, valid until the next call. */
  take(length: number): Uint8Array {
    if (length > Scratch.#SIZE) return new Uint8Array(length);
    this.#bytes ??= new Uint8Array(Scratch.#SIZE);
    return this.#bytes.subarray(0, length);
  }
}

/**
 * Encrypts a plaintext MTProto stream and writes one message per packet.
 *
 * A chunk is encrypted in one go; where packets end is read from the plaintext. Packets that are whole in
 * a chunk are written as views of it; the pieces of one that is not are kept until it is. A stream with a
 * broken length is no longer split, see {@link PacketBoundaries}.
 */
export class PacketFramer implements Transform {
  readonly #cipher: StreamCipher;
  readonly #boundaries: PacketBoundaries;
  readonly #scratch: Scratch;
  /** The ciphertext of the current packet so far, oldest first; all of it owned. */
  #pieces: Uint8Array[] = NOTHING;
  #pieceBytes = 0;
  /** Free bytes at the end of the last piece, when that is one in which small ones are collected. */
  #room = 0;

  constructor(cipher: StreamCipher, transport: Transport, scratch: Scratch) {
    this.#cipher = cipher;
    this.#boundaries = new PacketBoundaries(transport);
    this.#scratch = scratch;
  }

  push(chunk: Uint8Array, output: Output): void {
    const encrypted = this.#cipher.update(chunk);
    const boundaries = this.#boundaries;
    let from = 0;
    while (from < chunk.length) {
      const to = boundaries.advance(chunk, from);
      if (!boundaries.atBoundary && !boundaries.broken) {
        this.#keep(encrypted, from);
        return;
      }
      if (this.#pieceBytes > 0) this.#writePieces(encrypted.subarray(from, to), output);
      else output.write(from === 0 && to === encrypted.length ? encrypted : encrypted.subarray(from, to));
      from = to;
    }
    release(encrypted);
  }

  /** Keeps what follows `from` of `encrypted`, and takes `encrypted` over. */
  #keep(encrypted: Uint8Array, from: number): void {
    const piece = from === 0 ? encrypted : encrypted.subarray(from);
    if (this.#pieces === NOTHING) this.#pieces = [];
    this.#pieceBytes += piece.length;
    if (piece.length >= SMALL_PIECE) {
      this.#closeCollector();
      this.#pieces.push(piece);
      return;
    }
    let collector = this.#pieces.at(-1);
    if (collector === undefined || this.#room < piece.length) {
      this.#closeCollector();
      collector = new Uint8Array(2 * SMALL_PIECE);
      this.#pieces.push(collector);
      this.#room = collector.length;
    }
    collector.set(piece, collector.length - this.#room);
    this.#room -= piece.length;
    release(encrypted);
  }

  /** Cuts the unused end off the piece in which small ones were collected, if the last one is such. */
  #closeCollector(): void {
    const last = this.#pieces.length - 1;
    const collector = this.#pieces[last];
    if (this.#room > 0 && collector !== undefined) {
      this.#pieces[last] = collector.subarray(0, collector.length - this.#room);
    }
    this.#room = 0;
  }

  /** Puts the kept pieces and `end` together, and writes them as one message. */
  #writePieces(end: Uint8Array, output: Output): void {
    this.#closeCollector();
    const message = this.#scratch.take(this.#pieceBytes + end.length);
    let offset = 0;
    for (const piece of this.#pieces) {
      message.set(piece, offset);
      offset += piece.length;
      release(piece);
    }
    message.set(end, offset);
    this.#pieces = NOTHING;
    this.#pieceBytes = 0;
    output.write(message);
  }
}

const NOTHING: Uint8Array[] = [];
