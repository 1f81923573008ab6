import type { Config, RouteName } from "../config/config.ts";
import { parseOutboundProxy } from "../config/outbound-proxy.ts";
import { ConfigError, FormatError } from "../core/errors.ts";
import type { DomainPort } from "../core/names.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import type { ConnectBridge } from "../net/connect-bridge.ts";
import { DrainPoller } from "../net/drain-poller.ts";
import { bypasses, proxyUrl } from "../net/outbound-proxy.ts";
import { TcpDialer } from "../net/tcp-dial.ts";
import { type TlsTrust, WebSocketDialer } from "../net/websocket-dial.ts";
import { DEFAULT_CF_LIST } from "../protocol/cf-domains.ts";
import { CfDomainList } from "../upstream/domain-list.ts";
import { Scratch } from "../upstream/packet-framer.ts";
import { POOL_AGES, type PoolCounts, PooledRoute, type WarmableRoute } from "../upstream/pool.ts";
import type { Route } from "../upstream/route.ts";
import { CfDomainRoute } from "../upstream/routes/cf-domain.ts";
import { CfWorkerRoute } from "../upstream/routes/cf-worker.ts";
import { DirectTcpRoute } from "../upstream/routes/direct-tcp.ts";
import { DirectWsRoute } from "../upstream/routes/direct-ws.ts";
import type { WebSocketWayDeps } from "../upstream/web-socket-way.ts";

/** For connection, TLS and upgrade. A chain that has not opened anything gives up soon after. */
const DIAL_TIMEOUT_MS = 4_000;
const LIST_LIMIT_BYTES = 256 * 1024;
const LIST_TIMEOUT_MS = 10_000;
/** GitHub's, for where DNS lies: the certificate tells whether it is GitHub that answers. */
const GITHUB_RAW = "raw.githubusercontent.com";
const GITHUB_RAW_IPS = ["185.199.108.133", "185.199.109.133", "185.199.110.133", "185.199.111.133"];

/** What the routes count. */
export interface RouteCounts {
  readonly pool: PoolCounts;
  /** The pool of the Workers. */
  readonly cfPool: PoolCounts;
}

/** What routes need besides the configuration. */
export interface RouteDeps {
  readonly trust: TlsTrust;
  readonly counts: RouteCounts;
  /** Connections kept ready per way; 0: none. */
  readonly poolSize: number;
  /** Where the public list of domains is kept. */
  readonly keptList: { read(): string | undefined; write(text: string): void };
  readonly onListChanged: (domains: readonly string[]) => void;
  readonly onListFailed: (error: unknown) => void;
}

/** The routes of a configuration, and what is to be done with all of them. */
export interface RouteSet {
  /** In the order of trying. */
  readonly routes: readonly Route[];
  /** The public list of domains, where it is used; nobody has started it. */
  readonly domainList: CfDomainList | undefined;
  readonly proxy: OutboundProxy | undefined;
  /** The network has changed: drops what was opened ahead of time. */
  drop(): void;
  /** Descriptors are short: drops what was opened ahead of time, for a while. */
  relieve(): void;
  /** No session begins with them any more: what is done ahead of time is given up. */
  retire(): void;
  /** No session has them any more. */
  close(): void;
}

/**
 * Makes the routes that `config` names.
 *
 * @throws {ConfigError} When `--upstream-proxy` cannot be read.
 */
