import { createServer, type Server, type Socket } from "node:net";
import { TLSSocket } from "node:tls";
import type { Certificates } from "./certificates.ts";
import { type Hello, peekServerName } from "./client-hello.ts";
import { ServerWebSocket } from "./server-websocket.ts";
import { Condition } from "./waiting.ts";
import { acceptKey } from "./websocket-frames.ts";

/** What happens to a connection before TLS: it goes on to that, or one of the ways not to. */
export type AcceptBehaviour = "tls" | "hang" | "alert" | "garbage" | "reset";

/** What happens to a request for a WebSocket. */
export type UpgradeBehaviour =
  | { readonly kind: "accept" }
  /** Everything is in order but the proof that the server speaks WebSocket. */
  | { readonly kind: "wrong-accept-key" }
  | { readonly kind: "hang" }
  | { readonly kind: "end" }
  | { readonly kind: "reset" }
  | { readonly kind: "status"; readonly status: string; readonly headers?: Readonly<Record<string, string>> };

/** What a WebSocket upgrade asked for. */
export interface UpgradeRequest extends Hello {
  /** With the query. */
  readonly path: string;
  /** The Host header, with its port. */
  readonly host: string | undefined;
  readonly authorization: string | undefined;
  /** The subprotocols that were asked for. */
  readonly protocols: readonly string[];
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** The answer to what is no request for a WebSocket, or not for this one. */
export const BAD_REQUEST: UpgradeBehaviour = { kind: "status", status: "400 Bad Request" };

/** A fatal TLS alert, handshake_failure. */
const ALERT = Uint8Array.of(0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28);

/**
 * The common part of the WebSocket servers on loopback: TCP, real TLS, the upgrade, and what can go wrong there.
 *
 * The callbacks may be replaced at any time; {@link UpgradeServer.reset} puts them back.
 */
export abstract class UpgradeServer implements AsyncDisposable {
  readonly port: number;
  /** Decides on a new TCP connection. */
  accept: (number: number) => AcceptBehaviour = acceptTls;
  /** Decides on a connection whose ClientHello has come, which is not answered yet. */
  hello: (hello: Hello) => AcceptBehaviour = acceptTls;
  /** Returns another certificate than the usual one. */
  certificateFor: (hello: Hello) => Certificates | undefined = useTheUsual;
  upgrade: (request: UpgradeRequest) => UpgradeBehaviour = acceptUpgrade;
  /** Every ClientHello. */
  readonly hellos: Hello[] = [];
  /** Every request for a WebSocket, the refused ones included. */
  readonly requests: UpgradeRequest[] = [];
  /** TCP connections so far. */
  accepted = 0;
  /** TLS handshakes that did not come to an end, as the stub saw them. */
  tlsErrors = 0;
  readonly #certificates: Certificates;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #changes = new Condition();

  /** @param server Made by {@link listenOnLoopback}. */
  protected constructor(server: Server, certificates: Certificates) {
    this.port = portOf(server);
    this.#server = server;
    this.#certificates = certificates;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Returns the answer to a request that {@link UpgradeServer.upgrade} lets through and that is not right. */
  protected abstract refusal(request: UpgradeRequest): UpgradeBehaviour | undefined;
  /** Takes over a WebSocket whose client has been told that it is open. */
  protected abstract open(socket: ServerWebSocket, request: UpgradeRequest): void;

  /** Behaves again, drops all connections, and forgets what has been. */
  reset(): void {
    this.accept = acceptTls;
    this.hello = acceptTls;
    this.certificateFor = useTheUsual;
    this.upgrade = acceptUpgrade;
    this.dropAll();
    this.hellos.length = 0;
    this.requests.length = 0;
    this.accepted = 0;
    this.tlsErrors = 0;
  }

  /** Drops all connections. */
  dropAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Waits until `holds()`, looking whenever a connection has come, spoken or gone. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.dropAll();
    await promise;
  }

  /** Looks again at what is waited for. */
  protected changed(): void {
    this.#changes.changed();
  }

