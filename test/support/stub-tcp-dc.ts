import type { Server, Socket } from "node:net";
import { Allowance } from "./allowance.ts";
import { concat, type Packet, takePacket } from "./packets.ts";
import { StubPeer } from "./stub-peer.ts";
import { listenOnLoopback, portOf } from "./upgrade-server.ts";
import { Condition } from "./waiting.ts";

/** What happens to a TCP connection: it is served, or one of the ways not to. `end`: FIN at once, reading on. */
export type TcpBehaviour = "serve" | "hang" | "reset" | "end";

const INIT_LENGTH = 64;
/** A longer packet is a malformed length. */
const LONGEST_PACKET = 16 * 1024 * 1024;

/** One TCP connection of a {@link StubTcpDc}, with the obfuscated2 stream inside it. */
export class StubTcpConnection extends StubPeer {
  /** The connection's number at its stub, from 1. */
  readonly number: number;
  /** The client has sent its FIN. */
  ended = false;
  readonly #socket: Socket;
  readonly #allowance = new Allowance();
  #closed = false;
  /** Of the init, and after it of the packet that is not whole yet: decrypted. */
  #rest: Uint8Array = new Uint8Array();
  #splitting = true;

  constructor(socket: Socket, number: number, keepMessages: boolean) {
    super(keepMessages);
    this.number = number;
    this.#socket = socket;
    socket.on("data", (chunk: Uint8Array) => {
      this.#onData(chunk);
      this.changed();
    });
    socket.on("drain", () => this.changed());
    socket.on("end", () => this.#onEnd());
    socket.on("close", () => {
      this.#closed = true;
      this.changed();
      this.listener.onClosed();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  get full(): boolean {
    return this.#socket.writableNeedDrain;
  }

  stallAfter(bytes: number): void {
    this.#allowance.limit(bytes);
  }

  stopReading(): void {
    this.#socket.pause();
  }

  startReading(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  protected transmit(bytes: Uint8Array): boolean {
    const sent = this.#allowance.take(bytes);
    return sent.length === 0 || this.#socket.write(sent);
  }

  #onEnd(): void {
    this.ended = true;
    if (!this.#allowance.used) this.#socket.end();
    this.changed();
  }

  #onData(chunk: Uint8Array): void {
    if (this.init !== undefined) {
      this.#onStream(this.decrypt(chunk));
      return;
    }
    const bytes = concat(this.#rest, chunk);
    this.#rest = bytes;
    if (bytes.length < INIT_LENGTH) return;
    this.#rest = new Uint8Array();
    this.onInit(bytes.slice(0, INIT_LENGTH));
    if (bytes.length > INIT_LENGTH) this.#onStream(this.decrypt(bytes.subarray(INIT_LENGTH)));
  }

  #onStream(plain: Uint8Array): void {
    const { init } = this;
    if (init === undefined || !this.#splitting) return;
    let bytes = concat(this.#rest, plain);
    for (;;) {
      const taken = takePacket(init.transport, bytes);
      if (taken === undefined) break;
      if (taken.packet.payload.length === 0) {
        this.#giveUp("a packet of no length");
        return;
      }
      this.onPacket(taken.packet);
      bytes = bytes.subarray(taken.size);
    }
    this.#rest = bytes;
    if (bytes.length > LONGEST_PACKET) this.#giveUp(`a packet of more than ${LONGEST_PACKET} bytes`);
  }

  #giveUp(violation: string): void {
    this.violations.push(violation);
    this.#splitting = false;
    this.#rest = new Uint8Array();
  }
}

/**
 * A stand-in for a data centre's plain TCP port, on loopback: an obfuscated2 stream without a secret.
 *
 * The callbacks may be replaced at any time; {@link StubTcpDc.reset} puts them back.
 */
export class StubTcpDc implements AsyncDisposable {
  readonly port: number;
  accept: (number: number) => TcpBehaviour = serve;
  /** Called when a connection is accepted, before its init. */
  onOpen: (connection: StubTcpConnection) => void = ignore;
  onInit: (connection: StubTcpConnection) => void = ignore;
  /** Returns payloads to answer with. */
  onPacket: (packet: Packet, connection: StubTcpConnection) => Iterable<Uint8Array> = answerNothing;
  keepMessages = true;
  /** Every connection that is served, also those without an init. */
  readonly connections: StubTcpConnection[] = [];
  /** TCP connections so far. */
  accepted = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #changes = new Condition();
  readonly #started: StubTcpConnection[] = [];

  private constructor(server: Server) {
    this.port = portOf(server);
    this.#server = server;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(): Promise<StubTcpDc> {
    return new StubTcpDc(await listenOnLoopback());
  }

  /** Behaves again, drops all connections, and forgets what has been. */
  reset(): void {
    this.accept = serve;
    this.onOpen = ignore;
    this.onInit = ignore;
    this.onPacket = answerNothing;
    this.keepMessages = true;
    this.dropAll();
    this.connections.length = 0;
    this.#started.length = 0;
    this.accepted = 0;
  }

  /** Drops all connections. */
  dropAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Waits for the next connection that has sent its init, in the order of their inits. */
  async next(limitMs?: number): Promise<StubTcpConnection> {
    await this.until(() => this.#started.length > 0, "a connection with an init", limitMs);
    const connection = this.#started.shift();
    if (connection === undefined) throw new Error("Two waited for the same connection");
    return connection;
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

  #onConnection(socket: Socket): void {
    this.accepted += 1;
    this.#sockets.add(socket);
    socket.on("error", ignore);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.#changes.changed();
    });
    const behaviour = this.accept(this.accepted);
    if (behaviour === "serve") {
      this.#serve(socket, this.accepted);
    } else {
      if (behaviour === "reset") socket.resetAndDestroy();
      else if (behaviour === "end") socket.end();
      socket.resume();
    }
    this.#changes.changed();
  }

  #serve(socket: Socket, number: number): void {
    const connection = new StubTcpConnection(socket, number, this.keepMessages);
    connection.listener = {
      onInit: () => {
        this.#started.push(connection);
        this.onInit(connection);
        this.#changes.changed();
      },
      onPacket: (packet) => this.onPacket(packet, connection),
      onClosed: () => this.#changes.changed(),
    };
    this.connections.push(connection);
    this.onOpen(connection);
  }
}

function serve(): TcpBehaviour {
  return "serve";
}

function ignore(): void {}

function answerNothing(): Iterable<Uint8Array> {
  return [];
}
