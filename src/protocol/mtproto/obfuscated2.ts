import { HandshakeError } from "../../core/errors.ts";
import { type Transport, tagByte, transportOfTag } from "./transport.ts";

/**
 * The 64-byte obfuscated2 init that opens every obfuscated MTProto stream.
 *
 *      0       8               40      56   60  62  64
 *      +-------+---------------+-------+----+---+---+
 *      | noise | key           | iv    | tag|dc |   |
 *      +-------+---------------+-------+----+---+---+
 *      `----------- clear -------------' `encrypted-'
 *
 * Bytes 56-63 travel encrypted with the stream's own cipher, whose counter has by then run over the
 * 56 bytes before them. The key and iv of the way back are the same 48 bytes reversed.
 *
 * @see https://core.telegram.org/mtproto/mtproto-transports#transport-obfuscation
 */
export const INIT_LENGTH = 64;

/** Key and iv: bytes 8-55. */
export const KEY_MATERIAL_OFFSET = 8;
export const KEY_MATERIAL_LENGTH = 48;
export const KEY_LENGTH = 32;

/** Where the encrypted part begins. */
export const TAG_OFFSET = 56;
const DC_OFFSET = 60;

/** What an init says once it is decrypted. */
export interface Init {
  readonly transport: Transport;
  /** Signed 16-bit dc id, see `parseDcId`. */
  readonly dcId: number;
}

/**
 * Reads the fields of an init whose last 8 bytes are already decrypted.
 *
 * @throws {HandshakeError} `BAD_LENGTH` unless `plain` is 64 bytes; `BAD_TRANSPORT_TAG` when the tag
 * names no transport, which is what a wrong secret looks like.
 */
export function parseInit(plain: Uint8Array): Init {
  if (plain.length !== INIT_LENGTH) {
    throw new HandshakeError(
      "BAD_LENGTH",
      `Cannot parse init: ${plain.length} bytes instead of ${INIT_LENGTH}`,
    );
  }
  const transport = transportOfTag(plain.subarray(TAG_OFFSET, DC_OFFSET));
  if (transport === undefined) {
    throw new HandshakeError("BAD_TRANSPORT_TAG", "Cannot parse init: its tag names no transport");
  }
  const dcId = ((plain[DC_OFFSET] ?? 0) | ((plain[DC_OFFSET + 1] ?? 0) << 8)) << 16;
  return { transport, dcId: dcId >> 16 };
}

/**
 * Writes `init`'s fields over bytes 56-61 of `noise`, which become the plain init; bytes 62-63 stay noise.
 *
 * @param noise 64 random bytes, changed in place; see {@link isReservedStart}.
 */
export function writeInit(noise: Uint8Array, init: Init): void {
  noise.fill(tagByte(init.transport), TAG_OFFSET, DC_OFFSET);
  noise[DC_OFFSET] = init.dcId & 0xff;
  noise[DC_OFFSET + 1] = (init.dcId >> 8) & 0xff;
}

const RESERVED_FIRST_WORDS: readonly number[] = [
  0x44414548, // "HEAD"
  0x54534f50, // "POST"
  0x20544547, // "GET "
  0x4954504f, // "OPTI"
  0xdddddddd, // padded intermediate
  0xeeeeeeee, // intermediate
  0x02010316, // the start of a TLS record, 16 03 01 02
];

/**
 * Tells whether an init may not start like this, because a server would take it for another protocol.
 *
 * This binds the generator of our own inits only: clients inside fake TLS do not honour it.
 */
export function isReservedStart(init: Uint8Array): boolean {
  const view = new DataView(init.buffer, init.byteOffset, init.byteLength);
  return (
    init[0] === 0xef ||
    RESERVED_FIRST_WORDS.includes(view.getUint32(0, true)) ||
    view.getUint32(4, true) === 0
  );
}
