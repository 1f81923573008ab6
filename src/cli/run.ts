import { isatty } from "node:tty";
import type { CommandDef, ParsedArgs } from "citty";
import leven from "leven";
import { ConfigError, StartError, TgwsError } from "../core/errors.ts";
import { looksLikeSecret } from "../protocol/mtproto/secret.ts";
import { COMMANDS, MAIN_COMMAND, MAIN_HELP, VERSION } from "./commands.ts";

/** citty's own view of the flags, which no command looks at. */
const NO_ARGS = { _: [] } as unknown as ParsedArgs;

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
  const [first = "", ...rest] = argv;
  const named = first !== "" && !first.startsWith("-");
  const command = named ? COMMANDS.get(first) : MAIN_COMMAND;
  const verbose = argv.includes("-v") || argv.includes("--verbose");
  if (argv.includes("--version")) return say(VERSION);
  try {
    if (command === undefined) throw unknownCommand(first);
    if (argv.includes("--help") || argv.includes("-h")) {
      return say(await helpText(named ? command : MAIN_HELP, named));
    }
    // Not by citty's runCommand: its own, looser parser would read the flags first, and cost 2 MiB.
    const code = await command.run?.({ rawArgs: named ? rest : [...argv], args: NO_ARGS, cmd: command });
    return typeof code === "number" ? code : 0;
  } catch (error) {
    return complain(error, verbose);
  }
}

/** citty's help text, without colours where nobody sees them and without its padding. */
async function helpText(command: CommandDef, isSubCommand: boolean): Promise<string> {
  // Loaded by need, like all that a running proxy does without: citty parses nothing here.
  const [{ renderUsage }, { stripVTControlCharacters }] = await Promise.all([
    import("citty"),
    import("node:util"),
  ]);
  const text = await renderUsage(command, isSubCommand ? MAIN_HELP : undefined);
  const shown = isatty(1) ? text : stripVTControlCharacters(text);
  return shown.replaceAll(/[ \t]+$/gm, "");
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

function printProblem(text: string, hint?: string): void {
  console.error(`tgws: ${text}`);
  if (hint !== undefined) console.error(`hint: ${hint}`);
}

function unknownCommand(name: string): ConfigError {
  if (looksLikeSecret(name)) {
    return new ConfigError([{ path: "a secret", message: "without its flag", hint: "--secret <secret>" }]);
  }
  const names = [...COMMANDS.keys()];
  const near = names.find((candidate) => leven(name, candidate) <= 2);
  const hint =
    near === undefined
      ? `the commands are ${names.join(", ")}; none runs the proxy`
      : `did you mean ${near}?`;
  return new ConfigError([{ path: name, message: "unknown command", hint }]);
}
