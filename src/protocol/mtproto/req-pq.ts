import { FormatError, TgwsError } from "../../core/errors.ts";

/**
 * `req_pq_multi` and `resPQ`: the question that every data centre answers to everybody, unencrypted.
 *
 *      0             8            16       20            24      40             56
 *      +-------------+------------+--------+-------------+-------+--------------+----+--------------+
 *      | auth_key_id | message_id | length | constructor | nonce | server_nonce | pq | fingerprints |
 *      +-------------+------------+--------+-------------+-------+--------------+----+--------------+
 *      `---- 0 -----'                      `-- length bytes: req_pq_multi ends after the nonce -----'
 *
 * All numbers are little-endian. `pq` is a TL string, `fingerprints` a TL vector of 64-bit numbers.
 *
 * @see https://core.telegram.org/mtproto/auth_key#1-client-initiates-exchange
 * @see https://core.telegram.org/mtproto/description#unencrypted-message
 */
const HEADER_LENGTH = 20;
const LENGTH_OFFSET = 16;
const NONCE_OFFSET = 24;
const SERVER_NONCE_OFFSET = 40;
const PQ_OFFSET = 56;

/** The length of a nonce, in bytes. */
export const NONCE_LENGTH = 16;

const REQ_PQ_MULTI = 0xbe7e8ef1;
const RES_PQ = 0x05162463;
const VECTOR = 0x1cb5c415;

/** A first byte of a TL string that says that three length bytes follow. */
const LONG_STRING = 254;
/** What the padded transport may put behind a message. */
const MAX_PADDING = 15;

/** What a data centre says of itself before there are any keys. */
export interface ResPq {
  /** The nonce of the question; a copy, like `serverNonce`. */
  readonly nonce: Uint8Array;
  readonly serverNonce: Uint8Array;
  /** How many RSA keys the server offers. */
  readonly fingerprintCount: number;
}

/**
 * Returns a client's message id for a moment: unix time times 2^32, divisible by 4.
 *
 * @param nowMs Unix time in milliseconds.
 * @param sequence Tells ids of the same moment apart, and puts them in order.
 */
export function clientMessageId(nowMs: number, sequence: number): bigint {
  const time = (BigInt(Math.floor(nowMs)) << 32n) / 1000n;
  return (time & ~3n) + BigInt(sequence) * 4n;
}

/**
 * Encodes the question, 40 bytes, without a transport's length.
 *
 * @param message.messageId See {@link clientMessageId}.
 * @throws {RangeError} When the nonce is not 16 bytes.
 */
export function encodeReqPqMulti(message: {
  readonly nonce: Uint8Array;
  readonly messageId: bigint;
}): Uint8Array {
  const { nonce, messageId } = message;
  if (nonce.length !== NONCE_LENGTH) throw new RangeError(`Cannot use nonce: it is ${nonce.length} bytes`);
  const bytes = new Uint8Array(NONCE_OFFSET + NONCE_LENGTH);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(8, messageId, true);
  view.setUint32(LENGTH_OFFSET, bytes.length - HEADER_LENGTH, true);
  view.setUint32(HEADER_LENGTH, REQ_PQ_MULTI, true);
  bytes.set(nonce, NONCE_OFFSET);
  return bytes;
}

/**
 * Reads the answer from a packet's payload; up to 15 bytes of padding may follow it.
 *
 * @throws {FormatError} `BAD_VALUE` for anything else than one whole, unencrypted `resPQ`.
 */
export function parseResPq(payload: Uint8Array): ResPq {
  if (payload.length < PQ_OFFSET) throw bad(`${payload.length} bytes are too few`);
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (view.getBigUint64(0, true) !== 0n) throw bad("it is encrypted");
  const end = HEADER_LENGTH + view.getUint32(LENGTH_OFFSET, true);
  if (end > payload.length || payload.length - end > MAX_PADDING) {
    throw bad(`its length says ${end - HEADER_LENGTH} of ${payload.length - HEADER_LENGTH} bytes`);
  }
  const kind = view.getUint32(HEADER_LENGTH, true);
  if (kind !== RES_PQ) throw bad(`its constructor is 0x${kind.toString(16).padStart(8, "0")}`);
  const vectorAt = skipString(view, PQ_OFFSET, end);
  if (vectorAt + 8 > end) throw bad("it ends before its fingerprints");
  if (view.getUint32(vectorAt, true) !== VECTOR) throw bad("its fingerprints are no vector");
  const fingerprintCount = view.getUint32(vectorAt + 4, true);
  if (vectorAt + 8 + fingerprintCount * 8 !== end) throw bad(`it has no ${fingerprintCount} fingerprints`);
  return {
    nonce: payload.slice(NONCE_OFFSET, SERVER_NONCE_OFFSET),
    serverNonce: payload.slice(SERVER_NONCE_OFFSET, PQ_OFFSET),
    fingerprintCount,
  };
}

/** Telegram's answer to a connection that it does not want: a negative number instead of a message. */
export class TransportError extends TgwsError<"TRANSPORT"> {
  /** As -404. */
  readonly answer: number;

  constructor(answer: number) {
    super("TRANSPORT", `Telegram answered ${answer}`);
    this.answer = answer;
  }
}

/**
 * Returns the transport error that a packet's payload is, or `undefined` when it is none.
 *
 * @see https://core.telegram.org/mtproto/mtproto-transports#transport-errors
 */
export function transportErrorOf(payload: Uint8Array): TransportError | undefined {
  if (payload.length !== 4) return undefined;
  const code = new DataView(payload.buffer, payload.byteOffset, 4).getInt32(0, true);
  return code < 0 ? new TransportError(code) : undefined;
}

/** Where a TL string that starts at `at` ends, padding included. */
function skipString(view: DataView, at: number, end: number): number {
  if (at + 4 > end) throw bad("it ends before its pq");
  const first = view.getUint8(at);
  const [header, length] = first === LONG_STRING ? [4, view.getUint32(at, true) >>> 8] : [1, first];
  const next = at + ((header + length + 3) & ~3);
  if (first > LONG_STRING || next > end) throw bad(`its pq cannot be ${length} bytes`);
  return next;
}

function bad(why: string): FormatError {
  return new FormatError("BAD_VALUE", `Cannot parse resPQ: ${why}`);
}
