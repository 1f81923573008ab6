import { ConfigError, type ConfigIssue, FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { IpNetwork } from "../core/ip-network.ts";
import type { DomainPort } from "../core/names.ts";
import type { UserPolicy } from "../core/users.ts";
import { DC_NUMBERS, formatDcId, parseDcId, TEST_DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import {
  type DcAddress,
  DEFAULT_DC_IPS,
  DEFAULT_TCP_IPS,
  DEFAULT_TCP_IPV6,
  TELEGRAM_PORT,
  TEST_TCP_IPS,
  TEST_TCP_IPV6,
} from "../protocol/mtproto/dc-addresses.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { parseDcAddress } from "./dc-address.ts";
import { parseDomainPort } from "./domain.ts";
import { type FakeTlsSettings, readFakeTls } from "./fake-tls.ts";
import { FieldReader, splitList } from "./field-reader.ts";
import { FIELDS, type FieldName, type RawConfig } from "./fields.ts";
import { type Limits, readLimits } from "./limits.ts";
import { type LogSettings, readLogs } from "./logs.ts";
import { nearestOf } from "./nearest.ts";
import { parseInteger } from "./numbers.ts";
import type { Origins } from "./origin.ts";
import { parseOutboundProxy } from "./outbound-proxy.ts";
import { type Pin, Pins, parsePin } from "./pins.ts";
import { isThisMachine, type Running, readRunning } from "./running.ts";
import { parsePath, parseToken } from "./texts.ts";
import { readUsers } from "./users.ts";

/** The ways to Telegram, in the order in which they are tried unless the user says otherwise. */
export const ROUTE_NAMES = ["direct-ws", "fronted-ws", "cf-worker", "cf-domain", "direct-tcp"] as const;

/** One way to Telegram. */
export type RouteName = (typeof ROUTE_NAMES)[number];

/** The public list of domains for the route cf-domain. */
export const DEFAULT_CF_LIST_URL =
  "https://raw.githubusercontent.com/Flowseal/tg-ws-proxy/main/.github/cfproxy-domains.txt";

/** Who may send PROXY headers unless the user says otherwise: this machine. */
const DEFAULT_TRUSTED_PROXIES = ["127.0.0.0/8", "::1"];

/** How Telegram is reached. */
export interface Routing {
  /** In the order of trying, at least one; a route that lacks its domain is not among them. */
  readonly routes: readonly RouteName[];
  /** By dc number; the ones that are not there go by DNS. */
  readonly dcAddresses: ReadonlyMap<number, DcAddress>;
  /** Where direct-tcp goes: every data centre, the address to try first first. */
  readonly tcpAddresses: ReadonlyMap<number, readonly DcAddress[]>;
  /** `tcpAddresses` of the test environment: 1, 2 and 3. */
  readonly testTcpAddresses: ReadonlyMap<number, readonly DcAddress[]>;
  /** The name that fronted-ws shows. Set whenever that route is in `routes`. */
  readonly frontDomain: DomainPort | undefined;
  /** The user's Workers. Not empty whenever cf-worker is in `routes`. */
  readonly workerDomains: readonly DomainPort[];
  /** Never logged. */
  readonly workerToken: string | undefined;
  /** The user's own domains for cf-domain. Empty: use the public list. */
  readonly cfDomains: readonly DomainPort[];
  /** Where the public list is: https, or http on this machine. */
  readonly cfListUrl: string;
  /** The proxy to reach everything through, as it was written: not checked here, and never logged. */
  readonly upstreamProxy: string | undefined;
  readonly pins: Pins;
  readonly poolSize: number;
  readonly forceTestDc: boolean;
  readonly tlsVerify: boolean;
  readonly tlsCaFile: string | undefined;
}

/** Everything that can be set, checked. */
export interface Config extends FakeTlsSettings, Routing, Limits, Running, LogSettings {
  readonly host: string;
  readonly port: number;
  /** Those of `--secret`, who have no limits, and those of the file. Empty: use the secret that is kept on disk. */
  readonly users: readonly UserPolicy[];
  /** Names of those of `users` that have a table in the configuration file. */
  readonly fileUsers: readonly string[];
  /** Of every one of `users`, also who is disabled. */
  readonly secrets: readonly NamedSecret[];
  /** Every connection begins with a PROXY header, from one of `trustedProxies`. */
  readonly proxyProtocol: boolean;
  /** At least one where `proxyProtocol` is on. */
  readonly trustedProxies: readonly IpNetwork[];
  /** What the user should know about these settings; one line each. */
  readonly warnings: readonly string[];
}

/**
 * Checks what was written and fills in the defaults.
 *
 * @param earlier Problems that were found before, to be reported with those found here.
 * @param origins Where the values were written, for the messages.
 * @throws {ConfigError} With every problem at once: place, value, reason, hint. Secrets are not quoted.
 */
export function parseConfig(
  raw: RawConfig,
  earlier: readonly ConfigIssue[] = [],
  origins: Origins = new Map(),
): Config {
  const reader = new FieldReader(raw, earlier, origins);
  const wanted = readRoutes(reader);
  const host = reader.value("host", "127.0.0.1", parseHost);
  const port = reader.value("port", 1443, (text) => parseInteger(text, 0, 65_535));
  const { users, domains } = readUsers(reader);
  const fakeTls = readFakeTls(reader, domains);
  const routing = readRouting(reader, wanted);
  const limits = readLimits(reader);
  const running = readRunning(reader);
  const config: Config = {
    host,
    port,
    users,
    fileUsers: (raw.users ?? []).map(({ name }) => name),
    secrets: users.map(({ name, key }) => ({ name, key })),
    ...fakeTls,
    ...routing,
    ...limits,
    ...running,
    ...readLogs(reader),
    proxyProtocol: reader.given("proxyProtocol"),
    trustedProxies: readTrustedProxies(reader),
    warnings: [
      ...findUnserved(users),
      ...findOpenStatus(running),
      ...findIdleFakeTls(reader, fakeTls, domains),
      ...findIdle(reader, wanted),
    ],
  };
  if (reader.issues.length > 0) throw new ConfigError(reader.issues);
  return Object.freeze(config);
}

function readRouting(reader: FieldReader, wanted: readonly RouteName[]): Routing {
  return {
    routes: pickRoutes(reader, wanted),
    dcAddresses: readDcAddresses(reader),
    ...readTcpAddresses(reader),
    frontDomain: reader.value<DomainPort | undefined>("frontDomain", undefined, parseDomainPort),
    workerDomains: readDomains(reader, "cfproxyWorkerDomain"),
    workerToken: reader.value<string | undefined>("cfproxyWorkerToken", undefined, parseToken),
    cfDomains: readDomains(reader, "cfproxyDomain"),
    cfListUrl: reader.value("cfproxyList", DEFAULT_CF_LIST_URL, parseListUrl),
    upstreamProxy: reader.value<string | undefined>("upstreamProxy", undefined, parseProxyText),
    pins: readPins(reader),
    poolSize: reader.value("poolSize", 4, (text) => parseInteger(text, 0, 64)),
    forceTestDc: reader.given("forceTestDc"),
    tlsVerify: !reader.given("noTlsVerify"),
    tlsCaFile: reader.value<string | undefined>("tlsCa", undefined, parsePath),
  };
}

function findUnserved(users: readonly UserPolicy[]): string[] {
  if (users.length === 0 || users.some(({ enabled }) => enabled)) return [];
  return ["every user is disabled: nobody is served"];
}

function findOpenStatus({ status, statusToken }: Running): string[] {
  if (status === undefined || statusToken !== undefined || isThisMachine(status.host)) return [];
  return ["--status is open to the network, and has no --status-token: whoever reaches it can read it"];
}

/** What is set but has no effect beside the rest: worth a warning, not a refusal of a command that used to work. */
function findIdle(reader: FieldReader, wanted: readonly RouteName[]): string[] {
  const idle: string[] = [];
  const warn = (name: FieldName, why: string): void => {
    idle.push(...idleAmong(reader, [name], why));
  };
  for (const [route, names] of ROUTE_FIELDS) {
    if (wanted.includes(route)) continue;
    for (const name of names) warn(name, `without the route ${route}`);
  }
  if (!wanted.includes("direct-ws") && !wanted.includes("fronted-ws"))
    warn("dcIp", "without the route direct-ws or fronted-ws");
  if (wanted.includes("cf-domain")) {
    if (reader.given("noCfproxy")) {
      if (reader.given("route"))
        idle.push(`${reader.pathOf("route")} cf-domain has no effect with --no-cfproxy`);
      warn("cfproxyDomain", "with --no-cfproxy");
      warn("cfproxyList", "with --no-cfproxy");
    } else if (reader.given("cfproxyDomain")) {
      warn("cfproxyList", "with --cfproxy-domain");
    }
  }
  if (wanted.includes("cf-worker") && !reader.given("cfproxyWorkerDomain"))
    warn("cfproxyWorkerToken", "without --cfproxy-worker-domain");
  if (reader.given("noTlsVerify")) warn("tlsCa", "with --no-tls-verify");
  if (!reader.given("logFile")) {
    for (const name of ["logMaxMb", "logBackups"] as const) warn(name, "without --log-file");
  }
  if (!reader.given("status")) warn("statusToken", "without --status");
  if (!reader.given("user")) warn("group", "without --user");
  return idle;
}

/** @param pasted The domains of `ee` secrets. */
function findIdleFakeTls(
  reader: FieldReader,
  { accept }: FakeTlsSettings,
  pasted: readonly string[],
): string[] {
  const named = reader.given("fakeTlsDomain") || pasted.length > 0;
  const why = named ? "without ee in --accept" : "without --fake-tls-domain";
  return [
    ...(accept.fakeTls ? [] : idleAmong(reader, ["fakeTlsDomain", "maskHost", "maskMax"], why)),
    ...(accept.fakeTls || pasted.length === 0 ? [] : [`the domain of an ee secret has no effect ${why}`]),
    ...(reader.given("proxyProtocol") ? [] : idleAmong(reader, ["trustedProxy"], "without --proxy-protocol")),
  ];
}

function idleAmong(reader: FieldReader, names: readonly FieldName[], why: string): string[] {
  const given = names.filter((name) => reader.given(name));
  return given.map((name) => `${reader.pathOf(name)} has no effect ${why}`);
}

/** The settings that one route alone uses. */
const ROUTE_FIELDS: readonly (readonly [RouteName, readonly FieldName[]])[] = [
  ["fronted-ws", ["frontDomain"]],
  ["cf-worker", ["cfproxyWorkerDomain", "cfproxyWorkerToken"]],
  ["cf-domain", ["cfproxyDomain", "cfproxyList"]],
  ["direct-tcp", ["dcTcp"]],
];

/** The routes that the user names, or else all. */
function readRoutes(reader: FieldReader): readonly RouteName[] {
  if (!reader.given("route")) return ROUTE_NAMES;
  return reader.parts("route", parseRoute, ROUTES_HINT);
}

const ROUTES_HINT = `the routes are ${ROUTE_NAMES.join(", ")}`;

function parseRoute(text: string): RouteName {
  const written = text.toLowerCase();
  const route = ROUTE_NAMES.find((name) => name === written);
  if (route !== undefined) return route;
  const near = nearestOf(written, ROUTE_NAMES);
  const hint = near === undefined ? ROUTES_HINT : `did you mean ${near}?`;
  throw new FormatError("BAD_VALUE", "no such route", hint);
}

/** The wanted routes that have what they need. One that the user named must have it. */
function pickRoutes(reader: FieldReader, wanted: readonly RouteName[]): RouteName[] {
  const named = reader.given("route");
  const needs = (route: RouteName, name: FieldName): boolean => {
    if (reader.given(name)) return true;
    if (named && wanted.includes(route)) {
      const { flag } = FIELDS[name];
      reader.refuse("route", `${route} needs --${flag}`, `add --${flag} <domain>, or leave out ${route}`);
    }
    return false;
  };
  const lacking = new Set<RouteName>();
  if (!needs("fronted-ws", "frontDomain")) lacking.add("fronted-ws");
  if (!needs("cf-worker", "cfproxyWorkerDomain")) lacking.add("cf-worker");
  if (reader.given("noCfproxy")) lacking.add("cf-domain");
  const routes = wanted.filter((route) => !lacking.has(route));
  // What else can leave none is a problem that has been said already.
  if (routes.length === 0 && wanted.length > 0 && wanted.every((route) => route === "cf-domain"))
    reader.refuse("route", "--no-cfproxy leaves no route", "leave out --no-cfproxy, or name another route");
  return routes;
}

function readTrustedProxies(reader: FieldReader): readonly IpNetwork[] {
  if (!reader.given("trustedProxy")) {
    return reader.given("proxyProtocol") ? DEFAULT_TRUSTED_PROXIES.map((text) => IpNetwork.parse(text)) : [];
  }
  return reader.parts("trustedProxy", (text) => IpNetwork.parse(text), "for example 10.0.0.0/8 or ::1");
}

function readDcAddresses(reader: FieldReader): Map<number, DcAddress> {
  if (!reader.given("dcIp"))
    return new Map([...DEFAULT_DC_IPS].map(([dc, ip]) => [dc, { ip, port: TELEGRAM_PORT }]));
  const addresses = new Map<number, DcAddress>();
  reader.each("dcIp", (text) => {
    const { dc, ...address } = parseDcAddress(text, DC_NUMBERS);
    if (addresses.has(dc))
      throw new FormatError("BAD_VALUE", `DC ${dc} has an address already`, "keep one of them");
    addresses.set(dc, address);
  });
  return addresses;
}

/** The built-in addresses, but for the data centres that the user names; 10001-10003 are those of the test. */
function readTcpAddresses(reader: FieldReader): Pick<Config, "tcpAddresses" | "testTcpAddresses"> {
  const ids = [...DC_NUMBERS, ...TEST_DC_NUMBERS.map((dc) => formatDcId({ dc, media: false, test: true }))];
  const own = new Map<number, DcAddress[]>();
  reader.each("dcTcp", (text) => {
    const { dc: id, ...address } = parseDcAddress(text, ids);
    const others = own.get(id) ?? [];
    if (others.some(({ ip, port }) => ip === address.ip && port === address.port))
      throw new FormatError("BAD_VALUE", `DC ${id} has this address already`, "keep one of them");
    own.set(id, [...others, address]);
  });
  const tcpAddresses = joinAddresses(DEFAULT_TCP_IPS, DEFAULT_TCP_IPV6);
  const testTcpAddresses = joinAddresses(TEST_TCP_IPS, TEST_TCP_IPV6);
  for (const [id, addresses] of own) {
    const { dc, test } = parseDcId(id);
    (test ? testTcpAddresses : tcpAddresses).set(dc, addresses);
  }
  return { tcpAddresses, testTcpAddresses };
}

/** IPv4 first: where IPv6 does not work, it often fails by silence. */
function joinAddresses(
  ...families: readonly ReadonlyMap<number, string>[]
): Map<number, readonly DcAddress[]> {
  const joined = new Map<number, readonly DcAddress[]>();
  for (const [dc, ip] of families.flatMap((family) => [...family]))
    joined.set(dc, [...(joined.get(dc) ?? []), { ip, port: TELEGRAM_PORT }]);
  return joined;
}

/** Each text may hold several domains; one that is there twice counts once, as in tg-ws-proxy. */
function readDomains(reader: FieldReader, name: FieldName): DomainPort[] {
  const domains = new Map<string, DomainPort>();
  reader.each(name, (text) => {
    const parts = splitList(text);
    if (parts.length === 0) throw new FormatError("BAD_VALUE", "there is no domain in it");
    for (const part of parts) {
      reader.attempt(name, part, () => {
        const domain = parseDomainPort(part);
        const key = `${domain.domain}:${domain.port}`;
        if (!domains.has(key)) domains.set(key, domain);
      });
    }
  });
  return [...domains.values()];
}

function readPins(reader: FieldReader): Pins {
  const list: Pin[] = [];
  let pins = new Pins();
  reader.each("resolve", (text) => {
    const pin = parsePin(text);
    pins = new Pins([...list, pin]);
    list.push(pin);
  });
  return pins;
}

/** Whoever is between could put domains of his own into a list that comes in the clear. */
function parseListUrl(text: string): string {
  const hint = "for example https://example.org/domains.txt";
  const url = /^https?:\/\/\S+$/i.test(text) ? URL.parse(text) : null;
  if (url === null) throw new FormatError("BAD_VALUE", "not an address of the web", hint);
  if (url.username !== "" || url.password !== "")
    throw new FormatError("BAD_VALUE", "a name or password cannot be in it", hint);
  const loopback = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
  if (url.protocol === "http:" && !loopback)
    throw new FormatError("BAD_VALUE", "http is for this machine only", "use https://");
  return url.href;
}

/** As it is written: what NO_PROXY says is read where it is used. */
function parseProxyText(text: string): string {
  parseOutboundProxy(text, undefined);
  return text;
}

function parseHost(text: string): string {
  const host = /^\[(.*)\]$/.exec(text)?.[1] ?? text;
  const meantAsIp = host !== text || host.includes(":") || /^[\d.]*\.[\d.]*$/.test(host);
  if (meantAsIp ? ipVersion(host) !== 0 : /^[\w.-]+$/.test(host)) return host;
  const hint = /^[^:]+:\d+$|\]:\d+$/.test(text)
    ? "a port goes to --port"
    : "for example 127.0.0.1, 0.0.0.0, :: or a name of this machine";
  throw new FormatError("BAD_VALUE", "not an address", hint);
}
