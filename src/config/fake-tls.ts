import { FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { isDomainName } from "../protocol/cf-domains.ts";
import { looksLikeSecret, MAX_DOMAIN_LENGTH, redact } from "../protocol/mtproto/secret.ts";
import { parseHostName } from "./domain.ts";
import type { FieldReader } from "./field-reader.ts";
import { nearestOf } from "./nearest.ts";
import { parseInteger } from "./numbers.ts";

/** How many domains one proxy can look like: each is measured at the start, and has links of its own. */
export const MAX_FAKE_TLS_DOMAINS = 16;

/** The forms of a secret that apps may come with, at least one. */
export interface AcceptedForms {
  /** A secret as it is. */
  readonly plain: boolean;
  /** `dd`: packets with random padding. */
  readonly padded: boolean;
  /** `ee`: fake TLS. */
  readonly fakeTls: boolean;
}

/** A host and its port. */
export interface HostPort {
  /** An IP address, IPv6 without brackets, or a name: lower-case ASCII, one label will do. */
  readonly host: string;
  readonly port: number;
}

/** The settings of fake TLS. */
export interface FakeTlsSettings {
  /** Lower-case ASCII (IDN as punycode). Empty exactly when `accept.fakeTls` is false. */
  readonly fakeTlsDomains: readonly string[];
  readonly accept: AcceptedForms;
  /** Where the cover site is reached; without it, that is port 443 of the domain, found by DNS. */
  readonly maskHost: HostPort | undefined;
  /** How many strangers are shown the cover site at a time. */
  readonly maskMax: number;
}

const FORMS = ["plain", "dd", "ee"] as const;
type Form = (typeof FORMS)[number];
const FORMS_HINT = `the forms are ${FORMS.join(", ")}`;
/** What other programs call them. */
const ALIASES: ReadonlyMap<string, Form> = new Map([
  ["classic", "plain"],
  ["simple", "plain"],
  ["padded", "dd"],
  ["secure", "dd"],
  ["tls", "ee"],
  ["fake-tls", "ee"],
  ["faketls", "ee"],
]);

const DOMAIN_HINT = "the name of a web site, for example example.com";
const SECRET_HINT = "secrets go to --secret";
const MASK_HINT = "for example 127.0.0.1:8443, [2001:db8::7]:443 or www.example.com";
const HTTPS_PORT = 443;

/**
 * Reads what concerns fake TLS.
 *
 * @param fromSecrets The domains of `ee` secrets, each once: who pastes a secret of a link turns fake TLS on with it.
 */
export function readFakeTls(reader: FieldReader, fromSecrets: readonly string[]): FakeTlsSettings {
  const named = reader.parts("fakeTlsDomain", parseFakeTlsDomain, DOMAIN_HINT);
  const domains = [...new Set([...named, ...fromSecrets])];
  if (domains.length > MAX_FAKE_TLS_DOMAINS) {
    const message = `${domains.length} domains, but ${MAX_FAKE_TLS_DOMAINS} is the most`;
    reader.refuse("fakeTlsDomain", message, "name fewer of them");
  }
  const accept = readAccept(reader, fromSecrets);
  return {
    fakeTlsDomains: accept.fakeTls ? domains : [],
    accept,
    maskHost: reader.value<HostPort | undefined>("maskHost", undefined, parseMaskHost),
    maskMax: reader.value("maskMax", 512, (text) => parseInteger(text, 1, 65_535)),
  };
}

/** @returns The forms that `--accept` names; without it, those that suit what else was said. */
function readAccept(reader: FieldReader, fromSecrets: readonly string[]): AcceptedForms {
  const wanted = reader.given("fakeTlsDomain") || fromSecrets.length > 0;
  if (!reader.given("accept")) return { plain: !wanted, padded: !wanted, fakeTls: wanted };
  const forms = reader.parts("accept", parseForm, FORMS_HINT);
  if (forms.includes("ee") && !wanted) {
    reader.refuse("accept", "ee needs --fake-tls-domain", "add --fake-tls-domain <domain>, or leave out ee");
  }
  return { plain: forms.includes("plain"), padded: forms.includes("dd"), fakeTls: forms.includes("ee") };
}

function parseForm(text: string): Form {
  const form = FORMS.find((known) => known === text.toLowerCase());
  if (form !== undefined) return form;
  if (mayBeSecret(text)) throw new FormatError("BAD_VALUE", "no such form", `${FORMS_HINT}; ${SECRET_HINT}`);
  const near = ALIASES.get(text.toLowerCase()) ?? nearestOf(text, FORMS);
  const hint = near === undefined ? FORMS_HINT : `did you mean ${near}? ${FORMS_HINT}`;
  throw new FormatError("BAD_VALUE", "no such form", hint);
}

/** As with other domains, what stands in a browser's address bar will do. */
function parseFakeTlsDomain(text: string): string {
  const bare = text.replace(/^https?:\/\//i, "").replace(/\/$/, "");
  const [site = "", rest] = bare.split(/[/?#](.*)$/s);
  const [name = "", port] = site.split(/:(\d*)$/);
  // An IPv6 address ends like a name with a port.
  if ([site, name].some((host) => ipVersion(/^\[(.*)\]$/.exec(host)?.[1] ?? host) !== 0))
    throw new FormatError("BAD_ADDRESS", "an IP address, but apps send a name", DOMAIN_HINT);
  const domain = parseHostName(name);
  if (domain === undefined || !isDomainName(domain)) {
    throw new FormatError("BAD_ADDRESS", "not a domain", mayBeSecret(text) ? SECRET_HINT : DOMAIN_HINT);
  }
  if (rest !== undefined) {
    const hint = mayBeSecret(text) ? SECRET_HINT : `leave out what follows the name: ${domain}`;
    throw new FormatError("BAD_ADDRESS", "not a domain alone", hint);
  }
  if (port !== undefined) {
    const hint = `leave it out; --mask-host ${domain}:${port || HTTPS_PORT} says where the site is reached`;
    throw new FormatError("BAD_ADDRESS", "a port cannot be in it", hint);
  }
  if (domain.length > MAX_DOMAIN_LENGTH) {
    const message = `longer than ${MAX_DOMAIN_LENGTH} bytes, which apps refuse`;
    throw new FormatError("BAD_ADDRESS", message, "take a shorter name");
  }
  return domain;
}

function mayBeSecret(text: string): boolean {
  return looksLikeSecret(text) || redact(text) !== text;
}

/** Reads `host[:port]`, also after `https://`; an IPv6 address without a port may go without brackets. */
function parseMaskHost(text: string): HostPort {
  const bare = text
    .trim()
    .replace(/^https:\/\//i, "")
    .replace(/\/$/, "");
  const ipv6 = ipv6Of(bare);
  if (ipv6 !== undefined) return { host: ipv6, port: HTTPS_PORT };
  const [, portAlone] = /^:?(\d+)$/.exec(bare) ?? [];
  if (portAlone !== undefined) throw notHostPort(`for this machine: 127.0.0.1:${portAlone}`);
  const [, bracketed, plain = "", port] = /^(?:\[(.*)\]|([^:]*))(?::(\d*))?$/s.exec(bare) ?? [];
  const host = bracketed === undefined ? hostOf(plain) : ipv6Of(bracketed);
  if (host === undefined) throw notHostPort(MASK_HINT);
  if (port === undefined) return { host, port: HTTPS_PORT };
  return { host, port: parseInteger(port, 1, 65_535, MASK_HINT) };
}

function hostOf(text: string): string | undefined {
  return ipVersion(text) === 4 ? text : parseHostName(text);
}

function ipv6Of(text: string): string | undefined {
  return ipVersion(text) === 6 && !text.includes("%") ? text.toLowerCase() : undefined;
}

function notHostPort(hint: string): FormatError {
  return new FormatError("BAD_ADDRESS", "not of the form host:port", hint);
}
