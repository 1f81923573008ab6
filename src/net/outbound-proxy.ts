import { FormatError, HandshakeError, RouteError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";

/** A proxy of the user's own that connections to the outside go through. */
export interface OutboundProxy {
  /** `http` is HTTP CONNECT; `socks5` sends names to the proxy, as `socks5h` elsewhere. */
  readonly kind: "http" | "socks5";
  /** An IP address, IPv6 without brackets, or a name. */
  readonly host: string;
  readonly port: number;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The entries of NO_PROXY, in lower case. See {@link bypasses}. */
  readonly bypass: readonly string[];
}

const KINDS: Readonly<Record<string, OutboundProxy["kind"]>> = {
  http: "http",
  socks5: "socks5",
  socks5h: "socks5",
};

/** The ports that such proxies have in practice: curl would take 1080 for both. */
const DEFAULT_PORTS = { http: 8080, socks5: 1080 } as const;

/** RFC 1929 gives both lengths one byte. */
const SOCKS_CREDENTIAL_LIMIT = 255;

const HINT = "write it as http://host:port, socks5://host:port or socks5://user:password@host:port";
const ENCODE_HINT = "percent-encode special characters: @ is %40, : is %3A, / is %2F, # is %23, % is %25";

const NAME = /^[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?$/;

/**
 * Reads the address of a proxy: `http://`, `socks5://` or `socks5h://`, maybe with percent-encoded
 * credentials.
 *
 * Without a port it is 8080 for HTTP and 1080 for SOCKS5.
 *
 * @param noProxy What NO_PROXY says: entries with commas or spaces between them. See {@link bypasses}.
 * @throws {FormatError} `BAD_VALUE`; the message never quotes credentials.
 */
export function parseOutboundProxy(text: string, noProxy: string | undefined): OutboundProxy {
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text.trim()) ?? [];
  const kind = kindOf(scheme.toLowerCase());
  // The last @: a password with a bare one in it is read as its owner meant it.
  const at = rest.lastIndexOf("@");
  const { username, password } = parseCredentials(at < 0 ? "" : rest.slice(0, at), kind);
  const { host, port } = parseAuthority(rest.slice(at + 1));
  return {
    kind,
    host,
    port: port ?? DEFAULT_PORTS[kind],
    username,
    password,
    bypass: (noProxy ?? "")
      .toLowerCase()
      .split(/[\s,]+/)
      .filter(Boolean),
  };
}

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

function kindOf(scheme: string): OutboundProxy["kind"] {
  const kind = KINDS[scheme];
  if (kind !== undefined) return kind;
  if (scheme === "") {
    throw new FormatError("BAD_VALUE", "Cannot read the proxy: nothing says which kind it is", HINT);
  }
  throw new FormatError(
    "BAD_VALUE",
    `Cannot use a proxy of kind ${scheme}://: only http and socks5 are spoken`,
    scheme === "https" ? `most proxies that carry HTTPS are http:// ones; ${HINT}` : HINT,
  );
}

function parseCredentials(
  text: string,
  kind: OutboundProxy["kind"],
): Pick<OutboundProxy, "username" | "password"> {
  if (text === "") return { username: undefined, password: undefined };
  if (/[/?#\s]/.test(text)) {
    throw new FormatError(
      "BAD_VALUE",
      "Cannot read the proxy: special characters in the user or the password, or an @ after the port",
      ENCODE_HINT,
    );
  }
  const colon = text.indexOf(":");
  const username = decodeCredential(colon < 0 ? text : text.slice(0, colon));
  const password = colon < 0 ? undefined : decodeCredential(text.slice(colon + 1));
  if (username === "") {
    throw new FormatError("BAD_VALUE", "Cannot read the proxy: there is an @ without a user before it", HINT);
  }
  if (kind === "http" && username.includes(":")) {
    throw new FormatError("BAD_VALUE", "Cannot use the proxy: HTTP allows no colon in a user name", HINT);
  }
  if (kind === "socks5" && [username, password ?? ""].some(isTooLong)) {
    throw new FormatError(
      "BAD_VALUE",
      `Cannot use the proxy: SOCKS5 allows ${SOCKS_CREDENTIAL_LIMIT} bytes for a user and for a password`,
      HINT,
    );
  }
  return { username, password };
}

function decodeCredential(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new FormatError(
      "BAD_VALUE",
      "Cannot read the proxy: a % in the user or the password does not begin a UTF-8 character's code",
      ENCODE_HINT,
    );
  }
}

function isTooLong(credential: string): boolean {
  return Buffer.byteLength(credential) > SOCKS_CREDENTIAL_LIMIT;
}

/** @param text What follows the credentials: `host`, `host:port`, maybe with a slash at the end. */
function parseAuthority(text: string): { readonly host: string; readonly port: number | undefined } {
  const [, bracketed, plain, digits, tail = ""] =
    /^(?:\[([^\]]*)\]|([^:/?#[\]]*))(?::(\d*))?(.*)$/s.exec(text) ?? [];
  const host = (bracketed ?? plain ?? "").toLowerCase();
  if (bracketed === undefined ? !isNameOrIpv4(host) : ipVersion(host) !== 6) {
    throw new FormatError(
      "BAD_VALUE",
      host === ""
        ? "Cannot read the proxy: the host is missing"
        : `Cannot read the proxy: no host is called ${host}`,
      HINT,
    );
  }
  if (tail !== "" && tail !== "/") {
    const what = tail.startsWith(":") ? "the port is not a number" : "something follows host and port";
    // Not quoted: with the host forgotten, this is the password.
    throw new FormatError("BAD_VALUE", `Cannot read the proxy: ${what}`, HINT);
  }
  const port = digits === undefined || digits === "" ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65_535)) {
    throw new FormatError("BAD_VALUE", `Cannot read the proxy: no port has the number ${digits}`, HINT);
  }
  return { host, port };
}

function isNameOrIpv4(host: string): boolean {
  if (ipVersion(host) === 4) return true;
  // Digits at the end are somebody's mistyped IPv4 address, not a top-level domain.
  return NAME.test(host) && host.length <= 253 && !/(?:^|\.)\d+$/.test(host);
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
