import type { Socket } from "node:net";
import type { PeerCertificate, TLSSocket } from "node:tls";
import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
import { parseRetryAfter } from "./fetch-text.ts";
import { quotable } from "./http-connect.ts";
import { formatHostPort } from "./outbound-proxy.ts";
import { socketErrorOf } from "./tcp-dial.ts";

/** What {@link inspectEndpoint} looks at. */
export interface InspectedEndpoint {
  /** An IP address, IPv6 without brackets, or a name: what is connected to. */
  readonly host: string;
  readonly port: number;
  /** The WebSocket that should open there; `undefined` looks at TCP alone. */
  readonly webSocket:
    | {
        /** The name for SNI. */
        readonly serverName: string;
        /** The Host header as it is sent, maybe with a port. The certificate may be for either name. */
        readonly hostHeader: string;
        readonly path: string;
        /** Whether to ask for the subprotocol `binary`. */
        readonly subprotocol: boolean;
        /** Sent as `Authorization: Bearer`; not for logs. */
        readonly token?: string | undefined;
      }
    | undefined;
}

/** One step on the way to an open WebSocket. */
export interface Stage {
  readonly name: "dns" | "tcp" | "tls" | "upgrade";
  /** How long it took. */
  readonly ms: number;
  /** Why it failed. No other stage follows. */
  readonly error: RouteError | undefined;
  /** The addresses of the name, the one connected to, TLS's version and certificate, or the status line. */
  readonly detail: string | undefined;
}

/** What {@link inspectEndpoint} has found. */
export interface Inspection {
  /** In their order, up to the first that failed. A host that is an IP address has no `dns`. */
  readonly stages: readonly Stage[];
  /** Where a refused upgrade redirects to. */
  readonly location: string | undefined;
  /** How long a refused upgrade asks to wait. */
  readonly retryAfterMs: number | undefined;
}

/** The longest head of an answer to the upgrade. */
const HEAD_LIMIT = 16 * 1024;

const ACCEPT_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

interface InspectOptions {
  /** `false` accepts any certificate. */
  readonly verify: boolean;
  /** PEM certificates that replace the built-in roots. */
  readonly ca: readonly string[] | undefined;
  /** For each stage. */
  readonly timeoutMs: number;
  readonly signal: Cancel;
}

/**
 * Opens a WebSocket step by step and says how far it gets: DNS, TCP, TLS, upgrade.
 *
 * Made for a person who asks why nothing works, so it goes past Bun's WebSocket, which reports less. It uses
 * no proxy, leaves no socket behind, and what goes wrong on the network is in the result rather than thrown.
 */
export function inspectEndpoint(endpoint: InspectedEndpoint, options: InspectOptions): Promise<Inspection> {
  return new Inspector(endpoint, options).run();
}

type WebSocketDetails = NonNullable<InspectedEndpoint["webSocket"]>;

class Inspector {
  readonly #endpoint: InspectedEndpoint;
  readonly #options: InspectOptions;
  readonly #stages: Stage[] = [];
  #location: string | undefined;
  #retryAfterMs: number | undefined;
  #socket: Socket | undefined;
  #tls: TLSSocket | undefined;

  constructor(endpoint: InspectedEndpoint, options: InspectOptions) {
    this.#endpoint = endpoint;
    this.#options = options;
  }

