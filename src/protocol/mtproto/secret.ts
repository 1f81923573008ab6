import { FormatError } from "../../core/errors.ts";

/** The length of a proxy secret's key, in bytes. */
export const SECRET_LENGTH = 16;

/** A secret with the name that logs and stats use for it. */
export interface NamedSecret {
  readonly name: string;
  /** 16 bytes. Never logged. */
  readonly key: Uint8Array;
}

/** What a client should use with a secret: `padded` puts `dd` before it, so that packets get random padding. */
export type SecretForm = "plain" | "padded";

const HINT = "16 bytes: 32 hexadecimal digits, or base64; `dd` before them is fine. `tgws secret` makes one";

/**
 * Reads a secret from hexadecimal, base64 or base64url, with or without its `dd` prefix.
 *
 * @returns The 16 key bytes.
 * @throws {FormatError} `BAD_SECRET` for anything else, `ee` secrets included. The message does not quote it.
 */
export function parseSecret(text: string): Uint8Array {
  const trimmed = text.trim();
  const bytes = decode(trimmed);
  if (bytes?.length === SECRET_LENGTH) return bytes;
  const prefixed = trimmed.startsWith("dd") ? decode(trimmed.slice(2)) : undefined;
  if (prefixed?.length === SECRET_LENGTH) return prefixed;
  if (bytes !== undefined && bytes.length > SECRET_LENGTH && bytes[0] === 0xee) {
    throw new FormatError(
      "BAD_SECRET",
      "Cannot use secret: `ee` secrets (fake TLS) are not supported yet",
      HINT,
    );
  }
  if (bytes?.length === SECRET_LENGTH + 1 && bytes[0] === 0xdd) return bytes.subarray(1);
  const what = bytes === undefined ? "neither hexadecimal nor base64" : `${bytes.length} bytes long`;
  throw new FormatError("BAD_SECRET", `Cannot use secret: it is ${what}`, HINT);
}

/** Whether `text` could be somebody's secret, and must not be repeated in a message. */
export function looksLikeSecret(text: string): boolean {
  const bytes = decode(text.trim());
  if (bytes === undefined || bytes.length < SECRET_LENGTH) return false;
  return bytes.length === SECRET_LENGTH || bytes[0] === 0xdd || bytes[0] === 0xee;
}

/** Returns `text` for a message; when there may be a secret inside, hexadecimal or base64, a word for it instead. */
export function redact(text: string): string {
  const hexadecimal = /[0-9a-f]{32}/i.test(text);
  const base64 = /[\w+/-]{22}/.test(text) && /\d/.test(text) && /[A-Z]/.test(text);
  return hexadecimal || base64 ? "(a secret)" : text;
}

/** Formats a secret the way links and clients take it: hexadecimal, `dd` first for padded packets. */
export function formatSecret(key: Uint8Array, form: SecretForm): string {
  return (form === "padded" ? "dd" : "") + key.toHex();
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
