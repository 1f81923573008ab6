import { networkInterfaces } from "node:os";
import type { Config } from "../config/config.ts";
import { formatIp, ipVersion, parseIp } from "../core/ip-address.ts";
import { unmap } from "../core/ip-network.ts";
import type { Logger } from "../core/logger.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { TcpDialer, type TcpEndpoint } from "../net/tcp-dial.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { Cover } from "../proxy/cover.ts";
import type { Disguise } from "../proxy/entrance.ts";
import { FakeTls, type HelloClaims } from "../proxy/fake-tls.ts";
import type { SiteUsers } from "../proxy/mask.ts";

/** A site that takes longer than this to be connected to is down, in milliseconds. */
const CONNECT_MS = 10_000;

/** What it needs besides the configuration. */
export interface DisguiseDeps {
  readonly secrets: readonly NamedSecret[];
  readonly proxy: OutboundProxy | undefined;
  /** Who knows which hellos were answered. */
  readonly hellos: HelloClaims;
  /** Those who are connected to a site, however often the configuration changes. */
  readonly users: SiteUsers;
  /** The sites as they are known already; without, they are made. */
  readonly cover?: Cover | undefined;
  /** The port that is listened on; asked for only later. */
  readonly port: () => number;
  readonly log: Pick<Logger, "warn" | "debug">;
}

/** Makes fake TLS as `config` wants it; `undefined` when it does not. */
export function buildDisguise(config: Config, deps: DisguiseDeps): Disguise | undefined {
  if (!config.accept.fakeTls) return undefined;
  const cover = deps.cover ?? buildCover(config, deps);
  const tls = new FakeTls({
    secrets: deps.secrets,
    seen: deps.hellos,
    profileOf: cover.profileOf,
    measured: cover.measured,
    onStranger: cover.onHello,
    now: () => Math.floor(Date.now() / 1000),
  });
  return { tls, cover, users: deps.users };
}

function buildCover(config: Config, deps: DisguiseDeps): Cover {
  const { log } = deps;
  const { maskHost } = config;
  const dialer = new TcpDialer({
    highWater: config.queueBytes,
    timeoutMs: CONNECT_MS,
    proxy: maskHost === undefined ? deps.proxy : undefined, // what the user names is near
  });
  const own = rememberAddresses();
  return new Cover({
    domains: config.fakeTlsDomains,
    host: maskHost,
    pinned: (name) => config.pins.addressOf(name),
    lookUp: async (name) => (await Bun.dns.lookup(name)).map(({ address }) => address),
    dial: (endpoint, signal) => dialer.dial(endpoint, signal),
    isOwn: (endpoint) => endpoint.port === deps.port() && isListenedOn(config.host, endpoint, own),
    isHere: (address) => isHere(address, own),
    warn: (text) => log.warn(text),
    debug: (text) => log.debug(text),
  });
}

function isListenedOn(listening: string, { host }: TcpEndpoint, own: OwnAddresses): boolean {
  const bare = bareAddress(listening);
  const everywhere = bare === "0.0.0.0" || bare === "::";
  // Who listens on a name listens on an address of this machine, but which one is not said.
  return everywhere || ipVersion(bare) === 0 ? isHere(host, own) : bareAddress(host) === bare || isAny(host);
}

/** Connecting to no address in particular leads to this machine. */
function isAny(address: string): boolean {
  return ["0.0.0.0", "::"].includes(bareAddress(address));
}

/** Whether an address is this machine's. */
function isHere(address: string, own: OwnAddresses): boolean {
  const bare = bareAddress(address);
  if (bare === "::1" || bare.startsWith("127.") || isAny(bare)) return true;
  return own().has(bare);
}

type OwnAddresses = () => ReadonlySet<string>;

/** So long what was found is true, in milliseconds: every stranger asks. */
const ADDRESSES_MS = 2_000;

/** Returns a function that knows this machine's addresses, also when the system is too busy to say. */
function rememberAddresses(): OwnAddresses {
  let addresses: ReadonlySet<string> = new Set();
  let at = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - at < ADDRESSES_MS) return addresses;
    at = now;
    try {
      const found = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
      addresses = new Set(found.map(({ address }) => bareAddress(address)));
    } catch {
      // Without file descriptors it cannot be asked: what was there will still be there.
    }
    return addresses;
  };
}

/** In its shortest spelling; IPv4 within IPv6 is IPv4. */
function bareAddress(address: string): string {
  const bytes = parseIp(address.replace(/%.*$/, ""));
  return bytes === undefined ? address : formatIp(unmap(bytes));
}
