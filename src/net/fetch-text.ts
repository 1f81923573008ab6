import { randomBytes } from "node:crypto";
import { concatBytes } from "../core/bytes.ts";
import { isRouteErrorCode, RouteError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { hasSpareDescriptors, SHORT_OF_DESCRIPTORS } from "./descriptors.ts";
import { formatHostPort } from "./outbound-proxy.ts";
import { socketErrorOf } from "./tcp-dial.ts";
import { CERTIFICATE_CODE } from "./websocket-dial.ts";

/** How requests are made. */
export interface FetchOptions {
  /** An HTTP proxy with its credentials; without it Bun still heeds HTTPS_PROXY and HTTP_PROXY. */
  readonly proxy: string | undefined;
  /** PEM certificates that replace the built-in roots. */
  readonly ca: readonly string[] | undefined;
  /** `false` accepts any certificate. */
  readonly verify: boolean;
  readonly signal: AbortSignal;
}

/** How {@link fetchText} gets its text. */
export interface FetchTextOptions extends FetchOptions {
  /** IP addresses to connect to, tried in this order; `undefined` looks the name up. */
  readonly addresses: readonly (string | undefined)[];
  /** The longest body. */
  readonly limitBytes: number;
  /** For each of `addresses`: redirects and the body included. */
  readonly timeoutMs: number;
}

/** What a request takes at most. Bun's first one ends the whole process when they are not there. */
const DESCRIPTORS = 8;
const REDIRECT_LIMIT = 3;
const RETRY_AFTER_TIMEOUT_MS = 3_000;
const RETRY_AFTER_LIMIT_MS = 60 * 60_000;

/**
 * Downloads a short text over HTTPS, or over HTTP where `url` says so.
 *
 * The certificate must be valid for the name in `url`, whichever address is connected to. Up to 3 redirects
 * are followed, to HTTPS only and by DNS.
 *
 * @throws {RouteError} The last address's reason, with what each said: `STATUS` for anything but 200,
 * `REDIRECT`, `PROTOCOL` for a body that is too long, `TLS`, `DNS`, `TIMEOUT`, ...; `ABORTED` when `signal`
 * aborts.
 */
export async function fetchText(url: string, options: FetchTextOptions): Promise<string> {
  const target = URL.parse(url);
  if (target === null || !/^https?:$/.test(target.protocol)) {
    throw new RouteError("PROTOCOL", `Cannot fetch ${url}: only https and http are spoken`);
  }
  const reasons: string[] = [];
  let last = new RouteError("DNS", "there is no address to try");
  for (const address of options.addresses) {
    if (!hasSpareDescriptors(DESCRIPTORS)) throw new RouteError("LOCAL", SHORT_OF_DESCRIPTORS);
    try {
      return await fetchFrom(target, address, options);
    } catch (error) {
      last = fetchErrorOf(error, options.proxy);
      if (last.code === "ABORTED") throw last;
      reasons.push(`${address ?? target.hostname}: ${last.message}`);
    }
  }
  const message = `Cannot fetch ${target.origin}${target.pathname}: ${reasons.join("; ") || last.message}`;
  throw new RouteError(last.code, message, {
    cause: last,
    ...(last.status === undefined ? {} : { status: last.status }),
  });
}

/**
 * Asks an endpoint that has just refused a WebSocket how long to wait, which Bun's WebSocket does not tell.
 *
 * @returns Milliseconds, an hour at most; `undefined` when the answer is neither 429 nor 503, when it does
 * not
 * say, or when there is none within 3 s.
 */
export async function readRetryAfter(
  endpoint: {
    /** The name for SNI and the certificate. */
    readonly serverName: string;
    /** The name for the Host header. */
    readonly host: string;
    /** An IP address to connect to instead of looking `serverName` up. */
    readonly address: string | undefined;
    readonly port: number;
    readonly path: string;
    /** Sent as `Authorization: Bearer`. */
    readonly token?: string | undefined;
  },
  options: FetchOptions,
): Promise<number | undefined> {
  const { serverName, host, address = serverName, port, path, token } = endpoint;
  if (!hasSpareDescriptors(DESCRIPTORS)) return undefined;
  const stop = stopAfter(RETRY_AFTER_TIMEOUT_MS, options.signal);
  try {
    const { tls, ...rest } = requestOptions(options, serverName, stop.signal);
    const response = await fetch(`https://${formatHostPort(address, port)}${path}`, {
      ...rest,
      tls: { ...tls, ...(host === serverName ? {} : await eitherName(serverName, host)) },
      headers: {
        Host: port === 443 ? host : formatHostPort(host, port),
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
        ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
      },
    });
    if (response.status !== 429 && response.status !== 503) return undefined;
    return parseRetryAfter(response.headers.get("retry-after") ?? "", Date.now());
  } catch {
    return undefined; // a question on the side: the refusal itself has been reported
  } finally {
    stop.end();
  }
}

/**
 * Reads the value of a Retry-After header: seconds, or an HTTP date.
 *
 * @param now `Date.now()`.
 * @returns Milliseconds from `now`, an hour at most; `undefined` for anything else.
 */
export function parseRetryAfter(text: string, now: number): number | undefined {
  const value = text.trim();
  // A date has letters; `Date.parse` would also take numbers such as -5.
  const wait = /^\d+$/.test(value)
    ? Number(value) * 1_000
    : /[a-z]/i.test(value)
      ? Date.parse(value) - now
      : NaN;
  return Number.isNaN(wait) ? undefined : Math.min(Math.max(wait, 0), RETRY_AFTER_LIMIT_MS);
}

async function fetchFrom(url: URL, address: string | undefined, options: FetchTextOptions): Promise<string> {
  const stop = stopAfter(options.timeoutMs, options.signal);
  try {
    let response = await get(url, address, options, stop.signal);
    let at = url;
    for (let redirects = 0; response.status >= 300 && response.status < 400; redirects += 1) {
      if (redirects === REDIRECT_LIMIT) {
        throw new RouteError("REDIRECT", `more than ${REDIRECT_LIMIT} redirects`, {
          status: response.status,
        });
      }
      at = redirectTarget(response, at);
      void response.body?.cancel();
      response = await get(at, undefined, options, stop.signal);
    }
    if (response.status !== 200) {
      throw new RouteError("STATUS", `HTTP ${response.status} instead of 200`, { status: response.status });
    }
    return await readBody(response, options.limitBytes);
  } catch (error) {
    throw stop.signal.aborted ? stop.signal.reason : error;
  } finally {
    stop.end();
  }
}

function get(
  url: URL,
  address: string | undefined,
  options: FetchOptions,
  signal: AbortSignal,
): Promise<Response> {
  // A compressed body could be far longer than what its length promises.
  const headers: Record<string, string> = { "Accept-Encoding": "identity" };
  let where = url.href;
  let serverName: string | undefined;
  if (address !== undefined) {
    const { hostname, host, pathname, search, protocol } = url;
    headers["Host"] = host;
    serverName = hostname;
    const port = url.port === "" ? (protocol === "https:" ? 443 : 80) : Number(url.port);
    where = `${protocol}//${formatHostPort(address, port)}${pathname}${search}`;
  }
  return fetch(where, { ...requestOptions(options, serverName, signal), headers });
}

/** Behind a front, the certificate may be for either name, as for the WebSocket that was refused. */
async function eitherName(
  serverName: string,
  host: string,
): Promise<{ readonly checkServerIdentity: typeof import("node:tls").checkServerIdentity }> {
  const { checkServerIdentity } = await import("node:tls");
  return {
    checkServerIdentity: (_, certificate) =>
      checkServerIdentity(serverName, certificate) === undefined
        ? undefined
        : checkServerIdentity(host, certificate),
  };
}

/** @param serverName The name to be verified; `undefined` takes the URL's. */
function requestOptions(
  { proxy, ca, verify }: FetchOptions,
  serverName: string | undefined,
  signal: AbortSignal,
): BunFetchRequestInit & { readonly tls: object } {
  return {
    redirect: "manual",
    keepalive: false, // nobody comes back soon, and a kept connection may have been opened under another name
    decompress: false,
    signal,
    tls: {
      rejectUnauthorized: verify,
      ...(ca === undefined ? {} : { ca: [...ca] }),
      ...(serverName === undefined || ipVersion(serverName) !== 0 ? {} : { serverName }),
    },
    ...(proxy === undefined ? {} : { proxy }),
  };
}

function redirectTarget(response: Response, from: URL): URL {
  const { status } = response;
  const location = response.headers.get("location");
  const target = location === null ? null : URL.parse(location, from.href);
  if (target === null) throw new RouteError("REDIRECT", `HTTP ${status} to nowhere`, { status });
  if (target.protocol !== "https:") {
    throw new RouteError("REDIRECT", `HTTP ${status} to ${target.protocol}//, which is not HTTPS`, {
      status,
    });
  }
  return target;
}

async function readBody(response: Response, limitBytes: number): Promise<string> {
  const encoding = response.headers.get("content-encoding") ?? "identity";
  if (encoding !== "identity") throw new RouteError("PROTOCOL", `the body is compressed (${encoding})`);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    // Leaving the loop cancels the body.
    if (length > limitBytes) throw new RouteError("PROTOCOL", `the body is longer than ${limitBytes} bytes`);
    chunks.push(chunk);
  }
  return new TextDecoder().decode(concatBytes(chunks));
}

