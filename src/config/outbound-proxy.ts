import { FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { quote } from "./quote.ts";

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
 * @param noProxy What NO_PROXY says: entries with commas or spaces between them.
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
        : `Cannot read the proxy: no host is called ${quote(host)}`,
      HINT,
    );
  }
  // Neither is quoted: with the host forgotten, this is the password.
  if (tail !== "" && tail !== "/") {
    const what = tail.startsWith(":") ? "the port is not a number" : "something follows host and port";
    throw new FormatError("BAD_VALUE", `Cannot read the proxy: ${what}`, HINT);
  }
  const port = digits === undefined || digits === "" ? undefined : Number(digits);
  if (port !== undefined && (port < 1 || port > 65_535)) {
    throw new FormatError("BAD_VALUE", "Cannot read the proxy: the port is not from 1 to 65535", HINT);
  }
  return { host, port };
}

function isNameOrIpv4(host: string): boolean {
  if (ipVersion(host) === 4) return true;
  // Digits at the end are somebody's mistyped IPv4 address, not a top-level domain.
  return NAME.test(host) && host.length <= 253 && !/(?:^|\.)\d+$/.test(host);
}
