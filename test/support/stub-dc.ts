import { createServer, type Server, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { type Certificates, testCertificates } from "./certificates.ts";
import type { Packet } from "./packets.ts";
import { type ConnectionListener, StubConnection, type UpgradeRequest } from "./stub-connection.ts";
import { Condition } from "./waiting.ts";
import { acceptKey } from "./websocket-frames.ts";

/** What happens to a TCP connection: it goes on to TLS, or one of the ways not to. */
export type AcceptBehaviour = "tls" | "hang" | "alert" | "garbage" | "reset";

/** What happens to a request for a WebSocket. */
export type UpgradeBehaviour =
  | { readonly kind: "accept" }
  /** Everything is in order but the proof that the server speaks WebSocket. */
  | { readonly kind: "wrong-accept-key" }
  | { readonly kind: "hang" }
  | { readonly kind: "end" }
  | { readonly kind: "status"; readonly status: string; readonly headers?: Readonly<Record<string, string>> };

/** A fatal TLS alert, handshake_failure. */
const ALERT = Uint8Array.of(0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28);

/**
 * A stand-in for Telegram's WebSocket front ends, on loopback, with real TLS and real frames.
 *
 * One serves any data centre: the name in the TLS handshake and the init tell which one was meant. The
 * callbacks may be replaced at any time; {@link StubDc.reset} puts them back.
 */
export class StubDc implements ConnectionListener, AsyncDisposable {
  readonly port: number;
  accept: (number: number) => AcceptBehaviour = acceptTls;
  upgrade: (request: UpgradeRequest) => UpgradeBehaviour = acceptUpgrade;
  /** Called when the WebSocket is open, before its init. */
  onOpen: (connection: StubConnection) => void = ignore;
  onInit: (connection: StubConnection) => void = ignore;
  /** Returns payloads to answer with. */
  onPacket: (packet: Packet, connection: StubConnection) => Iterable<Uint8Array> = answerNothing;
  keepMessages = true;
  /** Every request for a WebSocket, the refused ones included. */
  readonly requests: UpgradeRequest[] = [];
  /** Every upgraded connection. */
  readonly connections: StubConnection[] = [];
  /** TCP connections so far. */
  accepted = 0;
  /** TLS handshakes that did not come to an end, as the stub saw them. */
  tlsErrors = 0;
  readonly #certificates: Certificates;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #changes = new Condition();
  readonly #started: StubConnection[] = [];

  private constructor(server: Server, certificates: Certificates) {
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The stub does not listen");
    this.port = address.port;
    this.#server = server;
    this.#certificates = certificates;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Listens on a free port of 127.0.0.1. @param certificates Another certificate than the usual one. */
  static async start(certificates?: Certificates): Promise<StubDc> {
    const usual = certificates ?? (await testCertificates());
    const server = createServer({ allowHalfOpen: true, noDelay: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    return new StubDc(server, usual);
  }

  /** Behaves again, and forgets what has been. */
  reset(): void {
    this.accept = acceptTls;
    this.upgrade = acceptUpgrade;
    this.onOpen = ignore;
    this.onInit = ignore;
    this.onPacket = answerNothing;
    this.keepMessages = true;
    for (const socket of this.#sockets) socket.destroy();
    this.requests.length = 0;
    this.connections.length = 0;
    this.#started.length = 0;
    this.accepted = 0;
    this.tlsErrors = 0;
  }

  /** Waits for the next connection that has sent its init, in the order of their inits. */
  async next(limitMs?: number): Promise<StubConnection> {
    await this.until(() => this.#started.length > 0, "a connection with an init", limitMs);
    const connection = this.#started.shift();
    if (connection === undefined) throw new Error("Two waited for the same connection");
    return connection;
  }

  /** Waits until `holds()`, looking whenever a connection has come, spoken or gone. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  /** Called by a connection only. */
  onClosed(): void {
    this.#changes.changed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  #onConnection(socket: Socket): void {
    this.accepted += 1;
    this.#sockets.add(socket);
    socket.on("error", ignore);
    socket.on("close", () => this.#sockets.delete(socket));
    const behaviour = this.accept(this.accepted);
    this.#changes.changed();
    if (behaviour === "tls") this.#startTls(socket, this.accepted);
    else if (behaviour === "reset") socket.resetAndDestroy();
    else if (behaviour === "alert") socket.end(ALERT);
    else if (behaviour === "garbage") socket.end("220 mail.example.org ready\r\n");
    if (behaviour !== "tls") socket.resume();
  }

  #startTls(raw: Socket, number: number): void {
    const { key, certificate } = this.#certificates;
    const tls = new TLSSocket(raw, { isServer: true, key, cert: certificate });
    let secure = false;
    tls.on("secure", () => {
      secure = true;
    });
    tls.on("error", () => {
      if (!secure) this.tlsErrors += 1;
      raw.destroy();
    });
    tls.on("close", () => raw.destroy());
    tls.on("end", () => tls.end()); // nobody half-closes a WebSocket's connection
    raw.on("close", () => tls.destroy()); // it does not always follow by itself
    let head = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      head = Buffer.concat([head, chunk]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      tls.off("data", onData);
      this.#onRequest(raw, tls, parseRequest(number, tls, head.toString("latin1", 0, end)));
    };
    tls.on("data", onData);
  }

  #onRequest(raw: Socket, tls: TLSSocket, request: UpgradeRequest): void {
    this.requests.push(request);
    const { path, headers } = request;
    const known = path === "/apiws" || path === "/apiws_test";
    const valid = known && headers.get("sec-websocket-protocol") === "binary";
    const behaviour = valid ? this.upgrade(request) : BAD_REQUEST;
    if (behaviour.kind === "status") {
      const extra = Object.entries(behaviour.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
      tls.end(`HTTP/1.1 ${behaviour.status}\r\n${extra.join("")}Content-Length: 0\r\n\r\n`);
    } else if (behaviour.kind === "end") {
      tls.end();
    } else if (behaviour.kind !== "hang") {
      const key = behaviour.kind === "accept" ? (headers.get("sec-websocket-key") ?? "") : "something else";
      this.#open(raw, tls, request, acceptKey(key));
    }
    this.#changes.changed();
  }

  #open(raw: Socket, tls: TLSSocket, request: UpgradeRequest, accept: string): void {
    const connection = new StubConnection(raw, tls, request, {
      onInit: (started) => {
        this.#started.push(started);
        this.onInit(started);
        this.#changes.changed();
      },
      onPacket: (packet, from) => this.onPacket(packet, from),
      onClosed: () => this.onClosed(),
      keepMessages: this.keepMessages,
    });
    this.connections.push(connection);
    tls.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: binary\r\n\r\n`,
    );
    this.onOpen(connection);
  }
}

const BAD_REQUEST: UpgradeBehaviour = { kind: "status", status: "400 Bad Request" };

function acceptTls(): AcceptBehaviour {
  return "tls";
}

function acceptUpgrade(): UpgradeBehaviour {
  return { kind: "accept" };
}

function ignore(): void {}

function answerNothing(): Iterable<Uint8Array> {
  return [];
}

function parseRequest(number: number, tls: TLSSocket, head: string): UpgradeRequest {
  const [start = "", ...lines] = head.split("\r\n");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  const serverName = "servername" in tls && typeof tls.servername === "string" ? tls.servername : undefined;
  return { number, serverName, path: start.split(" ")[1] ?? "", headers };
}
