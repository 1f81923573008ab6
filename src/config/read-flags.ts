import leven from "leven";
import { ConfigError, type ConfigIssue } from "../core/errors.ts";
import { looksLikeSecret, redact } from "../protocol/mtproto/secret.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";

/** What a command line says, and what is wrong with it. */
export interface ScannedFlags {
  readonly raw: RawConfig;
  readonly issues: readonly ConfigIssue[];
}

/**
 * Reads `--flag value`, `--flag=value`, `--switch` and `-v`.
 *
 * @param names The settings that this command knows.
 * @throws {ConfigError} With every unknown flag, missing or unexpected value, repeated flag and stray word.
 */
export function readFlags(argv: readonly string[], names: readonly FieldName[]): RawConfig {
  const { raw, issues } = scanFlags(argv, names);
  if (issues.length > 0) throw new ConfigError(issues);
  return raw;
}

/** Does what {@link readFlags} does, but returns the problems, so that those of the values can join them. */
export function scanFlags(argv: readonly string[], names: readonly FieldName[]): ScannedFlags {
  const raw: Partial<Record<FieldName, string[]>> = {};
  const issues: ConfigIssue[] = [];
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? "";
    if (!word.startsWith("-") || word === "-") {
      issues.push(strayWord(word));
      continue;
    }
    const [written = word, inline] = splitOnce(word, "=");
    const name = names.find((candidate) => spellings(FIELDS[candidate]).includes(written));
    if (name === undefined) {
      issues.push({ path: redact(written), message: "unknown flag", hint: nearest(written, names) });
      if (inline === undefined && argv[at + 1]?.startsWith("-") === false) at += 1; // most likely its value
      continue;
    }
    const field: Field = FIELDS[name];
    const values = raw[name] ?? [];
    raw[name] = values;
    if (values.length > 0 && field.kind !== "list") {
      const again = field.kind === "switch" ? "" : `: ${redact(inline ?? argv[at + 1] ?? "")}`;
      issues.push({ path: written, message: `given more than once${again}`, hint: "keep one of them" });
    }
    if (field.kind === "switch") {
      if (inline !== undefined)
        issues.push({ path: written, message: `takes no value, but got ${redact(inline)}` });
      values.push("");
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

function strayWord(word: string): ConfigIssue {
  if (word.split(":").some(looksLikeSecret)) {
    return {
      path: "a secret",
      message: "without its flag",
      hint: "--secret <secret>, and once more for each",
    };
  }
  return { path: word, message: "unexpected word", hint: "flags start with --; see tgws --help" };
}

function spellings(field: Field): string[] {
  return field.short === undefined ? [`--${field.flag}`] : [`--${field.flag}`, `-${field.short}`];
}

function splitOnce(text: string, separator: string): [string, string?] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** The flag that was most likely meant, or where to look. */
function nearest(written: string, names: readonly FieldName[]): string {
  const flags = [...names.map((name) => `--${FIELDS[name].flag}`), "--help", "--version"];
  const distances = flags.map((flag) => ({ flag, distance: leven(written, flag) }));
  const [best] = distances.sort((a, b) => a.distance - b.distance);
  const close = best !== undefined && best.distance <= Math.max(2, written.length / 3);
  return close ? `did you mean ${best.flag}?` : "tgws --help lists the flags";
}
