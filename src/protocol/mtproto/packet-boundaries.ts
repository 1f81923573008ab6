import type { Transport } from "./transport.ts";

/**
 * The longest packet that is kept together, header included, in bytes.
 *
 * Telegram's own limit is about 1 MiB. A length beyond this is taken for a broken stream, so that a
 * stranger's four bytes cannot make us wait for, and hold, more.
 */
export const MAX_PACKET_LENGTH = 4 * 1024 * 1024;

/**
 * Finds where MTProto packets end in a plaintext stream that arrives in arbitrary chunks.
 *
 * Abridged: one byte, length in 4-byte words; `0x7f` or `0xff` means that three length bytes follow
 * (little-endian). Intermediate and padded: four length bytes (little-endian), in bytes. The top bit of
 * either length is the quick-ack request and not part of it.
 *
 * On the way down, the top bit says that the four bytes are a quick-ack token, a packet without a payload.
 *
 * A length of 0, or beyond {@link MAX_PACKET_LENGTH}, means that the stream is not what it seemed: from
 * there on `broken` is true and every chunk is a unit of its own.
 *
 * @see https://core.telegram.org/mtproto/mtproto-transports
 */
export class PacketBoundaries {
  /** The stream cannot be split any more. */
  broken = false;
  readonly #abridged: boolean;
  readonly #down: boolean;
  /** Bytes of the current packet that are still to come; 0 while its header is incomplete. */
  #remaining = 0;
  #header = 0;
  #headerBytes = 0;

  /** @param direction Where the stream goes: `up` is what clients send. */
  constructor(transport: Transport, direction: "up" | "down" = "up") {
    this.#abridged = transport === "abridged";
    this.#down = direction === "down";
  }

  /** Whether the bytes seen so far end exactly at the end of a packet. */
  get atBoundary(): boolean {
    return this.#remaining === 0 && this.#headerBytes === 0;
  }

  /**
   * Walks from `from` to the end of the current packet.
   *
   * @returns The index just after the packet in `plain`, with `atBoundary` true; or `plain.length` with
   * `atBoundary` false when the packet goes on beyond this chunk. Once `broken`, always `plain.length`.
   */
  advance(plain: Uint8Array, from: number): number {
    if (this.broken) return plain.length;
    let at = from;
    if (this.#remaining === 0) {
      at = this.#readHeader(plain, at);
      if (this.broken) return plain.length;
      if (this.#remaining === 0) return at; // the header goes on, or the packet was a token
    }
    const available = plain.length - at;
    if (available < this.#remaining) {
      this.#remaining -= available;
      return plain.length;
    }
    at += this.#remaining;
    this.#remaining = 0;
    return at;
  }

  /** Reads header bytes; leaves `#remaining` 0 when more are needed, or on a length that breaks the stream. */
  #readHeader(plain: Uint8Array, from: number): number {
    let at = from;
    while (at < plain.length) {
      this.#header |= (plain[at++] as number) << (8 * this.#headerBytes++);
      if (this.#down && this.#isToken()) {
        if (this.#headerBytes < 4) continue;
        this.#header = 0;
        this.#headerBytes = 0;
        return at;
      }
      const payload = this.#payloadLength();
      if (payload === undefined) continue;
      const length = payload + this.#headerBytes;
      this.#header = 0;
      this.#headerBytes = 0;
      if (payload === 0 || length > MAX_PACKET_LENGTH) this.broken = true;
      else this.#remaining = payload;
      return at;
    }
    return at;
  }

  /** Whether what is there of the header begins a quick-ack token; its top bit comes first only in abridged. */
  #isToken(): boolean {
    return this.#abridged ? (this.#header & 0x80) !== 0 : this.#headerBytes === 4 && this.#header < 0;
  }

  /** The payload length in bytes, or `undefined` while the header is incomplete. */
  #payloadLength(): number | undefined {
    if (!this.#abridged) return this.#headerBytes === 4 ? this.#header & 0x7fffffff : undefined;
    const short = this.#header & 0x7f;
    if (short !== 0x7f) return short * 4;
    return this.#headerBytes === 4 ? (this.#header >>> 8) * 4 : undefined;
  }
}
