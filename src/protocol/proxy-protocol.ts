import { ProxyHeaderError } from "../core/errors.ts";
import { formatIp, ipVersion, parseIp } from "../core/ip-address.ts";

/**
 * The header of the PROXY protocol, with which a load balancer says for whom it opened a connection.
 *
 * Version 1 is one line of ASCII, its fields apart by exactly one space:
 *
 *      PROXY TCP4|TCP6 <source> <destination> <source port> <destination port> CR LF
 *      PROXY UNKNOWN[ <anything>] CR LF
 *
 * Version 2 is binary, numbers big-endian:
 *
 *      0           12                13                14       16
 *      +-----------+---------+-------+--------+--------+--------+------------- .. -+------ .. -+
 *      | signature | version |command| family |transp. | length | addresses        | TLVs      |
 *      +-----------+---------+-------+--------+--------+--------+------------- .. -+------ .. -+
 *                   4 bits    4 bits  4 bits   4 bits            `---- length bytes ----------'
 *
 *      TCP4     source (4), destination (4), source port (2), destination port (2)
 *      TCP6     source (16), destination (16), source port (2), destination port (2)
 *      UNIX     source (108), destination (108)
 *      a TLV    type (1), length (2), value (length)
 *
 * @see https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt
 */
export type ProxyHeaderProgress =
  | {
      readonly kind: "partial";
      /** No header that begins like this is shorter, in bytes: more than there are. */
      readonly needed: number;
    }
  | {
      readonly kind: "whole";
      /** Bytes of the header: the client's own begin there. */
      readonly length: number;
      readonly version: 1 | 2;
      /** The client; `undefined` when the header names none, and the connection's own address is meant. */
      readonly source: ProxyHeaderSource | undefined;
    };

/** Where a balancer's client comes from. */
export interface ProxyHeaderSource {
  /** In the canonical form of RFC 5952; IPv4 within IPv6 as IPv4. */
  readonly address: string;
  readonly port: number;
}

const V1_START = ascii("PROXY ");
const V2_SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);

/**
 * Reads a header at the start of `bytes`, of which what follows the header is not looked at.
 *
 * Cheap enough to be called again for each byte that arrives; waiting for `needed` spares that.
 *
 * @throws {ProxyHeaderError} `BAD_PROXY_HEADER` as soon as the start or a whole field is wrong.
 */
export function measureProxyHeader(bytes: Uint8Array): ProxyHeaderProgress {
  if (beginsAlike(bytes, V1_START)) return measureV1(bytes);
  if (beginsAlike(bytes, V2_SIGNATURE)) return measureV2(bytes);
  throw new ProxyHeaderError(
    "missing",
    "Cannot read PROXY header: it is missing, the connection begins with something else",
  );
}

/** The longest line in bytes, by the specification, with its end. */
const V1_MAX_LENGTH = 107;
const CR = 0x0d;
const LF = 0x0a;

interface V1Family {
  readonly version: 4 | 6;
  /** The shortest and the longest line, in bytes with its end. */
  readonly min: number;
  readonly max: number;
  /** What its addresses are made of. */
  readonly charset: RegExp;
}

const V1_UNKNOWN = "UNKNOWN";
const V1_FAMILIES: Readonly<Partial<Record<string, V1Family>>> = {
  TCP4: { version: 4, min: 32, max: 56, charset: /^[\d.]*$/ },
  TCP6: { version: 6, min: 22, max: V1_MAX_LENGTH, charset: /^[\da-fA-F:.]*$/ },
};
const V1_WORDS = [...Object.keys(V1_FAMILIES), V1_UNKNOWN];
/** `PROXY UNKNOWN`, with its end. */
const V1_MIN_LENGTH = 15;
/** What follows TCP4 and TCP6. */
const V1_FIELDS = ["source address", "destination address", "source port", "destination port"] as const;

/** Whatever goes on may be empty as yet. */
const PORT = /^(?:0|[1-9]\d{0,4})?$/;
const MAX_PORT = 65_535;

function measureV1(bytes: Uint8Array): ProxyHeaderProgress {
  const line = readLine(bytes.subarray(0, V1_MAX_LENGTH));
  const [, word = "", ...fields] = line.text.split(" ");
  const wordIsWhole = line.isWhole || fields.length > 0;
  if (!V1_WORDS.some((known) => (wordIsWhole ? known === word : known.startsWith(word)))) {
    throw malformed("its protocol is none of TCP4, TCP6 and UNKNOWN");
  }
  const family = wordIsWhole ? V1_FAMILIES[word] : undefined;
  if (family !== undefined) checkFields(fields, family, line.isWhole);

  const { min = V1_MIN_LENGTH, max = V1_MAX_LENGTH } = family ?? {};
  const needed = Math.max(min, line.needed);
  if (needed > max) throw malformed(`its line has no end within ${max} bytes`);
  if (needed > bytes.length) return { kind: "partial", needed };
  return { kind: "whole", length: needed, version: 1, source: family && v1Source(fields) };
}

