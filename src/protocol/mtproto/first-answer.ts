import type { Transport } from "./transport.ts";

/** Telegram's answers are far smaller; what claims more is not Telegram. */
const MOST_LENGTH = 2 * 1024 * 1024;
const LONG = 0x7f;
const QUICK_ACK = 0x80;

/**
 * Tells whether the decrypted start of a stream from Telegram begins like a packet; `undefined` when more bytes
 * are needed to tell.
 *
 * What a middlebox says (a TLS alert, a page of HTTP) is noise once it is decrypted, and noise rarely begins like this.
 *
 * @param wantsQuickAck The client asked for quick acks: a token may come first.
 * @see https://core.telegram.org/mtproto/mtproto-transports
 */
export function beginsLikePacket(
  plain: Uint8Array,
  transport: Transport,
  { wantsQuickAck }: { readonly wantsQuickAck: boolean },
): boolean | undefined {
  const [first] = plain;
  if (first === undefined) return undefined;
  if (transport === "abridged") {
    if ((first & QUICK_ACK) !== 0) return wantsQuickAck;
    if (first !== LONG) return first > 0;
  }
  if (plain.length < 4) return undefined;
  const header = new DataView(plain.buffer, plain.byteOffset, 4).getUint32(0, true);
  if (transport === "abridged") return header >>> 8 >= LONG && (header >>> 8) * 4 <= MOST_LENGTH;
  if (header > 0x7fffffff) return wantsQuickAck;
  return header >= 4 && header <= MOST_LENGTH && (transport === "padded" || header % 4 === 0);
}

/** Whether a client's stream begins with a packet that asks for a quick ack. */
export function asksForQuickAck(plain: Uint8Array, transport: Transport): boolean {
  return ((plain[transport === "abridged" ? 0 : 3] ?? 0) & QUICK_ACK) !== 0;
}
