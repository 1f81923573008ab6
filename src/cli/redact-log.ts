import { redact } from "../protocol/mtproto/secret.ts";

/** The last look at a log line: what may be a secret is cut out. Of a path each name is looked at by itself. */
export function redactLog(text: string): string {
  return text.replaceAll(/\S+/g, (word) =>
    isPath(word) ? word.split("/").map(redact).join("/") : redact(word),
  );
}

/** A whole name of a file: of one piece, letters, digits and slashes would look like base64. */
function isPath(word: string): boolean {
  return /^["'(]?\/[\w.-]+\//.test(word);
}
