import { ByteCursor } from "./byte-cursor.ts";

/**
 * The message with which a TLS client begins.
 *
 *      0    1        4         6        38
 *      +----+--------+---------+--------+------------+---------+-------------+------------+
 *      | 01 | length | version | random | session id | ciphers | compression | extensions |
 *      +----+--------+---------+--------+------------+---------+-------------+------------+
 *             24 bit             32       8-bit len.   16-bit    8-bit         16-bit, may be missing
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-4.1.2
 */
const CLIENT_HELLO = 1;
const RANDOM_LENGTH = 32;
const MAX_SESSION_ID_LENGTH = 32;

/** Browsers send about 20. Only bounds what a stranger's hello can cost. */
const MAX_EXTENSIONS = 128;

/** The one kind of name that an SNI list holds. @see https://www.rfc-editor.org/rfc/rfc6066#section-3 */
const HOST_NAME = 0;

/** Named groups. @see https://www.iana.org/assignments/tls-parameters (TLS Supported Groups) */
export const GROUP = {
  secp256r1: 0x0017,
  secp384r1: 0x0018,
  x25519: 0x001d,
  x25519MlKem768: 0x11ec,
} as const;

/** Extension types. @see https://www.iana.org/assignments/tls-extensiontype-values */
export const EXTENSION = {
  serverName: 0,
  statusRequest: 5,
  supportedGroups: 10,
  ecPointFormats: 11,
  signatureAlgorithms: 13,
  alpn: 16,
  signedCertificateTimestamp: 18,
  padding: 21,
  extendedMasterSecret: 23,
  compressCertificate: 27,
  sessionTicket: 35,
  preSharedKey: 41,
  supportedVersions: 43,
  pskKeyExchangeModes: 45,
  keyShare: 51,
  applicationSettings: 0x44cd,
  encryptedClientHello: 0xfe0d,
  renegotiationInfo: 0xff01,
} as const;

/** How long a client's share must be. In the hybrid one, ML-KEM-768's key comes before X25519's. */
const CLIENT_SHARE_LENGTHS: ReadonlyMap<number, number> = new Map([
  [GROUP.x25519, 32],
  [GROUP.x25519MlKem768, 1184 + 32],
]);

/** One side's public key for a key exchange. */
export interface KeyShare {
  readonly group: number;
  readonly key: Uint8Array;
}

/** An extension as it stands in a message. */
export interface Extension {
  readonly type: number;
  readonly data: Uint8Array;
}

/** What a ClientHello says. All arrays of bytes are views of the message. */
export interface ClientHello {
  readonly legacyVersion: number;
  /** 32 bytes. */
  readonly random: Uint8Array;
  /** 0-32 bytes, which the server sends back. */
  readonly sessionId: Uint8Array;
  readonly cipherSuites: readonly number[];
  readonly compressionMethods: readonly number[];
  /** In the order of the message, GREASE included. Empty in hellos of old clients. */
  readonly extensions: readonly Extension[];
  /** The first host name of the SNI, as it was sent. */
  readonly serverName: string | undefined;
  /** This and the lists below are empty when the extension is missing, and include GREASE. */
  readonly supportedVersions: readonly number[];
  readonly supportedGroups: readonly number[];
  readonly keyShares: readonly KeyShare[];
  /** One character for each byte of a name. */
  readonly alpn: readonly string[];
}

/**
 * Tells whether a cipher suite, group, extension type or version stands for none: clients send such
 * values to keep servers tolerant, and a server never picks one.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8701#section-2
 */
export function isGrease(value: number): boolean {
  return (value & 0x0f0f) === 0x0a0a && value >> 8 === (value & 0xff);
}

/**
 * Reads a ClientHello.
 *
 * @param message The handshake message with its 4-byte header. Borrowed for as long as the result is used.
 * @throws {HandshakeError} `BAD_CLIENT_HELLO` when a length does not fit exactly, an extension or the group
 * of a key share comes twice, or a list is empty that may not be.
 */
export function parseClientHello(message: Uint8Array): ClientHello {
  const outer = new ByteCursor(message, { code: "BAD_CLIENT_HELLO", name: "ClientHello" });
  const type = outer.u8();
  if (type !== CLIENT_HELLO) throw outer.error(`a handshake message of type ${type}`);
  const cursor = outer.within(outer.take(outer.u24()));
  outer.finish("the message");

  const legacyVersion = cursor.u16();
  const random = cursor.take(RANDOM_LENGTH);
  const sessionId = readSessionId(cursor);
  const cipherSuites = cursor.within(cursor.vector16()).u16List("the list of cipher suites");
  const compressionMethods = [...cursor.vector8()];
  if (compressionMethods.length === 0) throw cursor.error("the list of compression methods is empty");
  const extensions = readExtensions(cursor);

  const read = <T>(type: number, parse: (data: ByteCursor) => T): T | undefined => {
    const extension = extensions.find((one) => one.type === type);
    return extension && parse(cursor.within(extension.data));
  };
  return {
    legacyVersion,
    random,
    sessionId,
    cipherSuites,
    compressionMethods,
    extensions,
    serverName: read(EXTENSION.serverName, readServerName),
    supportedVersions: read(EXTENSION.supportedVersions, readVersions) ?? [],
    supportedGroups: read(EXTENSION.supportedGroups, readGroups) ?? [],
    keyShares: read(EXTENSION.keyShare, readKeyShares) ?? [],
    alpn: read(EXTENSION.alpn, readAlpn) ?? [],
  };
}

