import { connect, type Server, type Socket } from "node:net";
import { concat } from "./packets.ts";
import { listenOnLoopback, portOf } from "./upgrade-server.ts";
import { Condition, within } from "./waiting.ts";

/** A name and a password. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** What a client asked an outbound proxy for. */
export interface ProxyRequest {
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
  /** What the client said, whether it was asked for or not. */
  readonly credentials: Credentials | undefined;
}

/** What happens to a TCP connection at an outbound proxy, before it says anything. */
export type ProxyAcceptBehaviour = "serve" | "hang" | "close" | "reset" | "garbage";

/** What happens to a request at an {@link StubHttpProxy}. */
export type HttpProxyBehaviour =
  | { readonly kind: "forward" }
  | { readonly kind: "hang" }
  | { readonly kind: "close" }
  | { readonly kind: "status"; readonly status: string; readonly headers?: Readonly<Record<string, string>> };

/** What happens to a request at a {@link StubSocksProxy}. */
export type SocksProxyBehaviour =
  | { readonly kind: "forward" }
  | { readonly kind: "hang" }
  | { readonly kind: "close" }
  /** One of {@link SOCKS_REPLY}. */
  | { readonly kind: "reply"; readonly code: number };

/** How an outbound proxy is set up. */
export interface OutboundProxyOptions {
  /** Asked for when they are given. */
  readonly credentials?: Credentials;
  /**
   * Ports of 127.0.0.1 by `host:port` or `host`. Nothing else is reached but loopback itself, and no name is
   * looked up.
   */
  readonly table?: Readonly<Record<string, number>>;
}

/** The reply codes of RFC 1928 section 6. */
export const SOCKS_REPLY = {
  succeeded: 0,
  generalFailure: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  connectionRefused: 5,
  ttlExpired: 6,
  commandNotSupported: 7,
  addressTypeNotSupported: 8,
} as const;

/** What both kinds of outbound proxies have in common. */
abstract class OutboundProxy implements AsyncDisposable {
  readonly port: number;
  accept: (number: number) => ProxyAcceptBehaviour = serve;
  /** Every request, the refused ones included. */
  readonly requests: ProxyRequest[] = [];
  /** TCP connections so far. */
  accepted = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #changes = new Condition();
  readonly #table: Readonly<Record<string, number>>;

