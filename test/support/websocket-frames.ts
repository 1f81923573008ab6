import { createHash } from "node:crypto";
import { concat } from "./packets.ts";

/** The opcodes of RFC 6455 section 5.2. */
export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A frame as a client sends it, unmasked. */
export interface Frame {
  readonly fin: boolean;
  readonly opcode: number;
  readonly payload: Uint8Array;
}

/** Encodes a frame the way a server sends it, without a mask. */
export function encodeFrame(
  opcode: number,
  payload: Uint8Array,
  options: { fin?: boolean } = {},
): Uint8Array {
  const first = (options.fin === false ? 0 : 0x80) | opcode;
  const { length } = payload;
  const header = new Uint8Array(length < 126 ? 2 : length < 65_536 ? 4 : 10);
  const view = new DataView(header.buffer);
  header[0] = first;
  if (header.length === 2) header[1] = length;
  if (header.length === 4) {
    header[1] = 126;
    view.setUint16(2, length);
  }
  if (header.length === 10) {
    header[1] = 127;
    view.setBigUint64(2, BigInt(length));
  }
  return concat(header, payload);
}

/** Cuts a client's bytes into frames. */
export class FrameReader {
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  /** Not looked at again before this many bytes are held. */
  #needed = 2;

  /** Returns the frames that are complete with `chunk`. @throws {Error} On a frame that is not masked. */
  push(chunk: Uint8Array): Frame[] {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    const frames: Frame[] = [];
    while (this.#heldBytes >= this.#needed) {
      const frame = this.#take();
      if (frame !== undefined) frames.push(frame);
    }
    return frames;
  }

  #take(): Frame | undefined {
    const [first] = this.#held;
    const bytes = this.#held.length === 1 && first !== undefined ? first : concat(...this.#held);
    this.#held = [bytes];
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const lengthByte = view.getUint8(1);
    if ((lengthByte & 0x80) === 0) throw new Error("A client's frame is not masked");
    const short = lengthByte & 0x7f;
    const maskAt = short === 126 ? 4 : short === 127 ? 10 : 2;
    const payloadAt = maskAt + 4;
    if (bytes.length < payloadAt) {
      this.#needed = payloadAt;
      return undefined;
    }
    const length = short === 126 ? view.getUint16(2) : short === 127 ? Number(view.getBigUint64(2)) : short;
    if (bytes.length < payloadAt + length) {
      this.#needed = payloadAt + length;
      return undefined;
    }
    const payload = bytes.slice(payloadAt, payloadAt + length);
    unmask(payload, bytes.subarray(maskAt, payloadAt));
    this.#held = [bytes.subarray(payloadAt + length)];
    this.#heldBytes = bytes.length - payloadAt - length;
    this.#needed = 2;
    return { fin: (view.getUint8(0) & 0x80) !== 0, opcode: view.getUint8(0) & 0x0f, payload };
  }
}

/** The answer to `Sec-WebSocket-Key`. */
export function acceptKey(key: string): string {
  return createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
}

function unmask(payload: Uint8Array, mask: Uint8Array): void {
  for (let at = 0; at < payload.length; at += 1) {
    payload[at] = (payload[at] as number) ^ (mask[at & 3] as number);
  }
}
