import { type Certificates, testAuthority, testCertificates } from "./certificates.ts";
import type { Hello } from "./client-hello.ts";
import type { Packet } from "./packets.ts";
import { DCS } from "./proxy.ts";
import {
  FAILURES_OF,
  type Failure,
  RETRY_AFTER_S,
  ROUTES,
  type RouteName,
  STALL_BYTES,
} from "./route-failures.ts";
import type { StubConnection } from "./stub-connection.ts";
import { StubDc } from "./stub-dc.ts";
import type { StubPeer } from "./stub-peer.ts";
import { StubTcpDc } from "./stub-tcp-dc.ts";
import { type RelayBehaviour, type StubRelay, StubWorker } from "./stub-worker.ts";
import type { AcceptBehaviour, UpgradeBehaviour, UpgradeRequest, UpgradeServer } from "./upgrade-server.ts";
import { Condition } from "./waiting.ts";

/** The name that fronted-ws shows. */
export const FRONT_DOMAIN = "front.example";
/** The name of the Worker. */
export const WORKER_DOMAIN = "worker.example";
/** The domain with a `kwsN` for each data centre. */
export const CF_DOMAIN = "cdn.example";
/** Where nothing is, as the names of a route with `nxdomain`. */
const NOWHERE = "nowhere.invalid";

/** Telegram's own TCP addresses, by data centre: what a Worker is asked for. */
export const TELEGRAM_IPS: Readonly<Record<(typeof DCS)[number], string>> = {
  1: "149.154.175.50",
  2: "149.154.167.51",
  3: "149.154.175.100",
  4: "149.154.167.91",
  5: "149.154.171.5",
  203: "91.105.192.100",
};

/** The test environment, which has three data centres. */
export const TELEGRAM_TEST_IPS: Readonly<Record<1 | 2 | 3, string>> = {
  1: "149.154.175.10",
  2: "149.154.167.40",
  3: "149.154.175.117",
};

/** The ids of the test environment's data centres. */
const TEST_DCS = [10_001, 10_002, 10_003] as const;

/** How a {@link World} is made. */
export interface WorldOptions {
  /** What the Worker asks for. Without: nothing. */
  readonly token?: string;
  /** Whose certificate a connection with the front's name gets. Without: Telegram's, as in earnest. */
  readonly frontCertificate?: "telegram" | "front";
}

/** What has happened on one route. */
interface RouteRecord {
  failure: Failure | undefined;
  /** TCP connections, or ClientHellos where there is TLS. */
  attempts: number;
  readonly requests: UpgradeRequest[];
  readonly peers: StubPeer[];
  readonly started: StubPeer[];
  /** Flags have been made for it. */
  named: boolean;
}

/** The certificates of a world. */
interface WorldCertificates {
  readonly telegram: Certificates;
  readonly front: Certificates;
  readonly cloudflare: Certificates;
  readonly wrong: Certificates;
}

let sharedCertificates: Promise<WorldCertificates> | undefined;

/**
 * Everything that a proxy can meet between itself and Telegram, on loopback: one data centre for each route,
 * which serves all numbers, and ways to break each route.
 *
 * direct-ws and fronted-ws share address and port, and are told apart by the name of the TLS handshake, as
 * networks do it. What a failure changes holds for new connections; those that are open stay as they are.
 */
