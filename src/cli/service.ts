import type { Logger } from "../core/logger.ts";
import { type NetworkChange, NetworkWatch } from "../net/network-watch.ts";
import type { Figures } from "../observe/figures.ts";
import { SessionLog } from "../observe/session-log.ts";
import { Stats } from "../observe/stats.ts";
import type { HelloClaims } from "../proxy/fake-tls.ts";
import type { Gate } from "../proxy/gate.ts";
import { ReplayBudget } from "../proxy/replay.ts";
import { ProxyServer } from "../proxy/server.ts";
import { probeWay } from "../upstream/probe.ts";
import { type ProbeReport, Restorer } from "../upstream/restorer.ts";
import type { RouteSet } from "./build-routes.ts";
import type { Settings } from "./engine.ts";
import { type Generation, makeGeneration } from "./generation.ts";
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
  readonly log: Logger;
  readonly gate: Gate;
  readonly hellos: HelloClaims;
  readonly state: State;
  /** Whether this process writes down what was learned about routes. */
  readonly keepsRoutes: boolean;
}

/** Everything that one process does for clients: the server, its routes, fake TLS, and what watches over them. */
export class Service {
  /** Counts what happens to sessions. */
  readonly stats: Stats;
  readonly #deps: ServiceDeps;
  readonly #make: (settings: Settings, before: Generation | undefined) => Promise<Generation>;
  readonly #restorer: Restorer;
  #server: ProxyServer;
  #generation: Generation;
  readonly #network: NetworkWatch;
  readonly #keeping: ReturnType<typeof setInterval> | undefined;

  /**
   * Listens, and serves.
   *
   * @throws {StartError} @throws {ConfigError}
   */
  static async start(settings: Settings, deps: ServiceDeps): Promise<Service> {
    const { log, gate, hellos, state } = deps;
    const counts = { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } };
    const stats = new Stats(counts);
    const sessionLog = new SessionLog(log, { verbose: settings.config.verbose });
    const restorer = new Restorer(state.standings, probeWay, (report) => sayProbe(report, log));
    const parts = {
      log,
      gate,
      hellos,
      state,
      replays: new ReplayBudget(),
      restorer,
      counts,
      observe: (event: SessionEvent): void => {
        stats.observe(event);
        sessionLog.observe(event);
      },
      port: (): number => service.port,
    };
    const make = (next: Settings, before: Generation | undefined): Promise<Generation> =>
      makeGeneration(next, parts, before);
    const service: Service = new Service(await make(settings, undefined), settings, make, { deps, stats, restorer });
    return service;
  }
}
