import { createHmac, createPrivateKey, createPublicKey, diffieHellman, randomBytes } from "node:crypto";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import { concat } from "./packets.ts";

/**
 * Which client a hello looks like: an older Telegram Desktop or mtcute (padded to 517 bytes), TDLib (1.7 KB,
 * shuffled, ML-KEM and ECH), or just what TLS 1.3 asks for.
 */
export type HelloShape = "desktop-517" | "tdlib" | "minimal";

/** All of them, for tables. */
export const HELLO_SHAPES: readonly HelloShape[] = ["desktop-517", "tdlib", "minimal"];

/** Groups that hellos offer a share of. */
export const GROUPS = { x25519: 0x001d, x25519MlKem768: 0x11ec } as const;

/** Sizes of ML-KEM-768, in bytes. @see FIPS 203, table 3 */
export const ML_KEM = { publicKey: 1184, cipherText: 1088 } as const;

/** How a hello is made. */
export interface HelloOptions {
  readonly shape?: HelloShape;
  /** 16 bytes. */
  readonly secret: Uint8Array;
  /** Without, there is no SNI. */
  readonly serverName?: string;
  /** Unix time in seconds. Without: now. */
  readonly timestamp?: number;
  /** Without, those of the shape. A GREASE value goes first in those that have one. */
  readonly cipherSuites?: readonly number[];
  /** Handshake records that the message is spread over, as evenly as can be. Without: 1. */
  readonly records?: number;
  /** Without: 32 random bytes. */
  readonly sessionId?: Uint8Array;
  /** Changes the extensions before anything is computed. */
  readonly editExtensions?: (extensions: readonly HelloExtension[]) => readonly HelloExtension[];
  /** Changes the finished bytes in place, so that the digest no longer fits. */
  readonly tamper?: (bytes: Uint8Array) => void;
}

/** An extension with its body. */
export interface HelloExtension {
  readonly type: number;
  readonly body: Uint8Array;
}

/** A ClientHello that was built, and the secrets behind it. */
export interface BuiltHello {
  /** The records, as they are to be sent. */
  readonly bytes: Uint8Array;
  readonly random: Uint8Array;
  readonly sessionId: Uint8Array;
  /** As offered, with the GREASE value. */
  readonly cipherSuites: readonly number[];
  /** Those that there is a real key share of. */
  readonly groups: readonly number[];
  readonly secret: Uint8Array;
  readonly keys: HelloKeys;
}

/** The private halves of a hello's key shares. */
export class HelloKeys {
  readonly #x25519 = randomBytes(32);
  readonly #mlKem = ml_kem768.keygen();

