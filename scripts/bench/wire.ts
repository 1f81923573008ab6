import { createCipheriv, createHash, randomBytes } from "node:crypto";

/**
 * What the load client and the stub data centre say to each other: packets of the intermediate transport,
 * inside obfuscated2, so that they look to a proxy like MTProto.
 *
 *      0        4      8     12         16
 *      +--------+------+-----+----------+-----------
 *      | length | kind | seq | argument | body
 *      +--------+------+-----+----------+-----------
 *
 * All numbers are uint32 LE; `length` counts what follows it. `seq` counts a connection's requests; the
 * answers carry the same number and come in the same order. A body is {@link bodyBytes} of its `seq`.
 */
export const HEADER_LENGTH = 16;

/** The longest body, in bytes: the size of one answer to a file download. */
export const MAX_BODY = 1024 * 1024;

/** What a packet asks for, or answers. */
export const KIND = {
  /** Asks for the same packet back. */
  echo: 1,
  /** Asks for a `data` packet with `argument` bytes of body. */
  fetch: 2,
  /** Carries a body; asks for a `stored` packet without one. */
  store: 3,
  /** Asks the stub to stop reading this connection for `argument` milliseconds. Not answered. */
  stall: 4,
  data: 5,
  stored: 6,
} as const;

/** A packet's header; the body is not kept. */
export interface Packet {
  readonly kind: number;
  readonly seq: number;
  readonly argument: number;
  readonly bodyLength: number;
}

const OFFSETS = 64 * 1024;

/** The same pseudo-random bytes in every process. */
const noise = createCipheriv("aes-256-ctr", Buffer.alloc(32, 7), Buffer.alloc(16)).update(
  Buffer.alloc(MAX_BODY + OFFSETS),
);

/** Returns bytes `from` to `to` of the body of packet `seq`: a view, not to be changed. */
export function bodyBytes(seq: number, from: number, to: number): Buffer {
  const start = (seq * 4099) % OFFSETS;
  return noise.subarray(start + from, start + to);
}

/** Writes a packet's header to the start of `target`. */
export function writeHeader(target: Buffer, { kind, seq, argument, bodyLength }: Packet): void {
  target.writeUInt32LE(HEADER_LENGTH - 4 + bodyLength, 0);
  target.writeUInt32LE(kind, 4);
  target.writeUInt32LE(seq, 8);
  target.writeUInt32LE(argument, 12);
}

/** The length of an obfuscated2 init. */
export const INIT_LENGTH = 64;

/** A running cipher. */
export interface Cipher {
  update(bytes: Uint8Array): Buffer;
}

/** The ciphers of a stream: `forward` for what the sender of the init sends, already run over the init. */
export interface StreamCiphers {
  readonly forward: Cipher;
  readonly backward: Cipher;
}

/**
 * Derives both ciphers of an obfuscated2 stream from its init.
 *
 * @param secret The proxy secret; `undefined` towards a data centre.
 */
export function deriveCiphers(init: Uint8Array, secret: Uint8Array | undefined): StreamCiphers {
  const forward = Buffer.from(init.subarray(8, 56));
  const ciphers = {
    forward: openCipher(forward, secret),
    backward: openCipher(forward.toReversed(), secret),
  };
  ciphers.forward.update(init);
  return ciphers;
}

/** Makes an init for DC 2 and the intermediate transport. @param secret See {@link deriveCiphers}. */
export function createInit(secret: Uint8Array | undefined): { readonly init: Buffer } & StreamCiphers {
  const init = randomBytes(INIT_LENGTH);
  // Keeps clear of the starts that the protocol reserves: other protocols' first words, and a zero second one.
  init[0] = 0x55;
  init[4] = 0x55;
  init.fill(0xee, 56, 60);
  init.writeInt16LE(2, 60);
  const sealed = openCipher(init.subarray(8, 56), secret).update(init);
  const ciphers = deriveCiphers(init, secret);
  sealed.copy(init, 56, 56);
  return { init, ...ciphers };
}

function openCipher(material: Uint8Array, secret: Uint8Array | undefined): Cipher {
  const bare = material.subarray(0, 32);
  const key = secret === undefined ? bare : createHash("sha256").update(bare).update(secret).digest();
  return createCipheriv("aes-256-ctr", key, material.subarray(32, 48));
}
