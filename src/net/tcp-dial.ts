import type { Socket } from "bun";
import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { hasSpareDescriptors, hidesShortage, SHORT_OF_DESCRIPTORS } from "./descriptors.ts";
import { bypasses, formatHostPort, formatOutboundProxy } from "./outbound-proxy.ts";
import { TCP_HANDLERS, TcpChannel } from "./tcp-channel.ts";

/** Where a TCP connection goes. */
export interface TcpEndpoint {
  /** An IP address, IPv6 without brackets, or a name. */
  readonly host: string;
  readonly port: number;
}

/**
 * Attempts at one endpoint that were given up and that the kernel still makes. Each holds a file descriptor, so
 * while so many hang, others fail at once; but for a while only, since the host may be back long before the
 * kernel notices.
 */
const HANGING_LIMIT = 4;
/** An attempt hangs when it is older than this; younger ones were just not needed any more. In milliseconds. */
const HANGS_AFTER_MS = 2_000;
const HANGS_UNTIL_MS = 12_000;
/** The same over all endpoints and however old they are, unless the dialer is made with another limit. */
const GIVEN_UP_LIMIT = 64;

/** Loaded by need: few have a proxy. */
const TUNNELS = {
  http: async () => (await import("./http-connect.ts")).openHttpTunnel,
  socks5: async () => (await import("./socks5.ts")).openSocks5Tunnel,
} as const;

/** Opens TCP connections with one set of options, straight or through the user's proxy. */
export class TcpDialer {
  readonly #highWater: number;
  readonly #timeoutMs: number;
  readonly #proxy: OutboundProxy | undefined;
  readonly #givenUpLimit: number;
  /** When attempts began that were given up but go on, `performance.now()`, by `host:port`. */
  readonly #hanging = new Map<string, Set<{ readonly since: number }>>();
  #givenUp = 0;
  /** Attempts from before this moment say nothing of the network as it is now. */
  #forgivenAt = Number.NEGATIVE_INFINITY;

  constructor(options: {
    /** See {@link TcpChannel}. */
    readonly highWater: number;
    /** For the connection and the proxy's answer together. */
    readonly timeoutMs: number;
    readonly proxy: OutboundProxy | undefined;
    /** Attempts that were given up and still hold a file descriptor. */
    readonly givenUpLimit?: number;
  }) {
    this.#highWater = options.highWater;
    this.#timeoutMs = options.timeoutMs;
    this.#proxy = options.proxy;
    this.#givenUpLimit = options.givenUpLimit ?? GIVEN_UP_LIMIT;
  }

  /**
   * Opens a connection to `endpoint`, through the proxy unless its `bypass` excepts the host.
   *
   * Bun cannot give an attempt up, and the kernel takes two minutes to: while 4 such attempts at an endpoint hang,
   * others are not made.
   *
   * @throws {RouteError} `REFUSED`, `UNREACHABLE`, `TIMEOUT`, `DNS`, `CLOSED`; `ABORTED` when `signal` aborts
   * first, or it was not tried; `PROXY` when the proxy cannot be reached, refuses, or is not understood.
   */
  async dial(endpoint: TcpEndpoint, signal: Cancel): Promise<Channel> {
    if (signal.aborted) throw abortedError();
    const proxy = this.#proxy;
    const via = proxy !== undefined && !bypasses(proxy, endpoint.host, endpoint.port) ? proxy : undefined;
    const stop = new AbortController();
    const onAbort = (): void => stop.abort();
    const timer = setTimeout(onAbort, this.#timeoutMs);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return via === undefined
        ? await this.#open(endpoint, stop.signal)
        : await this.#openVia(via, endpoint, stop.signal);
    } catch (error) {
      throw signal.aborted ? abortedError(error) : error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** The network has changed: what hung in the old one may work in the new one. */
  forgive(): void {
    this.#forgivenAt = performance.now();
  }

  async #openVia(proxy: OutboundProxy, endpoint: TcpEndpoint, stop: AbortSignal): Promise<Channel> {
    const openTunnel = await TUNNELS[proxy.kind]();
    const channel = await this.#open(proxy, stop).catch((error: unknown) => {
      throw unreachableProxyError(proxy, error);
    });
    const reader = new ByteReader(channel);
    try {
      await openTunnel(channel, reader, proxy, endpoint, stop);
    } catch (error) {
      channel.destroy();
      throw error;
    }
    channel.unread(reader.rest());
    return channel;
  }

  /** Opens a connection without a proxy. @throws {RouteError} `TIMEOUT` when `stop` aborts first. */
  #open({ host, port }: TcpEndpoint, stop: AbortSignal): Promise<TcpChannel> {
    if (stop.aborted) return Promise.reject(this.#timeoutError());
    const key = formatHostPort(host, port);
    if (this.#isHanging(key)) {
      return Promise.reject(new RouteError("ABORTED", "not tried: earlier attempts still hang"));
    }
    const { promise, resolve, reject } = Promise.withResolvers<TcpChannel>();
    const attempt = { since: performance.now() };
    let givenUp = false;
    const onStop = (): void => {
      givenUp = true;
      this.#giveUp(key, attempt);
      reject(this.#timeoutError());
    };
    stop.addEventListener("abort", onStop, { once: true });
    const connecting = Promise.try(() =>
      Bun.connect<TcpChannel | undefined>({
        hostname: host,
        port,
        allowHalfOpen: true,
        data: undefined,
        socket: {
          ...TCP_HANDLERS,
          open: (socket) => {
            stop.removeEventListener("abort", onStop);
            if (givenUp) socket.terminate();
            // Here, not when the promise resolves: the peer's first bytes may come before that.
            else resolve(openedChannel(socket, this.#highWater));
          },
        },
      }),
    );
    const onSettled = (): void => {
      stop.removeEventListener("abort", onStop);
      if (givenUp) this.#forget(key, attempt);
    };
    connecting.then(onSettled, (error: unknown) => {
      onSettled();
      reject(socketErrorOf(error));
    });
    return promise;
  }

  #timeoutError(): RouteError {
    return new RouteError("TIMEOUT", `no connection within ${this.#timeoutMs / 1000} s`);
  }

  #isHanging(key: string): boolean {
    if (this.#givenUp >= this.#givenUpLimit) return true;
    const now = performance.now();
    let count = 0;
    for (const { since } of this.#hanging.get(key) ?? []) {
      const age = now - since;
      if (since > this.#forgivenAt && age >= HANGS_AFTER_MS && age < HANGS_UNTIL_MS) count += 1;
    }
    return count >= HANGING_LIMIT;
  }

  #giveUp(key: string, attempt: { readonly since: number }): void {
    const attempts = this.#hanging.get(key) ?? new Set();
    attempts.add(attempt);
    this.#hanging.set(key, attempts);
    this.#givenUp += 1;
  }

  #forget(key: string, attempt: { readonly since: number }): void {
    const attempts = this.#hanging.get(key);
    if (attempts?.delete(attempt) === true) this.#givenUp -= 1;
    if (attempts?.size === 0) this.#hanging.delete(key);
  }
}

