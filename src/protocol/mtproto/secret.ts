import { FormatError } from "../../core/errors.ts";
import { isDomainName } from "../cf-domains.ts";

/** The length of a proxy secret's key, in bytes. */
export const SECRET_LENGTH = 16;

/** The longest domain of an `ee` secret, in bytes: TDLib refuses longer ones. */
export const MAX_DOMAIN_LENGTH = 182;

/** A secret with the name that logs and stats use for it. */
export interface NamedSecret {
  readonly name: string;
  /** 16 bytes. Never logged. */
  readonly key: Uint8Array;
}

/**
 * What a client should do with a secret. `padded` puts `dd` before it: packets get random padding. `fakeTls` puts
 * `ee` before it and a domain after it: the connection looks like one to that web site.
 */
export type SecretForm = "plain" | "padded" | { readonly fakeTls: string };

/** What the text of a secret says. */
export interface ParsedSecret {
  /** 16 bytes. */
  readonly key: Uint8Array;
  /** Of an `ee` secret, in lower case. */
  readonly domain: string | undefined;
}

const DD = 0xdd;
const EE = 0xee;
const HINT =
  "16 bytes: 32 hexadecimal digits, or base64; `dd` before them, or `ee` and a domain after, is fine. " +
  "`tgws secret` makes one";

/**
 * Reads a secret from hexadecimal, base64 or base64url, in any of its forms:
 *
 *      key(16)             plain
 *      dd key(16)          padded
 *      ee key(16) domain   fake TLS
 *
 * @throws {FormatError} `BAD_SECRET` for anything else. The message does not quote it.
 */
export function parseSecretText(text: string): ParsedSecret {
  const trimmed = text.trim();
  const bytes = decode(trimmed);
  if (bytes?.length === SECRET_LENGTH) return { key: bytes, domain: undefined };
  const prefixed = trimmed.startsWith("dd") ? decode(trimmed.slice(2)) : undefined;
  if (prefixed?.length === SECRET_LENGTH) return { key: prefixed, domain: undefined };
  if (bytes !== undefined && bytes.length > SECRET_LENGTH && bytes[0] === EE) {
    return {
      key: bytes.slice(1, 1 + SECRET_LENGTH),
      domain: readDomain(bytes.subarray(1 + SECRET_LENGTH)),
    };
  }
  if (bytes?.length === SECRET_LENGTH + 1 && bytes[0] === DD)
    return { key: bytes.slice(1), domain: undefined };
  const what = bytes === undefined ? "neither hexadecimal nor base64" : `${bytes.length} bytes long`;
  throw new FormatError("BAD_SECRET", `Cannot use secret: it is ${what}`, HINT);
}

/**
 * Returns the 16 key bytes of a secret in any form, for who has no use for its domain.
 *
 * @throws {FormatError} `BAD_SECRET`, as {@link parseSecretText} does.
 */
export function parseSecret(text: string): Uint8Array {
  return parseSecretText(text).key;
}

/** Whether `text` could be somebody's secret, and must not be repeated in a message. */
export function looksLikeSecret(text: string): boolean {
  const bytes = decode(text.trim());
  if (bytes === undefined || bytes.length < SECRET_LENGTH) return false;
  return bytes.length === SECRET_LENGTH || bytes[0] === DD || bytes[0] === EE;
}

/** Returns `text` for a message; when there may be a secret inside, hexadecimal or base64, a word for it instead. */
export function redact(text: string): string {
  const hexadecimal = /[0-9a-f]{32}/i.test(text);
  const base64 = /[\w+/-]{22}/.test(text) && /\d/.test(text) && /[A-Z]/.test(text);
  return hexadecimal || base64 ? "(a secret)" : text;
}

/**
 * Formats a secret the way links and clients take it, in hexadecimal.
 *
 * All clients read that; some do not read base64. The domain of `fakeTls` is ASCII.
 */
export function formatSecret(key: Uint8Array, form: SecretForm): string {
  if (form === "plain") return key.toHex();
  if (form === "padded") return `dd${key.toHex()}`;
  return `ee${key.toHex()}${Uint8Array.from([...form.fakeTls], (letter) => letter.charCodeAt(0)).toHex()}`;
}

/** @throws {FormatError} `BAD_SECRET` */
function readDomain(bytes: Uint8Array): string {
  const refuse = (what: string): FormatError =>
    new FormatError("BAD_SECRET", `Cannot use secret: ${what}`, "`ee`, 32 hexadecimal digits, domain");
  if (bytes.length === 0) throw refuse("an `ee` secret ends with a domain, and this one has none");
  if (bytes.length > MAX_DOMAIN_LENGTH)
    throw refuse(`its domain is longer than ${MAX_DOMAIN_LENGTH} bytes, which apps refuse`);
  const domain = String.fromCharCode(...bytes);
  if (!isDomainName(domain)) throw refuse("what follows its key is not a domain");
  return domain.toLowerCase();
}

function decode(text: string): Uint8Array | undefined {
  if (/^(?:[0-9a-f]{2})+$/i.test(text)) return Uint8Array.fromHex(text);
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/").replace(/=+$/, "");
  try {
    return Uint8Array.fromBase64(base64);
  } catch {
    return undefined;
  }
}
