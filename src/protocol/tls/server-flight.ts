import { concatBytes } from "../../core/bytes.ts";
import { ByteCursor } from "./byte-cursor.ts";
import { EXTENSION, readExtensions, readSessionId } from "./client-hello.ts";
import { CONTENT_TYPE, MAX_CIPHER_FRAGMENT, MAX_PLAIN_FRAGMENT, RECORD_HEADER_LENGTH } from "./record.ts";

/**
 * What a real site answers to a ClientHello: one or more handshake records that begin with a ServerHello,
 * then whatever its version of TLS sends.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-4.1.3
 */
const SERVER_HELLO = 2;
const MESSAGE_HEADER_LENGTH = 4;
const RANDOM_LENGTH = 32;
const MAJOR_VERSION = 3;
const MAX_MINOR_VERSION = 4;
const ALERT_LENGTH = 2;

/** Real ones stay below 1,300 bytes. Bounds what is put together for it. */
const MAX_BODY_LENGTH = MAX_PLAIN_FRAGMENT;

/** How many records a ServerHello may be cut into. Servers send one. */
const MAX_RECORDS = 64;

/** SHA-256 of "HelloRetryRequest": the random of a ServerHello that asks for another ClientHello. */
const HELLO_RETRY_RANDOM = Uint8Array.of(
  ...[0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91],
  ...[0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c],
);

/** A site's first flight, as far as it has come. */
export interface ServerFlight {
  /** 0x0304 for TLS 1.3: from supported_versions, otherwise the legacy version. */
  readonly version: number;
  /** The server asks for another ClientHello, with a share of `group`. */
  readonly helloRetry: boolean;
  readonly cipherSuite: number;
  /** The types of the ServerHello's extensions. */
  readonly extensionOrder: readonly number[];
  /** The group of its key share. */
  readonly group: number | undefined;
  /** Fragment lengths of the application data records that have come whole so far. */
  readonly encryptedRecords: readonly number[];
  /** Whether a change_cipher_spec record came. */
  readonly changeCipherSpec: boolean;
  /** How many bytes there are after the last whole record. */
  readonly rest: number;
}

/**
 * Reads the first flight of a server. Of its handshake messages only the ServerHello is looked at.
 *
 * @returns `undefined` while the records that hold the ServerHello are not whole.
 * @throws {HandshakeError} `BAD_SERVER_HELLO` when the bytes are not TLS, or do not begin with a
 * ServerHello; on an alert, whose description number is in the message; when a length does not fit.
 */
export function parseServerFlight(bytes: Uint8Array): ServerFlight | undefined {
  const outer = new ByteCursor(bytes, { code: "BAD_SERVER_HELLO", name: "ServerHello" });
  let hello: ServerHello | undefined;
  const fragments: Uint8Array[] = [];
  const encryptedRecords: number[] = [];
  let changeCipherSpec = false;
  let rest = outer.left;
  for (let record = takeRecord(outer); record !== undefined; record = takeRecord(outer)) {
    const { type, fragment } = record;
    if (type === CONTENT_TYPE.alert)
      throw outer.error(`the server sent the alert ${describeAlert(fragment)}`);
    if (hello === undefined) {
      if (type !== CONTENT_TYPE.handshake) throw outer.error(`a record of type ${type} comes before it`);
      if (fragments.length === MAX_RECORDS)
        throw outer.error(`it does not end within ${MAX_RECORDS} records`);
      fragments.push(fragment);
      hello = parseServerHello(outer.within(concatBytes(fragments)));
    } else if (type === CONTENT_TYPE.applicationData) {
      encryptedRecords.push(fragment.length);
    } else if (type === CONTENT_TYPE.changeCipherSpec) {
      changeCipherSpec = true;
    }
    rest = outer.left;
  }
  return hello && { ...hello, encryptedRecords, changeCipherSpec, rest };
}

type ServerHello = Pick<ServerFlight, "version" | "helloRetry" | "cipherSuite" | "extensionOrder" | "group">;

/** Takes the next record, or judges what there is of its header and leaves the cursor anywhere behind it. */
function takeRecord(
  cursor: ByteCursor,
): { readonly type: number; readonly fragment: Uint8Array } | undefined {
  if (cursor.left === 0) return undefined;
  const type = cursor.u8();
  if (type < CONTENT_TYPE.changeCipherSpec || type > CONTENT_TYPE.applicationData) {
    throw cursor.error(`a record of type ${type}`);
  }
  if (cursor.left === 0) return undefined;
  const major = cursor.u8();
  if (major !== MAJOR_VERSION) throw cursor.error(`a record of version ${major}`);
  if (cursor.left < RECORD_HEADER_LENGTH - 2) return undefined;
  const minor = cursor.u8();
  if (minor > MAX_MINOR_VERSION) throw cursor.error(`a record of version ${major}.${minor}`);
  const length = cursor.u16();
  const limit = type === CONTENT_TYPE.applicationData ? MAX_CIPHER_FRAGMENT : MAX_PLAIN_FRAGMENT;
  if (length === 0 || length > limit) throw cursor.error(`a record of ${length} bytes`);
  return cursor.left < length ? undefined : { type, fragment: cursor.take(length) };
}

/** @param cursor The fragments so far, from the first. */
function parseServerHello(cursor: ByteCursor): ServerHello | undefined {
  const type = cursor.u8();
  if (type !== SERVER_HELLO) throw cursor.error(`a handshake message of type ${type}`);
  if (cursor.left < MESSAGE_HEADER_LENGTH - 1) return undefined;
  const length = cursor.u24();
  if (length > MAX_BODY_LENGTH) throw cursor.error(`it claims ${length} bytes`);
  if (cursor.left < length) return undefined;
  const body = cursor.within(cursor.take(length));

  const legacyVersion = body.u16();
  const random = body.take(RANDOM_LENGTH);
  const helloRetry = random.every((byte, at) => byte === HELLO_RETRY_RANDOM[at]);
  readSessionId(body);
  const cipherSuite = body.u16();
  body.u8(); // the compression method: whoever chose one is of no use as TLS 1.3, which has none
  const extensions = readExtensions(body);
  const open = (wanted: number): ByteCursor | undefined => {
    const found = extensions.find(({ type }) => type === wanted);
    return found && body.within(found.data);
  };
  return {
    version: readVersion(open(EXTENSION.supportedVersions)) ?? legacyVersion,
    helloRetry,
    cipherSuite,
    extensionOrder: extensions.map(({ type }) => type),
    group: helloRetry ? readWantedGroup(open(EXTENSION.keyShare)) : readGroup(open(EXTENSION.keyShare)),
  };
}

/** @see https://www.rfc-editor.org/rfc/rfc8446#section-4.2.1 */
function readVersion(cursor: ByteCursor | undefined): number | undefined {
  const version = cursor?.u16();
  cursor?.finish("the version");
  return version;
}

/** @see https://www.rfc-editor.org/rfc/rfc8446#section-4.2.8 */
function readGroup(cursor: ByteCursor | undefined): number | undefined {
  const group = cursor?.u16();
  if (cursor?.vector16().length === 0) throw cursor.error("its key share is empty");
  cursor?.finish("the key share");
  return group;
}

/** A HelloRetryRequest names the group alone. */
function readWantedGroup(cursor: ByteCursor | undefined): number | undefined {
  const group = cursor?.u16();
  cursor?.finish("the wanted group");
  return group;
}

function describeAlert(fragment: Uint8Array): string {
  const [, description] = fragment;
  return fragment.length === ALERT_LENGTH ? String(description) : `of ${fragment.length} bytes`;
}
