import type { Cancel } from "../core/cancel.ts";
import { isRouteErrorCode, RouteError } from "../core/errors.ts";
import { hasSpareDescriptors, hidesShortage, SHORT_OF_DESCRIPTORS } from "./descriptors.ts";
import type { DrainPoller } from "./drain-poller.ts";
import { WebSocketChannel } from "./websocket-channel.ts";

/** How far a server's certificate is trusted. */
export interface TlsTrust {
  /** `false` accepts any certificate. */
  readonly verify: boolean;
  /** PEM certificates that replace the built-in roots; `undefined` keeps those. */
  readonly ca: readonly string[] | undefined;
}

/** Where and how a WebSocket is opened. */
export interface WebSocketEndpoint {
  /** The name for SNI and the certificate. */
  readonly serverName: string;
  /** The name for the Host header, where it is another one; the certificate may then be for either. */
  readonly host?: string | undefined;
  /** An IP address to connect to instead of looking `serverName` up. */
  readonly address: string | undefined;
  readonly port: number;
  readonly path: string;
  /** Whether to ask for the subprotocol `binary`: Bun then insists on it. */
  readonly subprotocol: boolean;
  /** Sent as `Authorization: Bearer`. */
  readonly token?: string | undefined;
}

type CheckServerIdentity = typeof import("node:tls").checkServerIdentity;

interface TlsOptions {
  readonly serverName: string;
  readonly rejectUnauthorized: boolean;
  readonly ca?: string[];
  readonly checkServerIdentity?: CheckServerIdentity;
}

/** What Bun's own WebSocket takes and the standard does not know. */
interface BunWebSocketOptions {
  protocols?: string;
  headers: Record<string, string>;
  tls: TlsOptions;
  perMessageDeflate: false;
  proxy?: string;
}

/** Names that are remembered: a public list of domains changes every hour, for a year. */
const TLS_OPTIONS_LIMIT = 1_024;

/** Opens WebSockets with one set of options. */
export class WebSocketDialer {
  readonly #poller: DrainPoller;
  readonly #highWater: number;
  readonly #timeoutMs: number;
  readonly #trust: Omit<TlsOptions, "serverName">;
  readonly #checkIdentity: CheckServerIdentity | undefined;
  readonly #proxyFor: (names: readonly string[], port: number) => string | undefined;
  readonly #tls = new Map<string, TlsOptions>();

  constructor(options: {
    readonly trust: TlsTrust;
    readonly poller: DrainPoller;
    /** See {@link WebSocketChannel}. */
    readonly highWater: number;
    /** For connection, TLS and upgrade together. */
    readonly timeoutMs: number;
    /** Node's own, which is only loaded where a Host header differs from the name of the TLS handshake. */
    readonly checkIdentity?: CheckServerIdentity | undefined;
    /** The HTTP proxy for a server with these names and addresses, with its credentials; without: none. */
    readonly proxyFor?: ((names: readonly string[], port: number) => string | undefined) | undefined;
  }) {
    this.#poller = options.poller;
    this.#highWater = options.highWater;
    this.#timeoutMs = options.timeoutMs;
    this.#checkIdentity = options.checkIdentity;
    this.#proxyFor = options.proxyFor ?? (() => undefined);
    const { verify, ca } = options.trust;
    this.#trust = { rejectUnauthorized: verify, ...(ca === undefined ? {} : { ca: [...ca] }) };
  }

