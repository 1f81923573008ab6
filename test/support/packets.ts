/** The MTProto transports that obfuscated2 can carry. Written anew here: tests must not share the code they test. */
export type TestTransport = "abridged" | "intermediate" | "padded";

/** All of them, for tables. */
export const TRANSPORTS: readonly TestTransport[] = ["abridged", "intermediate", "padded"];

/** The byte that, four times, is the tag of a transport. */
export const TAGS: Readonly<Record<TestTransport, number>> = {
  abridged: 0xef,
  intermediate: 0xee,
  padded: 0xdd,
};

/** One MTProto packet without its length. Of a padded one, the padding is part of `payload`. */
export interface Packet {
  readonly payload: Uint8Array;
  /** The sender asked for a quick acknowledgement. */
  readonly quickAck: boolean;
}

/** Puts the length before `payload`. For abridged, the payload is a multiple of 4 bytes long. */
export function encodePacket(
  transport: TestTransport,
  payload: Uint8Array,
  options: { readonly quickAck?: boolean } = {},
): Uint8Array {
  const header = encodeLength(transport, payload.length);
  const flagged = transport === "abridged" ? 0 : 3;
  if (options.quickAck) header[flagged] = (header[flagged] ?? 0) | 0x80;
  return concat(header, payload);
}

/** The length field for `length` bytes of payload. */
export function encodeLength(transport: TestTransport, length: number): Uint8Array {
  if (transport !== "abridged") {
    return Uint8Array.of(length & 0xff, (length >> 8) & 0xff, (length >> 16) & 0xff, length >>> 24);
  }
  const words = length / 4;
  if (!Number.isInteger(words)) throw new Error(`Abridged packets are whole words, not ${length} bytes`);
  if (words < 0x7f) return Uint8Array.of(words);
  return Uint8Array.of(0x7f, words & 0xff, (words >> 8) & 0xff, words >> 16);
}

/**
 * Reads the packet at the start of `bytes`.
 *
 * @returns The packet and what it takes up, or `undefined` when it is not whole yet.
 */
export function takePacket(
  transport: TestTransport,
  bytes: Uint8Array,
): { readonly packet: Packet; readonly size: number } | undefined {
  const [first] = bytes;
  if (first === undefined) return undefined;
  const short = transport === "abridged" && (first & 0x7f) !== 0x7f;
  const headerSize = short ? 1 : 4;
  if (bytes.length < headerSize) return undefined;
  const word = short ? 0 : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const long = transport === "abridged" ? (word >>> 8) * 4 : word & 0x7fffffff;
  const length = short ? (first & 0x7f) * 4 : long;
  const flags = transport === "abridged" ? first : word >>> 24;
  const size = headerSize + length;
  if (bytes.length < size) return undefined;
  return { packet: { payload: bytes.subarray(headerSize, size), quickAck: (flags & 0x80) !== 0 }, size };
}

/** Copies `parts` one after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
