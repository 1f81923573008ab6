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
  "16 bytes: 32 hexadecimal digits, or base64; the `dd...` or `ee...` of a link, or the whole link, will do. " +
  "`tgws secret` makes one";
const EE_HINT =
  "take the whole secret of a link (its domain is in hexadecimal), or " +
  "--secret <32 digits> --fake-tls-domain www.example.com";

/** `tg://proxy?...`, `https://t.me/proxy?...`, or another address of the web. */
const LINK = /^(?:(?:tg|https?):\/\/|tg:proxy\?|(?:t|telegram)\.(?:me|dog)\/)/i;
/** An `ee` secret as people put it together: its domain as it is. */
const CLEAR = /^ee([0-9a-f]{32})(.*\..*)$/is;

/**
 * Reads a secret from hexadecimal, base64 or base64url, in any of its forms:
 *
 *      key(16)             plain
 *      dd key(16)          padded
 *      ee key(16) domain   fake TLS
 *
 * A link to a proxy will do, too, or what its `secret=` says, in the link's escapes; and so will `ee` and a key in
 * hexadecimal with a domain in clear after them.
 *
 * @throws {FormatError} `BAD_SECRET` for anything else. The message does not quote it.
 */
export function parseSecretText(text: string): ParsedSecret {
  const trimmed = unescapeUrl(isLink(text) ? secretOfLink(text.trim()) : text.trim());
  if (trimmed === "") throw new FormatError("BAD_SECRET", "Cannot use secret: it is empty", HINT);
  const [, key, clear] = CLEAR.exec(trimmed) ?? [];
  if (key !== undefined && clear !== undefined)
    return { key: Uint8Array.fromHex(key), domain: checkClearDomain(clear) };
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

/** Whether `text` is an address, such as the link to a proxy, which may have its secret in it. */
export function isLink(text: string): boolean {
  return LINK.test(text.trim());
}

/** Whether `text` could be somebody's secret, and must not be repeated in a message. */
export function looksLikeSecret(text: string): boolean {
  const bytes = decode(unescapeUrl(text.trim()));
  if (bytes === undefined || bytes.length < SECRET_LENGTH) return false;
  return bytes.length === SECRET_LENGTH || bytes[0] === DD || bytes[0] === EE;
}

/**
 * Returns `text` for a message, without the words in which there may be a secret or a large part of one: one that
 * was cut off or mistyped is still most of a key.
 */
export function redact(text: string): string {
  return text.replaceAll(/\S+/g, (word) =>
    holdsKey(word) || holdsKey(unescapeUrl(word)) ? "(a secret)" : word,
  );
}

/**
 * Letters alone are a long name, and digits alone a number: 12 random digits of hexadecimal are hardly ever one of
 * them, and 22 of base64 never.
 */
function holdsKey(word: string): boolean {
  const runs = word.match(/[0-9a-f]{12,}/gi) ?? [];
  if (runs.some((run) => /\d/.test(run) && (/[a-f]/i.test(run) || run.length >= 2 * SECRET_LENGTH)))
    return true;
  const pieces = word.match(/[\w+/-]{22,}/g) ?? [];
  return pieces.some((piece) => /\d/.test(piece) && /[A-Z]/.test(piece));
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
function secretOfLink(link: string): string {
  const [, written = ""] = /[?&]secret=([^&#]*)/i.exec(link) ?? [];
  if (written === "") {
    throw new FormatError(
      "BAD_SECRET",
      "Cannot use secret: it is a link without one",
      "a link has secret=... in it",
    );
  }
  return written;
}

/** Base64 in a link may have its `+`, `/` and `=` as `%2B`, `%2F` and `%3D`. */
function unescapeUrl(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
}

/** @throws {FormatError} `BAD_SECRET` */
function readDomain(bytes: Uint8Array): string {
  // One byte too many is enough to be refused, and a call takes only so many arguments.
  return checkDomain(String.fromCharCode(...bytes.subarray(0, MAX_DOMAIN_LENGTH + 1)));
}

/** @throws {FormatError} `BAD_SECRET`, also when the key may go on where the domain seems to begin. */
function checkClearDomain(domain: string): string {
  if (/^[0-9a-f]/i.test(domain)) throw refusal("it is not clear where its key ends and its domain begins");
  return checkDomain(domain);
}

/** @throws {FormatError} `BAD_SECRET` */
function checkDomain(domain: string): string {
  if (domain === "") throw refusal("an `ee` secret ends with a domain, and this one has none");
  if (domain.length > MAX_DOMAIN_LENGTH)
    throw refusal(`its domain is longer than ${MAX_DOMAIN_LENGTH} bytes, which apps refuse`);
  if (!isDomainName(domain)) throw refusal("what follows its key is not a domain");
  return domain.toLowerCase();
}

function refusal(what: string): FormatError {
  return new FormatError("BAD_SECRET", `Cannot use secret: ${what}`, EE_HINT);
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
