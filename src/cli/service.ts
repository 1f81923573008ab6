import { RouteError } from "../core/errors.ts";
import type { SessionEvent } from "../core/events.ts";
import type { Logger } from "../core/logger.ts";
import { SHORT_OF_DESCRIPTORS } from "../net/descriptors.ts";
import { type NetworkChange, NetworkWatch } from "../net/network-watch.ts";
import { formatOutboundProxy } from "../net/outbound-proxy.ts";
import type { Round, Rounds } from "../net/rounds.ts";
import type { LogCounts } from "../observe/figures.ts";
import type { LevelLogger } from "../observe/log.ts";
import { SessionLog } from "../observe/session-log.ts";
import { Stats } from "../observe/stats.ts";
import type { HelloClaims } from "../proxy/fake-tls.ts";
import type { Gate } from "../proxy/gate.ts";
import { ReplayBudget } from "../proxy/replay.ts";
import { ProxyServer } from "../proxy/server.ts";
import { type Probe, type ProbeReport, Restorer } from "../upstream/restorer.ts";
import type { ProcessRoom } from "./build-gate.ts";
import type { RouteSet } from "./build-routes.ts";
import type { Settings } from "./engine.ts";
import { makeSetup, type Setup } from "./setup.ts";
import type { State } from "./state.ts";

const QUIET_LIMITS = {
  idleMs: 15 * 60_000,
  closingMs: 15_000,
  pingMs: 30_000,
  stalledMs: 5_000,
  silentMs: 10_000,
} as const;
/** After so much sleep, routers on the way have forgotten a quiet TCP connection, in milliseconds. */
const LONG_SLEEP_MS = 60_000;
/** What was learned about routes is written down so often at most, in milliseconds. */
const KEEP_MS = 10_000;

/** What a {@link Service} works with, for as long as it lives. */
export interface ServiceDeps {
  /** A socket that listens already; without, it opens one. */
  readonly socket: { readonly fd: number; readonly port: number } | undefined;
  readonly log: LevelLogger & { readonly counts: LogCounts };
  readonly gate: Gate;
  readonly hellos: HelloClaims;
  readonly state: State;
  readonly room: ProcessRoom;
  /** When what goes on regularly is looked after. */
  readonly rounds: Rounds;
  /** Whether this process writes down what was learned about routes. */
  readonly keepsRoutes: boolean;
}

/** Everything that one process does for clients: the server, its routes, fake TLS, and what watches over them. */
export class Service {
  /** Counts what happens to sessions. */
  readonly stats: Stats;
  readonly server: ProxyServer;
  readonly #deps: ServiceDeps;
  readonly #restorer: Restorer;
  readonly #make: (settings: Settings, before: Setup) => Promise<Setup>;
  readonly #network: NetworkWatch;
  /** Until it leaves. */
  #keeping: Round | undefined;
  #setup: Setup;
  /** By routes: how many setups have them whose sessions are not all gone. */
  readonly #uses = new Map<RouteSet, number>();

