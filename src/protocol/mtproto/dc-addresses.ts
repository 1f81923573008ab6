import type { DcTarget } from "./dc.ts";

/** The port of every address here. */
export const TELEGRAM_PORT = 443;

/** Where a data centre is reached without asking DNS. */
export interface DcAddress {
  /** IPv4 or IPv6, without brackets. */
  readonly ip: string;
  readonly port: number;
}

/** Addresses that serve WebSocket for a data centre without a DNS look-up: the seed's defaults. */
export const DEFAULT_DC_IPS: ReadonlyMap<number, string> = new Map([
  [2, "149.154.167.220"],
  [4, "149.154.167.220"],
]);

/** Where the data centres take plain MTProto over TCP, by number: IPv4. */
export const DEFAULT_TCP_IPS: ReadonlyMap<number, string> = new Map([
  [1, "149.154.175.50"],
  [2, "149.154.167.51"],
  [3, "149.154.175.100"],
  [4, "149.154.167.91"],
  [5, "149.154.171.5"],
  [203, "91.105.192.100"],
]);

/** {@link DEFAULT_TCP_IPS} in IPv6. */
export const DEFAULT_TCP_IPV6: ReadonlyMap<number, string> = new Map([
  [1, "2001:b28:f23d:f001::a"],
  [2, "2001:67c:4e8:f002::a"],
  [3, "2001:b28:f23d:f003::a"],
  [4, "2001:67c:4e8:f004::a"],
  [5, "2001:b28:f23f:f005::a"],
  [203, "2a0a:f280:203:a:5000::100"],
]);

/** {@link DEFAULT_TCP_IPS} of the test environment. */
export const TEST_TCP_IPS: ReadonlyMap<number, string> = new Map([
  [1, "149.154.175.10"],
  [2, "149.154.167.40"],
  [3, "149.154.175.117"],
]);

/** {@link TEST_TCP_IPS} in IPv6. */
export const TEST_TCP_IPV6: ReadonlyMap<number, string> = new Map([
  [1, "2001:b28:f23d:f001::e"],
  [2, "2001:67c:4e8:f002::e"],
  [3, "2001:b28:f23d:f003::e"],
]);

/** The data centre whose WebSocket front ends serve `dc`: DC 203 uses those of DC 2. */
export function webSocketDc(dc: number): number {
  return dc === 203 ? 2 : dc;
}

/**
 * The two names of a data centre's WebSocket front ends, `preferred` first to be tried.
 *
 * Media connections prefer `kwsN-1`, the others `kwsN`; each falls back to the other.
 */
export function webSocketHost(target: DcTarget, name: "preferred" | "alternate"): string {
  const media = target.media === (name === "preferred");
  return `kws${webSocketDc(target.dc)}${media ? "-1" : ""}.web.telegram.org`;
}

/** The path of the WebSocket upgrade request. */
export function webSocketPath(target: DcTarget): string {
  return target.test ? "/apiws_test" : "/apiws";
}