  /** 32 bytes: a point that is on the curve. */
  get x25519Share(): Uint8Array {
    return rawPublicKey(this.#x25519);
  }

  /** 1216 bytes: the encapsulation key, then an X25519 share, the same as the one alone. */
  get hybridShare(): Uint8Array {
    return concat(this.#mlKem.publicKey, this.x25519Share);
  }

  /** What both sides share. @throws {Error} When `share` gives zeros, as a point of small order does. */
  agree(share: Uint8Array): Uint8Array {
    const shared = diffieHellman({ privateKey: x25519Key(this.#x25519), publicKey: x25519Point(share) });
    if (shared.every((byte) => byte === 0)) throw new Error("The X25519 share is of small order");
    return new Uint8Array(shared);
  }

  /** Opens `cipherText`; for one that was not made with the key, ML-KEM gives a secret without complaint. */
  decapsulate(cipherText: Uint8Array): Uint8Array {
    return ml_kem768.decapsulate(cipherText, this.#mlKem.secretKey);
  }

  /** The last 32 bytes of the private key, which make up the secret of a ciphertext that is refused. */
  get rejection(): Uint8Array {
    return this.#mlKem.secretKey.slice(-32);
  }
}

/** Where the random is in a ClientHello's handshake message. */
const MESSAGE_RANDOM = 4 + 2;
const RANDOM_LENGTH = 32;
const RECORD_HEADER = 5;
/** What older clients filled their hellos up to, in bytes; it goes back to a bug of old servers. */
const PADDED_LENGTH = 517;

const EXTENSION = {
  serverName: 0x0000,
  statusRequest: 0x0005,
  groups: 0x000a,
  pointFormats: 0x000b,
  signatures: 0x000d,
  alpn: 0x0010,
  signedTimestamps: 0x0012,
  padding: 0x0015,
  extendedMasterSecret: 0x0017,
  compressCertificate: 0x001b,
  sessionTicket: 0x0023,
  versions: 0x002b,
  pskModes: 0x002d,
  keyShare: 0x0033,
  applicationSettings: 0x44cd,
  encryptedHello: 0xfe0d,
  renegotiation: 0xff01,
} as const;

/** Those of Chromium, without its GREASE value. */
const CHROMIUM_SUITES = [
  0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
  0x002f, 0x0035,
] as const;

/** Builds a ClientHello as Telegram's clients do, with the digest that proves that they know the secret. */
export function buildHello(options: HelloOptions): BuiltHello {
  const { shape = "minimal", secret, records = 1, timestamp = Math.floor(Date.now() / 1000) } = options;
  const { sessionId = new Uint8Array(randomBytes(32)) } = options;
  const keys = new HelloKeys();
  const grease = makeGrease();
  const suites = options.cipherSuites ?? (shape === "minimal" ? [0x1301] : CHROMIUM_SUITES);
  const cipherSuites = shape === "minimal" ? suites : [grease[0] ?? 0x0a0a, ...suites];
  const plain = makeExtensions(shape, keys, grease, options.serverName);
  const extensions = options.editExtensions?.(plain) ?? plain;
  let message = encodeMessage(sessionId, cipherSuites, extensions);
  if (shape === "desktop-517") {
    const missing = PADDED_LENGTH - RECORD_HEADER - message.length - 4;
    const padding = { type: EXTENSION.padding, body: new Uint8Array(Math.max(0, missing)) };
    message = encodeMessage(sessionId, cipherSuites, [...extensions, padding]);
  }
  const random = makeDigest(encodeRecords(message, records), secret, timestamp);
  message.set(random, MESSAGE_RANDOM);
  const bytes = encodeRecords(message, records);
  options.tamper?.(bytes);
  const groups = shape === "tdlib" ? [GROUPS.x25519MlKem768, GROUPS.x25519] : [GROUPS.x25519];
  return { bytes, random, sessionId, cipherSuites, groups, secret, keys };
}

/**
 * Reads the time out of a hello's digest, if that was made with `secret`.
 *
 * @returns Unix time in seconds, or `undefined` when it was not.
 */
export function readTimestamp(bytes: Uint8Array, secret: Uint8Array): number | undefined {
  const positions = randomPositions(bytes);
  const zeroed = bytes.slice();
  for (const position of positions) zeroed[position] = 0;
  const hmac = createHmac("sha256", secret).update(zeroed).digest();
  const plain = Uint8Array.from(positions, (position, index) => (bytes[position] ?? 0) ^ (hmac[index] ?? 0));
  if (plain.subarray(0, 28).some((byte) => byte !== 0)) return undefined;
  return new DataView(plain.buffer).getUint32(28, true);
}

/** Whether a value is one of those that no server may choose. @see RFC 8701 */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff);
}

/** The random of a hello whose bytes are `zeroed` there: an HMAC, and the time in its last 4 bytes. */
function makeDigest(zeroed: Uint8Array, secret: Uint8Array, timestamp: number): Uint8Array {
  const digest = new Uint8Array(createHmac("sha256", secret).update(zeroed).digest());
  const view = new DataView(digest.buffer);
  view.setUint32(28, (view.getUint32(28, true) ^ timestamp) >>> 0, true);
  return digest;
}

/** Where the 32 bytes of the random are; a short first record leaves some to the next. */
function randomPositions(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const positions: number[] = [];
  let seen = 0;
  for (let at = 0; at + RECORD_HEADER <= bytes.length && positions.length < RANDOM_LENGTH; ) {
    const end = at + RECORD_HEADER + view.getUint16(at + 3);
    for (let position = at + RECORD_HEADER; position < end; position += 1, seen += 1) {
      if (seen >= MESSAGE_RANDOM && seen < MESSAGE_RANDOM + RANDOM_LENGTH) positions.push(position);
    }
    at = end;
  }
  return positions;
}

function encodeRecords(message: Uint8Array, records: number): Uint8Array {
  const parts = Array.from({ length: records }, (_, index) => {
    const from = Math.floor((message.length * index) / records);
    const part = message.subarray(from, Math.floor((message.length * (index + 1)) / records));
    return concat(Uint8Array.of(0x16, 3, 1), uint16(part.length), part);
  });
  return concat(...parts);
}

/** The message with a random of zeros. */
function encodeMessage(
  sessionId: Uint8Array,
  cipherSuites: readonly number[],
  extensions: readonly HelloExtension[],
): Uint8Array {
  const body = concat(
    Uint8Array.of(3, 3),
    new Uint8Array(RANDOM_LENGTH),
    Uint8Array.of(sessionId.length),
    sessionId,
    vector16(uint16(...cipherSuites)),
    Uint8Array.of(1, 0),
    vector16(concat(...extensions.map(({ type, body }) => concat(uint16(type), vector16(body))))),
  );
  return concat(Uint8Array.of(1, body.length >> 16), uint16(body.length & 0xffff), body);
}

function makeExtensions(
  shape: HelloShape,
  keys: HelloKeys,
  grease: readonly number[],
  serverName: string | undefined,
): HelloExtension[] {
  const [, first = 0, last = 0, group = 0, version = 0] = grease;
  const name = serverName === undefined ? [] : [serverNameExtension(serverName)];
  const x25519 = { group: GROUPS.x25519, share: keys.x25519Share };
  if (shape === "minimal") {
    return [
      ...name,
      listOfGroups(GROUPS.x25519),
      { type: EXTENSION.signatures, body: vector16(uint16(0x0403, 0x0804)) },
      { type: EXTENSION.versions, body: vector8(uint16(0x0304)) },
      keyShares(x25519),
    ];
  }
  const greaseShare = { group, share: Uint8Array.of(0) };
  const common: HelloExtension[] = [
    ...name,
    { type: EXTENSION.extendedMasterSecret, body: new Uint8Array() },
    { type: EXTENSION.renegotiation, body: Uint8Array.of(0) },
    { type: EXTENSION.pointFormats, body: Uint8Array.of(1, 0) },
    { type: EXTENSION.sessionTicket, body: new Uint8Array() },
    { type: EXTENSION.alpn, body: vector16(concat(text8("h2"), text8("http/1.1"))) },
    { type: EXTENSION.statusRequest, body: Uint8Array.of(1, 0, 0, 0, 0) },
    {
      type: EXTENSION.signatures,
      body: vector16(uint16(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)),
    },
    { type: EXTENSION.signedTimestamps, body: new Uint8Array() },
    { type: EXTENSION.pskModes, body: Uint8Array.of(1, 1) },
    { type: EXTENSION.compressCertificate, body: Uint8Array.of(2, 0, 2) },
  ];
  const start = { type: first, body: new Uint8Array() };
  const end = { type: last, body: Uint8Array.of(0) };
  if (shape === "desktop-517") {
    const versions = vector8(uint16(version, 0x0304, 0x0303, 0x0302, 0x0301));
    return [
      start,
      ...common,
      listOfGroups(group, GROUPS.x25519, 0x17, 0x18),
      keyShares(greaseShare, x25519),
      { type: EXTENSION.versions, body: versions },
      end,
    ];
  }
  const hybrid = { group: GROUPS.x25519MlKem768, share: keys.hybridShare };
  const shuffled = shuffle([
    ...common,
    listOfGroups(group, GROUPS.x25519MlKem768, GROUPS.x25519, 0x17, 0x18),
    keyShares(greaseShare, hybrid, x25519),
    { type: EXTENSION.versions, body: vector8(uint16(version, 0x0304, 0x0303)) },
    { type: EXTENSION.applicationSettings, body: vector16(text8("h2")) },
    encryptedHello(),
  ]);
  return [start, ...shuffled, end];
}

function serverNameExtension(name: string): HelloExtension {
  const bytes = new TextEncoder().encode(name);
  return { type: EXTENSION.serverName, body: vector16(concat(Uint8Array.of(0), vector16(bytes))) };
}

function listOfGroups(...groups: readonly number[]): HelloExtension {
  return { type: EXTENSION.groups, body: vector16(uint16(...groups)) };
}

function keyShares(
  ...shares: readonly { readonly group: number; readonly share: Uint8Array }[]
): HelloExtension {
  const entries = shares.map(({ group, share }) => concat(uint16(group), vector16(share)));
  return { type: EXTENSION.keyShare, body: vector16(concat(...entries)) };
}

/** What a browser sends that does not know the server's key: the outer form, with random bytes in it. */
function encryptedHello(): HelloExtension {
  const payload = 144 + 32 * Math.floor(Math.random() * 4);
  const body = concat(
    Uint8Array.of(0, 0, 1, 0, 1), // outer; HKDF-SHA256, AES-128-GCM
    new Uint8Array(randomBytes(1)),
    vector16(rawPublicKey(randomBytes(32))),
    vector16(new Uint8Array(randomBytes(payload))),
  );
  return { type: EXTENSION.encryptedHello, body };
}

/** Values for a suite, the first and last extensions, a group and a version; those of extensions differ. */
function makeGrease(): number[] {
  return shuffle(Array.from({ length: 16 }, (_, index) => (index << 12) | 0x0a00 | (index << 4) | 0x0a));
}

function shuffle<T>(items: readonly T[]): T[] {
  const keyed = items.map((item) => ({ item, key: Math.random() }));
  return keyed.toSorted((a, b) => a.key - b.key).map(({ item }) => item);
}

/** Before the 32 bytes of an X25519 key in DER. @see RFC 8410 */
const PRIVATE_KEY_PREFIX = Uint8Array.fromHex("302e020100300506032b656e04220420");
const PUBLIC_KEY_PREFIX = Uint8Array.fromHex("302a300506032b656e032100");

function x25519Key(raw: Uint8Array) {
  const key = Buffer.concat([PRIVATE_KEY_PREFIX, raw]);
  return createPrivateKey({ key, format: "der", type: "pkcs8" });
}

function x25519Point(raw: Uint8Array) {
  const key = Buffer.concat([PUBLIC_KEY_PREFIX, raw]);
  return createPublicKey({ key, format: "der", type: "spki" });
}

function rawPublicKey(privateKey: Uint8Array): Uint8Array {
  const der = createPublicKey(x25519Key(privateKey)).export({ format: "der", type: "spki" });
  return new Uint8Array(der.subarray(-32));
}

function uint16(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value >> 8, value & 0xff]));
}

function vector8(bytes: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(bytes.length), bytes);
}

function vector16(bytes: Uint8Array): Uint8Array {
  return concat(uint16(bytes.length), bytes);
}

function text8(text: string): Uint8Array {
  return vector8(new TextEncoder().encode(text));
}
