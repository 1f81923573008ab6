import { FormatError } from "../core/errors.ts";
import type { DomainPort } from "../core/names.ts";
import { isDomainName } from "../protocol/cf-domains.ts";
import { parseInteger } from "./numbers.ts";

const HTTPS_PORT = 443;

/**
 * Reads `domain[:port]`; port 443 without one.
 *
 * People paste what stands in their browser: `https://` or `wss://` before it and a slash after it are
 * ignored.
 *
 * @throws {FormatError} `BAD_ADDRESS` for an IP address, a path, or what is no host name; `BAD_VALUE` for
 * the port.
 */
export function parseDomainPort(text: string): DomainPort {
  const bare = text
    .trim()
    .replace(/^(?:https|wss):\/\//i, "")
    .replace(/\/$/, "");
  const hint = "for example example.org or example.org:8443";
  if (/[/?#]/.test(bare)) throw new FormatError("BAD_ADDRESS", "not a domain alone", hint);
  const colon = bare.indexOf(":");
  const domain = parseHostName(colon < 0 ? bare : bare.slice(0, colon));
  if (domain === undefined || !(domain === "localhost" || domain.includes(".")))
    throw new FormatError("BAD_ADDRESS", "not a domain", hint);
  return { domain, port: colon < 0 ? HTTPS_PORT : parseInteger(bare.slice(colon + 1), 1, 65_535) };
}

/**
 * Returns a host name in lower case and ASCII, without a trailing dot; `undefined` when it is none.
 *
 * A name of one label will do; an IP address will not.
 */
export function parseHostName(text: string): string | undefined {
  // The standard decodes escapes and drops tabs; what holds such characters is a mistake here.
  if (/[\p{ASCII}--[a-zA-Z0-9.\-]]/v.test(text)) return undefined;
  const ascii = (URL.parse(`http://${text.toLowerCase()}`)?.hostname ?? "").replace(/\.$/, "");
  const named = ascii.includes(".") ? isDomainName(ascii) : isDomainName(`${ascii}.localhost`);
  return named && /[a-z]/.test(ascii) ? ascii : undefined;
}
