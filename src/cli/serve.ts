import { accessSync, constants } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, resolve } from "node:path";
import type { Config } from "../config/config.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { StartError } from "../core/errors.ts";
import type { HttpServer } from "../observe/http-server.ts";
import { createLogger } from "../observe/log.ts";
import { hideKnownKeys } from "../observe/log-guard.ts";
import type { StatusReport } from "../observe/status-report.ts";
import { formatBanner, loadQrCodes } from "./banner.ts";
import { type KnownKeys, RunningProxy } from "./running-proxy.ts";
import { resolveSecrets } from "./secrets.ts";
import { Signals } from "./signals.ts";
import { isStateFile, openState, stateFolder } from "./state.ts";
import { survive } from "./survive.ts";

/**
 * Runs the proxy until a signal ends it: opens what needs privileges, gives them up, then makes and joins everything.
 *
 * @param load Reads the configuration; again at each reload.
 * @throws {StartError} @throws {ConfigError} When it cannot start.
 */
export async function serve(load: () => LoadedConfig, version: string): Promise<void> {
  const signals = new Signals();
  const loaded = load();
  const { config } = loaded;
  const workers = countWorkers(config);
  let proxy: RunningProxy | undefined;
  const sockets =
    workers.count > 1 || config.user !== undefined ? await openSockets(config, workers.count) : undefined;
  const status = await openStatus(config, () => proxy);
  const warnings = await giveUpPrivileges(loaded);

  const { logLevel: level, logFormat: format, logFile: file } = config;
  const known: KnownKeys = { keys: [] };
  const log = await createLogger({ level, format, file, redact: hideKnownKeys(() => known.keys) });
  const state = openState((error) => log.warn(error.message));
  if (state.damaged) log.warn("what was learned about routes cannot be read: it is learned anew");
  try {
    proxy = await RunningProxy.start({ version, loaded, load, sockets, log, known, state });
  } catch (error) {
    await log.close(); // what was said on the way comes before what has ended it
    throw error;
  }
  signals.serve({
    reload: () => proxy.reload(),
    reopenLog: () => proxy.reopenLog(),
    restart: () => proxy.restart(),
  });
  survive(log);
  const secrets = resolveSecrets(config);
  console.log(formatBanner({ version, config, port: proxy.port, secrets, drawQrCode: await loadQrCodes() }));
  if (status !== undefined) log.info(`metrics and health: http://${formatHost(config)}:${status.port}/`);
  for (const warning of [...loaded.warnings, ...workers.warnings, ...warnings]) log.warn(warning);
  if (loaded.file !== undefined && !isReadable(loaded.file))
    log.warn(
      `${config.user} cannot read ${loaded.file}, so it cannot be reloaded: chgrp and chmod 640 let it`,
    );
  const logFolder = file === undefined ? undefined : dirname(resolve(file.path));
  if (logFolder !== undefined && !isOpen(logFolder))
    log.warn(
      `the log file cannot be rotated: ${config.user ?? "this user"} may not make files in ${logFolder}; ` +
        "give it a folder of its own",
    );
  if (!config.tlsVerify) log.warn("certificates are not verified: whoever is between can pose as Telegram");

  await signals.ended;
  log.info("stopping: waiting for sessions to end, once more to stop at once");
  await proxy.stop();
  await status?.stop();
  await log.close();
}

/** How many processes serve. */
function countWorkers({ workers }: Config): { readonly count: number; readonly warnings: readonly string[] } {
  const count = workers === "auto" ? availableParallelism() : workers;
  if (count === 1 || process.platform === "linux") return { count, warnings: [] };
  const warnings = ["processes can only share a port on Linux: one serves, without workers"];
  return { count: 1, warnings: workers === "auto" ? [] : warnings };
}

async function openSockets({ host, port }: Config, count: number) {
  const { openListeningSockets } = await import("../net/listening-socket.ts"); // with what calls the C library
  return openListeningSockets(host, port, count);
}

/** Listens before privileges are given up; answers that nothing is ready yet until there is a proxy. */
async function openStatus(
  { status, statusToken: token }: Config,
  running: () => RunningProxy | undefined,
): Promise<HttpServer | undefined> {
  if (status === undefined) return undefined;
  const { startStatusServer } = await import("../observe/status-server.ts");
  const report = async (): Promise<StatusReport> => {
    const proxy = running();
    if (proxy === undefined) throw new Error("it is starting");
    return proxy.report();
  };
  const ready = () => running()?.readiness ?? { ok: false, reason: "starting" };
  return startStatusServer({ ...status, token, source: { report, ready } });
}

/** With `--user`: becomes that user, who then has what the program keeps. @returns What is to be said about it. */
async function giveUpPrivileges({ config, file }: LoadedConfig): Promise<readonly string[]> {
  const { user, group, logFile } = config;
  if (user === undefined && group === undefined) return [];
  const { becomeAccount, findAccount } = await import("./privileges.ts");
  const { canReplace, handOver, handOverFile } = await import("./hand-over.ts");
  const account = findAccount(user, group);
  if (account === undefined) return [];
  const folder = stateFolder();
  const wasRoot = process.getuid?.() === 0;
  if (wasRoot) {
    if (folder !== undefined) handOver(folder, account, isStateFile);
    if (logFile !== undefined) handOverFile(logFile.path, account);
  }
  const follows = wasRoot && file !== undefined && canReplace(resolve(file), account);
  becomeAccount(account);
  if (folder !== undefined && !isOpen(folder, constants.R_OK)) {
    throw new StartError(
      "FILE",
      `Cannot use ${folder} as ${account.user}: a folder above it is closed to that user`,
      "set TGWS_HOME to a folder of its own, for example /var/lib/tgws",
    );
  }
  if (!follows) return [];
  return [
    `${account.user} can replace ${file}, and root does what it says at the next start: ` +
      "keep it in a folder of root's, such as /etc/tgws, and name it with --config",
  ];
}

/** Whether this process may make files in a folder, and what else `mode` says. */
function isOpen(folder: string, mode = 0): boolean {
  try {
    accessSync(folder, mode | constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** It was read before privileges were given up. */
function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

function formatHost({ status }: Config): string {
  const host = status?.host ?? "";
  return host.includes(":") ? `[${host}]` : host;
}
