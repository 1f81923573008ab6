import { bodyBytes, type Cipher, HEADER_LENGTH, type Packet, writeHeader } from "./wire.ts";

/** Bodies are made and sent in pieces of this size, in bytes. */
const PIECE_LENGTH = 64 * 1024;

/**
 * Turns a queue of packets into encrypted pieces, made one at a time when there is room for them.
 *
 * A piece never holds more than one packet, so on a WebSocket small packets are a message each.
 */
export class PacketSender {
  readonly #cipher: Cipher;
  #queue: Packet[] = [];
  #head = 0;
  /** Bytes of the first packet that are sent, its header included. */
  #sent = 0;

  constructor(cipher: Cipher) {
    this.#cipher = cipher;
  }

  add(packet: Packet): void {
    this.#queue.push(packet);
  }

  /** Makes the next piece; `undefined` when everything is sent. */
  next(): Buffer | undefined {
    const packet = this.#queue[this.#head];
    if (packet === undefined) return undefined;
    const total = HEADER_LENGTH + packet.bodyLength;
    const end = Math.min(this.#sent + PIECE_LENGTH, total);
    const plain = this.#plain(packet, end);
    this.#sent = end;
    if (end === total) this.#dropFirst();
    return this.#cipher.update(plain);
  }

  #plain(packet: Packet, end: number): Buffer {
    if (this.#sent > 0) return bodyBytes(packet.seq, this.#sent - HEADER_LENGTH, end - HEADER_LENGTH);
    const plain = Buffer.allocUnsafe(end);
    writeHeader(plain, packet);
    bodyBytes(packet.seq, 0, end - HEADER_LENGTH).copy(plain, HEADER_LENGTH);
    return plain;
  }

  #dropFirst(): void {
    this.#sent = 0;
    this.#head += 1;
    if (this.#head < this.#queue.length) return;
    this.#queue = [];
    this.#head = 0;
  }
}
