import { createCipheriv, createHash, randomBytes } from "node:crypto";
import { TAGS, type TestTransport } from "./packets.ts";

/** A running AES-256-CTR stream. */
export interface Stream {
  update(bytes: Uint8Array): Uint8Array;
}

/** What the 64-byte init of an obfuscated2 stream says. */
export interface InitFields {
  readonly transport: TestTransport;
  /** Signed 16-bit. */
  readonly dcId: number;
}

/** Both directions of an obfuscated2 stream, as the side sees them that sends the init. */
export interface Streams {
  readonly up: Stream;
  readonly down: Stream;
}

/** Makes an init. @param secret 16 bytes; without one, keys are used raw, as towards Telegram. */
export function makeInit(
  fields: InitFields,
  secret: Uint8Array | undefined,
): Streams & { readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(randomBytes(64));
  bytes[0] = 0x33; // none of the reserved starts
  bytes[4] = 0x44;
  const streams = deriveStreams(bytes, secret);
  bytes.fill(TAGS[fields.transport], 56, 60);
  new DataView(bytes.buffer).setInt16(60, fields.dcId, true);
  bytes.set(streams.up.update(bytes).subarray(56), 56);
  return { ...streams, bytes };
}

/** Opens an init. @throws {Error} When its tag names no transport. */
export function openInit(bytes: Uint8Array, secret: Uint8Array | undefined): Streams & InitFields {
  const streams = deriveStreams(bytes, secret);
  const plain = streams.up.update(bytes);
  const tag = plain.subarray(56, 60).toHex();
  for (const transport of ["abridged", "intermediate", "padded"] as const) {
    if (tag !== TAGS[transport].toString(16).repeat(4)) continue;
    const dcId = new DataView(plain.buffer, plain.byteOffset).getInt16(60, true);
    return { ...streams, transport, dcId };
  }
  throw new Error(`The tag of the init is ${tag}`);
}

function deriveStreams(init: Uint8Array, secret: Uint8Array | undefined): Streams {
  const forward = init.slice(8, 56);
  return { up: stream(forward, secret), down: stream(forward.toReversed(), secret) };
}

function stream(material: Uint8Array, secret: Uint8Array | undefined): Stream {
  const raw = material.slice(0, 32);
  const key = secret === undefined ? raw : createHash("sha256").update(raw).update(secret).digest();
  return createCipheriv("aes-256-ctr", key, material.slice(32));
}