export async function buildRoutes(config: Config, deps: RouteDeps): Promise<RouteSet> {
  const { trust } = deps;
  const { verify, ca } = trust;
  const proxy = readProxy(config);
  const tcp = new TcpDialer({ highWater: config.queueBytes, timeoutMs: DIAL_TIMEOUT_MS, proxy });
  const bridge = proxy?.kind === "socks5" ? await openBridge(tcp, config.queueBytes) : undefined;
  /** NO_PROXY may name a host by its name or by the address that is connected to. */
  const proxyFor = (names: readonly string[], port: number): string | undefined =>
    proxy === undefined || names.some((name) => bypasses(proxy, name, port))
      ? undefined
      : (bridge?.url ?? proxyUrl(proxy));
  const closing = new AbortController();

  const fronted = config.routes.includes("fronted-ws");
  const webSocket: WebSocketWayDeps = {
    dialer: new WebSocketDialer({
      trust,
      poller: new DrainPoller(),
      highWater: config.queueBytes,
      timeoutMs: DIAL_TIMEOUT_MS,
      checkIdentity: fronted ? (await import("node:tls")).checkServerIdentity : undefined,
      proxyFor,
    }),
    scratch: new Scratch(),
    readRetryAfter: async ({ serverName, host = serverName, address, port, path, token }) => {
      const { readRetryAfter } = await import("../net/fetch-text.ts");
      return readRetryAfter(
        { serverName, host, address, port, path, token },
        { proxy: proxyFor([address ?? serverName, host], port), ca, verify, signal: closing.signal },
      );
    },
  };

  const fetchList = async (signal: AbortSignal): Promise<string> => {
    const { fetchText } = await import("../net/fetch-text.ts");
    const { hostname, port, protocol } = new URL(config.cfListUrl);
    const pinned = config.pins.addressOf(hostname);
    const spare = hostname === GITHUB_RAW ? GITHUB_RAW_IPS : [];
    const target = Number(port || (protocol === "http:" ? 80 : 443));
    return fetchText(config.cfListUrl, {
      addresses: pinned === undefined ? [undefined, ...spare] : [pinned],
      proxy: proxyFor([hostname], target),
      ca,
      verify,
      limitBytes: LIST_LIMIT_BYTES,
      timeoutMs: LIST_TIMEOUT_MS,
      signal,
    });
  };
  const usesList = config.routes.includes("cf-domain") && config.cfDomains.length === 0;
  const domainList = usesList
    ? new CfDomainList({
        fallback: DEFAULT_CF_LIST,
        fetch: fetchList,
        kept: deps.keptList,
        onChange: deps.onListChanged,
        onFailed: deps.onListFailed,
      })
    : undefined;

  const pools: PooledRoute[] = [];
  const pooled = (route: WarmableRoute, counts: PoolCounts): Route => {
    if (deps.poolSize === 0) return route;
    const pool = new PooledRoute(route, { size: deps.poolSize, ...POOL_AGES }, counts);
    pools.push(pool);
    return pool;
  };
  const { dcAddresses: addresses, pins } = config;
  const make: Readonly<Record<RouteName, () => Route>> = {
    "direct-ws": () =>
      pooled(new DirectWsRoute({ front: undefined, addresses, pins }, webSocket), deps.counts.pool),
    "fronted-ws": () =>
      pooled(new DirectWsRoute({ front: config.frontDomain, addresses, pins }, webSocket), deps.counts.pool),
    "cf-worker": () =>
      pooled(
        new CfWorkerRoute({ domains: config.workerDomains, token: config.workerToken, pins }, webSocket),
        deps.counts.cfPool,
      ),
    // Not warmed: the domains are somebody's gift to everybody.
    "cf-domain": () =>
      new CfDomainRoute({ domains: domainsOf(domainList, config.cfDomains), pins }, webSocket),
    "direct-tcp": () =>
      new DirectTcpRoute({
        dialer: tcp,
        addresses: config.tcpAddresses,
        testAddresses: config.testTcpAddresses,
      }),
  };
  const retire = (): void => {
    domainList?.close();
    for (const pool of pools) pool.close();
  };
  return {
    routes: config.routes.map((name) => make[name]()),
    domainList,
    proxy,
    drop: () => {
      tcp.forgive();
      for (const pool of pools) pool.drop();
    },
    relieve: () => {
      for (const pool of pools) pool.relieve();
    },
    retire,
    close: () => {
      retire();
      closing.abort();
      bridge?.close();
    },
  };
}

/** Loaded by need, like what fetches: memory counts on a small machine. */
async function openBridge(dialer: TcpDialer, highWater: number): Promise<ConnectBridge> {
  const { ConnectBridge } = await import("../net/connect-bridge.ts");
  return new ConnectBridge(dialer, highWater);
}

/** The same array as long as the list is the same, by which the route knows that nothing has changed. */
function domainsOf(list: CfDomainList | undefined, own: readonly DomainPort[]): () => readonly DomainPort[] {
  if (list === undefined) return () => own;
  let madeFrom: readonly string[] | undefined;
  let made: readonly DomainPort[] = [];
  return () => {
    if (list.domains !== madeFrom) {
      madeFrom = list.domains;
      made = madeFrom.map((domain) => ({ domain, port: 443 }));
    }
    return made;
  };
}

/** The proxy to reach everything through. @throws {ConfigError} */
export function readProxy({ upstreamProxy }: Config): OutboundProxy | undefined {
  if (upstreamProxy === undefined) return undefined;
  try {
    return parseOutboundProxy(upstreamProxy, process.env["NO_PROXY"] ?? process.env["no_proxy"]);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    throw new ConfigError([{ path: "--upstream-proxy", message: error.message, ...hint }]);
  }
}
