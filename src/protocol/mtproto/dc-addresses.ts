import type { DcTarget } from "./dc.ts";

/** The port of every address here. */
export const TELEGRAM_PORT = 443;

/** Where a data centre's WebSocket front end is reached without asking DNS. */
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
