import { concatBytes } from "../../core/bytes.ts";
import { EXTENSION, GROUP, isGrease, type KeyShare } from "./client-hello.ts";
import { CONTENT_TYPE, MAX_PLAIN_FRAGMENT, RECORD_HEADER_LENGTH, writeRecordHeader } from "./record.ts";

/**
 * The ClientHello with which tgws measures its cover site, like those of Telegram's apps and current browsers in one
 * record.
 *
 * It offers all that changes the length of a site's answer: compress_certificate, and for newer clients ECH (GREASE,
 * to which a site with ECH answers with its configuration) and ALPS.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-4.1.2
 */
const CLIENT_HELLO = 1;
const TLS_1_0 = 0x0301;
const TLS_1_2 = 0x0303;
const TLS_1_3 = 0x0304;
const RANDOM_LENGTH = 32;
const MAX_SESSION_ID_LENGTH = 32;
const GREASE_LENGTH = 6;

/** The longest name that DNS knows. */
const MAX_NAME_LENGTH = 253;

/** ECDHE with AES-GCM and ChaCha20, then what very old servers need. */
const TLS_1_2_SUITES = [
  0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
] as const;

const BROTLI = 2;

/** In the order of preference. */
const GROUPS: readonly number[] = [GROUP.x25519MlKem768, GROUP.x25519, GROUP.secp256r1, GROUP.secp384r1];

/** ECDSA, RSA-PSS and RSA-PKCS1, each with SHA-256 and SHA-384, and both of RSA with SHA-512. */
const SIGNATURE_ALGORITHMS = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601] as const;

/** What a ClientHello of ours says. Nothing in it is made up here, so that equal plans make equal bytes. */
export interface HelloPlan {
  /** Visible ASCII, 1-253 characters. */
  readonly serverName: string;
  /** 32 bytes. */
  readonly random: Uint8Array;
  /** 32 bytes, as clients of TLS 1.3 send them for the sake of middleboxes. */
  readonly sessionId: Uint8Array;
  /** TLS 1.3 suites in the order of preference: 0x1301, 0x1302, 0x1303. The usual ones of TLS 1.2 follow. */
  readonly cipherSuites: readonly number[];
  /**
   * Of the groups X25519MLKEM768, X25519, secp256r1 and secp384r1. The first is offered only with a share:
   * servers that prefer it would ask for one, and nothing more. The others are always offered.
   */
  readonly keyShares: readonly KeyShare[];
  /** Empty: no ALPN. */
  readonly alpn: readonly string[];
  /** At least 6 random bytes, from which the GREASE values are made. */
  readonly grease: Uint8Array;
  /** As clients of today send it, with ALPS; `undefined`: as those of some years ago, with neither. */
  readonly ech: GreaseEch | undefined;
}

/**
 * An offer of ECH that stands for none: a server cannot tell.
 *
 * @see https://www.rfc-editor.org/rfc/rfc9849#section-6.2
 */
export interface GreaseEch {
  /** 0-255, random. */
  readonly configId: number;
  /** An X25519 key, 32 bytes. */
  readonly enc: Uint8Array;
  /** Random, 144 bytes or more. */
  readonly payload: Uint8Array;
}

/**
 * Encodes `plan` as one whole record: `16 03 01`, the length, the message.
 *
 * @throws {RangeError} When a part of the plan has not the length or the values that it says above, or
 * everything together does not fit one record.
 */
export function encodeClientHello(plan: HelloPlan): Uint8Array {
  checkPlan(plan);
  const grease = greaseValues(plan.grease);
  const body = concatBytes([
    u16(TLS_1_2),
    plan.random,
    vector8(plan.sessionId),
    vector16(u16(grease.cipherSuite, ...plan.cipherSuites, ...TLS_1_2_SUITES)),
    vector8(Uint8Array.of(0)), // no compression
    vector16(concatBytes(encodeExtensions(plan, grease))),
  ]);
  const message = concatBytes([Uint8Array.of(CLIENT_HELLO, 0), u16(body.length), body]);
  if (message.length > MAX_PLAIN_FRAGMENT) {
    throw new RangeError(`Cannot encode ClientHello: ${message.length} bytes do not fit one record`);
  }
  const record = new Uint8Array(RECORD_HEADER_LENGTH + message.length);
  writeRecordHeader(record, 0, CONTENT_TYPE.handshake, message.length);
  record.set(u16(TLS_1_0), 1); // as all clients do, for servers that know nothing newer
  record.set(message, RECORD_HEADER_LENGTH);
  return record;
}

/** One value for each place where browsers put one. */
interface GreaseValues {
  readonly cipherSuite: number;
  readonly group: number;
  readonly version: number;
  readonly firstExtension: number;
  readonly lastExtension: number;
}

