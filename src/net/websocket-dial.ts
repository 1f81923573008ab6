import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
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
  /** The name for SNI, the Host header and the certificate. */
  readonly serverName: string;
  /** An IP address to connect to instead of looking `serverName` up. */
  readonly address: string | undefined;
  readonly port: number;
  readonly path: string;
}

interface TlsOptions {
  readonly serverName: string;
  readonly rejectUnauthorized: boolean;
  readonly ca?: string[];
}

/** Opens WebSockets with one set of options. */
export class WebSocketDialer {
  readonly #poller: DrainPoller;
  readonly #highWater: number;
  readonly #timeoutMs: number;
  readonly #trust: Omit<TlsOptions, "serverName">;
  readonly #tls = new Map<string, TlsOptions>();

  constructor(options: {
    readonly trust: TlsTrust;
    readonly poller: DrainPoller;
    /** See {@link WebSocketChannel}. */
    readonly highWater: number;
    /** For connection, TLS and upgrade together. */
    readonly timeoutMs: number;
  }) {
    this.#poller = options.poller;
    this.#highWater = options.highWater;
    this.#timeoutMs = options.timeoutMs;
    const { verify, ca } = options.trust;
    this.#trust = { rejectUnauthorized: verify, ...(ca === undefined ? {} : { ca: [...ca] }) };
  }

  /**
   * Opens a WebSocket with subprotocol `binary` and without compression, which ciphertext does not need.
   *
   * @throws {RouteError} With the reason why it did not open; `ABORTED` when `signal` aborts first.
   */
  dial(endpoint: WebSocketEndpoint, signal: Cancel): Promise<WebSocketChannel> {
    const { promise, resolve, reject } = Promise.withResolvers<WebSocketChannel>();
    const { serverName, address = serverName, port, path } = endpoint;
    const host = address.includes(":") ? `[${address}]` : address;
    const socket = new WebSocket(`wss://${host}:${port}${path}`, {
      protocols: "binary",
      headers: { Host: port === 443 ? serverName : `${serverName}:${port}` },
      tls: this.#tlsOptions(serverName),
      perMessageDeflate: false,
    });
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
      reject(routeErrorOf(event.message, event.error));
    };
    socket.onclose = (event) => {
      settle();
      reject(new RouteError("CLOSED", `closed during the opening (code ${event.code})`));
    };
    if (signal.aborted) onAbort();
    return promise;
  }

  /** One object a name: two dozen names at most, and Bun need not look at them anew each time. */
  #tlsOptions(serverName: string): TlsOptions {
    let options = this.#tls.get(serverName);
    if (options === undefined) {
      options = { serverName, ...this.#trust };
      this.#tls.set(serverName, options);
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
};

/** The certificate errors of OpenSSL and Node, which have no common prefix. */
const CERTIFICATE_CODE =
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
  if (known === "DNS") return new RouteError("DNS", "the name has no address", details);
  if (known === "REFUSED") return new RouteError("REFUSED", "connection refused", details);
  if (known !== undefined) return new RouteError(known, reason, details);
  if (CERTIFICATE_CODE.test(code) || reason.startsWith("TLS handshake failed")) {
    return new RouteError("TLS", code === "" ? reason : `${reason} (${code})`, details);
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
