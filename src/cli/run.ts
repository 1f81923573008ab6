import leven from "leven";
import { disarm, quote } from "../config/quote.ts";
import { ConfigError, StartError, TgwsError } from "../core/errors.ts";
import { looksLikeSecret, redact } from "../protocol/mtproto/secret.ts";
import type { Command } from "./command.ts";
import { COMMANDS, MAIN_COMMAND, VERSION } from "./commands.ts";

/** Wrong use of the command line. */
const EXIT_USAGE = 2;
/** Used rightly, but it cannot start. */
const EXIT_FAILURE = 1;

/**
 * Runs what `argv` asks for and returns the exit code: the command's own, 1 when it cannot start, 2 on wrong use.
 *
 * @param argv Without the program's own name.
 */
export async function run(argv: readonly string[]): Promise<number> {
  // `tgws help doctor` is `tgws doctor --help`.
  const words = argv[0] === "help" ? [...argv.slice(1), "--help"] : argv;
  const verbose = words.includes("-v") || words.includes("--verbose");
  if (words.includes("--version")) return say(VERSION);
  try {
    // Not for people: a supervisor starts its workers with it.
    if (words[0] === "worker" && process.send !== undefined) return await (await import("./work.ts")).work();
    const { command, rest } = findCommand(words);
    if (words.includes("--help") || words.includes("-h")) {
      const { formatHelp } = await import("./help.ts"); // with citty: a running proxy does without
      return say((await formatHelp(command, process.stdout.columns)).join("\n"));
    }
    return (await command.run(rest)) ?? 0;
  } catch (error) {
    return complain(error, verbose);
  }
}

function say(text: string): number {
  console.log(text);
  return 0;
}

/** One line for each problem and its hint; a stack trace only for those who asked for details. */
function complain(error: unknown, verbose: boolean): number {
  if (error instanceof ConfigError) {
    for (const { path, message, hint } of error.issues) printProblem(`${path}: ${message}`, hint);
    return EXIT_USAGE;
  }
  if (error instanceof StartError) printProblem(error.message, error.hint);
  else if (error instanceof TgwsError) printProblem(error.message);
  else printProblem(`a bug: ${error instanceof Error ? error.message : error}`, "please report it, with -v");
  if (verbose && error instanceof Error) console.error(error.stack);
  return EXIT_FAILURE;
}

/** What a user wrote is in many messages. */
function printProblem(text: string, hint?: string): void {
  console.error(`tgws: ${disarm(text)}`);
  if (hint !== undefined) console.error(`hint: ${disarm(hint)}`);
}

/** What the first words name: `tgws`, `tgws link`, `tgws users add`. @throws {ConfigError} */
function findCommand(words: readonly string[]): {
  readonly command: Command;
  readonly rest: readonly string[];
} {
  let command = MAIN_COMMAND;
  let choices: ReadonlyMap<string, Command> | undefined = COMMANDS;
  let at = 0;
  for (; choices !== undefined; at++) {
    const word = words[at];
    if (word === undefined || word === "" || word.startsWith("-")) break;
    const chosen = choices.get(word);
    if (chosen === undefined) throw unknownCommand(command, word, [...choices.keys()]);
    command = chosen;
    choices = chosen.commands;
  }
  return { command, rest: words.slice(at) };
}

function unknownCommand(group: Command, name: string, names: readonly string[]): ConfigError {
  if (looksLikeSecret(name) || redact(name) !== name) {
    return new ConfigError([{ path: "a secret", message: "without its flag", hint: "--secret <secret>" }]);
  }
  const near = names.find((candidate) => leven(name, candidate) <= 2);
  const known = names.join(", ");
  const others =
    group === MAIN_COMMAND
      ? `without a command tgws runs the proxy; the commands are ${known}`
      : `the commands are ${known}`;
  const path = group === MAIN_COMMAND ? quote(name) : `${group.usage} ${quote(name)}`;
  return new ConfigError([
    { path, message: "unknown command", hint: near === undefined ? others : `did you mean ${near}?` },
  ]);
}
