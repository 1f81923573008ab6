import { redact } from "../protocol/mtproto/secret.ts";

/**
 * Returns `text` for a message, harmless to a terminal and without what may be secret: keys, and what stands
 * before the `@` of a URL.
 */
export function quote(text: string): string {
  const at = text.lastIndexOf("@");
  if (at < 0 || text.lastIndexOf(":", at) < 0) return disarm(hideKeys(text));
  return `(a secret)${disarm(hideKeys(text.slice(at)))}`;
}

/** Returns `text` without characters that a terminal obeys, or that break or turn a line. */
export function disarm(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}

/** A word of letters alone is a long name: 16 random bytes without any digit are next to impossible. */
function hideKeys(text: string): string {
  const words = text.match(/[\w+/-]{22,}/g) ?? [];
  return words.some((word) => /\d/.test(word) && redact(word) !== word) ? redact(text) : text;
}
