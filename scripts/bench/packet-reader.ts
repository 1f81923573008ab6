import { bodyBytes, HEADER_LENGTH, KIND, MAX_BODY, type Packet } from "./wire.ts";

/** Bodies of every so many packets are compared byte by byte; the others at the start of every chunk. */
const SAMPLE_EVERY = 16;
const SAMPLE_LENGTH = 64;

/**
 * Reads packets out of a decrypted stream, and checks what they carry.
 *
 * Bodies are compared, not kept, so that the reader costs less than the proxy that is measured. Lost,
 * repeated or reordered bytes are found wherever they are: they break a header or the start of a chunk.
 */
export class PacketReader {
  readonly #onPacket: (packet: Packet) => void;
  readonly #header = Buffer.alloc(HEADER_LENGTH);
  #headerBytes = 0;
  #packet: Packet | undefined;
  #bodyBytes = 0;

  /** @param onPacket Hears of every packet after its last byte. */
  constructor(onPacket: (packet: Packet) => void) {
    this.#onPacket = onPacket;
  }

  /** @throws {Error} When the stream is not what the other side sent. */
  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#packet === undefined) at = this.#readHeader(chunk, at);
      const packet = this.#packet;
      if (packet === undefined) return;
      const length = Math.min(packet.bodyLength - this.#bodyBytes, chunk.length - at);
      if (length > 0) this.#check(packet, chunk.subarray(at, at + length));
      at += length;
      this.#bodyBytes += length;
      if (this.#bodyBytes < packet.bodyLength) return;
      this.#packet = undefined;
      this.#bodyBytes = 0;
      this.#onPacket(packet);
    }
  }

  #readHeader(chunk: Buffer, from: number): number {
    const end = Math.min(from + HEADER_LENGTH - this.#headerBytes, chunk.length);
    this.#headerBytes += chunk.copy(this.#header, this.#headerBytes, from, end);
    if (this.#headerBytes < HEADER_LENGTH) return end;
    this.#headerBytes = 0;
    const bodyLength = this.#header.readUInt32LE(0) - (HEADER_LENGTH - 4);
    const kind = this.#header.readUInt32LE(4);
    if (bodyLength < 0 || bodyLength > MAX_BODY || kind < KIND.echo || kind > KIND.stored) {
      throw new Error(`Cannot read packet: its header is ${this.#header.toString("hex")}`);
    }
    const seq = this.#header.readUInt32LE(8);
    this.#packet = { kind, seq, argument: this.#header.readUInt32LE(12), bodyLength };
    return end;
  }

  #check({ seq }: Packet, part: Buffer): void {
    const length = seq % SAMPLE_EVERY === 0 ? part.length : Math.min(part.length, SAMPLE_LENGTH);
    const from = this.#bodyBytes;
    if (part.subarray(0, length).equals(bodyBytes(seq, from, from + length))) return;
    throw new Error(`Cannot accept packet ${seq}: its body differs within ${length} bytes from byte ${from}`);
  }
}