/** @see https://www.rfc-editor.org/rfc/rfc8701#section-2 */
function greaseValues(random: Uint8Array): GreaseValues {
  const greaseAt = (at: number): number => 0x0a0a + 0x1010 * ((random[at] ?? 0) >> 4);
  const firstExtension = greaseAt(3);
  const lastExtension = greaseAt(4);
  return {
    cipherSuite: greaseAt(0),
    group: greaseAt(1),
    version: greaseAt(2),
    firstExtension,
    // No type may come twice.
    lastExtension: lastExtension === firstExtension ? lastExtension ^ 0x1010 : lastExtension,
  };
}

function encodeExtensions(plan: HelloPlan, grease: GreaseValues): readonly Uint8Array[] {
  const hostName = vector16(ascii(plan.serverName));
  const protocols = plan.alpn.map((name) => vector8(ascii(name)));
  const shares = plan.keyShares.map(({ group, key }) => concatBytes([u16(group), vector16(key)]));
  const groups = GROUPS.filter(
    (group) => group !== GROUP.x25519MlKem768 || plan.keyShares.some((share) => share.group === group),
  );
  const greaseShare = concatBytes([u16(grease.group), vector16(Uint8Array.of(0))]);
  return [
    extension(grease.firstExtension, new Uint8Array(0)),
    extension(EXTENSION.serverName, vector16(concatBytes([Uint8Array.of(0), hostName]))),
    extension(EXTENSION.extendedMasterSecret, new Uint8Array(0)),
    extension(EXTENSION.renegotiationInfo, vector8(new Uint8Array(0))),
    extension(EXTENSION.supportedGroups, vector16(u16(grease.group, ...groups))),
    extension(EXTENSION.ecPointFormats, vector8(Uint8Array.of(0))), // uncompressed
    extension(EXTENSION.sessionTicket, new Uint8Array(0)),
    ...(protocols.length > 0 ? [extension(EXTENSION.alpn, vector16(concatBytes(protocols)))] : []),
    extension(EXTENSION.statusRequest, Uint8Array.of(1, 0, 0, 0, 0)), // OCSP, any responder
    extension(EXTENSION.signatureAlgorithms, vector16(u16(...SIGNATURE_ALGORITHMS))),
    extension(EXTENSION.signedCertificateTimestamp, new Uint8Array(0)),
    extension(EXTENSION.keyShare, vector16(concatBytes([greaseShare, ...shares]))),
    extension(EXTENSION.pskKeyExchangeModes, vector8(Uint8Array.of(1))), // with (EC)DHE
    extension(EXTENSION.supportedVersions, vector8(u16(grease.version, TLS_1_3, TLS_1_2))),
    extension(EXTENSION.compressCertificate, vector8(u16(BROTLI))),
    ...(plan.ech === undefined ? [] : encodeNewer(plan.ech)),
    extension(grease.lastExtension, Uint8Array.of(0)),
  ];
}

/** What only clients of today send: GREASE ECH (outer, HKDF-SHA256, AES-128-GCM), and ALPS for h2. */
function encodeNewer({ configId, enc, payload }: GreaseEch): readonly Uint8Array[] {
  const outer = [Uint8Array.of(0), u16(1, 1), Uint8Array.of(configId), vector16(enc), vector16(payload)];
  return [
    extension(EXTENSION.encryptedClientHello, concatBytes(outer)),
    extension(EXTENSION.applicationSettings, vector16(vector8(ascii("h2")))),
  ];
}

function checkPlan(plan: HelloPlan): void {
  const { serverName, random, sessionId, cipherSuites, keyShares, alpn, grease } = plan;
  const wrong =
    (random.length !== RANDOM_LENGTH && `a random of ${random.length} bytes`) ||
    (sessionId.length > MAX_SESSION_ID_LENGTH && `a session id of ${sessionId.length} bytes`) ||
    (grease.length < GREASE_LENGTH && `${grease.length} bytes for GREASE`) ||
    ((serverName.length > MAX_NAME_LENGTH || !isVisibleAscii(serverName)) && `the name ${serverName}`) ||
    (alpn.some((name) => name.length > 255 || !isVisibleAscii(name)) && `the protocols ${alpn}`) ||
    (cipherSuites.some((suite) => suite >> 8 !== 0x13 || isGrease(suite)) && `the suites ${cipherSuites}`) ||
    (keyShares.some(({ group }) => !GROUPS.includes(group)) && "a share of a group that is not offered");
  if (wrong !== false) throw new RangeError(`Cannot encode ClientHello: ${wrong}`);
}

function isVisibleAscii(text: string): boolean {
  return /^[\x21-\x7e]+$/.test(text);
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function extension(type: number, data: Uint8Array): Uint8Array {
  return concatBytes([u16(type), vector16(data)]);
}

function u16(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value >> 8, value & 0xff]));
}

function vector8(bytes: Uint8Array): Uint8Array {
  return concatBytes([Uint8Array.of(bytes.length), bytes]);
}

function vector16(bytes: Uint8Array): Uint8Array {
  return concatBytes([u16(bytes.length), bytes]);
}