/** A line, or the beginning of one. */
interface Line {
  /** Without `\r\n`, or what there is of it. */
  readonly text: string;
  /** Nothing can be added to `text`. */
  readonly isWhole: boolean;
  /** The line is no shorter, in bytes with its end; exactly so long when that is not more than there are. */
  readonly needed: number;
}

function readLine(bytes: Uint8Array): Line {
  const end = bytes.findIndex((byte, at) => byte === CR && bytes[at + 1] === LF);
  // "UNKNOWN" may be followed by anything, also by a CR that ends nothing: the next byte tells.
  const text = end === -1 && bytes.at(-1) === CR ? bytes.length - 1 : bytes.length;
  const length = end === -1 ? text : end;
  return {
    text: String.fromCharCode(...bytes.subarray(0, length)),
    isWhole: end !== -1 || text < bytes.length,
    needed: length + 2,
  };
}

/** Checks all that follows the protocol; the last field may go on unless the line `isWhole`. */
function checkFields(fields: readonly string[], family: V1Family, isWhole: boolean): void {
  if (fields.length > V1_FIELDS.length || (isWhole && fields.length < V1_FIELDS.length)) {
    const follow = fields.length === 1 ? "field follows" : "fields follow";
    throw malformed(`${fields.length} ${follow} its protocol, not ${V1_FIELDS.length}`);
  }
  for (const [index, text] of fields.entries()) {
    const mayGoOn = !isWhole && index === fields.length - 1;
    const right = index < 2 ? isAddress(text, family, mayGoOn) : isPort(text, mayGoOn);
    if (!right) throw malformed(`its ${V1_FIELDS[index]} is not one`);
  }
}

function isAddress(text: string, { version, charset }: V1Family, mayGoOn: boolean): boolean {
  return charset.test(text) && (mayGoOn || ipVersion(text) === version); // zones are not in the charset
}

function isPort(text: string, mayGoOn: boolean): boolean {
  return PORT.test(text) && Number(text) <= MAX_PORT && (mayGoOn || text !== "");
}

function v1Source([address = "", , port]: readonly string[]): ProxyHeaderSource | undefined {
  const bytes = parseIp(address);
  return bytes && { address: formatAddress(bytes), port: Number(port) };
}

const V2_COMMAND_OFFSET = 12;
const V2_FAMILY_OFFSET = 13;
const V2_LENGTH_OFFSET = 14;
const V2_FIXED_LENGTH = 16;
/**
 * The longest that may follow the fixed part, in bytes.
 *
 * Senders keep a header within one segment (536 bytes), but TLVs with certificates' names and vendors' own may
 * go beyond. The length field would have 64 KiB held for whoever connects.
 */
const V2_MAX_REST = 4096;

const V2_VERSION = 2;
const V2_LOCAL = 0;
const V2_PROXY = 1;
const V2_UNSPEC = 0x00;
const V2_TCP4 = 0x11;
const V2_TCP6 = 0x21;
const V2_UNIX = 0x31;
const IPV4_LENGTH = 4;
const IPV6_LENGTH = 16;
/** Bytes of both addresses and ports. Datagrams are not in here: they cannot have come over this connection. */
const V2_ADDRESSES_LENGTH: ReadonlyMap<number, number> = new Map([
  [V2_UNSPEC, 0],
  [V2_TCP4, 2 * IPV4_LENGTH + 4],
  [V2_TCP6, 2 * IPV6_LENGTH + 4],
  [V2_UNIX, 2 * 108],
]);

