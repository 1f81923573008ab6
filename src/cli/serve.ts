import { isatty } from "node:tty";
import type { Config } from "../config/config.ts";
import { configFolder, loadOrCreateSecret } from "../config/secret-store.ts";
import type { SessionEvent } from "../core/events.ts";
import type { Logger } from "../core/logger.ts";
import { type NetworkChange, NetworkWatch } from "../net/network-watch.ts";
import { formatOutboundProxy } from "../net/outbound-proxy.ts";
import { createLogger } from "../observe/log.ts";
import { SessionLog } from "../observe/session-log.ts";
import { Stats } from "../observe/stats.ts";
import { DEFAULT_DC, type Target, TEST_DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import type { Disguise } from "../proxy/entrance.ts";
import { LocalGate } from "../proxy/local-gate.ts";
import { ReplayBudget } from "../proxy/replay.ts";
import { ProxyServer } from "../proxy/server.ts";
import type { PoolCounts } from "../upstream/pool.ts";
import { probeWay } from "../upstream/probe.ts";
import { Restorer } from "../upstream/restorer.ts";
import type { Standings } from "../upstream/standings.ts";
import { formatBanner } from "./banner.ts";
import type { DisguiseDeps } from "./build-disguise.ts";
import { gateRulesOf, serverLimitsOf } from "./build-gate.ts";
import { buildRoutes } from "./build-routes.ts";
import { readAddressLists } from "./read-address-lists.ts";
import { openState } from "./state.ts";
import { readTrust } from "./trust.ts";

const QUIET_LIMITS = {
  idleMs: 15 * 60_000,
  closingMs: 15_000,
  pingMs: 30_000,
  stalledMs: 5_000,
  silentMs: 10_000,
} as const;
/** After so much sleep, routers on the way have forgotten a quiet TCP connection, in milliseconds. */
const LONG_SLEEP_MS = 60_000;
/** What was learned about routes is written down so often at most. */
const KEEP_MS = 10_000;
/** How long sessions may finish by themselves after a signal. */
const GRACE_MS = 5_000;
const SUMMARY_MS = 60_000;
/** Quotas and expiry may be overstepped for so long. */
const GATE_MS = 1_000;
/** Two SIGINT within this time are one Ctrl-C. */
const ECHO_MS = 100;
/** What shells report for a program that Ctrl-C ended. */
const EXIT_SECOND_SIGNAL = 130;

/**
 * Runs the proxy until a signal ends it: the composition root, where everything is made and joined.
 *
 * @throws {StartError} When it cannot start.
 */
export async function serve(config: Config, version: string): Promise<void> {
  const secrets = resolveSecrets(config);
  const { lists } = await readAddressLists(config);
  const signalled = untilSignal();
  const trust = await readTrust(config);
  const log = await createLogger({ verbose: config.verbose, file: config.logFile });
  const counts = { pool: newPoolCounts(), cfPool: newPoolCounts() };
  const stats = new Stats(counts);
  const sessionLog = new SessionLog(log, { verbose: config.verbose });
  const state = openState((error) => log.warn(error.message));
  const { standings } = state;
  if (state.damaged) log.warn("what was learned about routes cannot be read: it is learned anew");
  const set = await buildRoutes(config, {
    trust,
    counts,
    poolSize: config.poolSize,
    keptList: state.domainsOf(config.cfListUrl),
    onListChanged: (domains) => log.debug(`the list of domains has changed: ${domains.length} now`),
    onListFailed: (error) => log.debug(`the list of domains stays as it is: ${describeError(error)}`),
  });
  const restorer = new Restorer(standings, probeWay, ({ target, way, code }) => {
    const outcome = code === undefined ? "works again" : `still fails: ${code}`;
    log[code === undefined ? "info" : "debug"](`${way.endpoint} ${outcome}`, {
      dc: target,
      route: way.route,
    });
  });
  const disguise = await disguiseOf(config, {
    secrets,
    proxy: set.proxy,
    hellos: state.hellos,
    port: () => server.port,
    log,
  });
  const gate = new LocalGate({ onRevoked: (users) => server.revoke(users) });
  gate.configure(gateRulesOf(config, secrets));
  const { limits, warning } = serverLimitsOf(config);
  const server: ProxyServer = new ProxyServer(
    {
      host: config.host,
      port: config.port,
      highWater: config.queueBytes,
      quiet: QUIET_LIMITS,
      limits,
      relieve: () => set.relieve(),
    },
    {
      secrets,
      forms: config.accept,
      disguise,
      trustedProxies: config.proxyProtocol ? config.trustedProxies : undefined,
      routes: set.routes,
      standings,
      replays: new ReplayBudget(),
      onServed: (target, ways, by) => restorer.consider(target, ways, by),
      observe: (event: SessionEvent) => {
        stats.observe(event);
        sessionLog.observe(event);
      },
      handshakeTimeoutMs: config.handshakeTimeoutMs,
      gate,
      addresses: lists,
      adjustTarget: config.forceTestDc ? toTestTarget : (target) => target,
    },
  );
  console.log(formatBanner({ version, config, port: server.port, secrets, qr: isatty(1) }));
  for (const text of [...config.warnings, ...(warning === undefined ? [] : [warning])]) log.warn(text);
  if (!config.tlsVerify) log.warn("certificates are not verified: whoever is between can pose as Telegram");
  if (set.proxy !== undefined) {
    const except = set.proxy.bypass.length > 0 ? ", but for the hosts in NO_PROXY" : "";
    log.info(`everything goes through ${formatOutboundProxy(set.proxy)}${except}`);
  }
  survive(log, config.verbose);
  set.domainList?.start();
  disguise?.cover.start();
  const summary = summarize(stats, log);
  const keeping = setInterval(() => keep(standings, state.routes), KEEP_MS);
  const counting = setInterval(() => {
    gate.used(server.tally());
    gate.look();
  }, GATE_MS);
  const network = new NetworkWatch((change) => {
    log.info(describeChange(change));
    set.drop();
    standings.forgive();
    const withoutPings = change.sleptMs >= LONG_SLEEP_MS || change.removed.length > 0;
    server.recover({ withoutPings }).catch((error: unknown) => log.error(describeError(error)));
  });

  await signalled;
  log.info("stopping: waiting for sessions to end, once more to stop at once");
  network.stop();
  clearInterval(summary);
  clearInterval(counting);
  restorer.close();
  disguise?.cover.close();
  await server.stop(GRACE_MS);
  set.close(); // after the sessions, whose bytes may go through one of its tunnels
  clearInterval(keeping);
  keep(standings, state.routes);
  log.info(`stats: ${stats.summary()}`);
  for (const line of stats.lines()) log.info(`stats: ${line}`);
  await log.close();
}

/** What fake TLS needs is loaded by need. */
async function disguiseOf(config: Config, deps: DisguiseDeps): Promise<Disguise | undefined> {
  return config.accept.fakeTls
    ? (await import("./build-disguise.ts")).buildDisguise(config, deps)
    : undefined;
}

function newPoolCounts(): PoolCounts {
  return { hits: 0, misses: 0 };
}

function keep(standings: Standings, file: { write(text: string): void }): void {
  if (standings.changed) file.write(standings.save());
}

function describeChange({ sleptMs, added, removed }: NetworkChange): string {
  const parts: string[] = [];
  if (sleptMs > 0) parts.push(`slept for ${Math.round(sleptMs / 1000)} s`);
  if (added.length > 0) parts.push(`new address ${added.join(", ")}`);
  if (removed.length > 0) parts.push(`lost address ${removed.join(", ")}`);
  return `the network has changed (${parts.join("; ")}): connections are checked, and routes start afresh`;
}

function describeError(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The secrets to serve: those that were given, or the one that is kept. @throws {StartError} */
export function resolveSecrets(config: Config): readonly NamedSecret[] {
  if (config.secrets.length > 0) return config.secrets;
  return [{ name: "default", key: loadOrCreateSecret(configFolder(process.env, process.platform)) }];
}

function toTestTarget(target: Target): Target {
  const known = TEST_DC_NUMBERS.some((dc) => dc === target.dc);
  return { ...target, dc: known ? target.dc : DEFAULT_DC, test: true };
}

/** A bug must cost a session at most, never the process. */
function survive(log: Logger, verbose: boolean): void {
  const say = (error: unknown): void => {
    const text = error instanceof Error ? (verbose && error.stack) || error.message : String(error);
    log.error(`a bug, please report it: ${text || error}`);
  };
  process.on("uncaughtException", say);
  process.on("unhandledRejection", say);
}

function summarize(stats: Stats, log: Logger): ReturnType<typeof setInterval> {
  let last = stats.summary();
  return setInterval(() => {
    const now = stats.summary();
    if (now !== last) {
      log.info(`stats: ${now}`);
      for (const line of stats.lines()) log.debug(`stats: ${line}`);
    }
    last = now;
  }, SUMMARY_MS);
}

/**
 * Resolves at the first SIGINT or SIGTERM; another one then ends the process at once.
 *
 * A package script's runner passes on the SIGINT that the terminal has sent to us already, so there one
 * Ctrl-C comes twice.
 */
function untilSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const echoes = process.env["npm_lifecycle_event"] === "start";
  let first: { readonly signal: NodeJS.Signals; readonly at: number } | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    const now = performance.now();
    if (first === undefined) {
      first = { signal, at: now };
      resolve();
    } else if (!echoes || signal !== first.signal || now - first.at > ECHO_MS) {
      process.exit(EXIT_SECOND_SIGNAL);
    }
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return promise;
}
