/**
 * The MTProto transports that obfuscated2 can carry, and their tags.
 *
 * A tag is four equal bytes at offset 56 of the init. Full transport has none, so it cannot come here.
 *
 * @see https://core.telegram.org/mtproto/mtproto-transports
 */
export type Transport = "abridged" | "intermediate" | "padded";

const TAG_BYTES: Readonly<Record<Transport, number>> = { abridged: 0xef, intermediate: 0xee, padded: 0xdd };

/** Returns the transport that four tag bytes name, or `undefined` when they name none. */
export function transportOfTag(tag: Uint8Array): Transport | undefined {
  const [first, ...others] = tag;
  if (others.some((byte) => byte !== first)) return undefined;
  if (first === 0xef) return "abridged";
  if (first === 0xee) return "intermediate";
  if (first === 0xdd) return "padded";
  return undefined;
}

/** Returns the byte that, four times, is the tag of `transport`. */
export function tagByte(transport: Transport): number {
  return TAG_BYTES[transport];
}