function measureV2(bytes: Uint8Array): ProxyHeaderProgress {
  const { length: there } = bytes;
  const command = there > V2_COMMAND_OFFSET ? parseV2Command(bytes[V2_COMMAND_OFFSET] ?? 0) : V2_LOCAL;
  // With LOCAL neither the family nor what follows says anything.
  const family = command === V2_LOCAL ? V2_UNSPEC : (bytes[V2_FAMILY_OFFSET] ?? V2_UNSPEC);
  const addressesLength = V2_ADDRESSES_LENGTH.get(family);
  if (addressesLength === undefined) throw malformed(`its family and transport are 0x${family.toString(16)}`);
  if (there < V2_FIXED_LENGTH) return { kind: "partial", needed: V2_FIXED_LENGTH };

  const rest = uint16(bytes, V2_LENGTH_OFFSET);
  if (rest < addressesLength || rest > V2_MAX_REST) {
    throw malformed(`its length is ${rest}, not ${addressesLength} to ${V2_MAX_REST} bytes`);
  }
  const length = V2_FIXED_LENGTH + rest;
  if (there < length) return { kind: "partial", needed: length };
  // An unspecified family may come with addresses of any length: there is no telling where the TLVs begin.
  if (family !== V2_UNSPEC) checkTlvs(bytes.subarray(0, length), V2_FIXED_LENGTH + addressesLength);
  return { kind: "whole", length, version: 2, source: v2Source(bytes, family) };
}

function parseV2Command(byte: number): number {
  const version = byte >> 4;
  const command = byte & 0x0f;
  if (version !== V2_VERSION) throw malformed(`its version is ${version}`);
  if (command > V2_PROXY) throw malformed(`its command is ${command}`);
  return command;
}

function v2Source(bytes: Uint8Array, family: number): ProxyHeaderSource | undefined {
  if (family !== V2_TCP4 && family !== V2_TCP6) return undefined;
  const size = family === V2_TCP4 ? IPV4_LENGTH : IPV6_LENGTH;
  const address = bytes.subarray(V2_FIXED_LENGTH, V2_FIXED_LENGTH + size);
  return { address: formatAddress(address), port: uint16(bytes, V2_FIXED_LENGTH + 2 * size) };
}

const TLV_HEADER_LENGTH = 3;
const TLV_CRC32C = 0x03;
const CRC_LENGTH = 4;

/**
 * Checks that the TLVs from `start` fill `header` to its end, and its checksum if there is one.
 *
 * @throws {ProxyHeaderError} `BAD_PROXY_HEADER`.
 */
function checkTlvs(header: Uint8Array, start: number): void {
  let checksumAt: number | undefined;
  let at = start;
  while (at < header.length) {
    const valueAt = at + TLV_HEADER_LENGTH;
    const next = valueAt <= header.length ? valueAt + uint16(header, at + 1) : Number.POSITIVE_INFINITY;
    if (next > header.length) throw malformed("its last TLV does not fit");
    if (header[at] === TLV_CRC32C) {
      if (next - valueAt !== CRC_LENGTH || checksumAt !== undefined) {
        throw malformed("its checksum is not one of 4 bytes");
      }
      checksumAt = valueAt;
    }
    at = next;
  }
  if (checksumAt === undefined) return;
  const checksum = uint16(header, checksumAt) * 0x1_0000 + uint16(header, checksumAt + 2);
  if (crc32cWithout(header, checksumAt) !== checksum) throw malformed("its checksum is wrong");
}

/** The polynomial 0x1EDC6F41 of Castagnoli, reflected. */
const CRC32C_POLYNOMIAL = 0x82f63b78;

/**
 * The CRC32C of `header`, the four bytes of its checksum at `checksumAt` taken for zeros.
 *
 * Bit by bit: a table would be larger than what it is for.
 *
 * @see https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4
 */
function crc32cWithout(header: Uint8Array, checksumAt: number): number {
  let crc = 0xffff_ffff;
  for (const [at, byte] of header.entries()) {
    crc ^= at >= checksumAt && at < checksumAt + CRC_LENGTH ? 0 : byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
  }
  return ~crc >>> 0;
}

const MAPPED_LENGTH = 12;

/** Formats 4 or 16 bytes. IPv4 within IPv6 (RFC 4291 section 2.5.5.2) is the same client as over IPv4. */
function formatAddress(bytes: Uint8Array): string {
  const mapped =
    uint16(bytes, MAPPED_LENGTH - 2) === 0xffff && bytes.subarray(0, 10).every((byte) => byte === 0);
  return formatIp(bytes.length === IPV6_LENGTH && mapped ? bytes.subarray(MAPPED_LENGTH) : bytes);
}

function malformed(details: string): ProxyHeaderError {
  return new ProxyHeaderError("malformed", `Cannot read PROXY header: it is malformed, ${details}`);
}

/** Whether one of both begins with the other. */
function beginsAlike(bytes: Uint8Array, start: Uint8Array): boolean {
  return bytes.subarray(0, start.length).every((byte, index) => byte === start[index]);
}

function uint16(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0);
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
