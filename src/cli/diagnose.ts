import { networkInterfaces } from "node:os";
import { isatty } from "node:tty";
import type { Config } from "../config/config.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { bypasses } from "../net/outbound-proxy.ts";
import { describeTarget } from "../protocol/mtproto/dc.ts";
import type { Disguise } from "../proxy/entrance.ts";
import { SiteUsers } from "../proxy/mask.ts";
import type { Route, WayAddress } from "../upstream/route.ts";
import type { Standings } from "../upstream/standings.ts";
import { buildRoutes, type RouteSet } from "./build-routes.ts";
import { doctorTargets, runDoctor } from "./doctor.ts";
import { createProgress } from "./doctor-progress.ts";
import { formatRoutes, routesToJson, type TargetRoutes } from "./routes-report.ts";
import { openState, type State } from "./state.ts";
import { readTrust } from "./trust.ts";

/** A newer list of public domains is worth waiting this long for, in milliseconds. */
const LIST_WAIT_MS = 5_000;
const WIDTH = 100;

/**
 * `tgws doctor`. @returns The exit code: 0 when every data centre has a working way, 1 when not.
 *
 * @throws {StartError} `FILE`
 */
export async function diagnose(
  config: Config,
  version: string,
  { deep, json }: { readonly deep: boolean; readonly json: boolean },
): Promise<number> {
  printWarnings(config);
  const trust = await readTrust(config);
  const state = openState((error) => console.error(`tgws: ${error.message}`));
  const set = await routesOf(config, state);
  const stop = new AbortController();
  const onSignal = (): void => stop.abort();
  process.once("SIGINT", onSignal);
  process.once("SIGTERM", onSignal);
  try {
    await Promise.race([set.domainList?.refresh(), Bun.sleep(LIST_WAIT_MS)]);
    const { inspectEndpoint } = await import("../net/inspect-endpoint.ts");
    const { proxy } = set;
    const disguise = await disguiseOf(config, proxy);
    return await runDoctor({
      version,
      routes: set.routes,
      targets: doctorTargets({ test: config.forceTestDc }),
      deep,
      json,
      inspect: (address, options) =>
        proxy === undefined || goesPast(proxy, address)
          ? inspectEndpoint(address, { ...options, ...trust })
          : undefined,
      proxy,
      cover: disguise && (() => disguise.cover.survey()),
      interfaces: networkInterfaces,
      learned: () => {
        const order = learnedOrder(set.routes, state.standings, config);
        return json ? order : order.filter(isLearned);
      },
      signal: stop.signal,
      out: (text) => console.log(text),
      progress: await createProgress(process.stderr),
      style: { color: isatty(1), width: process.stdout.columns ?? WIDTH },
    });
  } finally {
    process.off("SIGINT", onSignal);
    process.off("SIGTERM", onSignal);
    set.close();
  }
}

/** The sites that a proxy with this configuration would show; there is nobody here whom it would let in. */
async function disguiseOf(config: Config, proxy: OutboundProxy | undefined): Promise<Disguise | undefined> {
  const { buildDisguise } = await import("./build-disguise.ts");
  const log = { warn: () => {}, debug: () => {} };
  const nobody = { secrets: [], hellos: { claim: () => false }, users: new SiteUsers(0) };
  return buildDisguise(config, { ...nobody, proxy, port: () => config.port, log });
}

/** `tgws routes`: the learned order, from the file that a running proxy keeps. */
export async function printRoutes(config: Config, { json }: { readonly json: boolean }): Promise<void> {
  printWarnings(config);
  const state = openState((error) => console.error(`tgws: ${error.message}`));
  const set = await routesOf(config, state);
  const learned = learnedOrder(set.routes, state.standings, config);
  set.close();
  if (json) console.log(JSON.stringify(routesToJson(learned), null, 2));
  else console.log(describeOrder(config, learned).join("\n"));
}

/** As the dialers see it: by its address, or by the name that it is asked for. */
function goesPast(proxy: OutboundProxy, { host, port, webSocket }: WayAddress): boolean {
  const names = webSocket === undefined ? [host] : [host, webSocket.hostHeader.replace(/:\d+$/, "")];
  return names.some((name) => bypasses(proxy, name, port));
}

function printWarnings({ warnings }: Config): void {
  for (const warning of warnings) console.error(`tgws: ${warning}`);
}

/** What was learned, and in a word what goes for the rest. */
function describeOrder({ routes }: Config, learned: readonly TargetRoutes[]): string[] {
  const known = learned.filter(isLearned);
  const unknown = learned.filter((target) => !isLearned(target)).map(({ target }) => target);
  const lines = formatRoutes(known, Date.now());
  if (unknown.length === 0) return lines;
  const rest =
    known.length === 0 ? "Nothing is learned yet" : `Nothing is learned yet of ${unknown.join(", ")}`;
  return [...lines, `${rest}: the order is ${routes.join(", then ")}.`];
}

function isLearned({ ways }: TargetRoutes): boolean {
  return ways.some(({ state }) => state !== "untried");
}

async function routesOf(config: Config, state: State): Promise<RouteSet> {
  return buildRoutes(config, {
    trust: await readTrust(config),
    counts: { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } },
    poolSize: 0,
    keptList: state.domainsOf(config.cfListUrl),
    onListChanged: () => {},
    onListFailed: () => {}, // the table shows what comes of it
  });
}

function learnedOrder(routes: readonly Route[], standings: Standings, config: Config): TargetRoutes[] {
  return doctorTargets({ test: config.forceTestDc }).map((target) => {
    const name = describeTarget(target);
    const ways = routes.flatMap((route) => route.ways(target));
    return { target: name, ways: standings.report(name, ways) };
  });
}
