import { closeSync, fstatSync, openSync, readFileSync, statSync } from "node:fs";
import { ConfigError } from "../core/errors.ts";
import { hasCode, reasonOf } from "./private-file.ts";
import { quote } from "./quote.ts";
import { scanStatements, type TomlStatement } from "./toml-statements.ts";

/** The largest configuration file, in bytes: a thousand users take a fifth of it. */
export const MAX_FILE_BYTES = 1024 * 1024;

/** Keys of ours are not deeper: `users.alice.secret`. */
const DEEPEST = 3;

/** Bun's parser takes time by the square of the keys in a table: for so many it is a third of a second. */
const MOST_STATEMENTS = 16_000;

/** A service may be another user than whoever has written the file, or have the home folder of another one. */
const UNREADABLE_HINT =
  "the user that tgws runs as has to be able to read it: chgrp and chmod 640; TGWS_HOME or --config names another";

/** A configuration file as it is on the disk. */
export interface FileText {
  readonly text: string;
  /** The rights: 0o600. */
  readonly mode: number;
}

/** What is written in a file, and in which line. */
export interface TomlDocument {
  readonly table: Readonly<Record<string, unknown>>;
  /** The line of a key; for what is inside an inline table, that of the table. */
  lineOf(path: readonly string[]): number | undefined;
}

/**
 * Reads a configuration file; `undefined` when there is none.
 *
 * @throws {ConfigError} When it is no file, too big, not UTF-8, or cannot be read.
 */
export function readFileText(path: string): FileText | undefined {
  try {
    // An error would cost every proxy without a file 3 MiB, since it brings stack traces to life.
    const status = statSync(path, { throwIfNoEntry: false });
    if (status === undefined) return undefined;
    if (!status.isFile()) throw problem(path, "not a file"); // to open a pipe would wait for ever
    const fd = openSync(path, "r");
    try {
      const { mode, size } = fstatSync(fd);
      if (size > MAX_FILE_BYTES) throw problem(path, "larger than 1 MiB");
      return { text: decode(path, readFileSync(fd)), mode: mode & 0o7777 };
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined;
    const hint = hasCode(error, "EACCES") ? UNREADABLE_HINT : undefined;
    throw problem(path, `cannot be read: ${reasonOf(error)}`, hint);
  }
}

/**
 * Parses a file's text.
 *
 * @param path Of the file, for the message.
 * @throws {ConfigError} With the line, when it is not TOML.
 */
export function parseToml(path: string, text: string): TomlDocument {
  const statements = scanStatements(text);
  if (statements.length > MOST_STATEMENTS)
    throw problem(path, `more than ${MOST_STATEMENTS} lines with settings`);
  const outcome = attempt(text);
  if (outcome.table === undefined) {
    const line = lineOfError(text, statements);
    throw problem(`${path}:${line}`, `not TOML: ${quote(outcome.reason)}`);
  }
  const lines = new Map<string, number>();
  for (const { path: parts, line } of statements) {
    for (let length = 1; length <= Math.min(parts.length, DEEPEST); length++) {
      const key = JSON.stringify(parts.slice(0, length));
      if (!lines.has(key)) lines.set(key, line);
    }
  }
  const lineOf = (parts: readonly string[]): number | undefined => {
    for (let length = Math.min(parts.length, DEEPEST); length > 0; length--) {
      const line = lines.get(JSON.stringify(parts.slice(0, length)));
      if (line !== undefined) return line;
    }
    return undefined;
  };
  return { table: outcome.table, lineOf };
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw problem(path, "not UTF-8 text");
  }
}

function problem(path: string, message: string, hint?: string): ConfigError {
  return new ConfigError([hint === undefined ? { path, message } : { path, message, hint }]);
}

type Outcome =
  | { readonly table: Readonly<Record<string, unknown>> }
  | { readonly table: undefined; readonly reason: string };

function attempt(text: string): Outcome {
  try {
    return { table: Bun.TOML.parse(text) as Record<string, unknown> };
  } catch (error) {
    if (error instanceof RangeError) return { table: undefined, reason: "nested too deep" };
    const message = error instanceof Error ? error.message : String(error);
    return { table: undefined, reason: message.replace(/^TOML Parse error: /, "") };
  }
}

/**
 * The line of the first statement with which the text does not parse. What stands before it is whole, so that
 * halving finds it: a parse of the whole for each line would take minutes.
 */
function lineOfError(text: string, statements: readonly TomlStatement[]): number {
  let [good, bad] = [-1, statements.length - 1];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (attempt(text.slice(0, statements[middle]?.end)).table === undefined) bad = middle;
    else good = middle;
  }
  return statements[bad]?.line ?? 1;
}
