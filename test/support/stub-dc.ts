import type { Server } from "node:net";
import { type Certificates, testCertificates } from "./certificates.ts";
import type { Packet } from "./packets.ts";
import type { ServerWebSocket } from "./server-websocket.ts";
import { StubConnection } from "./stub-connection.ts";
import {
  BAD_REQUEST,
  listenOnLoopback,
  type UpgradeBehaviour,
  type UpgradeRequest,
  UpgradeServer,
} from "./upgrade-server.ts";

export type { AcceptBehaviour, UpgradeBehaviour } from "./upgrade-server.ts";

/**
 * A stand-in for Telegram's WebSocket front ends, on loopback, with real TLS and real frames.
 *
 * One serves any data centre under any name, also behind a front or a domain of others: the TLS handshake,
 * the request and the init tell which was meant. The callbacks may be replaced at any time;
 * {@link StubDc.reset} puts them back.
 */
export class StubDc extends UpgradeServer {
  /** Called when the WebSocket is open, before its init. */
  onOpen: (connection: StubConnection) => void = ignore;
  onInit: (connection: StubConnection) => void = ignore;
  /** Returns payloads to answer with. */
  onPacket: (packet: Packet, connection: StubConnection) => Iterable<Uint8Array> = answerNothing;
  keepMessages = true;
  /** Every upgraded connection. */
  readonly connections: StubConnection[] = [];
  readonly #started: StubConnection[] = [];

  private constructor(server: Server, certificates: Certificates) {
    super(server, certificates);
  }

  /** Listens on a free port of 127.0.0.1. @param certificates Another certificate than the usual one. */
  static async start(certificates?: Certificates): Promise<StubDc> {
    return new StubDc(await listenOnLoopback(), certificates ?? (await testCertificates()));
  }

  override reset(): void {
    super.reset();
    this.onOpen = ignore;
    this.onInit = ignore;
    this.onPacket = answerNothing;
    this.keepMessages = true;
    this.connections.length = 0;
    this.#started.length = 0;
  }

  /** Waits for the next connection that has sent its init, in the order of their inits. */
  async next(limitMs?: number): Promise<StubConnection> {
    await this.until(() => this.#started.length > 0, "a connection with an init", limitMs);
    const connection = this.#started.shift();
    if (connection === undefined) throw new Error("Two waited for the same connection");
    return connection;
  }

  protected refusal({ path, protocols }: UpgradeRequest): UpgradeBehaviour | undefined {
    const known = path === "/apiws" || path === "/apiws_test";
    return known && protocols.join() === "binary" ? undefined : BAD_REQUEST;
  }

  protected open(socket: ServerWebSocket, request: UpgradeRequest): void {
    const connection = new StubConnection(socket, request, this.keepMessages);
    connection.listener = {
      onInit: () => {
        this.#started.push(connection);
        this.onInit(connection);
        this.changed();
      },
      onPacket: (packet) => this.onPacket(packet, connection),
      onClosed: () => this.changed(),
    };
    this.connections.push(connection);
    this.onOpen(connection);
  }
}

function ignore(): void {}

function answerNothing(): Iterable<Uint8Array> {
  return [];
}
