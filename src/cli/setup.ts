import { createHash } from "node:crypto";
import type { FieldName, RawConfig } from "../config/fields.ts";
import type { Observer } from "../core/events.ts";
import type { Logger } from "../core/logger.ts";
import { DEFAULT_DC, type Target, TEST_DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import type { Disguise } from "../proxy/entrance.ts";
import type { HelloClaims } from "../proxy/fake-tls.ts";
import type { Gate } from "../proxy/gate.ts";
import { SiteUsers } from "../proxy/mask.ts";
import type { ReplayBudget } from "../proxy/replay.ts";
import type { SessionDeps } from "../proxy/session.ts";
import type { Restorer } from "../upstream/restorer.ts";
import { buildRoutes, type RouteCounts, type RouteDeps, type RouteSet } from "./build-routes.ts";
import type { Settings } from "./engine.ts";
import { readerOf } from "./named-files.ts";
import type { ReadAddressLists } from "./read-address-lists.ts";
import type { State } from "./state.ts";
import { readTrust } from "./trust.ts";

/** What one configuration gives to new sessions. */
export interface Setup {
  readonly deps: SessionDeps;
  readonly routes: RouteSet;
  /** What the routes were made of: while this stays the same, so do they. */
  readonly routesKey: string;
  readonly disguise: Disguise | undefined;
  /** The same for the cover sites. */
  readonly coverKey: string;
  /** `undefined`: none are configured. */
  readonly addresses: ReadAddressLists | undefined;
}

/** What all of them share. */
export interface SetupParts {
  readonly log: Logger;
  readonly gate: Gate;
  readonly hellos: HelloClaims;
  readonly state: State;
  readonly replays: ReplayBudget;
  readonly restorer: Restorer;
  readonly counts: RouteCounts;
  readonly observe: Observer;
  /** The port that is listened on; asked for only later. */
  readonly port: () => number;
}

const ROUTE_FIELDS: readonly FieldName[] = [
  "route",
  "dcIp",
  "dcTcp",
  "frontDomain",
  "cfproxyWorkerDomain",
  "cfproxyWorkerToken",
  "cfproxyDomain",
  "noCfproxy",
  "cfproxyList",
  "upstreamProxy",
  "resolve",
  "poolSize",
  "bufKb",
  "noTlsVerify",
];
/** The domains are looked at themselves: those of `ee` secrets are among them. */
const COVER_FIELDS: readonly FieldName[] = ["host", "maskHost", "upstreamProxy", "resolve", "bufKb"];

/**
 * Makes what new sessions get from `settings`; what would be the same as `before` is taken from there.
 *
 * @throws {ConfigError} @throws {StartError} When a file or an address cannot be used; then nothing was changed.
 */
export async function makeSetup(
  { config, raw, secrets, files }: Settings,
  parts: SetupParts,
  before: Setup | undefined,
): Promise<Setup> {
  const { log, gate, hellos, state, replays, restorer, counts, observe, port } = parts;
  const readText = readerOf(files);
  const trust = await readTrust(config, readText);
  const limitsAddresses = config.allow.length > 0 || config.deny.length > 0; // few do
  const addresses = limitsAddresses
    ? await (await import("./read-address-lists.ts")).readAddressLists(config, readText, before?.addresses)
    : undefined;
  const routesKey = createHash("sha256")
    .update(JSON.stringify([pick(raw, ROUTE_FIELDS), trust.ca]))
    .digest("hex");
  const routes =
    before?.routesKey === routesKey
      ? before.routes
      : await buildRoutes(config, {
          trust,
          counts,
          poolSize: config.poolSize,
          keptList: state.domainsOf(config.cfListUrl),
          ...sayingOfTheList(log),
        });
  const coverKey = JSON.stringify([config.fakeTlsDomains, pick(raw, COVER_FIELDS)]);
  const users = before?.disguise?.users ?? new SiteUsers(config.maskMax);
  users.most = config.maskMax;
  const disguise = config.accept.fakeTls
    ? (await import("./build-disguise.ts")).buildDisguise(config, {
        secrets,
        proxy: routes.proxy,
        hellos,
        users,
        cover: before?.coverKey === coverKey ? before.disguise?.cover : undefined,
        port,
        log,
      })
    : undefined;
  const deps: SessionDeps = {
    secrets,
    forms: config.accept,
    disguise,
    trustedProxies: config.proxyProtocol ? config.trustedProxies : undefined,
    gate,
    addresses: addresses?.lists,
    routes: routes.routes,
    standings: state.standings,
    replays,
    onServed: consideredBy(restorer),
    observe,
    handshakeTimeoutMs: config.handshakeTimeoutMs,
    adjustTarget: config.forceTestDc ? toTestTarget : toItself,
  };
  return { deps, routes, routesKey, disguise, coverKey, addresses };
}

// Functions that a setup has are made outside of `makeSetup`: made there, each would hold its parameters, with them the
// setup before, and so all that there ever were.

function consideredBy(restorer: Restorer): SessionDeps["onServed"] {
  return (target, ways, by) => restorer.consider(target, ways, by);
}

function sayingOfTheList(log: Logger): Pick<RouteDeps, "onListChanged" | "onListFailed"> {
  return {
    onListChanged: (domains) => log.debug(`the list of domains has changed: ${domains.length} now`),
    onListFailed: (error) => log.debug(`the list of domains stays as it is: ${describe(error)}`),
  };
}

function toItself(target: Target): Target {
  return target;
}

function pick(raw: RawConfig, names: readonly FieldName[]): readonly unknown[] {
  return names.map((name) => raw[name]);
}

function toTestTarget(target: Target): Target {
  const known = TEST_DC_NUMBERS.some((dc) => dc === target.dc);
  return { ...target, dc: known ? target.dc : DEFAULT_DC, test: true };
}

/** What an error of any kind says. */
function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
