import { FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { isDomainName } from "../protocol/cf-domains.ts";
import { looksLikeSecret, MAX_DOMAIN_LENGTH } from "../protocol/mtproto/secret.ts";
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

const DOMAIN_HINT = "the name of a web site, for example example.com";
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
  const near = nearestOf(text, FORMS);
  const hint = near === undefined ? FORMS_HINT : `did you mean ${near}? ${FORMS_HINT}`;
  throw new FormatError("BAD_VALUE", "no such form", hint);
}

function parseFakeTlsDomain(text: string): string {
  const bare = bareOf(text);
  if (ipVersion(/^\[(.*)\]$/.exec(bare)?.[1] ?? bare) !== 0)
    throw new FormatError("BAD_ADDRESS", "an IP address, but apps send a name", DOMAIN_HINT);
  const [name = "", port] = bare.split(/:(\d*)$/);
  if (port !== undefined && parseHostName(name) !== undefined) {
    const hint = `leave it out; --mask-host ${name}:${port || HTTPS_PORT} says where the site is reached`;
    throw new FormatError("BAD_ADDRESS", "a port cannot be in it", hint);
  }
  const domain = parseHostName(bare);
  if (domain === undefined || !isDomainName(domain)) {
    const hint = looksLikeSecret(text) ? "secrets go to --secret" : DOMAIN_HINT;
    throw new FormatError("BAD_ADDRESS", "not a domain", hint);
  }
  if (domain.length > MAX_DOMAIN_LENGTH) {
    const message = `longer than ${MAX_DOMAIN_LENGTH} bytes, which apps refuse`;
    throw new FormatError("BAD_ADDRESS", message, DOMAIN_HINT);
  }
  return domain;
}

/** As with other domains, what stands in a browser's address bar will do. */
function bareOf(text: string): string {
  return text.replace(/^https:\/\//i, "").replace(/\/$/, "");
}

/** Reads `host[:port]`; an IPv6 address without a port may go without brackets. */
function parseMaskHost(text: string): HostPort {
  const bare = bareOf(text.trim());
  if (ipVersion(bare) === 6) return { host: checkHost(bare), port: HTTPS_PORT };
  const [, bracketed, plain = "", port] = /^(?:\[(.*)\]|([^:]*))(?::(.*))?$/s.exec(bare) ?? [];
  if (bracketed !== undefined && ipVersion(bracketed) !== 6)
    throw new FormatError("BAD_ADDRESS", "not of the form host:port", MASK_HINT);
  const host = checkHost(bracketed ?? plain);
  return { host, port: port === undefined ? HTTPS_PORT : parseInteger(port, 1, 65_535) };
}

function checkHost(text: string): string {
  const isIp = ipVersion(text) !== 0 && !text.includes("%");
  const host = isIp ? text.toLowerCase() : parseHostName(text);
  if (host === undefined) throw new FormatError("BAD_ADDRESS", "not of the form host:port", MASK_HINT);
  return host;
}