  protected constructor(server: Server, { table = {} }: OutboundProxyOptions) {
    this.port = portOf(server);
    this.#server = server;
    this.#table = table;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Speaks with a client until it is connected to what it asked for, or refused. */
  protected abstract serve(client: SocketReader): Promise<void>;

  /** Behaves again, drops all connections, and forgets what has been. */
  reset(): void {
    this.accept = serve;
    for (const socket of this.#sockets) socket.destroy();
    this.requests.length = 0;
    this.accepted = 0;
  }

  /** Waits until `holds()`, looking whenever a connection or a request has come. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  protected record(request: ProxyRequest): void {
    this.requests.push(request);
    this.#changes.changed();
  }

  /** Connects to what the table says. @returns `undefined` when it says nothing, or nobody listens. */
  protected async dial({ host, port }: ProxyRequest): Promise<Socket | undefined> {
    const loopback = host === "127.0.0.1" || host === "::1" || host === "localhost";
    const there = this.#table[`${host}:${port}`] ?? this.#table[host] ?? (loopback ? port : undefined);
    if (there === undefined) return undefined;
    const socket = connect({ host: "127.0.0.1", port: there, noDelay: true, allowHalfOpen: true });
    this.#keep(socket);
    const { promise, resolve } = Promise.withResolvers<boolean>();
    socket.once("connect", () => resolve(true));
    socket.once("close", () => resolve(false));
    return (await within(promise, `a connection to ${host}`)) ? socket : undefined;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", ignore);
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #onConnection(socket: Socket): void {
    this.accepted += 1;
    this.#keep(socket);
    const behaviour = this.accept(this.accepted);
    if (behaviour === "serve") {
      this.serve(new SocketReader(socket)).catch(() => socket.destroy());
    } else {
      if (behaviour === "close") socket.end();
      else if (behaviour === "reset") socket.resetAndDestroy();
      else if (behaviour === "garbage") socket.end("220 mail.example.org ready\r\n");
      socket.resume();
    }
    this.#changes.changed();
  }
}

/** An HTTP proxy on loopback that knows CONNECT. @see RFC 9110 section 9.3.6 */
export class StubHttpProxy extends OutboundProxy {
  /** Called for requests whose credentials are right. */
  behave: (request: ProxyRequest) => HttpProxyBehaviour = forward;
  readonly #credentials: Credentials | undefined;

  private constructor(server: Server, options: OutboundProxyOptions) {
    super(server, options);
    this.#credentials = options.credentials;
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(options: OutboundProxyOptions = {}): Promise<StubHttpProxy> {
    return new StubHttpProxy(await listenOnLoopback(), options);
  }

  override reset(): void {
    super.reset();
    this.behave = forward;
  }

  /** For a flag, with the credentials. */
  get url(): string {
    return `http://${formatCredentials(this.#credentials)}127.0.0.1:${this.port}`;
  }

  protected async serve(client: SocketReader): Promise<void> {
    const head = await client.readUntil("\r\n\r\n");
    const [, host = "", port = ""] = /^CONNECT \[?([^\s\]]+)\]?:(\d+) HTTP\/1\.1\r\n/.exec(head) ?? [];
    const credentials = parseBasic(/^proxy-authorization: *basic +(\S+)/im.exec(head)?.[1]);
    const request = { host, port: Number(port), credentials };
    this.record(request);
    const behaviour = this.#decide(request);
    if (behaviour.kind === "close") client.socket.end();
    if (behaviour.kind === "status") respond(client.socket, behaviour.status, behaviour.headers);
    if (behaviour.kind !== "forward") return;
    const upstream = await this.dial(request);
    if (upstream === undefined) {
      respond(client.socket, "502 Bad Gateway");
      return;
    }
    client.socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
    join(client, upstream);
  }

  #decide(request: ProxyRequest): HttpProxyBehaviour {
    if (request.host === "") return { kind: "status", status: "405 Method Not Allowed" };
    if (agree(request.credentials, this.#credentials)) return this.behave(request);
    const headers = { "Proxy-Authenticate": 'Basic realm="stub"' };
    return { kind: "status", status: "407 Proxy Authentication Required", headers };
  }
}

const VERSION = 5;
const AUTH_VERSION = 1;
const METHOD = { none: 0, password: 2, unacceptable: 0xff } as const;
const CONNECT = 1;
const ADDRESS = { ipv4: 1, name: 3, ipv6: 4 } as const;

/** A SOCKS5 proxy on loopback that knows CONNECT, with or without a password. @see RFC 1928, RFC 1929 */
export class StubSocksProxy extends OutboundProxy {
  /** Called for requests whose credentials are right. */
  behave: (request: ProxyRequest) => SocksProxyBehaviour = forward;
  /** The methods that each client offered. */
  readonly offers: number[][] = [];
  readonly #credentials: Credentials | undefined;

  private constructor(server: Server, options: OutboundProxyOptions) {
    super(server, options);
    this.#credentials = options.credentials;
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(options: OutboundProxyOptions = {}): Promise<StubSocksProxy> {
    return new StubSocksProxy(await listenOnLoopback(), options);
  }

  override reset(): void {
    super.reset();
    this.behave = forward;
    this.offers.length = 0;
  }

  /** For a flag, with the credentials. */
  get url(): string {
    return `socks5://${formatCredentials(this.#credentials)}127.0.0.1:${this.port}`;
  }

  protected async serve(client: SocketReader): Promise<void> {
    const { socket } = client;
    const [version, count = 0] = await client.read(2);
    if (version !== VERSION) throw new Error(`A SOCKS client of version ${version}`);
    const offer = [...(await client.read(count))];
    this.offers.push(offer);
    const method = this.#credentials === undefined ? METHOD.none : METHOD.password;
    if (!offer.includes(method)) {
      socket.end(Uint8Array.of(VERSION, METHOD.unacceptable));
      return;
    }
    socket.write(Uint8Array.of(VERSION, method));
    const credentials = method === METHOD.password ? await readCredentials(client) : undefined;
    if (method === METHOD.password) {
      const right = agree(credentials, this.#credentials);
      socket.write(Uint8Array.of(AUTH_VERSION, right ? 0 : 1));
      if (!right) {
        socket.end();
        return;
      }
    }
    await this.#connect(client, credentials);
  }

  async #connect(client: SocketReader, credentials: Credentials | undefined): Promise<void> {
    const { socket } = client;
    const [version, command, reserved, type] = await client.read(4);
    if (version !== VERSION || reserved !== 0) throw new Error("A SOCKS request that is none");
    const host = await readAddress(client, type);
    if (host === undefined) {
      socket.end(formatReply(SOCKS_REPLY.addressTypeNotSupported));
      return;
    }
    const [high = 0, low = 0] = await client.read(2);
    const request = { host, port: (high << 8) | low, credentials };
    this.record(request);
    const behaviour = this.#decide(request, command);
    if (behaviour.kind === "close") socket.end();
    if (behaviour.kind === "reply") socket.end(formatReply(behaviour.code));
    if (behaviour.kind !== "forward") return;
    const upstream = await this.dial(request);
    if (upstream === undefined) {
      socket.end(formatReply(SOCKS_REPLY.hostUnreachable));
      return;
    }
    socket.write(formatReply(SOCKS_REPLY.succeeded));
    join(client, upstream);
  }

  #decide(request: ProxyRequest, command: number | undefined): SocksProxyBehaviour {
    if (command !== CONNECT) return { kind: "reply", code: SOCKS_REPLY.commandNotSupported };
    return this.behave(request);
  }
}

/** Takes from a socket what is needed and not more, however it is cut. */
class SocketReader {
  readonly socket: Socket;
  #held: Uint8Array = new Uint8Array();
  #ended = false;
  readonly #changes = new Condition();
  readonly #onData = (chunk: Uint8Array): void => {
    this.#held = concat(this.#held, chunk);
    this.#changes.changed();
  };
  readonly #onEnd = (): void => {
    this.#ended = true;
    this.#changes.changed();
  };

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", this.#onData);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onEnd);
  }