/**
 * Reads the legacy session id of either side's hello.
 *
 * @throws {HandshakeError} The cursor's code when it is longer than 32 bytes, or than the message.
 */
export function readSessionId(cursor: ByteCursor): Uint8Array {
  const sessionId = cursor.vector8();
  if (sessionId.length > MAX_SESSION_ID_LENGTH) {
    throw cursor.error(`a session id of ${sessionId.length} bytes`);
  }
  return sessionId;
}

/**
 * Reads the extensions that end either side's hello; before TLS 1.3 they may be missing.
 *
 * @throws {HandshakeError} The cursor's code when a length does not fit exactly, a type other than GREASE comes
 * twice, or there are more than 128.
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-4.2
 */
export function readExtensions(cursor: ByteCursor): readonly Extension[] {
  if (cursor.left === 0) return [];
  const list = cursor.last16("the extensions");
  const extensions: Extension[] = [];
  const seen = new Set<number>();
  while (list.left > 0) {
    const type = list.u16();
    const data = list.vector16();
    if (seen.has(type) && !isGrease(type)) throw list.error(`extension ${type} comes twice`);
    if (extensions.length === MAX_EXTENSIONS) throw list.error(`more than ${MAX_EXTENSIONS} extensions`);
    seen.add(type);
    extensions.push({ type, data });
  }
  return extensions;
}

/** @see https://www.rfc-editor.org/rfc/rfc6066#section-3 */
function readServerName(cursor: ByteCursor): string | undefined {
  const list = cursor.last16("the list of server names");
  if (list.left === 0) throw list.error("the list of server names is empty");
  let serverName: string | undefined;
  while (list.left > 0) {
    const kind = list.u8();
    const name = list.vector16();
    if (kind === HOST_NAME) serverName ??= hostNameOf(name, list);
  }
  return serverName;
}

/** Anything but visible ASCII is no name that a server has; IDN travels as punycode. */
function hostNameOf(bytes: Uint8Array, cursor: ByteCursor): string {
  if (bytes.length === 0) throw cursor.error("the server name is empty");
  if (bytes.some((byte) => byte <= 0x20 || byte >= 0x7f)) {
    throw cursor.error("the server name is not printable ASCII");
  }
  return latin1(bytes);
}

/** @see https://www.rfc-editor.org/rfc/rfc8446#section-4.2.1 */
function readVersions(cursor: ByteCursor): readonly number[] {
  const list = cursor.within(cursor.vector8());
  cursor.finish("the list of versions");
  return list.u16List("the list of versions");
}

/** @see https://www.rfc-editor.org/rfc/rfc8446#section-4.2.7 */
function readGroups(cursor: ByteCursor): readonly number[] {
  return cursor.last16("the list of groups").u16List("the list of groups");
}

/** The list may be empty: such a client asks for a HelloRetryRequest. @see RFC 8446, section 4.2.8 */
function readKeyShares(cursor: ByteCursor): readonly KeyShare[] {
  const list = cursor.last16("the key shares");
  const shares = new Map<number, KeyShare>();
  while (list.left > 0) {
    const group = list.u16();
    const key = list.vector16();
    if (shares.has(group)) throw list.error(`two key shares of group ${group}`);
    if (key.length === 0 || key.length !== (CLIENT_SHARE_LENGTHS.get(group) ?? key.length)) {
      throw list.error(`a key share of ${key.length} bytes for group ${group}`);
    }
    shares.set(group, { group, key });
  }
  return [...shares.values()];
}

/** @see https://www.rfc-editor.org/rfc/rfc7301#section-3.1 */
function readAlpn(cursor: ByteCursor): readonly string[] {
  const list = cursor.last16("the list of protocols");
  if (list.left === 0) throw list.error("the list of protocols is empty");
  const protocols: string[] = [];
  while (list.left > 0) {
    const name = list.vector8();
    if (name.length === 0) throw list.error("a protocol without a name");
    protocols.push(latin1(name));
  }
  return protocols;
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
