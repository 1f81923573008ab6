import { HandshakeError, RouteError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";

/**
 * Whether connections to `host` do not go through the proxy, as NO_PROXY is commonly understood.
 *
 * An entry is `*` for everything, a name, which stands for its subdomains too and may begin with a dot or
 * `*.`, an IP address, or a range as `10.0.0.0/8`; `:port` after it, with IPv6 in brackets, restricts it to
 * that port. Loopback goes through the proxy unless it is listed. Names are not looked up.
 *
 * @param host An IP address, IPv6 without brackets, or a name.
 */
export function bypasses(proxy: OutboundProxy, host: string, port: number): boolean {
  const target = host.toLowerCase().replace(/\.$/, "");
  return proxy.bypass.some((entry) => matches(entry, target, port));
}

/** Formats a proxy for logs, without its credentials: `socks5://192.0.2.1:1080`. */
export function formatOutboundProxy(proxy: OutboundProxy): string {
  return `${proxy.kind}://${formatHostPort(proxy.host, proxy.port)}`;
}

/** Formats a proxy with its credentials, percent-encoded: for the `proxy` option of Bun, and for no log. */
export function proxyUrl(proxy: OutboundProxy): string {
  const { username, password = "" } = proxy;
  const credentials =
    username === undefined ? "" : `${encodeURIComponent(username)}:${encodeURIComponent(password)}@`;
  return `${proxy.kind}://${credentials}${formatHostPort(proxy.host, proxy.port)}`;
}

/** Formats an address for HTTP and for people: IPv6 in brackets. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Turns what stopped the reading of a proxy's answer into a {@link RouteError}: `TIMEOUT` or `PROXY`. */
export function proxyAnswerErrorOf(error: unknown): unknown {
  if (!(error instanceof HandshakeError)) return error;
  if (error.code === "TIMEOUT") {
    return new RouteError("TIMEOUT", "the proxy did not answer in time", { cause: error });
  }
  return new RouteError("PROXY", "the proxy closed the connection instead of answering", { cause: error });
}

/** @param entry One of NO_PROXY. @param target In lower case. */
function matches(entry: string, target: string, port: number): boolean {
  if (entry === "*") return true;
  const [, bracketed, plain = "", digits] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? [];
  if (digits !== undefined && Number(digits) !== port) return false;
  // What the pattern does not take is an IPv6 address or range, which has colons but no brackets.
  const host = bracketed ?? (plain === "" ? entry : plain);
  if (host === "*") return true;
  if (host.includes("/") || ipVersion(host) !== 0) return ipVersion(target) !== 0 && inRange(host, target);
  const name = host.replace(/^\*?\./, "").replace(/\.$/, "");
  return name !== "" && (target === name || target.endsWith(`.${name}`));
}

/** @param range An IP address, or one with the length of its prefix after a slash. */
function inRange(range: string, address: string): boolean {
  const [network = "", bits] = range.split("/");
  const family = ipVersion(network);
  const longest = family === 4 ? 32 : 128;
  const prefix = bits === undefined ? longest : Number(bits);
  if (family === 0 || bits === "" || !Number.isInteger(prefix) || prefix < 0 || prefix > longest)
    return false;
  const { BlockList } = process.getBuiltinModule("node:net"); // 2.5 MiB that few need
  const list = new BlockList();
  list.addSubnet(network, prefix, family === 4 ? "ipv4" : "ipv6");
  return list.check(address, ipVersion(address) === 4 ? "ipv4" : "ipv6");
}
