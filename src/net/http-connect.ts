import type { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { formatHostPort, proxyAnswerErrorOf } from "./outbound-proxy.ts";

/** The longest head of an answer. Real ones have some 200 bytes. */
const ANSWER_LIMIT = 16 * 1024;

/** How much of a proxy's words goes into an error. */
const WORDS_LIMIT = 120;

const END_OF_HEAD = "\r\n\r\n";

/**
 * Asks an HTTP proxy for a tunnel to `target`.
 *
 * The proxy looks names up. What follows its answer stays in `reader`: it is the target's.
 *
 * @param channel An open connection to the proxy, which `reader` listens to.
 * @throws {RouteError} `PROXY` when the proxy refuses or does not understand; `TIMEOUT` when `signal` aborts.
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
 */
export async function openHttpTunnel(
  channel: Channel,
  reader: ByteReader,
  proxy: OutboundProxy,
  target: { readonly host: string; readonly port: number },
  signal: Cancel,
): Promise<void> {
  const authority = formatHostPort(target.host, target.port);
  const lines = [`CONNECT ${authority} HTTP/1.1`, `Host: ${authority}`];
  const { username, password = "" } = proxy;
  if (username !== undefined) {
    lines.push(`Proxy-Authorization: Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`);
  }
  channel.write(Buffer.from(lines.join("\r\n") + END_OF_HEAD, "latin1"));

  const statusLine = await readStatusLine(reader, signal);
  const [, digits, reason = ""] = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(statusLine) ?? [];
  if (digits === undefined) {
    throw new RouteError("PROXY", `the proxy did not answer in HTTP/1: ${quotable(statusLine)}`);
  }
  const status = Number(digits);
  if (status >= 200 && status < 300) return;
  // tinyproxy says 401 where it should say 407.
  if (status === 407 || status === 401) {
    const why = username === undefined ? "wants a user and a password" : "refused the user and the password";
    throw new RouteError("PROXY", `the proxy ${why} (${quotable(`${status} ${reason}`)})`, { status });
  }
  throw new RouteError("PROXY", `the proxy refused: ${quotable(`${digits} ${reason}`)}`, { status });
}

/**
 * Takes the head of an HTTP message up to and with its empty line, and not a byte of what follows.
 *
 * @returns The head without the empty line, one character a byte; `undefined` when it is longer than `limit`.
 * @throws {HandshakeError} `CLOSED` or `TIMEOUT`, see {@link ByteReader.read}.
 */
export async function readHttpHead(
  reader: ByteReader,
  limit: number,
  signal: Cancel,
): Promise<string | undefined> {
  let head = "";
  while (!head.endsWith(END_OF_HEAD)) {
    if (head.length >= limit) return undefined;
    // Never more than the end still needs at least: so what follows it is not touched.
    head += String.fromCharCode(...(await reader.read(missingFromEnd(head), signal)));
  }
  return head.slice(0, -END_OF_HEAD.length);
}

/** Makes bytes of a stranger fit for one line of a log. */
export function quotable(text: string): string {
  const line = text.replace(/[^\x20-\x7e]+/g, " ").trim();
  return line.length <= WORDS_LIMIT ? line : `${line.slice(0, WORDS_LIMIT)}...`;
}

async function readStatusLine(reader: ByteReader, signal: Cancel): Promise<string> {
  let head: string | undefined;
  try {
    const start = String.fromCharCode(...(await reader.read(5, signal)));
    // Something that is not HTTP may never send an empty line: better said now than at the deadline.
    if (start !== "HTTP/") {
      throw new RouteError("PROXY", `the proxy did not answer in HTTP: ${quotable(start)}`);
    }
    const rest = await readHttpHead(reader, ANSWER_LIMIT - start.length, signal);
    head = rest === undefined ? undefined : start + rest;
  } catch (error) {
    throw proxyAnswerErrorOf(error);
  }
  if (head === undefined) {
    throw new RouteError("PROXY", `the head of the proxy's answer is longer than ${ANSWER_LIMIT / 1024} KiB`);
  }
  return head.split("\r\n", 1)[0] ?? "";
}

/** How many bytes must follow `head` at least until its empty line is complete. */
function missingFromEnd(head: string): number {
  if (head.endsWith("\r\n\r")) return 1;
  if (head.endsWith("\r\n")) return 2;
  return head.endsWith("\r") ? 3 : 4;
}