  #onConnection(socket: Socket): void {
    this.accepted += 1;
    const number = this.accepted;
    this.#sockets.add(socket);
    socket.on("error", ignore);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.changed();
    });
    if (this.#goesOn(socket, this.accept(number))) this.#awaitHello(socket, number);
    this.changed();
  }

  /** Lets a connection go on to TLS, or has its way with it. */
  #goesOn(socket: Socket, behaviour: AcceptBehaviour): boolean {
    if (behaviour === "tls") return true;
    if (behaviour === "reset") socket.resetAndDestroy();
    else if (behaviour === "alert") socket.end(ALERT);
    else if (behaviour === "garbage") socket.end("220 mail.example.org ready\r\n");
    socket.resume();
    return false;
  }

  #awaitHello(raw: Socket, number: number): void {
    let held = Buffer.alloc(0);
    const onEnd = (): void => void raw.end();
    const onData = (chunk: Buffer): void => {
      held = Buffer.concat([held, chunk]);
      const peeked = peekServerName(held);
      if (peeked === undefined) return;
      raw.off("data", onData);
      raw.off("end", onEnd);
      const hello = { number, ...peeked };
      this.hellos.push(hello);
      if (this.#goesOn(raw, this.hello(hello))) {
        raw.pause();
        raw.unshift(held);
        this.#startTls(raw, hello);
      }
      this.changed();
    };
    raw.on("data", onData);
    raw.on("end", onEnd);
  }

  #startTls(raw: Socket, hello: Hello): void {
    const { key, certificate } = this.certificateFor(hello) ?? this.#certificates;
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
      this.#onRequest(raw, tls, parseRequest(hello, head.toString("latin1", 0, end)), head.subarray(end + 4));
    };
    tls.on("data", onData);
  }

  /** What goes wrong on purpose does so for any request, as for one that only asks why. */
  #decide(request: UpgradeRequest): UpgradeBehaviour {
    const behaviour = this.upgrade(request);
    const opens = behaviour.kind === "accept" || behaviour.kind === "wrong-accept-key";
    if (!opens) return behaviour;
    return request.headers.has("sec-websocket-key") ? (this.refusal(request) ?? behaviour) : BAD_REQUEST;
  }

  #onRequest(raw: Socket, tls: TLSSocket, request: UpgradeRequest, early: Buffer): void {
    this.requests.push(request);
    const behaviour = this.#decide(request);
    if (behaviour.kind === "status") {
      const extra = Object.entries(behaviour.headers ?? {}).map(([name, value]) => `${name}: ${value}\r\n`);
      tls.end(`HTTP/1.1 ${behaviour.status}\r\n${extra.join("")}Content-Length: 0\r\n\r\n`);
    } else if (behaviour.kind === "end") {
      tls.end();
    } else if (behaviour.kind === "reset") {
      raw.resetAndDestroy();
      tls.destroy();
    } else if (behaviour.kind !== "hang") {
      const key = request.headers.get("sec-websocket-key") ?? "";
      const proof = acceptKey(behaviour.kind === "accept" ? key : "something else");
      tls.write(formatSwitch(proof, request.protocols[0]));
      this.open(new ServerWebSocket(raw, tls), request);
      if (early.length > 0) tls.emit("data", early);
    }
    this.changed();
  }
}

/** Starts a server on a free port of 127.0.0.1. */
export async function listenOnLoopback(): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  return server;
}

/** The port that a server listens on. */
export function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The stub does not listen");
  return address.port;
}

function acceptTls(): AcceptBehaviour {
  return "tls";
}

function useTheUsual(): undefined {}

function acceptUpgrade(): UpgradeBehaviour {
  return { kind: "accept" };
}

function ignore(): void {}

function formatSwitch(proof: string, protocol: string | undefined): string {
  const chosen = protocol === undefined ? "" : `Sec-WebSocket-Protocol: ${protocol}\r\n`;
  return (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${proof}\r\n${chosen}\r\n`
  );
}

function parseRequest(hello: Hello, head: string): UpgradeRequest {
  const [start = "", ...lines] = head.split("\r\n");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
  }
  return {
    ...hello,
    path: start.split(" ")[1] ?? "",
    host: headers.get("host"),
    authorization: headers.get("authorization"),
    protocols: headers.get("sec-websocket-protocol")?.split(/\s*,\s*/) ?? [],
    headers,
  };
}