  async run(): Promise<Inspection> {
    try {
      await this.#runStages();
    } catch (error) {
      // It is in `stages` already.
      if (!(error instanceof RouteError)) throw error;
    } finally {
      this.#tls?.destroy();
      this.#socket?.destroy();
    }
    return { stages: this.#stages, location: this.#location, retryAfterMs: this.#retryAfterMs };
  }

  async #runStages(): Promise<void> {
    const { host, webSocket } = this.#endpoint;
    const { isIP } = await import("node:net"); // loaded here and below: a running proxy never needs them
    let addresses: readonly string[] = [host];
    if (isIP(host) === 0) {
      await this.#stage("dns", async (stop) => {
        addresses = await lookUp(host, stop);
        return addresses.join(", ");
      });
    }
    await this.#stage("tcp", (stop) => this.#connect(addresses, stop));
    if (webSocket === undefined) return;
    await this.#stage("tls", (stop) => this.#secure(webSocket, stop));
    await this.#stage("upgrade", (stop) => this.#upgrade(webSocket, stop));
  }

  /** Runs one step, notes how it went, and throws when it failed. */
  async #stage(name: Stage["name"], step: (stop: AbortSignal) => Promise<string>): Promise<void> {
    const { timeoutMs, signal } = this.#options;
    const start = performance.now();
    const stop = new AbortController();
    const onAbort = (): void => stop.abort(new RouteError("ABORTED", "given up"));
    const timer = setTimeout(() => {
      stop.abort(new RouteError("TIMEOUT", `nothing within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      const detail = await step(stop.signal);
      this.#stages.push({ name, ms: performance.now() - start, error: undefined, detail });
    } catch (caught) {
      const error = caught instanceof StageFailure ? caught.error : errorOf(caught);
      const detail = caught instanceof StageFailure ? caught.detail : undefined;
      this.#stages.push({ name, ms: performance.now() - start, error, detail });
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Connects to the first of `addresses` that answers; each has an equal share of the time that is left. */
  async #connect(addresses: readonly string[], stop: AbortSignal): Promise<string> {
    const { connect } = await import("node:net");
    const { port } = this.#endpoint;
    const deadline = performance.now() + this.#options.timeoutMs;
    let failure: unknown;
    for (const [index, address] of addresses.entries()) {
      const socket = connect({ host: address, port, noDelay: true });
      socket.on("error", ignore); // also those that come when nobody waits any more
      const share = (deadline - performance.now()) / (addresses.length - index);
      try {
        await settled(socket, "connect", AbortSignal.any([stop, AbortSignal.timeout(Math.max(share, 1))]));
        this.#socket = socket;
        return formatHostPort(address, port);
      } catch (error) {
        socket.destroy();
        if (stop.aborted) throw stop.reason;
        failure = isTimeout(error) ? new RouteError("TIMEOUT", `no answer from ${address}`) : error;
      }
    }
    throw failure ?? new RouteError("DNS", "the name has no address");
  }

  async #secure(webSocket: WebSocketDetails, stop: AbortSignal): Promise<string> {
    const { connect, checkServerIdentity } = await import("node:tls");
    const { isIP } = await import("node:net");
    const { verify, ca } = this.#options;
    const { serverName } = webSocket;
    if (this.#socket === undefined) throw new Error("TLS comes after TCP");
    const socket = connect({
      socket: this.#socket,
      rejectUnauthorized: false, // what is wrong with a certificate can only be shown when it arrives
      ...(ca === undefined ? {} : { ca: [...ca] }),
      ...(serverName === "" || isIP(serverName) !== 0 ? {} : { servername: serverName }),
    });
    this.#tls = socket;
    socket.on("error", ignore);
    await settled(socket, "secureConnect", stop).catch((error: unknown) => {
      throw tlsErrorOf(error);
    });
    const version = socket.getProtocol() ?? "TLS";
    if (!verify) return `${version}, certificate not verified`;
    const certificate = socket.getPeerCertificate();
    const chainError = chainErrorOf(socket);
    const names = new Set([serverName, hostOf(webSocket.hostHeader)].filter((name) => name !== ""));
    const named = [...names].some((name) => checkServerIdentity(name, certificate) === undefined);
    if (chainError === undefined && named) return version;
    const reason =
      chainError === undefined
        ? `the certificate is for another name than ${[...names].join(" or ")}`
        : `the certificate is not trusted (${chainError})`;
    throw new StageFailure(new RouteError("TLS", reason), `${version}, ${describe(certificate)}`);
  }

  async #upgrade(webSocket: WebSocketDetails, stop: AbortSignal): Promise<string> {
    const { createHash, randomBytes } = await import("node:crypto");
    const socket = this.#tls;
    if (socket === undefined) throw new Error("The upgrade comes after TLS");
    const key = randomBytes(16).toString("base64");
    const lines = [
      `GET ${webSocket.path} HTTP/1.1`,
      `Host: ${webSocket.hostHeader}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${key}`,
      ...(webSocket.subprotocol ? ["Sec-WebSocket-Protocol: binary"] : []),
      ...(webSocket.token === undefined ? [] : [`Authorization: Bearer ${webSocket.token}`]),
    ];
    const answer = readHead(socket, stop);
    socket.write(`${lines.join("\r\n")}\r\n\r\n`);
    const { statusLine, headers } = await answer;
    const detail = quotable(statusLine);
    const status = Number(/^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(statusLine)?.[1] ?? 0);
    if (status === 0) {
      throw new StageFailure(new RouteError("PROTOCOL", "the answer is not HTTP/1"), detail);
    }
    if (status !== 101) {
      this.#location = headers.get("location");
      this.#retryAfterMs = parseRetryAfter(headers.get("retry-after") ?? "", Date.now());
      const code = status >= 300 && status < 400 ? "REDIRECT" : "STATUS";
      const error = new RouteError(code, `HTTP ${status} instead of a WebSocket`, { status });
      throw new StageFailure(error, detail);
    }
    const proof = createHash("sha1").update(`${key}${ACCEPT_SUFFIX}`).digest("base64");
    if (headers.get("sec-websocket-accept") !== proof) {
      throw new StageFailure(
        new RouteError("PROTOCOL", "the server does not prove that it speaks WebSocket"),
        detail,
      );
    }
    if (webSocket.subprotocol && headers.get("sec-websocket-protocol") !== "binary") {
      throw new StageFailure(
        new RouteError("PROTOCOL", "the server does not speak subprotocol binary"),
        detail,
      );
    }
    return detail;
  }
}

/** A failure that there is more to show of. */
class StageFailure extends Error {
  readonly error: RouteError;
  readonly detail: string;

  constructor(error: RouteError, detail: string) {
    super(error.message);
    this.error = error;
    this.detail = detail;
  }
}

async function lookUp(host: string, stop: AbortSignal): Promise<readonly string[]> {
  const { lookup } = await import("node:dns/promises");
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(stop.reason);
  stop.addEventListener("abort", onAbort, { once: true });
  if (stop.aborted) onAbort();
  try {
    // Looking up cannot be given up, only not waited for.
    const found = await Promise.race([lookup(host, { all: true }), stopped]);
    return [...new Set(found.map(({ address }) => address))];
  } finally {
    stop.removeEventListener("abort", onAbort);
  }
}

/**
 * Waits for `event`; rejects on the error or the close of `socket`, or when `stop` aborts, with its reason.
 */
async function settled(socket: Socket, event: "connect" | "secureConnect", stop: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onClose = (): void => reject(new RouteError("CLOSED", "the server closed the connection"));
  const onAbort = (): void => reject(stop.reason);
  socket.on(event, resolve);
  socket.on("error", reject);
  socket.on("close", onClose);
  stop.addEventListener("abort", onAbort, { once: true });
  if (stop.aborted) onAbort();
  try {
    await promise;
  } finally {
    socket.off(event, resolve);
    socket.off("error", reject);
    socket.off("close", onClose);
    stop.removeEventListener("abort", onAbort);
  }
}

async function readHead(
  socket: Socket,
  stop: AbortSignal,
): Promise<{ readonly statusLine: string; readonly headers: ReadonlyMap<string, string> }> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let head = "";
  const onData = (chunk: Buffer): void => {
    head += chunk.toString("latin1");
    const end = head.indexOf("\r\n\r\n");
    if (end >= 0) resolve(head.slice(0, end));
    else if (head.length > HEAD_LIMIT)
      reject(new RouteError("PROTOCOL", "the head of the answer does not end"));
    else if (head.length >= 5 && !head.startsWith("HTTP/")) resolve(head); // whoever looks at it will see
  };
  const onClose = (): void => reject(new RouteError("CLOSED", "the server closed the connection"));
  const onAbort = (): void => reject(stop.reason);
  socket.on("data", onData);
  socket.on("error", reject);
  socket.on("end", onClose);
  socket.on("close", onClose);
  stop.addEventListener("abort", onAbort, { once: true });
  if (stop.aborted) onAbort();
  try {
    const [statusLine = "", ...lines] = (await promise).split("\r\n");
    const headers = new Map<string, string>();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon > 0) headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
    }
    return { statusLine, headers };
  } finally {
    socket.off("data", onData);
    socket.off("error", reject);
    socket.off("end", onClose);
    socket.off("close", onClose);
    stop.removeEventListener("abort", onAbort);
  }
}

function errorOf(error: unknown): RouteError {
  return error instanceof RouteError ? error : socketErrorOf(error);
}

function tlsErrorOf(error: unknown): RouteError {
  const known = errorOf(error);
  if (known.code !== "UNKNOWN") return known;
  return new RouteError("TLS", `the TLS handshake failed: ${quotable(known.message)}`, { cause: error });
}

/** What is wrong with the certificate apart from its name, which is looked at by itself. */
function chainErrorOf({ authorized, authorizationError }: TLSSocket): string | undefined {
  if (authorized) return undefined;
  const code = codeOf(authorizationError);
  return code === "ERR_TLS_CERT_ALTNAME_INVALID" ? undefined : code;
}

/** Node's types say that it is an error; it is the code of one, or an error, or nothing. */
function codeOf(error: unknown): string {
  if (error instanceof Error && "code" in error) return String(error.code);
  return String(error ?? "no certificate");
}

function describe({ subject, issuer, subjectaltname }: PeerCertificate): string {
  const names = subjectaltname === undefined ? "" : ` (${quotable(subjectaltname)})`;
  return `subject ${distinguished(subject)}${names}, issuer ${distinguished(issuer)}`;
}

function distinguished(name: PeerCertificate["subject"] | undefined): string {
  const parts = Object.entries(name ?? {}).map(([key, value]) => `${key}=${String(value)}`);
  return quotable(parts.join(", ")) || "without a name";
}

/** The name in a Host header. */
function hostOf(header: string): string {
  return header.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name === "TimeoutError";
}

function ignore(): void {}
