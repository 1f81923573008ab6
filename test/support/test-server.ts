import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import type { SessionEvent } from "../../src/core/events.ts";
import { TcpDialer } from "../../src/net/tcp-dial.ts";
import type { NamedSecret } from "../../src/protocol/mtproto/secret.ts";
import { defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import { Cover } from "../../src/proxy/cover.ts";
import type { Disguise } from "../../src/proxy/entrance.ts";
import { FakeTls } from "../../src/proxy/fake-tls.ts";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { ANY_FORM } from "../../src/proxy/handshake.ts";
import { SiteUsers } from "../../src/proxy/mask.ts";
import { ReplayBudget } from "../../src/proxy/replay.ts";
import { SeenHellos } from "../../src/proxy/seen-hellos.ts";
import { ProxyServer, type ServerOptions } from "../../src/proxy/server.ts";
import type { SessionDeps } from "../../src/proxy/session.ts";
import type { Route, Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import { buildHello } from "./fake-tls-hello.ts";
import { type MemoryChannel, memoryChannelPair, plainLink, RecordingSink } from "./memory-channel.ts";
import { makeInit } from "./obfuscated2.ts";

/** The secret that is served unless a test says something else. */
export const FAMILY: NamedSecret = { name: "family", key: new Uint8Array(16).fill(9) };
/** The site that strangers are shown. */
export const COVER_NAME = "cover.example";
/** One whole abridged packet. */
export const PACKET = Uint8Array.of(0x01, 1, 2, 3, 4);

/** A server on loopback whose upstreams are in memory. */
export interface TestServer extends AsyncDisposable {
  readonly server: ProxyServer;
  readonly deps: SessionDeps;
  readonly events: SessionEvent[];
  /** Both ends of every connection to Telegram, and what Telegram hears. */
  readonly upstreams: readonly TestUpstream[];
}

/** A connection to Telegram. */
export interface TestUpstream {
  readonly telegram: MemoryChannel;
  readonly own: MemoryChannel;
  readonly hears: RecordingSink;
}

/** Starts a {@link TestServer}, which the caller disposes of. */
export function startServer(
  deps: Partial<SessionDeps> = {},
  options: Partial<ServerOptions> = {},
): TestServer {
  const events: SessionEvent[] = [];
  const upstreams: TestUpstream[] = [];
  const way: Way = {
    route: "direct-ws",
    endpoint: "memory",
    group: "memory",
    address: { host: "192.0.2.1", port: 443, webSocket: undefined },
    open: () => {
      const [telegram, channel] = memoryChannelPair();
      const hears = new RecordingSink();
      telegram.attach(hears);
      void hears.until((sink) => sink.heard("end")).then(() => telegram.end());
      upstreams.push({ telegram, own: channel, hears });
      return Promise.resolve({ channel, link: plainLink, warm: false });
    },
  };
  const route: Route = { id: "direct-ws", ways: () => [way] };
  const all: SessionDeps = {
    secrets: [FAMILY],
    forms: ANY_FORM,
    disguise: undefined,
    trustedProxies: undefined,
    routes: [route],
    standings: new Standings(),
    replays: new ReplayBudget(),
    onServed: () => {},
    observe: (event) => events.push(event),
    handshakeTimeoutMs: 5_000,
    gate: OPEN_GATE,
    addresses: undefined,
    adjustTarget: (target) => target,
    ...deps,
  };
  const server = new ProxyServer(
    {
      host: "127.0.0.1",
      port: 0,
      limits: { maxConnections: undefined, bufferBytes: undefined, queueBytes: 64 * 1024 },
      quiet: { idleMs: 60_000, closingMs: 60_000, pingMs: 30_000, stalledMs: 5_000, silentMs: 10_000 },
      ...options,
    },
    all,
  );
  return { server, deps: all, events, upstreams, [Symbol.asyncDispose]: () => server.stop(0) };
}

/** Fake TLS before a web site at a port of 127.0.0.1. */
export function disguiseAt(port: number, secrets: readonly NamedSecret[] = [FAMILY]): Disguise {
  const dialer = new TcpDialer({ highWater: 64 * 1024, timeoutMs: 5_000, proxy: undefined });
  const cover = new Cover({
    domains: [COVER_NAME],
    host: { host: "127.0.0.1", port },
    pinned: () => undefined,
    lookUp: () => Promise.reject(new Error("not asked")),
    dial: (endpoint, signal) => dialer.dial(endpoint, signal),
    isOwn: () => false,
    isHere: () => true,
    warn: () => {},
    debug: () => {},
  });
  const tls = new FakeTls({
    secrets,
    seen: new SeenHellos(),
    profileOf: (name) => (name === COVER_NAME ? defaultProfile(name) : undefined),
    measured: () => Promise.resolve(),
    onStranger: () => {},
    now: () => Math.floor(Date.now() / 1000),
  });
  return { tls, cover, users: new SiteUsers(1_000) };
}

/** A web site on loopback that answers everything with {@link PAGE}, and fake TLS before it. */
export class TestDisguise implements Disposable {
  readonly disguise: Disguise;
  /** What the site has heard, a text for each connection. */
  readonly heard: string[] = [];
  readonly #site: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(site: Server, secrets: readonly NamedSecret[]) {
    this.#site = site;
    this.disguise = disguiseAt((site.address() as AddressInfo).port, secrets);
  }

  static async open(secrets: readonly NamedSecret[] = [FAMILY]): Promise<TestDisguise> {
    const site = createServer({ allowHalfOpen: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    site.listen(0, "127.0.0.1", resolve);
    await promise;
    const made = new TestDisguise(site, secrets);
    site.on("connection", (socket) => made.#onVisit(socket));
    return made;
  }

  #onVisit(socket: Socket): void {
    this.#sockets.add(socket);
    const index = this.heard.push("") - 1;
    socket.on("data", (chunk: Buffer) => {
      this.heard[index] += chunk.toString("latin1");
      socket.write(PAGE);
    });
    socket.on("end", () => socket.end());
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#site.close();
  }
}

/** What the site of a {@link TestDisguise} says. */
export const PAGE = "HTTP/1.1 400 Bad Request\r\n\r\n";

/** A client over TCP whose every sign of life from the proxy is kept. */
export class TestClient implements Disposable {
  readonly socket: Socket;
  /** `end`, `close` and the codes of errors, as they came. */
  readonly signs: string[] = [];
  readonly #chunks: Buffer[] = [];

  constructor({ server }: Pick<TestServer, "server">) {
    this.socket = connect({ host: "127.0.0.1", port: server.port, allowHalfOpen: true, noDelay: true });
    this.socket.on("data", (chunk: Buffer) => this.#chunks.push(chunk));
    this.socket.on("end", () => this.signs.push("end"));
    this.socket.on("error", (error) => this.signs.push("code" in error ? String(error.code) : error.message));
    this.socket.on("close", () => this.signs.push("close"));
  }

  get heard(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** Says its init and a packet, inside of fake TLS when a `ClientHello` has gone before. */
  ask(secret: NamedSecret = FAMILY, { inRecords = false } = {}): void {
    const { bytes, up } = makeInit({ transport: "abridged", dcId: 2 }, secret.key);
    const all = Buffer.concat([bytes, up.update(PACKET)]);
    this.socket.write(inRecords ? Buffer.concat([Uint8Array.of(0x17, 3, 3, 0, all.length), all]) : all);
  }

  /** Sends a ClientHello; returns it. */
  hello(secret: NamedSecret = FAMILY): Uint8Array {
    const { bytes } = buildHello({ secret: secret.key, serverName: COVER_NAME });
    this.socket.write(bytes);
    return bytes;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** The reasons for which sessions ended, in that order. */
export const endings = ({ events }: TestServer): string[] =>
  events.flatMap((event) => (event.type === "ended" ? [event.reason] : []));

/** What was refused, in that order. */
export const refusals = ({ events }: TestServer): string[] =>
  events.flatMap((event) => (event.type === "refused" ? [event.why] : []));
