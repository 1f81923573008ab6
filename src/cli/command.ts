import { FIELD_NAMES, FIELDS, type FieldName } from "../config/fields.ts";
import { type LoadedConfig, loadConfig, type Surroundings } from "../config/load-config.ts";
import type { OtherFlags } from "../config/read-flags.ts";
import { ConfigError, type ConfigIssue } from "../core/errors.ts";

/** A command, and what its help says. */
export interface Command {
  /** What stands before its flags. */
  readonly usage: string;
  readonly description: string;
  /** Flags that are its own and no setting: `--json`, or `--quota-gb <GB>`, and what they do. */
  readonly switches: ReadonlyMap<string, string>;
  /** The settings that its help lists. */
  readonly fields: readonly FieldName[];
  /** It takes every flag of the proxy besides. */
  readonly takesAll: boolean;
  /** What has to be chosen from before anything can be done: `tgws users add`. */
  readonly commands?: ReadonlyMap<string, Command>;
  /** @returns The exit code; without one it is 0. @throws {ConfigError} */
  run(rawArgs: readonly string[]): Promise<number | undefined> | number | undefined;
}

/** No flags of its own. */
export const NO_SWITCHES: ReadonlyMap<string, string> = new Map();

/** A command line, taken apart. */
export interface OwnArgs {
  /** The command's own flags, without their values' placeholders; a switch has an empty text. */
  readonly given: ReadonlyMap<string, string>;
  /** Words that are no flags, nor values of flags. */
  readonly operands: readonly string[];
  /** Flags of the proxy, and what nobody knows. */
  readonly rest: readonly string[];
}

/**
 * Takes a command's own flags and its operands out of a command line.
 *
 * @param operands How many words without a flag it takes; more of them stay in the rest.
 * @throws {ConfigError} When a switch has a value, or a flag has none or comes twice.
 */
export function takeOwnArgs(
  rawArgs: readonly string[],
  switches: ReadonlyMap<string, string>,
  operands = 0,
): OwnArgs {
  const own = new Map([...switches.keys()].map((label) => [flagOf(label), label]));
  const given = new Map<string, string>();
  const words: string[] = [];
  const rest: string[] = [];
  const issues: ConfigIssue[] = [];
  for (let at = 0; at < rawArgs.length; at++) {
    const word = rawArgs[at] ?? "";
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const [flag, inline] = equals < 0 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)];
    const label = own.get(flag);
    if (label === undefined) {
      if (!word.startsWith("-") && words.length < operands) words.push(word);
      else rest.push(word);
      const next = rawArgs[at + 1];
      if (inline === undefined && next !== undefined && takesValue(word)) {
        rest.push(next);
        at += 1;
      }
      continue;
    }
    if (given.has(flag))
      issues.push({ path: flag, message: "given more than once", hint: "keep one of them" });
    if (label === flag) {
      if (inline !== undefined) issues.push({ path: flag, message: "takes no value", hint: flag });
      given.set(flag, "");
      continue;
    }
    const value = inline ?? rawArgs[at + 1];
    if (value === undefined || (inline === undefined && value.startsWith("--"))) {
      issues.push({ path: flag, message: "needs a value", hint: label });
      continue;
    }
    if (inline === undefined) at += 1;
    given.set(flag, value);
  }
  if (issues.length > 0) throw new ConfigError(issues);
  return { given, operands: words, rest };
}

/** Takes the operand out that a command cannot do without. @throws {ConfigError} When it is not there. */
export function needOperand({ operands }: OwnArgs, name: string, usage: string): string {
  const [operand] = operands;
  if (operand !== undefined) return operand;
  throw new ConfigError([{ path: name, message: "is missing", hint: usage }]);
}

/** `--quota-gb` of `--quota-gb <GB>`. */
export function flagOf(label: string): string {
  return label.split(" ")[0] ?? label;
}

/**
 * Reads the configuration for a command.
 *
 * @param others Flags of the commands, to tell what was meant.
 * @throws {ConfigError} With every problem of flags, environment and configuration file.
 */
export function loadFor(
  rawArgs: readonly string[],
  others: OtherFlags = {},
  fileText?: string,
): LoadedConfig {
  return loadConfig(rawArgs, { ...surroundingsOf(others), ...(fileText === undefined ? {} : { fileText }) });
}

/** The environment of this process. */
export function surroundingsOf(flags: OtherFlags = {}): Surroundings {
  const { env: environment, platform } = process;
  return { environment, platform, flags };
}

/** Whether the next word belongs to this one: it is a flag of the proxy that takes a value. */
function takesValue(word: string): boolean {
  return FIELD_NAMES.some((name) => FIELDS[name].kind !== "switch" && `--${FIELDS[name].flag}` === word);
}