/**
 * A signal that aborts with a {@link RouteError}: `TIMEOUT` after `timeoutMs`, `ABORTED` when `signal` does.
 */
function stopAfter(
  timeoutMs: number,
  signal: AbortSignal,
): { readonly signal: AbortSignal; readonly end: () => void } {
  const stop = new AbortController();
  const onAbort = (): void => stop.abort(new RouteError("ABORTED", "given up"));
  const timer = setTimeout(() => {
    stop.abort(new RouteError("TIMEOUT", `no complete answer within ${timeoutMs / 1000} s`));
  }, timeoutMs);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  const end = (): void => {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    stop.abort(); // closes the connection, whatever is left of the answer
  };
  return { signal: stop.signal, end };
}

function fetchErrorOf(error: unknown, proxy: string | undefined): RouteError {
  if (error instanceof RouteError) return error;
  const details = { cause: error };
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const message = error instanceof Error ? error.message : "";
  if (code === "ERR_PROXY_TUNNEL") {
    const words = /: (\d{3}.*)$/.exec(message)?.[1] ?? message;
    const [, bridged = "", reason = ""] = /^502 ([A-Z]+) (.*)$/.exec(words) ?? [];
    if (isRouteErrorCode(bridged)) return new RouteError(bridged, reason, details);
    return new RouteError("PROXY", `the proxy refused: ${words}`, details);
  }
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") {
    return new RouteError("TLS", "the certificate is for another name", details);
  }
  if (CERTIFICATE_CODE.test(code)) return new RouteError("TLS", `${message} (${code})`, details);
  if (code === "EPROTO") return new RouteError("TLS", "the TLS handshake failed", details);
  const known = socketErrorOf(error);
  const unreached = known.code === "REFUSED" || known.code === "DNS" || known.code === "UNREACHABLE";
  if (proxy === undefined || !unreached) return known;
  return new RouteError("PROXY", `the proxy cannot be reached: ${known.message}`, details);
}
