import { checkServerIdentity, type PeerCertificate } from "node:tls";
import { testCertificates } from "./certificates.ts";
import { openTcp } from "./client-stream.ts";
import { makeInit, type Streams } from "./obfuscated2.ts";
import { concat, encodePacket, type Packet, type TestTransport, takePacket } from "./packets.ts";
import type { RouteName } from "./route-failures.ts";
import { Condition, within } from "./waiting.ts";
import { CF_DOMAIN, FRONT_DOMAIN, TELEGRAM_IPS, WORKER_DOMAIN, type World } from "./world.ts";

/** How long an opening is waited for, in milliseconds. */
const OPEN_LIMIT_MS = 1_500;

/** A way to send bytes, once it is open. */
interface Wire {
  write(bytes: Uint8Array): void;
  destroy(): void;
}

/** What a {@link Wire} tells the client. */
interface WireListener {
  onData(bytes: Uint8Array): void;
  onEnd(): void;
}

/** How a {@link WorldClient} connects. */
export interface WorldClientOptions {
  readonly transport?: TestTransport;
  /** 1-5 or 203. */
  readonly dc?: keyof typeof TELEGRAM_IPS;
  /** What the Worker is told. */
  readonly token?: string;
}

/** What takes a route of a {@link World} as the proxy is meant to, to try the world itself. */
export class WorldClient implements Disposable {
  readonly transport: TestTransport;
  /** Decrypted bytes so far. */
  received = 0;
  /** The server has ended, or the connection is gone. */
  ended = false;
  readonly #streams: Streams;
  readonly #changes = new Condition();
  #wire: Wire = { write: () => {}, destroy: () => {} };
  #held: Uint8Array = new Uint8Array();

  private constructor(transport: TestTransport, streams: Streams) {
    this.transport = transport;
    this.#streams = streams;
  }

  /** Opens `route` and sends the init. @throws {Error} When it does not open. */
  static async open(world: World, route: RouteName, options: WorldClientOptions = {}): Promise<WorldClient> {
    const { transport = "intermediate", dc = 2 } = options;
    const { bytes, ...streams } = makeInit({ transport, dcId: dc }, undefined);
    const client = new WorldClient(transport, streams);
    const listener: WireListener = {
      onData: (chunk) => client.#onData(chunk),
      onEnd: () => {
        client.ended = true;
        client.#changes.changed();
      },
    };
    client.#wire =
      route === "direct-tcp"
        ? await openTcpWire(world.tcp.port, listener)
        : await openWebSocket(describe(world, route, options), listener);
    client.write(bytes);
    return client;
  }

  /** Sends bytes as they are; where there are messages, as one. */
  write(bytes: Uint8Array): void {
    this.#wire.write(bytes);
  }

  /** Encrypts bytes, for {@link WorldClient.write}. */
  encrypt(plain: Uint8Array): Uint8Array {
    return this.#streams.up.update(plain);
  }

  /** Encrypts and sends `payload` as one packet. */
  sendPacket(payload: Uint8Array): void {
    this.write(this.encrypt(encodePacket(this.transport, payload)));
  }

  /** Takes the next packet. */
  async readPacket(limitMs?: number): Promise<Packet> {
    let taken: ReturnType<typeof takePacket>;
    const holds = (): boolean => {
      taken = takePacket(this.transport, this.#held);
      return taken !== undefined;
    };
    await this.until(holds, "a packet from the data centre", limitMs);
    if (taken === undefined) throw new Error("unreachable");
    this.#held = this.#held.slice(taken.size);
    return taken.packet;
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  [Symbol.dispose](): void {
    this.#wire.destroy();
  }

  #onData(chunk: Uint8Array): void {
    this.received += chunk.length;
    this.#held = concat(this.#held, this.#streams.down.update(chunk));
    this.#changes.changed();
  }
}

interface WebSocketTarget {
  readonly port: number;
  readonly serverName: string;
  readonly host: string;
  readonly path: string;
  readonly protocol: string | undefined;
  readonly authorization: string | undefined;
}

function describe(world: World, route: RouteName, { dc = 2, token }: WorldClientOptions): WebSocketTarget {
  const dcName = `kws${dc === 203 ? 2 : dc}.web.telegram.org`;
  const direct = { port: world.telegram.port, host: dcName, path: "/apiws", protocol: "binary" };
  const authorization = token === undefined ? undefined : `Bearer ${token}`;
  if (route === "cf-domain") {
    const name = `kws${dc}.${CF_DOMAIN}`;
    return { ...direct, port: world.cloudflare.port, serverName: name, host: name, authorization };
  }
  if (route === "cf-worker") {
    const path = `/apiws?dst=${TELEGRAM_IPS[dc]}&dc=${dc}`;
    const { port } = world.worker;
    return { port, serverName: WORKER_DOMAIN, host: WORKER_DOMAIN, path, protocol: undefined, authorization };
  }
  return { ...direct, serverName: route === "fronted-ws" ? FRONT_DOMAIN : dcName, authorization };
}

async function openWebSocket(target: WebSocketTarget, listener: WireListener): Promise<Wire> {
  const { ca } = await testCertificates();
  const { promise, resolve, reject } = Promise.withResolvers<Wire>();
  const headers: Record<string, string> = { Host: `${target.host}:${target.port}` };
  if (target.authorization !== undefined) headers["Authorization"] = target.authorization;
  const socket = new WebSocket(`wss://127.0.0.1:${target.port}${target.path}`, {
    ...(target.protocol === undefined ? {} : { protocols: target.protocol }),
    headers,
    tls: { serverName: target.serverName, ca, checkServerIdentity: acceptEither(target) },
    perMessageDeflate: false,
  });
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    resolve({ write: (bytes) => void socket.send(bytes), destroy: () => socket.terminate() });
  };
  socket.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => listener.onData(new Uint8Array(data));
  socket.onerror = (event) => reject(new Error("message" in event ? String(event.message) : "no WebSocket"));
  socket.onclose = () => {
    reject(new Error("closed"));
    listener.onEnd();
  };
  return within(promise, "a WebSocket", OPEN_LIMIT_MS).catch((error: unknown) => {
    socket.terminate();
    throw error;
  });
}

/** The certificate may be for the name of the TLS handshake or for the one of the request. */
function acceptEither({ serverName, host }: WebSocketTarget) {
  return (_: string, certificate: PeerCertificate): Error | undefined =>
    checkServerIdentity(serverName, certificate) && checkServerIdentity(host, certificate);
}

async function openTcpWire(port: number, listener: WireListener): Promise<Wire> {
  const socket = await openTcp(port);
  socket.on("data", (chunk: Uint8Array) => listener.onData(chunk));
  socket.on("error", () => {});
  socket.on("end", () => listener.onEnd());
  socket.on("close", () => listener.onEnd());
  return { write: (bytes) => void socket.write(bytes), destroy: () => socket.destroy() };
}
