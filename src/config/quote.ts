import { redact } from "../protocol/mtproto/secret.ts";

/**
 * Returns `text` for a message, harmless to a terminal and without what may be secret: keys, and what stands
 * before the `@` of a URL.
 */
export function quote(text: string): string {
  const at = text.lastIndexOf("@");
  if (at < 0 || text.lastIndexOf(":", at) < 0) return disarm(redact(text));
  return `(a secret)${disarm(redact(text.slice(at)))}`;
}

/** Returns `text` without characters that a terminal obeys, or that break or turn a line. */
export function disarm(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}
