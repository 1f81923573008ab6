/**
 * The record layer of TLS 1.3: what every byte on the wire is wrapped in.
 *
 *      0      1           3         5
 *      +------+-----------+---------+------------ ... -+
 *      | type | version   | length  | fragment         |
 *      +------+-----------+---------+------------ ... -+
 *               big endian  big endian
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-5.1
 */
export const RECORD_HEADER_LENGTH = 5;

/** The longest fragment of a record in the clear, in bytes. */
export const MAX_PLAIN_FRAGMENT = 16_384;

/** The longest fragment of an encrypted record, in bytes. @see RFC 8446, section 5.2 */
export const MAX_CIPHER_FRAGMENT = MAX_PLAIN_FRAGMENT + 256;

/** What a record carries: ContentType. */
export const CONTENT_TYPE = {
  changeCipherSpec: 0x14,
  alert: 0x15,
  handshake: 0x16,
  applicationData: 0x17,
} as const;

/** The version that records of TLS 1.2 and 1.3 carry. */
export const RECORD_VERSION = 0x0303;

/** Writes a record's header at `offset` of `out`. */
export function writeRecordHeader(out: Uint8Array, offset: number, type: number, length: number): void {
  out[offset] = type;
  out[offset + 1] = RECORD_VERSION >> 8;
  out[offset + 2] = RECORD_VERSION & 0xff;
  out[offset + 3] = length >> 8;
  out[offset + 4] = length & 0xff;
}
