import { ConfigError, type ConfigIssue } from "../core/errors.ts";
import { looksLikeSecret, redact } from "../protocol/mtproto/secret.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";
import { nearestOf } from "./nearest.ts";
import { quote } from "./quote.ts";

/** Flags besides the settings. */
export interface OtherFlags {
  /** Those that the command reads by itself: they may have been meant, too. */
  readonly own?: readonly string[];
  /** For a flag that this command does not know: the commands that do, such as `tgws doctor` for `--deep`. */
  readonly elsewhere?: (flag: string) => string | undefined;
}

/** What a command line says, and what is wrong with it. */
export interface ScannedFlags {
  readonly raw: RawConfig;
  readonly issues: readonly ConfigIssue[];
}

/**
 * Reads `--flag value`, `--flag=value`, `--switch` and `-v`. `--switch=false` turns off what the file turns on.
 *
 * @param names The settings that this command knows.
 * @throws {ConfigError} With every unknown flag, missing or unexpected value, repeated flag and stray word.
 */
export function readFlags(argv: readonly string[], names: readonly FieldName[]): RawConfig {
  const { raw, issues } = scanFlags(argv, names);
  if (issues.length > 0) throw new ConfigError(issues);
  return raw;
}

/**
 * Does what {@link readFlags} does, but returns the problems, so that those of the values can join them.
 */
export function scanFlags(
  argv: readonly string[],
  names: readonly FieldName[],
  others: OtherFlags = {},
): ScannedFlags {
  const raw: Partial<Record<FieldName, string[]>> = {};
  const issues: ConfigIssue[] = [];
  let previous: Field | undefined;
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? "";
    if (!word.startsWith("-") || word === "-") {
      issues.push(strayWord(word, previous));
      continue;
    }
    previous = undefined;
    const [written = word, inline] = splitOnce(word, "=");
    const name = names.find((candidate) => spellings(FIELDS[candidate]).includes(written));
    if (name === undefined) {
      const hint = nearest(written, names, others);
      issues.push({ path: quote(written), message: "unknown flag", hint });
      if (inline === undefined && argv[at + 1]?.startsWith("-") === false) at += 1; // most likely its value
      continue;
    }
    const field: Field = FIELDS[name];
    previous = field;
    const values = raw[name] ?? [];
    raw[name] = values;
    if (values.length > 0 && field.kind !== "list") {
      const quotable = field.kind !== "switch" && field.sensitive !== true;
      const again = quotable ? `: ${quote(inline ?? argv[at + 1] ?? "")}` : "";
      issues.push({ path: written, message: `given more than once${again}`, hint: "keep one of them" });
    }
    if (field.kind === "switch") {
      if (inline !== undefined && inline !== "true" && inline !== "false")
        issues.push({ path: written, message: `takes no value, but got ${quote(inline)}` });
      if (inline !== "false") values.push("");
      continue;
    }
    const value = inline ?? argv[at + 1];
    if (value === undefined || (inline === undefined && value.startsWith("--"))) {
      issues.push({
        path: written,
        message: "needs a value",
        hint: `${written} <${field.value ?? "value"}>`,
      });
      continue;
    }
    if (inline === undefined) at += 1;
    values.push(value);
  }
  return { raw, issues };
}

/** @param previous The flag before it: the word may be the rest of its value, after a space too many. */
function strayWord(word: string, previous: Field | undefined): ConfigIssue {
  if (previous?.sensitive === true) {
    const another = previous.kind === "list" ? `; another one needs --${previous.flag} before it, too` : "";
    return {
      path: `a word after --${previous.flag}`,
      message: "unexpected",
      hint: `quote a value with spaces${another}`,
    };
  }
  if (word.split(":").some(looksLikeSecret) || redact(word) !== word) {
    return {
      path: "a secret",
      message: "without its flag",
      hint: "--secret <secret>, and once more for each",
    };
  }
  return {
    path: quote(word) || "an empty word",
    message: "unexpected word",
    hint: "flags start with --; see tgws --help",
  };
}

function spellings(field: Field): string[] {
  return field.short === undefined ? [`--${field.flag}`] : [`--${field.flag}`, `-${field.short}`];
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** The flag that was most likely meant, or where to look. */
function nearest(written: string, names: readonly FieldName[], { own = [], elsewhere }: OtherFlags): string {
  const owner = elsewhere?.(written);
  if (owner !== undefined) return `${written} belongs to ${owner}`;
  const flags = [...names.map((name) => `--${FIELDS[name].flag}`), ...own, "--help", "--version"];
  const flag = nearestOf(written, flags);
  return flag === undefined ? "tgws --help lists the flags" : `did you mean ${flag}?`;
}
