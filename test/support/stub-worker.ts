import { connect, type Server, type Socket } from "node:net";
import { type Certificates, testAuthority } from "./certificates.ts";
import { concat } from "./packets.ts";
import type { ServerWebSocket } from "./server-websocket.ts";
import {
  BAD_REQUEST,
  listenOnLoopback,
  type UpgradeBehaviour,
  type UpgradeRequest,
  UpgradeServer,
} from "./upgrade-server.ts";
import { Condition } from "./waiting.ts";

/** What a {@link StubWorker} does after its 101: it dials, or never does and reads what comes. */
export type RelayBehaviour = "dial" | "silence";

/** Cloudflare ends a WebSocket that sends a message of this size or more. */
export const MESSAGE_LIMIT = 1024 * 1024;
const TOO_BIG = 1009;
const BROKEN = 1011;
/** The sizes that a byte stream is cut into, over and over: nothing of it is a packet. */
const ODD_SIZES = [1, 7, 1_021, 3, 16_381, 65_521, 2, 32_749];

/** One WebSocket of a {@link StubWorker} with the TCP connection behind it. */
export class StubRelay {
  readonly request: UpgradeRequest;
  /** The address that the client asked for. */
  readonly dst: string;
  /** The data centre that the client asked for, as it was written. */
  readonly dc: string;
  /** The length of every message from the client. */
  readonly sizes: number[] = [];
  /** The code of the client's close frame; 1005 when it had none. */
  get closeCode(): number | undefined {
    return this.#socket.closeCode;
  }
  /** Bytes that have come from the client. */
  received = 0;
  /** Bytes that have gone to the client. */
  sent = 0;
  readonly #socket: ServerWebSocket;
  readonly #changes = new Condition();
  #upstream: Socket | undefined;
  #cuts = 0;
  /** From the data centre, for the next turn: chunks are merged before they are cut. */
  #down: Uint8Array[] = [];

  constructor(socket: ServerWebSocket, request: UpgradeRequest) {
    this.request = request;
    const query = queryOf(request);
    this.dst = query.get("dst") ?? "";
    this.dc = query.get("dc") ?? "";
    this.#socket = socket;
    socket.listener = {
      onMessage: (message) => this.#onMessage(message),
      onChange: () => this.#onChange(),
      onClosed: () => this.#upstream?.end(),
    };
  }

  get closed(): boolean {
    return this.#socket.closed;
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  /** Connects to `port` of 127.0.0.1. What has come from the client waits for it. */
  dial(port: number): void {
    const upstream = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true });
    this.#upstream = upstream;
    upstream.on("data", (chunk: Buffer) => this.#onUpstreamData(chunk));
    upstream.on("drain", () => this.#socket.startReading());
    upstream.on("end", () => this.#flushAnd(() => this.close(1000)));
    upstream.on("error", () => this.#flushAnd(() => this.close(BROKEN)));
  }

  /** Sends `bytes` more, and nothing at all from then on. */
  stallAfter(bytes: number): void {
    this.#socket.stallAfter(bytes);
  }

  /** Sends a close frame and, once the client has answered, ends the connection. */
  close(code?: number): void {
    if (!this.closed) this.#socket.close(code);
  }

  /** Ends TLS and TCP without a close frame, and goes on reading. */
  end(): void {
    this.#socket.end();
  }

  /** Breaks the connection with a TCP reset. */
  reset(): void {
    this.#socket.reset();
    this.#upstream?.destroy();
  }

  /** Drops both connections. */
  destroy(): void {
    this.#socket.destroy();
    this.#upstream?.destroy();
  }

  #onMessage(message: Uint8Array): void {
    this.sizes.push(message.length);
    this.received += message.length;
    if (message.length >= MESSAGE_LIMIT) {
      this.close(TOO_BIG);
      return;
    }
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    let room = true;
    for (const piece of this.#cut(message)) room = upstream.write(piece);
    if (!room) this.#socket.stopReading();
  }

  #onUpstreamData(chunk: Uint8Array): void {
    this.#down.push(chunk);
    if (this.#down.length === 1) setImmediate(() => this.#flush());
  }

  #flush(): void {
    const bytes = concat(...this.#down);
    this.#down = [];
    if (this.closed) return;
    this.sent += bytes.length;
    let room = true;
    for (const piece of this.#cut(bytes)) room = this.#socket.send(piece);
    if (!room) this.#upstream?.pause();
  }

  #flushAnd(last: () => void): void {
    this.#flush();
    last();
  }

  #onChange(): void {
    if (!this.#socket.full) this.#upstream?.resume();
    this.#changes.changed();
  }

  *#cut(bytes: Uint8Array): Iterable<Uint8Array> {
    let from = 0;
    while (from < bytes.length) {
      const size = ODD_SIZES[this.#cuts % ODD_SIZES.length] ?? 1;
      this.#cuts += 1;
      yield bytes.subarray(from, from + size);
      from += size;
    }
  }
}

/**
 * A stand-in for a relay of one's own, as a Cloudflare Worker is one: a TCP connection inside a WebSocket.
 *
 * It connects only to addresses of its table, and looks at no byte. The callbacks may be replaced at any time;
 * {@link StubWorker.reset} puts them back, and leaves token and table.
 */
export class StubWorker extends UpgradeServer {
  /** What the Authorization header has to bear; without: nothing is asked for. */
  token: string | undefined;
  /** The port of 127.0.0.1 that stands for an address of Telegram's; `undefined` refuses to connect there. */
  portOf: (dst: string) => number | undefined = () => undefined;
  /** Called after the 101, and before anything is dialed. */
  onOpen: (relay: StubRelay) => RelayBehaviour = dial;
  /** Every relay that was opened. */
  readonly relays: StubRelay[] = [];

  private constructor(server: Server, certificates: Certificates) {
    super(server, certificates);
  }

  /** Listens on a free port of 127.0.0.1. @param names Of its certificate. */
  static async start(names: readonly string[]): Promise<StubWorker> {
    const certificates = await (await testAuthority()).issue(names);
    return new StubWorker(await listenOnLoopback(), certificates);
  }

  override reset(): void {
    super.reset();
    this.onOpen = dial;
    this.relays.length = 0;
  }

  protected refusal(request: UpgradeRequest): UpgradeBehaviour | undefined {
    if (this.token !== undefined && request.authorization !== `Bearer ${this.token}`) return FORBIDDEN;
    const query = queryOf(request);
    if (!request.path.startsWith("/apiws?") || !/^\d+$/.test(query.get("dc") ?? "")) return BAD_REQUEST;
    return this.portOf(query.get("dst") ?? "") === undefined ? FORBIDDEN : undefined;
  }

  protected open(socket: ServerWebSocket, request: UpgradeRequest): void {
    const relay = new StubRelay(socket, request);
    this.relays.push(relay);
    const port = this.portOf(relay.dst);
    if (this.onOpen(relay) === "dial" && port !== undefined) relay.dial(port);
  }
}

const FORBIDDEN: UpgradeBehaviour = { kind: "status", status: "403 Forbidden" };

function dial(): RelayBehaviour {
  return "dial";
}

function queryOf({ path }: UpgradeRequest): URLSearchParams {
  return new URL(path, "https://worker.invalid").searchParams;
}
