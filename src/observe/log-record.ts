import { formatBytes } from "../core/bytes.ts";
import type { LogFields, LogLevel } from "../core/logger.ts";

/** One line before it is text. A JSON value: a worker hands it to its supervisor as it is. */
export interface LogRecord {
  /** Milliseconds since 1970. */
  readonly time: number;
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields | undefined;
  /** It stands for so many that were the same but for details, all of them within so many seconds. */
  readonly repeated?: { readonly times: number; readonly seconds: number };
}

/** Takes records. Never throws, and never waits. */
export interface LogSink {
  write(record: LogRecord): void;
  /** The file was moved away: what comes from now on goes to a new one. @returns Whether there is one now. */
  reopen?(): Promise<boolean>;
  /** Waits until what was written is out. */
  close?(): Promise<void>;
  /** Records that could not be written, since the start. */
  readonly lost?: number;
}

/** How records become text. */
export type LogFormatter = (record: LogRecord) => string;

/** Longer messages are cut: there may be a stack in them, or what a server said. In characters. */
const MESSAGE_LIMIT = 4_000;
/** So are fields, which may hold what a stranger said. */
const FIELD_LIMIT = 500;
/** Fields that are numbers of bytes: `1.2KB` for a person. */
const BYTE_FIELDS: ReadonlySet<string> = new Set(["up", "down"]);
/** What a terminal obeys, or what breaks or turns a line for whoever looks at it. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** `message key=value key="two words"`; what is undefined is left out. Line breaks become spaces. */
export function formatLine(message: string, fields: LogFields = {}): string {
  const oneLine = cut(message, MESSAGE_LIMIT).replaceAll(/\s*[\r\n]+\s*/g, " ");
  const parts = [oneLine.replaceAll(UNSEEN, "\uFFFD")];
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const bytes = typeof value === "number" && BYTE_FIELDS.has(key);
    const text = cut(bytes ? formatBytes(value).replace(" ", "") : String(value), FIELD_LIMIT);
    parts.push(`${key}=${/[\s"=\p{Cc}\p{Cf}]/u.test(text) ? quote(text) : text}`);
  }
  return parts.join(" ");
}

/** The text of a record for a person, without time and level. */
export function formatText({ message, fields, repeated }: LogRecord): string {
  if (repeated === undefined) return formatLine(message, fields);
  return formatLine(`${message} ×${repeated.times} in ${repeated.seconds} s`, fields);
}

/**
 * One JSON object: `time` (ISO 8601 with milliseconds), `level`, `message`, then the fields; for repeats `times`
 * and `withinSeconds`, too.
 */
export function formatJson({ time, level, message, fields, repeated }: LogRecord): string {
  const line: Record<string, unknown> = {
    time: new Date(time).toISOString(),
    level,
    message: cut(message, MESSAGE_LIMIT),
    ...(repeated && { times: repeated.times, withinSeconds: repeated.seconds }),
  };
  for (const [key, value] of Object.entries(fields ?? {})) {
    if (!(key in line)) line[key] = typeof value === "string" ? cut(value, FIELD_LIMIT) : value;
  }
  return JSON.stringify(line).replaceAll(UNSEEN, formatEscape);
}

/** As JSON escapes those that it must. */
function formatEscape(character: string): string {
  const units = Array.from({ length: character.length }, (_, at) => character.charCodeAt(at));
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
}

/** JSON's quotes leave some of them as they are. */
function quote(text: string): string {
  return JSON.stringify(text).replaceAll(UNSEEN, "\uFFFD");
}

function cut(text: string, limit: number): string {
  return text.length > limit ? `${text.slice(0, limit)}...` : text;
}