  /**
   * Listens, and serves.
   *
   * @throws {StartError} @throws {ConfigError}
   */
  static async start(settings: Settings, deps: ServiceDeps): Promise<Service> {
    const { log, gate, hellos, state, socket } = deps;
    const { config } = settings;
    const counts = { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } };
    const stats = new Stats({
      ...counts,
      queuedBytes: () => server.queuedBytes,
      shed: () => server.shed.connections,
      log: () => log.counts,
    });
    const sessionLog = new SessionLog(log);
    const restorer = new Restorer(state.standings, probe, (report) => sayProbe(report, log));
    const observe = (event: SessionEvent): void => {
      stats.observe(event);
      sessionLog.observe(event);
    };
    const replays = new ReplayBudget();
    const port = (): number => server.port;
    const parts = { log, gate, hellos, state, replays, restorer, counts, observe, port };
    const setup = await makeSetup(settings, parts, undefined);
    const server: ProxyServer = new ProxyServer(
      {
        host: config.host,
        port: socket?.port ?? config.port,
        fd: socket?.fd,
        quiet: QUIET_LIMITS,
        limits: deps.room.limitsOf(config),
        rounds: deps.rounds,
        relieve: () => service.#setup.routes.relieve(),
      },
      setup.deps,
    );
    const make = (next: Settings, before: Setup): Promise<Setup> => makeSetup(next, parts, before);
    const service: Service = new Service(deps, { stats, server, restorer, make, setup });
    return service;
  }

  private constructor(
    deps: ServiceDeps,
    made: {
      readonly stats: Stats;
      readonly server: ProxyServer;
      readonly restorer: Restorer;
      readonly make: (settings: Settings, before: Setup) => Promise<Setup>;
      readonly setup: Setup;
    },
  ) {
    this.#deps = deps;
    this.stats = made.stats;
    this.server = made.server;
    this.#restorer = made.restorer;
    this.#make = made.make;
    this.#setup = made.setup;
    this.#hold(made.setup.routes);
    made.setup.routes.domainList?.start();
    made.setup.disguise?.cover.start();
    this.#sayProxy(made.setup);
    this.#network = new NetworkWatch((change) => this.#onNetworkChange(change), undefined, deps.rounds);
    this.#keeping = deps.keepsRoutes ? deps.rounds.every(KEEP_MS, () => this.#keepRoutes()) : undefined;
  }

  /**
   * Serves with other settings whoever comes from now on.
   *
   * @throws {StartError} @throws {ConfigError} When they cannot be used; then nothing has changed.
   */
  async reload(settings: Settings): Promise<void> {
    const before = this.#setup;
    const next = await this.#make(settings, before);
    this.#setup = next;
    this.#hold(next.routes);
    if (next.routes !== before.routes) {
      before.routes.retire();
      next.routes.domainList?.start();
      this.#sayProxy(next);
    }
    if (next.disguise?.cover !== before.disguise?.cover) {
      before.disguise?.cover.close();
      next.disguise?.cover.start();
    }
    this.server.use(next.deps, () => this.#letGo(before.routes));
    this.server.setLimits(this.#deps.room.limitsOf(settings.config));
    this.stats.forgetUsersBut(new Set(settings.secrets.map(({ name }) => name)));
  }

  /** Accepts nobody any more, and ends what has not ended after `graceMs`. */
  async stop(graceMs: number): Promise<void> {
    this.#leave();
    await this.server.stop(graceMs);
    this.#end();
  }

  /** As {@link Service.stop}, but lets sessions that are not connected yet go on, too. */
  async drain(ms: number): Promise<void> {
    this.#leave();
    await this.server.drain(ms);
    this.#end();
  }

  #leave(): void {
    // Once, and not with the last session: by then somebody who has taken its place keeps what was learned since.
    if (this.#keeping !== undefined) this.#keepRoutes();
    this.#keeping?.stop();
    this.#keeping = undefined;
    this.#network.stop();
    this.#restorer.close();
    this.#setup.disguise?.cover.close();
  }

  #end(): void {
    // After the sessions, whose bytes may go through one of its tunnels.
    for (const routes of this.#uses.keys()) routes.close();
  }

  #hold(routes: RouteSet): void {
    this.#uses.set(routes, (this.#uses.get(routes) ?? 0) + 1);
  }

  /** The last session of a setup has gone. */
  #letGo(routes: RouteSet): void {
    const uses = (this.#uses.get(routes) ?? 0) - 1;
    this.#uses.set(routes, uses);
    if (uses > 0) return;
    this.#uses.delete(routes);
    routes.close();
  }

  #keepRoutes(): void {
    const { standings, routes } = this.#deps.state;
    if (standings.changed) routes.write(standings.save());
  }

  #sayProxy({ routes: { proxy } }: Setup): void {
    if (proxy === undefined) return;
    const except = proxy.bypass.length > 0 ? ", but for the hosts in NO_PROXY" : "";
    this.#deps.log.info(`everything goes through ${formatOutboundProxy(proxy)}${except}`);
  }

  #onNetworkChange(change: NetworkChange): void {
    const { log, state } = this.#deps;
    log.info(describeChange(change));
    this.#setup.routes.drop();
    state.standings.forgive();
    const withoutPings = change.sleptMs >= LONG_SLEEP_MS || change.removed.length > 0;
    this.server
      .recover({ withoutPings })
      .catch((error: unknown) => log.error(error instanceof Error ? error.message : String(error)));
  }
}

/** Loaded by need: while the best way works, nothing is probed. */
const probe: Probe = async (...args) => {
  const { probeWay } = await import("../upstream/probe.ts").catch((cause: unknown) => {
    // From source, a module is a file to open.
    throw new RouteError("LOCAL", SHORT_OF_DESCRIPTORS, { cause });
  });
  return probeWay(...args);
};

function sayProbe({ target, way, code }: ProbeReport, log: Logger): void {
  const outcome = code === undefined ? "works again" : `still fails: ${code}`;
  log[code === undefined ? "info" : "debug"](`${way.endpoint} ${outcome}`, { dc: target, route: way.route });
}

function describeChange({ sleptMs, added, removed }: NetworkChange): string {
  const parts: string[] = [];
  if (sleptMs > 0) parts.push(`slept for ${Math.round(sleptMs / 1000)} s`);
  if (added.length > 0) parts.push(`new address ${added.join(", ")}`);
  if (removed.length > 0) parts.push(`lost address ${removed.join(", ")}`);
  return `the network has changed (${parts.join("; ")}): connections are checked, and routes start afresh`;
}