  /** Takes `length` bytes. @throws {Error} When the client ends first. */
  async read(length: number): Promise<Uint8Array> {
    await this.#changes.until(() => this.#ended || this.#held.length >= length, `${length} bytes`);
    if (this.#held.length < length) throw new Error("The client of a proxy has ended");
    return this.#take(length);
  }

  /** Takes everything up to `mark`, which comes with it. @throws {Error} When the client ends first. */
  async readUntil(mark: string): Promise<string> {
    const found = (): number => Buffer.from(this.#held).indexOf(mark);
    await this.#changes.until(() => this.#ended || found() >= 0, "a request");
    if (found() < 0) throw new Error("The client of a proxy has ended");
    return Buffer.from(this.#take(found() + mark.length)).toString("latin1");
  }

  /** Gives the socket to another reader. @returns What it has to know before all that comes. */
  release(): Uint8Array {
    this.socket.off("data", this.#onData);
    this.socket.off("end", this.#onEnd);
    this.socket.off("close", this.#onEnd);
    return this.#held;
  }

  #take(length: number): Uint8Array {
    const taken = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return taken;
  }
}

async function readCredentials(client: SocketReader): Promise<Credentials> {
  const [version] = await client.read(1);
  if (version !== AUTH_VERSION) throw new Error(`SOCKS credentials of version ${version}`);
  return { username: await readText(client), password: await readText(client) };
}

async function readText(client: SocketReader): Promise<string> {
  const [length = 0] = await client.read(1);
  return new TextDecoder().decode(await client.read(length));
}

async function readAddress(client: SocketReader, type: number | undefined): Promise<string | undefined> {
  if (type === ADDRESS.name) return readText(client);
  if (type === ADDRESS.ipv4) return (await client.read(4)).join(".");
  if (type !== ADDRESS.ipv6) return undefined;
  const hex = (await client.read(16)).toHex();
  return new URL(`http://[${hex.replace(/(.{4})(?=.)/g, "$1:")}]`).hostname.slice(1, -1);
}

function formatReply(code: number): Uint8Array {
  return Uint8Array.of(VERSION, code, 0, ADDRESS.ipv4, 0, 0, 0, 0, 0, 0);
}

function respond(socket: Socket, status: string, headers: Readonly<Record<string, string>> = {}): void {
  const extra = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status}\r\n${extra.join("")}Content-Length: 0\r\n\r\n`);
}

/** Connects both, ends passed on, until one of them breaks. */
function join(client: SocketReader, upstream: Socket): void {
  const { socket } = client;
  const early = client.release();
  if (early.length > 0) upstream.write(early);
  socket.pipe(upstream);
  upstream.pipe(socket);
  socket.on("close", () => upstream.destroy());
  upstream.on("close", () => socket.destroySoon());
}

function agree(given: Credentials | undefined, wanted: Credentials | undefined): boolean {
  if (wanted === undefined) return true;
  return given?.username === wanted.username && given.password === wanted.password;
}

function parseBasic(encoded: string | undefined): Credentials | undefined {
  if (encoded === undefined) return undefined;
  const text = Buffer.from(encoded, "base64").toString();
  const colon = text.indexOf(":");
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

function formatCredentials(credentials: Credentials | undefined): string {
  if (credentials === undefined) return "";
  return `${encodeURIComponent(credentials.username)}:${encodeURIComponent(credentials.password)}@`;
}

function serve(): ProxyAcceptBehaviour {
  return "serve";
}

function forward(): { readonly kind: "forward" } {
  return { kind: "forward" };
}

function ignore(): void {}
