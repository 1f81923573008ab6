import { parseArgs } from "node:util";

/** What the command line of the benchmark says. */
export interface Options {
  readonly rounds: number;
  /** The length of a timed window. */
  readonly windowMs: number;
  readonly only: RegExp;
  /** Strangers of each kind, in all rounds together. */
  readonly strangers: number;
  readonly binary: string | undefined;
  readonly json: string | undefined;
}

/** The help text. */
export const USAGE = `Usage: bun run bench [options]

  --rounds N      How often everything is measured, tgws and the bare relay in turn (default 3)
  --seconds S     The length of a timed window (default 2)
  --only REGEX    Only the steps whose name matches, such as '^down', '^fake TLS' or '^masking'
  --strangers N   Strangers of each kind for the masking steps, in all rounds together (default 400)
  --binary PATH   Measure this executable of tgws instead of its source
  --json FILE     Also write every single figure to a file
  --help          Print this text and the names of the steps`;

/** Reads the command line; `undefined` asks for the help text. @throws {Error} On anything that is not an option. */
export function parseOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "2" },
      only: { type: "string", default: "" },
      strangers: { type: "string", default: "400" },
      binary: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  return {
    rounds: parsePositive("--rounds", values.rounds, Number.isInteger),
    windowMs: parsePositive("--seconds", values.seconds, Number.isFinite) * 1000,
    only: new RegExp(values.only),
    strangers: parsePositive("--strangers", values.strangers, Number.isInteger),
    binary: values.binary,
    json: values.json,
  };
}

function parsePositive(flag: string, text: string, accepts: (value: number) => boolean): number {
  const value = Number(text);
  if (value > 0 && accepts(value)) return value;
  throw new Error(`Cannot use ${flag} ${text}: it takes a positive number`);
}
