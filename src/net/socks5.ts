import type { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError, type RouteErrorCode } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { proxyAnswerErrorOf } from "./outbound-proxy.ts";

const VERSION = 5;
const PASSWORD_VERSION = 1;
const COMMAND_CONNECT = 1;
const METHOD_NONE = 0;
const METHOD_PASSWORD = 2;
const METHOD_UNACCEPTABLE = 0xff;
const ADDRESS_IPV4 = 1;
const ADDRESS_NAME = 3;
const ADDRESS_IPV6 = 4;
const NAME_LIMIT = 255;

/** The replies of RFC 1928, section 6. */
const REPLIES: Readonly<Record<number, readonly [RouteErrorCode, string]>> = {
  1: ["PROXY", "the proxy failed for a reason that it does not tell"],
  2: ["PROXY", "the proxy's rules do not allow this connection"],
  3: ["UNREACHABLE", "the proxy has no way to the network"],
  4: ["UNREACHABLE", "the proxy has no way to the host"],
  5: ["REFUSED", "connection refused, says the proxy"],
  6: ["TIMEOUT", "the proxy's packets expired on their way (TTL)"],
  7: ["PROXY", "the proxy does not know CONNECT"],
  8: ["PROXY", "the proxy does not know this type of address"],
};

/**
 * Asks a SOCKS5 proxy for a connection to `target`.
 *
 *      us                                         proxy
 *      05 | number | methods                  ->
 *                                             <-  05 | method
 *      01 | length, user | length, password   ->                    when the method is 02
 *                                             <-  01 | 00
 *      05 01 00 | type | address | port       ->
 *                                             <-  05 | reply | 00 | type | address | port
 *
 * The proxy looks names up. What follows its last answer stays in `reader`: it is the target's.
 *
 * @param channel An open connection to the proxy, which `reader` listens to.
 * @throws {RouteError} `REFUSED`, `UNREACHABLE`, `TIMEOUT` as the proxy says; `TIMEOUT` when `signal` aborts;
 * `PROXY` when it refuses for reasons of its own or is not understood.
 * @see https://www.rfc-editor.org/rfc/rfc1928 and https://www.rfc-editor.org/rfc/rfc1929
 */
export async function openSocks5Tunnel(
  channel: Channel,
  reader: ByteReader,
  proxy: OutboundProxy,
  target: { readonly host: string; readonly port: number },
  signal: Cancel,
): Promise<void> {
  const request = encodeRequest(target.host, target.port); // first: what cannot be asked for needs no proxy
  try {
    await authenticate(channel, reader, proxy, signal);
    channel.write(request);
    await readReply(reader, signal);
  } catch (error) {
    throw proxyAnswerErrorOf(error);
  }
}

async function authenticate(
  channel: Channel,
  reader: ByteReader,
  { username, password = "" }: OutboundProxy,
  signal: Cancel,
): Promise<void> {
  const methods = username === undefined ? [METHOD_NONE] : [METHOD_NONE, METHOD_PASSWORD];
  channel.write(Uint8Array.of(VERSION, methods.length, ...methods));
  const [version, method] = await reader.read(2, signal);
  if (version !== VERSION) throw notSocks5(version);
  if (method === METHOD_NONE) return;
  if (method === METHOD_UNACCEPTABLE) {
    const why = username === undefined ? "wants a user and a password" : "accepts no user and password";
    throw new RouteError("PROXY", `the proxy ${why}`);
  }
  if (method !== METHOD_PASSWORD || username === undefined) {
    throw new RouteError("PROXY", `the proxy chose authentication ${hex(method)}, which was not offered`);
  }
  const user = Buffer.from(username);
  const secret = Buffer.from(password);
  channel.write(Uint8Array.of(PASSWORD_VERSION, user.length, ...user, secret.length, ...secret));
  const [, status] = await reader.read(2, signal); // its version is 1 by the book, and 5 with some proxies
  if (status !== 0) throw new RouteError("PROXY", "the proxy refused the user and the password");
}

async function readReply(reader: ByteReader, signal: Cancel): Promise<void> {
  // Two bytes first: not every proxy sends the rest with a refusal.
  const [version, reply = 0] = await reader.read(2, signal);
  if (version !== VERSION) throw notSocks5(version);
  if (reply !== 0) {
    const [code, words] = REPLIES[reply] ?? ["PROXY", "the proxy refused"];
    throw new RouteError(code, `${words} (SOCKS5 reply ${reply})`);
  }
  const [, type] = await reader.read(2, signal);
  // The address that the proxy connects from, which is of no interest, and its port.
  if (type === ADDRESS_IPV4) await reader.read(4 + 2, signal);
  else if (type === ADDRESS_IPV6) await reader.read(16 + 2, signal);
  else if (type === ADDRESS_NAME) {
    const [length = 0] = await reader.read(1, signal);
    await reader.read(length + 2, signal);
  } else throw new RouteError("PROXY", `the proxy answered with an unknown type of address (${hex(type)})`);
}

/** @throws {RouteError} `DNS` for a name that is too long. */
function encodeRequest(host: string, port: number): Uint8Array {
  return Uint8Array.of(VERSION, COMMAND_CONNECT, 0, ...encodeAddress(host), port >> 8, port & 0xff);
}

function encodeAddress(host: string): readonly number[] {
  const family = ipVersion(host);
  if (family === 4) return [ADDRESS_IPV4, ...host.split(".").map(Number)];
  if (family === 6) return [ADDRESS_IPV6, ...ipv6Bytes(host)];
  const name = Buffer.from(host);
  if (name.length === 0 || name.length > NAME_LIMIT) {
    throw new RouteError("DNS", `a name of ${name.length} bytes cannot be asked for`);
  }
  return [ADDRESS_NAME, name.length, ...name];
}

/** @param address A valid IPv6 address; its zone, if it has one, means nothing to another machine. */
function ipv6Bytes(address: string): number[] {
  const plain = address
    .replace(/%.*$/, "")
    .replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a: string, b: string, c: string, d: string) => {
      return `${word(Number(a), Number(b))}:${word(Number(c), Number(d))}`;
    });
  const [before = "", after] = plain.split("::");
  const head = before === "" ? [] : before.split(":");
  const tail = after === undefined || after === "" ? [] : after.split(":");
  const zeros = new Array<string>(8 - head.length - tail.length).fill("0");
  return [...head, ...zeros, ...tail].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}

function word(high: number, low: number): string {
  return ((high << 8) | low).toString(16);
}

function notSocks5(version: number | undefined): RouteError {
  const guess = version === 0x48 ? ": it may be an HTTP proxy" : ""; // the H of HTTP
  return new RouteError("PROXY", `the proxy does not speak SOCKS5 (it began with ${hex(version)})${guess}`);
}

function hex(byte = 0): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
