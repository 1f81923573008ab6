import { redact } from "../protocol/mtproto/secret.ts";

/** The last look at a log line: what may be a secret is cut out. */
export const redactLog = (text: string): string => redact(text);