export class World implements AsyncDisposable {
  /** Behind direct-ws and fronted-ws. */
  readonly telegram: StubDc;
  /** Behind cf-domain. */
  readonly cloudflare: StubDc;
  /** In front of cf-worker. */
  readonly worker: StubWorker;
  /** Behind the Worker. */
  readonly workerDc: StubTcpDc;
  /** Behind direct-tcp. */
  readonly tcp: StubTcpDc;
  /** Returns payloads to answer with. Without another, the packet's own. */
  answer: (packet: Packet, peer: StubPeer, route: RouteName) => Iterable<Uint8Array> = echo;
  /** The names of TLS handshakes that no route has, at the server that got them. */
  readonly strangers: string[] = [];
  readonly #certificates: WorldCertificates;
  readonly #frontCertificate: "telegram" | "front";
  readonly #records = new Map<RouteName, RouteRecord>(
    ROUTES.map((route) => [
      route,
      { failure: undefined, attempts: 0, requests: [], peers: [], started: [], named: false },
    ]),
  );
  readonly #changes = new Condition();

  private constructor(
    stubs: Pick<World, "telegram" | "cloudflare" | "worker" | "workerDc" | "tcp">,
    certificates: WorldCertificates,
    { token, frontCertificate = "telegram" }: WorldOptions,
  ) {
    this.telegram = stubs.telegram;
    this.cloudflare = stubs.cloudflare;
    this.worker = stubs.worker;
    this.workerDc = stubs.workerDc;
    this.tcp = stubs.tcp;
    this.#certificates = certificates;
    this.#frontCertificate = frontCertificate;
    this.#joinWebSocketDc(this.telegram, ["direct-ws", "fronted-ws"]);
    this.#joinWebSocketDc(this.cloudflare, ["cf-domain"]);
    this.#joinWorker(token);
    this.#joinTcpDc();
  }

  /** Starts everything, with nothing broken. */
  static async start(options: WorldOptions = {}): Promise<World> {
    sharedCertificates ??= makeCertificates();
    const certificates = await sharedCertificates;
    const stubs = {
      telegram: await StubDc.start(certificates.telegram),
      cloudflare: await StubDc.start(certificates.cloudflare),
      worker: await StubWorker.start([WORKER_DOMAIN]),
      workerDc: await StubTcpDc.start(),
      tcp: await StubTcpDc.start(),
    };
    return new World(stubs, certificates, options);
  }

  /** The flags that make a proxy use `routes`, in this order, and this world alone. */
  flags(routes: readonly RouteName[]): string[] {
    const flags = routes.flatMap((route) => ["--route", route]);
    for (const route of routes) this.#record(route).named = true;
    if (routes.includes("direct-ws") || routes.includes("fronted-ws")) {
      for (const dc of DCS) flags.push("--dc-ip", `${dc}:127.0.0.1:${this.telegram.port}`);
    }
    if (routes.includes("fronted-ws")) flags.push("--front-domain", `${FRONT_DOMAIN}:${this.telegram.port}`);
    if (routes.includes("cf-worker")) flags.push(...this.#workerFlags());
    if (routes.includes("cf-domain")) flags.push(...this.#cfDomainFlags());
    if (routes.includes("direct-tcp")) {
      for (const dc of [...DCS, ...TEST_DCS]) flags.push("--dc-tcp", `${dc}:127.0.0.1:${this.tcp.port}`);
    }
    return flags;
  }

  /**
   * Breaks `route` for all new connections.
   *
   * @throws {Error} When it cannot fail this way, or, of `nxdomain`, when flags were made before.
   */
  break(route: RouteName, failure: Failure): void {
    if (!FAILURES_OF[route].includes(failure)) throw new Error(`${route} cannot have ${failure}`);
    const record = this.#record(route);
    if (failure === "nxdomain" && record.named) throw new Error("A name is chosen when flags are made");
    record.failure = failure;
  }

  /** Lets `route` work again for new connections. */
  repair(route: RouteName): void {
    this.#record(route).failure = undefined;
  }

  /** How often somebody tried to open `route`: TCP connections, or ClientHellos where there is TLS. */
  attempts(route: RouteName): number {
    return this.#record(route).attempts;
  }

  /** The requests for a WebSocket on `route`, the refused ones included. */
  requests(route: RouteName): readonly UpgradeRequest[] {
    return this.#record(route).requests;
  }

  /** The data centre's ends of all streams on `route` whose init has come. */
  peers(route: RouteName): readonly StubPeer[] {
    return this.#record(route).peers;
  }

  /** Waits for the next stream on `route` whose init has come, in the order of their inits. */
  async next(route: RouteName, limitMs?: number): Promise<StubPeer> {
    const { started } = this.#record(route);
    await this.until(() => started.length > 0, `an init on ${route}`, limitMs);
    const peer = started.shift();
    if (peer === undefined) throw new Error("Two waited for the same stream");
    return peer;
  }

  /** Waits until `holds()`, looking whenever a connection has come, spoken or gone. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  /** Forgets what has happened, and keeps what is broken. */
  forget(): void {
    for (const record of this.#records.values()) {
      record.attempts = 0;
      record.requests.length = 0;
      record.peers.length = 0;
      record.started.length = 0;
    }
    this.strangers.length = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stubs = [this.telegram, this.cloudflare, this.worker, this.workerDc, this.tcp];
    await Promise.all(stubs.map((stub) => stub[Symbol.asyncDispose]()));
  }

  #workerFlags(): string[] {
    const { failure } = this.#record("cf-worker");
    const domain = failure === "nxdomain" ? `worker.${NOWHERE}` : WORKER_DOMAIN;
    const flags = ["--cfproxy-worker-domain", `${domain}:${this.worker.port}`];
    if (failure !== "nxdomain") flags.push("--resolve", `${domain}=127.0.0.1`);
    if (this.worker.token !== undefined) flags.push("--cfproxy-worker-token", this.worker.token);
    return flags;
  }

  #cfDomainFlags(): string[] {
    const { failure } = this.#record("cf-domain");
    const domain = failure === "nxdomain" ? NOWHERE : CF_DOMAIN;
    const flags = ["--cfproxy-domain", `${domain}:${this.cloudflare.port}`];
    if (failure !== "nxdomain") flags.push("--resolve", `*.${domain}=127.0.0.1`);
    return flags;
  }

  #record(route: RouteName): RouteRecord {
    const record = this.#records.get(route);
    if (record === undefined) throw new Error(`There is no route ${route}`);
    return record;
  }

  #joinWebSocketDc(stub: StubDc, routes: readonly RouteName[]): void {
    this.#joinUpgradeServer(stub, routes);
    stub.onOpen = (connection) => this.#onOpen(connection);
    stub.onInit = (connection) => this.#onInit(connection, routeOf(connection.request) ?? "direct-ws");
    stub.onPacket = (packet, connection) =>
      this.answer(packet, connection, routeOf(connection.request) ?? "direct-ws");
  }

  #joinWorker(token: string | undefined): void {
    const { worker, workerDc } = this;
    this.#joinUpgradeServer(worker, ["cf-worker"]);
    worker.token = token;
    const known = [...Object.values(TELEGRAM_IPS), ...Object.values(TELEGRAM_TEST_IPS)];
    worker.portOf = (dst) => (known.includes(dst) ? workerDc.port : undefined);
    worker.onOpen = (relay) => this.#onRelay(relay);
    workerDc.onInit = (connection) => this.#onInit(connection, "cf-worker");
    workerDc.onPacket = (packet, connection) => this.answer(packet, connection, "cf-worker");
  }

  #joinTcpDc(): void {
    const { tcp } = this;
    const record = this.#record("direct-tcp");
    tcp.accept = () => {
      record.attempts += 1;
      this.#changes.changed();
      if (record.failure === "accept-and-hang") return "hang";
      if (record.failure === "reset") return "reset";
      return record.failure === "half-open" ? "end" : "serve";
    };
    tcp.onOpen = (connection) => {
      if (record.failure === "stall-16k") connection.stallAfter(STALL_BYTES);
    };
    tcp.onInit = (connection) => this.#onInit(connection, "direct-tcp");
    tcp.onPacket = (packet, connection) => this.answer(packet, connection, "direct-tcp");
  }

  #joinUpgradeServer(stub: UpgradeServer, routes: readonly RouteName[]): void {
    stub.hello = (hello) => this.#onHello(hello, routes);
    stub.certificateFor = (hello) => this.#certificateFor(hello);
    stub.upgrade = (request) => this.#onRequest(request);
  }

  #onHello(hello: Hello, routes: readonly RouteName[]): AcceptBehaviour {
    const route = routeOf(hello);
    if (route === undefined || !routes.includes(route)) {
      this.strangers.push(hello.serverName ?? "no name");
      return "alert";
    }
    const record = this.#record(route);
    record.attempts += 1;
    this.#changes.changed();
    if (record.failure === "accept-and-hang") return "hang";
    if (record.failure === "tls-alert") return "alert";
    return record.failure === "reset" ? "reset" : "tls";
  }

  #certificateFor(hello: Hello): Certificates | undefined {
    const route = routeOf(hello);
    if (route === undefined) return undefined;
    if (this.#record(route).failure === "wrong-certificate") return this.#certificates.wrong;
    return route === "fronted-ws" ? this.#certificates[this.#frontCertificate] : undefined;
  }

  #onRequest(request: UpgradeRequest): UpgradeBehaviour {
    const route = routeOf(request);
    if (route === undefined) return { kind: "accept" };
    const record = this.#record(route);
    record.requests.push(request);
    this.#changes.changed();
    const refusal = record.failure === undefined ? undefined : REFUSALS[record.failure];
    return refusal ?? { kind: "accept" };
  }

  #onOpen(connection: StubConnection): void {
    const route = routeOf(connection.request);
    if (route === undefined) return;
    const { failure } = this.#record(route);
    if (failure === "101-then-close") connection.close(1011);
    else if (failure === "101-then-silence") connection.stallAfter(0);
    else if (failure === "stall-16k") connection.stallAfter(STALL_BYTES);
    else if (failure === "half-open") connection.end();
  }

  #onRelay(relay: StubRelay): RelayBehaviour {
    const { failure } = this.#record("cf-worker");
    if (failure === "101-then-close") relay.close(1011);
    else if (failure === "101-then-silence") relay.stallAfter(0);
    else if (failure === "stall-16k") relay.stallAfter(STALL_BYTES);
    else if (failure === "half-open") relay.end();
    const dials = failure === undefined || failure === "stall-16k" || failure === "reset-after-init";
    return dials ? "dial" : "silence";
  }

  #onInit(peer: StubPeer, route: RouteName): void {
    const record = this.#record(route);
    record.peers.push(peer);
    record.started.push(peer);
    if (record.failure === "reset-after-init") peer.reset();
    this.#changes.changed();
  }
}

