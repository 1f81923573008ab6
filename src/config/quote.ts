import { redact } from "../protocol/mtproto/secret.ts";

/** Returns `text` for a message, without what may be secret: keys, and what stands before the `@` of a URL. */
export function quote(text: string): string {
  const at = text.lastIndexOf("@");
  if (at < 0 || text.lastIndexOf(":", at) < 0) return redact(text);
  return `(a secret)${redact(text.slice(at))}`;
}
