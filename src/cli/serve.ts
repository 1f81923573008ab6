import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { isatty } from "node:tty";
import type { Config } from "../config/config.ts";
import { configFolder, loadOrCreateSecret } from "../config/secret-store.ts";
import { StartError } from "../core/errors.ts";
import type { SessionEvent } from "../core/events.ts";
import type { Logger } from "../core/logger.ts";
import { DrainPoller } from "../net/drain-poller.ts";
import { type TlsTrust, WebSocketDialer } from "../net/websocket-dial.ts";
import { createLogger } from "../observe/log.ts";
import { SessionLog } from "../observe/session-log.ts";
import { Stats } from "../observe/stats.ts";
import { DEFAULT_DC, type Target, TEST_DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { ProxyServer } from "../proxy/server.ts";
import { Cooldowns } from "../upstream/cooldowns.ts";
import { Scratch } from "../upstream/packet-framer.ts";
import { POOL_AGES, type PoolCounts, PooledRoute } from "../upstream/pool.ts";
import type { Route } from "../upstream/route.ts";
import { DirectWsRoute } from "../upstream/routes/direct-ws.ts";
import { formatBanner } from "./banner.ts";

/** From accept to a complete init. Clients send theirs at once; Telethon may wait 2 s with what follows. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** For connection, TLS and upgrade. The whole chain must answer before Android gives up, after about 5 s. */
const DIAL_TIMEOUT_MS = 4_000;
const QUIET_LIMITS = { idleMs: 15 * 60_000, closingMs: 15_000, pingMs: 30_000 } as const;
/** How long sessions may finish by themselves after a signal. */
const GRACE_MS = 5_000;
const SUMMARY_MS = 60_000;
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
  const signalled = untilSignal();
  const trust = await readTrust(config);
  const log = await createLogger({ verbose: config.verbose, file: config.logFile });
  const poolCounts: PoolCounts = { hits: 0, misses: 0 };
  const stats = new Stats(poolCounts);
  const sessionLog = new SessionLog(log, { verbose: config.verbose });
  const { routes, closeRoutes } = buildRoutes(config, trust, poolCounts);
  const server = new ProxyServer(
    { host: config.host, port: config.port, highWater: config.queueBytes, quiet: QUIET_LIMITS },
    {
      secrets,
      routes,
      cooldowns: new Cooldowns(),
      observe: (event: SessionEvent) => {
        stats.observe(event);
        sessionLog.observe(event);
      },
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      adjustTarget: config.forceTestDc ? toTestTarget : (target) => target,
    },
  );
  console.log(formatBanner({ version, config, port: server.port, secrets, qr: isatty(1) }));
  for (const warning of config.warnings) log.warn(warning);
  if (!config.tlsVerify) log.warn("certificates are not verified: whoever is between can pose as Telegram");
  survive(log, config.verbose);
  const summary = summarize(stats, log);

  await signalled;
  log.info("stopping: waiting for sessions to end, once more to stop at once");
  clearInterval(summary);
  closeRoutes();
  await server.stop(GRACE_MS);
  log.info(`stats: ${stats.summary()}`);
  await log.close();
}

/** The secrets to serve: those that were given, or the one that is kept. @throws {StartError} */
export function resolveSecrets(config: Config): readonly NamedSecret[] {
  if (config.secrets.length > 0) return config.secrets;
  return [{ name: "default", key: loadOrCreateSecret(configFolder(process.env, process.platform)) }];
}

function buildRoutes(
  config: Config,
  trust: TlsTrust,
  counts: PoolCounts,
): { routes: Route[]; closeRoutes: () => void } {
  const dialer = new WebSocketDialer({
    trust,
    poller: new DrainPoller(),
    highWater: config.queueBytes,
    timeoutMs: DIAL_TIMEOUT_MS,
  });
  const scratch = new Scratch();
  const direct = (["preferred", "alternate"] as const).map((name) => {
    return new DirectWsRoute({ name, dialer, addresses: config.dcAddresses, scratch });
  });
  if (config.poolSize === 0) return { routes: direct, closeRoutes: () => {} };
  const pooled = direct.map(
    (route) => new PooledRoute(route, { size: config.poolSize, ...POOL_AGES }, counts),
  );
  return {
    routes: pooled,
    closeRoutes: () => {
      for (const route of pooled) route.close();
    },
  };
}

async function readTrust({ tlsVerify, tlsCaFile }: Config): Promise<TlsTrust> {
  const extra = tlsCaFile === undefined ? undefined : readCa(tlsCaFile);
  if (!tlsVerify || extra === undefined) return { verify: tlsVerify, ca: undefined };
  const { rootCertificates } = await import("node:tls"); // a MiB of text that few need
  return { verify: true, ca: [...rootCertificates, extra] };
}

function readCa(path: string): string {
  const hint = "--tls-ca takes a PEM file, with lines -----BEGIN CERTIFICATE-----";
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError("FILE", `Cannot read the certificates in ${path}: ${reason}`, hint, error);
  }
  try {
    new X509Certificate(text); // the first one; Bun would only fail at the first connection
    return text;
  } catch (error) {
    throw new StartError(
      "FILE",
      `Cannot use the certificates in ${path}: there are none that can be read`,
      hint,
      error,
    );
  }
}

function toTestTarget(target: Target): Target {
  const known = TEST_DC_NUMBERS.some((dc) => dc === target.dc);
  return { ...target, dc: known ? target.dc : DEFAULT_DC, test: true };
}

/** A bug must cost a session at most, never the process. */
function survive(log: Logger, verbose: boolean): void {
  const say = (error: unknown): void => {
    const text = error instanceof Error ? ((verbose && error.stack) ?? error.message) : String(error);
    log.error(`a bug, please report it: ${text || error}`);
  };
  process.on("uncaughtException", say);
  process.on("unhandledRejection", say);
}

function summarize(stats: Stats, log: Logger): ReturnType<typeof setInterval> {
  let last = stats.summary();
  return setInterval(() => {
    const now = stats.summary();
    if (now !== last) log.info(`stats: ${now}`);
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