const REFUSALS: Readonly<Partial<Record<Failure, UpgradeBehaviour>>> = {
  "302": { kind: "status", status: "302 Found", headers: { Location: "https://telegram.org/" } },
  "403": { kind: "status", status: "403 Forbidden" },
  "429": {
    kind: "status",
    status: "429 Too Many Requests",
    headers: { "Retry-After": String(RETRY_AFTER_S) },
  },
};

const TELEGRAM_NAME = /^kws\d+(?:-1)?\.web\.telegram\.org$/;
const CF_NAME = new RegExp(`^kws\\d+(?:-1)?\\.${CF_DOMAIN.replace(".", "\\.")}$`);

function routeOf({ serverName = "" }: Hello): RouteName | undefined {
  if (serverName === FRONT_DOMAIN) return "fronted-ws";
  if (serverName === WORKER_DOMAIN) return "cf-worker";
  if (TELEGRAM_NAME.test(serverName)) return "direct-ws";
  return CF_NAME.test(serverName) ? "cf-domain" : undefined;
}

async function makeCertificates(): Promise<WorldCertificates> {
  const authority = await testAuthority();
  return {
    telegram: await testCertificates(),
    front: await authority.issue([FRONT_DOMAIN]),
    cloudflare: await authority.issue([`*.${CF_DOMAIN}`]),
    wrong: await authority.issue(["other.example"]),
  };
}

/** Answers a packet with its own payload. */
export function echo({ payload }: Packet): Iterable<Uint8Array> {
  return [payload];
}
