import { concatBytes } from "../../core/bytes.ts";
import { HandshakeError } from "../../core/errors.ts";
import { CONTENT_TYPE, MAX_PLAIN_FRAGMENT, RECORD_HEADER_LENGTH } from "./record.ts";

/**
 * The records that open a connection over TLS: they hold one ClientHello, and nothing else.
 *
 *      0    1     3        5    6        9         11       43
 *      +----+-----+--------+----+--------+---------+--------+--- ... -+
 *      | 16 | 3.x | length | 01 | length | version | random |         |
 *      +----+-----+--------+----+--------+---------+--------+--- ... -+
 *      `- record header ---'`------- handshake message -------- ... --'
 *
 * A client may cut the message into several records at any place, the handshake header included.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-5.1
 */
const CLIENT_HELLO = 1;
const MESSAGE_HEADER_LENGTH = 4;
const RANDOM_OFFSET = 6;
const RANDOM_LENGTH = 32;

/** TLS calls itself version 3: SSL 3.0 is 3.0, TLS 1.3 would be 3.4. */
const MAJOR_VERSION = 3;
const MAX_MINOR_VERSION = 4;

/** Version and random, and the lengths of three empty vectors. */
const MIN_BODY_LENGTH = 38;

/** What fits a single record: nine times a hello with ML-KEM and ECH, which has about 1,800 bytes. */
const MAX_BODY_LENGTH = MAX_PLAIN_FRAGMENT;

/** Whoever evades filters cuts a hello into a few records; looking at them repeatedly must stay cheap. */
const MAX_RECORDS = 64;

/** A piece of bytes that are looked at elsewhere. */
export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** What the first bytes of a connection are, so far. */
export type HelloProgress =
  | {
      readonly kind: "partial";
      /** Bytes that must be there before looking again makes sense: more than there are. */
      readonly needed: number;
    }
  | {
      readonly kind: "whole";
      /** Bytes of the records that hold the ClientHello, headers included: what the digest is made over. */
      readonly length: number;
      /**
       * The handshake message, its 4-byte header included: a view of the bytes when one record holds it,
       * otherwise a copy.
       */
      readonly message: Uint8Array;
      /** Where the random's 32 bytes lie among the record bytes: several pieces when records split it. */
      readonly randomParts: readonly ByteRange[];
    };

/**
 * Tells whether the ClientHello at the start of `bytes` is whole, and what it is. What follows it is not
 * looked at.
 *
 * Meant to be called again with more of the same bytes. Until both headers are there, each byte is
 * asked for by itself: a stranger's first wrong byte is known without waiting for a second.
 *
 * @throws {HandshakeError} `BAD_CLIENT_HELLO` as soon as the bytes cannot be the beginning of a ClientHello.
 */
export function measureClientHello(bytes: Uint8Array): HelloProgress {
  const fragments: ByteRange[] = [];
  /** The first bytes of the message, up to 4. */
  const header: number[] = [];
  let joined = 0;
  let at = 0;
  for (let record = 1; ; record += 1) {
    checkRecordHeader(bytes, at);
    const from = at + RECORD_HEADER_LENGTH;
    if (bytes.length < from) {
      return { kind: "partial", needed: header.length < MESSAGE_HEADER_LENGTH ? bytes.length + 1 : from };
    }
    const length = u16(bytes, at + 3);
    const end = from + length;
    header.push(...bytes.subarray(from, Math.min(end, from + MESSAGE_HEADER_LENGTH - header.length)));
    const total = messageLength(header);
    joined += length;
    if (total !== undefined && joined > total) throw bad(`a record goes on after its ${total} bytes`);
    if (total !== undefined && joined < total && record === MAX_RECORDS) {
      throw bad(`it does not end within ${MAX_RECORDS} records`);
    }
    if (bytes.length < end) {
      return { kind: "partial", needed: total === undefined ? bytes.length + 1 : end };
    }
    fragments.push({ offset: from, length });
    at = end;
    if (joined !== total) continue;
    return {
      kind: "whole",
      length: end,
      message: joinFragments(bytes, fragments),
      randomParts: locateRandom(fragments),
    };
  }
}

/**
 * Returns a copy of a ClientHello's records with the random zeroed: what its digest is made over.
 *
 * @param bytes The record bytes, without what follows them.
 * @param parts As {@link measureClientHello} found them.
 */
export function zeroRandom(bytes: Uint8Array, parts: readonly ByteRange[]): Uint8Array {
  const copy = new Uint8Array(bytes); // not `slice`: a Buffer's does not copy
  for (const { offset, length } of parts) copy.fill(0, offset, offset + length);
  return copy;
}

/** Judges as much of the record header at `at` as has come. */
function checkRecordHeader(bytes: Uint8Array, at: number): void {
  const [type, major, minor, high, low] = bytes.subarray(at, at + RECORD_HEADER_LENGTH);
  if (type !== undefined && type !== CONTENT_TYPE.handshake) throw bad(`a record of type ${type}`);
  if (major !== undefined && major !== MAJOR_VERSION) throw bad(`a record of version ${major}`);
  if (minor !== undefined && minor > MAX_MINOR_VERSION) throw bad(`a record of version ${major}.${minor}`);
  if (high === undefined) return;
  const length = (high << 8) | (low ?? 0);
  if (length > MAX_PLAIN_FRAGMENT || (low !== undefined && length === 0)) {
    throw bad(`a record of ${length} bytes`);
  }
}

/** Judges what has come of the handshake header; returns the whole message's length once that is known. */
function messageLength(header: readonly number[]): number | undefined {
  const [type, high, middle, low] = header;
  if (type !== undefined && type !== CLIENT_HELLO) throw bad(`a handshake message of type ${type}`);
  const length = ((high ?? 0) << 16) | ((middle ?? 0) << 8) | (low ?? 0);
  if (length > MAX_BODY_LENGTH) throw bad(`it claims ${length} bytes or more`);
  if (low === undefined) return undefined;
  if (length < MIN_BODY_LENGTH) throw bad(`it claims ${length} bytes`);
  return MESSAGE_HEADER_LENGTH + length;
}

function joinFragments(bytes: Uint8Array, fragments: readonly ByteRange[]): Uint8Array {
  const parts = fragments.map(({ offset, length }) => bytes.subarray(offset, offset + length));
  const [only, second] = parts;
  return only !== undefined && second === undefined ? only : concatBytes(parts);
}

function locateRandom(fragments: readonly ByteRange[]): readonly ByteRange[] {
  const parts: ByteRange[] = [];
  let before = 0;
  for (const { offset, length } of fragments) {
    const from = Math.max(RANDOM_OFFSET - before, 0);
    const to = Math.min(RANDOM_OFFSET + RANDOM_LENGTH - before, length);
    if (from < to) parts.push({ offset: offset + from, length: to - from });
    before += length;
  }
  return parts;
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function bad(why: string): HandshakeError {
  return new HandshakeError("BAD_CLIENT_HELLO", `Cannot parse ClientHello: ${why}`);
}
