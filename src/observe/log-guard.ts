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

const KEY_LENGTH = 16;
/** What may be base64, in any of its alphabets and as links have it, and long enough to hold a key. */
const BASE64 = /(?:[\w+/-]|%2[bf]){22,}/gi;

/**
 * Makes a function that takes these very keys out of a text in base64, too, wherever they are in it: links have a byte
 * before the key, and a name behind it.
 *
 * @param keys Asked each time; the list is looked at anew when it is another one.
 */
export function hideKnownKeys(keys: () => readonly Uint8Array[]): (text: string) => string {
  let list: readonly Uint8Array[] = [];
  let known: ReadonlySet<string> = new Set();
  return (text) => {
    const now = keys();
    if (now !== list) {
      list = now;
      known = new Set(now.map((key) => Buffer.from(key).toString("latin1")));
    }
    return text.length < 22
      ? text
      : text.replaceAll(BASE64, (run) => (holds(run, known) ? "(a secret)" : run));
  };
}

/** A run may begin with what is not base64, so it is read from each of its first four characters on. */
function holds(written: string, known: ReadonlySet<string>): boolean {
  const run = written.replaceAll(/%2b/gi, "+").replaceAll(/%2f/gi, "/");
  for (let skipped = 0; skipped < 4; skipped += 1) {
    const bytes = Buffer.from(run.slice(skipped), "base64").toString("latin1");
    for (let at = 0; at + KEY_LENGTH <= bytes.length; at += 1) {
      if (known.has(bytes.slice(at, at + KEY_LENGTH))) return true;
    }
  }
  return false;
}