function openedChannel(socket: Socket<TcpChannel | undefined>, highWater: number): TcpChannel {
  const channel = new TcpChannel(socket, highWater);
  channel.keepAlive();
  return channel;
}

const CODES: Readonly<Record<string, RouteError["code"]>> = {
  ECONNREFUSED: "REFUSED",
  ECONNRESET: "CLOSED",
  ECONNABORTED: "CLOSED",
  ECONNCLOSED: "CLOSED",
  ConnectionClosed: "CLOSED",
  EPIPE: "CLOSED",
  ETIMEDOUT: "TIMEOUT",
  EHOSTUNREACH: "UNREACHABLE",
  EHOSTDOWN: "UNREACHABLE",
  ENETUNREACH: "UNREACHABLE",
  ENETDOWN: "UNREACHABLE",
  EADDRNOTAVAIL: "UNREACHABLE",
  EAFNOSUPPORT: "UNREACHABLE",
  EACCES: "UNREACHABLE",
  EPERM: "UNREACHABLE",
  EMFILE: "LOCAL",
  ENFILE: "LOCAL",
  ENOMEM: "LOCAL",
  ENOBUFS: "LOCAL",
};

const MESSAGES: Partial<Readonly<Record<RouteError["code"], string>>> = {
  REFUSED: "connection refused",
  CLOSED: "closed during the opening",
  TIMEOUT: "no connection in time",
  UNREACHABLE: "no way to the host",
  DNS: "the name has no address",
  LOCAL: SHORT_OF_DESCRIPTORS,
};

/** Turns an error of a socket, or of looking a name up, into a {@link RouteError}: `UNKNOWN` quotes it. */
export function socketErrorOf(error: unknown): RouteError {
  const details = { cause: error };
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const known = CODES[code] ?? (/^(?:EAI_|DNS_|ENOTFOUND|ENODATA|ESERVFAIL)/.test(code) ? "DNS" : undefined);
  if (hidesShortage(known) && !hasSpareDescriptors(1)) {
    return new RouteError("LOCAL", SHORT_OF_DESCRIPTORS, details);
  }
  if (known === undefined) {
    return new RouteError("UNKNOWN", error instanceof Error ? error.message : String(error), details);
  }
  const reason = MESSAGES[known] ?? code;
  return new RouteError(
    known,
    code in CODES && known === "UNREACHABLE" ? `${reason} (${code})` : reason,
    details,
  );
}

function abortedError(cause?: unknown): RouteError {
  return new RouteError("ABORTED", "given up", { cause });
}

/** A proxy that hangs is a timeout as any other; everything else is the proxy's fault, not the endpoint's. */
function unreachableProxyError(proxy: OutboundProxy, error: unknown): unknown {
  if (!(error instanceof RouteError)) return error;
  const code = error.code === "TIMEOUT" ? "TIMEOUT" : "PROXY";
  return new RouteError(code, `the proxy ${formatOutboundProxy(proxy)} cannot be reached: ${error.message}`, {
    cause: error,
  });
}