  /**
   * Opens a WebSocket without compression, which ciphertext does not need.
   *
   * @throws {RouteError} With the reason why it did not open; `ABORTED` when `signal` aborts first.
   */
  dial(endpoint: WebSocketEndpoint, signal: Cancel): Promise<WebSocketChannel> {
    const { promise, resolve, reject } = Promise.withResolvers<WebSocketChannel>();
    const { serverName, host = serverName, address = serverName, port } = endpoint;
    const proxy = this.#proxyFor([address, host], port);
    const socket = this.#create(endpoint, proxy);
    socket.binaryType = "nodebuffer";

    const stop = (error: RouteError): void => {
      settle();
      reject(error);
      socket.terminate();
    };
    const onAbort = (): void => stop(new RouteError("ABORTED", "given up"));
    const timer = setTimeout(() => {
      stop(new RouteError("TIMEOUT", `no WebSocket within ${this.#timeoutMs / 1000} s`));
    }, this.#timeoutMs);
    const settle = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      socket.onopen = null;
      socket.onerror = null;
      socket.onclose = null;
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.onopen = () => {
      settle();
      resolve(new WebSocketChannel(socket, this.#poller, this.#highWater));
    };
    socket.onerror = (event) => {
      settle();
      const error = routeErrorOf(event.message, event.error);
      reject(proxy === undefined ? error : blameProxy(error));
    };
    socket.onclose = (event) => {
      settle();
      reject(new RouteError("CLOSED", `closed during the opening (code ${event.code})`));
    };
    if (signal.aborted) onAbort();
    return promise;
  }

  #create(endpoint: WebSocketEndpoint, proxy: string | undefined): WebSocket {
    const { serverName, host = serverName, address = serverName, port, path, token } = endpoint;
    const options: BunWebSocketOptions = {
      headers: { Host: port === 443 ? host : `${host}:${port}` },
      tls: this.#tlsOptions(serverName, host),
      perMessageDeflate: false,
    };
    if (endpoint.subprotocol) options.protocols = "binary";
    if (token !== undefined) options.headers["Authorization"] = `Bearer ${token}`;
    if (proxy !== undefined) options.proxy = proxy;
    const where = address.includes(":") ? `[${address}]` : address;
    return new WebSocket(`wss://${where}:${port}${path}`, options);
  }

  /** One object a pair of names, so that Bun need not look at them anew each time. */
  #tlsOptions(serverName: string, host: string): TlsOptions {
    const key = `${serverName} ${host}`;
    let options = this.#tls.get(key);
    if (options === undefined) {
      if (this.#tls.size >= TLS_OPTIONS_LIMIT) this.#tls.clear();
      options = { serverName, ...this.#trust };
      const check = this.#checkIdentity;
      if (host !== serverName && check !== undefined) {
        options = {
          ...options,
          checkServerIdentity: (_, certificate) =>
            check(serverName, certificate) === undefined ? undefined : check(host, certificate),
        };
      }
      this.#tls.set(key, options);
    }
    return options;
  }
}

const CODES: Readonly<Record<string, RouteError["code"]>> = {
  ECONNREFUSED: "REFUSED",
  ECONNRESET: "CLOSED",
  EPIPE: "CLOSED",
  ETIMEDOUT: "TIMEOUT",
  EHOSTUNREACH: "UNREACHABLE",
  ENETUNREACH: "UNREACHABLE",
  EADDRNOTAVAIL: "UNREACHABLE",
  EAI_AGAIN: "DNS",
  ENOTFOUND: "DNS",
  EPROTO: "TLS",
  EMFILE: "LOCAL",
  ENFILE: "LOCAL",
  ENOMEM: "LOCAL",
  ENOBUFS: "LOCAL",
};

/** With a proxy between, a connection that fails is the one to the proxy; what is behind it comes as text. */
function blameProxy(error: RouteError): RouteError {
  const own = error.cause instanceof Error && "code" in error.cause;
  if (!own || !["REFUSED", "UNREACHABLE", "DNS"].includes(error.code)) return error;
  return new RouteError("PROXY", `the outbound proxy cannot be reached: ${error.message}`, {
    cause: error.cause,
  });
}

/** How Bun says that the proxy answered CONNECT with something else than 200. */
const PROXY_REFUSAL = /^Proxy [a-z ]+: (\d{3}(?: ([A-Z]+))?.*)$/;

/** The certificate errors of OpenSSL and Node, which have no common prefix. */
export const CERTIFICATE_CODE =
  /^(?:CERT_|ERR_TLS|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_SSL|HOSTNAME_MISMATCH|INVALID_CA|CRL_)/;

/**
 * Turns what Bun reports for a WebSocket that did not open into a {@link RouteError}.
 *
 * Bun gives an `error.code` for everything but a refused upgrade, whose status stands only in the text and
 * whose headers (Location, Retry-After) are not given at all.
 */
export function routeErrorOf(message: string, error: unknown): RouteError {
  const details = { cause: error };
  const reason = message.replace(/^WebSocket connection to '.*?' failed: /, "");
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const known = CODES[code];
  if (known === "LOCAL" || (hidesShortage(known) && !hasSpareDescriptors(1))) {
    return new RouteError("LOCAL", SHORT_OF_DESCRIPTORS, details);
  }
  if (known === "DNS") return new RouteError("DNS", "the name has no address", details);
  if (known === "REFUSED") return new RouteError("REFUSED", "connection refused", details);
  if (known !== undefined) return new RouteError(known, reason, details);
  if (CERTIFICATE_CODE.test(code) || reason.startsWith("TLS handshake failed")) {
    return new RouteError("TLS", code === "" ? reason : `${reason} (${code})`, details);
  }
  const proxy = PROXY_REFUSAL.exec(reason);
  if (proxy !== null) {
    // What our own bridge to SOCKS proxies found out keeps its code: `502 REFUSED connection refused`.
    const [, words = "", bridged] = proxy;
    if (isRouteErrorCode(bridged)) {
      return new RouteError(bridged, words.slice(words.indexOf(bridged) + bridged.length + 1), details);
    }
    // tinyproxy says 401 where it should say 407.
    const hint = /^40[17]\b/.test(words) ? ": it wants another user and password" : "";
    return new RouteError("PROXY", `the outbound proxy says ${words}${hint}`, details);
  }
  const status = Number(/Expected 101 status code: (\d{3})/.exec(reason)?.[1]);
  if (status >= 300 && status < 400) {
    return new RouteError("REDIRECT", `HTTP ${status}: this address does not serve this data centre`, {
      ...details,
      status,
    });
  }
  if (status > 0)
    return new RouteError("STATUS", `HTTP ${status} instead of a WebSocket`, { ...details, status });
  if (/101 status|[Uu]pgrade|websocket|protocol|header|Invalid|Mismatch/.test(reason)) {
    return new RouteError("PROTOCOL", reason, details);
  }
  if (/^Connection ended|closed|Ended/.test(reason)) return new RouteError("CLOSED", reason, details);
  return new RouteError("UNKNOWN", reason, details);
}
