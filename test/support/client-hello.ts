/** What a stub knows of a TLS handshake before it takes part in it. */
export interface Hello {
  /** The connection's number at its stub, from 1. */
  readonly number: number;
  /** The name that is asked for (SNI). */
  readonly serverName: string | undefined;
}

const HANDSHAKE_RECORD = 0x16;
const CLIENT_HELLO = 1;
const SERVER_NAME_EXTENSION = 0;
const RECORD_HEADER = 5;
const MESSAGE_HEADER = 4;
/** Version and random, which come before the first field of a variable length. */
const FIXED_FIELDS = 2 + 32;

/**
 * Reads the name that a ClientHello asks for, whatever the records are that it comes in.
 *
 * @returns `undefined` while bytes are missing; no name when there is none, or the bytes are no ClientHello.
 */
export function peekServerName(bytes: Uint8Array): { readonly serverName: string | undefined } | undefined {
  const message = joinRecords(bytes);
  if (message === undefined) return { serverName: undefined };
  if (message.length < MESSAGE_HEADER) return undefined;
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  if (view.getUint8(0) !== CLIENT_HELLO) return { serverName: undefined };
  const end = MESSAGE_HEADER + (view.getUint32(0) & 0xff_ffff);
  if (message.length < end) return undefined;
  return { serverName: findServerName(view, end) };
}

/** Returns what the handshake records hold together, or `undefined` when there are others. */
function joinRecords(bytes: Uint8Array): Uint8Array | undefined {
  const parts: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  while (at < bytes.length) {
    if (view.getUint8(at) !== HANDSHAKE_RECORD) return undefined;
    if (at + RECORD_HEADER > bytes.length) break;
    const from = at + RECORD_HEADER;
    at = from + view.getUint16(at + 3);
    parts.push(bytes.subarray(from, at));
  }
  return new Uint8Array(Buffer.concat(parts));
}

function findServerName(view: DataView, end: number): string | undefined {
  let at = MESSAGE_HEADER + FIXED_FIELDS;
  at += 1 + view.getUint8(at); // legacy session id
  at += 2 + view.getUint16(at); // cipher suites
  at += 1 + view.getUint8(at); // compression methods
  at += 2; // the length of all extensions
  while (at + 4 <= end) {
    const length = view.getUint16(at + 2);
    if (view.getUint16(at) === SERVER_NAME_EXTENSION) {
      // A list of one: its length, the kind of name, the name's length, the name.
      const name = new Uint8Array(view.buffer, view.byteOffset + at + 9, view.getUint16(at + 7));
      return new TextDecoder().decode(name);
    }
    at += 4 + length;
  }
  return undefined;
}
