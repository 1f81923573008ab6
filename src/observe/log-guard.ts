/** A key of 16 bytes, or what is before and behind it, in hexadecimal. */
const KEY = /[0-9a-f]{32,}/gi;

/**
 * Returns `text` without what looks like a whole secret in hexadecimal.
 *
 * Nothing of tgws logs secrets; this is for the texts of others, such as what a server answered.
 */
export function hideKeys(text: string): string {
  return text.length < 32 ? text : text.replaceAll(KEY, "(a secret)");
}
