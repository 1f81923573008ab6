import { concatBytes } from "../../core/bytes.ts";
import { EXTENSION, type KeyShare } from "./client-hello.ts";
import { CONTENT_TYPE, MAX_CIPHER_FRAGMENT, RECORD_HEADER_LENGTH, writeRecordHeader } from "./record.ts";

/**
 * What a TLS 1.3 server says first, in the three records that Telegram's clients insist on.
 *
 *      0        5    6        9       11       43           44+n    46+n  47+n
 *      +--------+----+--------+-------+--------+------------+--------+----+------------+
 *      | header | 02 | length | 03 03 | random | session id | cipher | 00 | extensions |  16 03 03
 *      +--------+----+--------+-------+--------+------------+--------+----+------------+
 *      | header | 01 |                                                                   14 03 03
 *      +--------+----+-------- ... -+
 *      | header | encrypted         |                                                    17 03 03
 *      +--------+------------- ... -+
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-4.1.3
 * @see https://www.rfc-editor.org/rfc/rfc8446#appendix-D.4 for the change_cipher_spec
 */
const SERVER_HELLO = 2;
const MESSAGE_HEADER_LENGTH = 4;
const RANDOM_LENGTH = 32;
const MAX_SESSION_ID_LENGTH = 32;

/** Generous: the longest share of a server is 1,120 bytes. Keeps the message in one record. */
const MAX_KEY_LENGTH = 8_192;

/** Where the server's random starts in the flight. */
export const SERVER_RANDOM_OFFSET = RECORD_HEADER_LENGTH + MESSAGE_HEADER_LENGTH + 2;

/** What a first flight says. */
export interface FlightPlan {
  /** The client's, 0-32 bytes. */
  readonly sessionId: Uint8Array;
  /** One that the client offered. */
  readonly cipherSuite: number;
  /** Extension types in their order: a permutation of 43 and 51. */
  readonly extensionOrder: readonly number[];
  readonly keyShare: KeyShare;
  /** Random bytes that stand for the encrypted part of the handshake, 1-16,640 in one record. */
  readonly encrypted: Uint8Array;
}

/**
 * Encodes the server's first flight: the ServerHello, a change_cipher_spec and one encrypted record.
 *
 * The random is zero: whoever signs the flight fills it in, 32 bytes at {@link SERVER_RANDOM_OFFSET}.
 *
 * @throws {RangeError} When a part of the plan has not the length or the values that it says above.
 */
export function encodeFirstFlight(plan: FlightPlan): Uint8Array {
  checkPlan(plan);
  const extensions = concatBytes(plan.extensionOrder.map((type) => encodeExtension(type, plan.keyShare)));
  const body = concatBytes([
    Uint8Array.of(0x03, 0x03),
    new Uint8Array(RANDOM_LENGTH),
    Uint8Array.of(plan.sessionId.length),
    plan.sessionId,
    Uint8Array.of(...u16(plan.cipherSuite), 0, ...u16(extensions.length)), // 0: no compression
    extensions,
  ]);
  const message = concatBytes([Uint8Array.of(SERVER_HELLO, 0, ...u16(body.length)), body]);
  return concatBytes([
    encodeRecord(CONTENT_TYPE.handshake, message),
    encodeRecord(CONTENT_TYPE.changeCipherSpec, Uint8Array.of(1)),
    encodeRecord(CONTENT_TYPE.applicationData, plan.encrypted),
  ]);
}

function encodeExtension(type: number, { group, key }: KeyShare): Uint8Array {
  if (type === EXTENSION.supportedVersions) return Uint8Array.of(...u16(type), 0, 2, 0x03, 0x04);
  const header = Uint8Array.of(...u16(type), ...u16(4 + key.length), ...u16(group), ...u16(key.length));
  return concatBytes([header, key]);
}

function checkPlan({ sessionId, extensionOrder, keyShare, encrypted }: FlightPlan): void {
  const bothOnce =
    extensionOrder.length === 2 &&
    extensionOrder.includes(EXTENSION.supportedVersions) &&
    extensionOrder.includes(EXTENSION.keyShare);
  const wrong =
    (!bothOnce && `the extensions ${extensionOrder}`) ||
    (sessionId.length > MAX_SESSION_ID_LENGTH && `a session id of ${sessionId.length} bytes`) ||
    ((keyShare.key.length === 0 || keyShare.key.length > MAX_KEY_LENGTH) &&
      `a key share of ${keyShare.key.length} bytes`) ||
    ((encrypted.length === 0 || encrypted.length > MAX_CIPHER_FRAGMENT) &&
      `a record of ${encrypted.length} bytes`);
  if (wrong !== false) throw new RangeError(`Cannot encode ServerHello: ${wrong}`);
}

function encodeRecord(type: number, fragment: Uint8Array): Uint8Array {
  const record = new Uint8Array(RECORD_HEADER_LENGTH + fragment.length);
  writeRecordHeader(record, 0, type, fragment.length);
  record.set(fragment, RECORD_HEADER_LENGTH);
  return record;
}

function u16(value: number): readonly [number, number] {
  return [value >> 8, value & 0xff];
}
