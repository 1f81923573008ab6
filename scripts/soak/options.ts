import { parseArgs } from "node:util";

/** What can be left out of a soak. */
export const PARTS = [
  "routes",
  "drops",
  "freezes",
  "stalls",
  "strangers",
  "fake-tls",
  "limits",
  "reloads",
  "scrapes",
  "kills",
  "restarts",
] as const;

/** One of {@link PARTS}. */
export type Part = (typeof PARTS)[number];

/** What the command line of the soak says. */
export interface Options {
  /** The length of the load. */
  readonly durationMs: number;
  readonly sessions: number;
  readonly workers: number;
  /** Kept connections per data centre, as for the proxy's own flag. */
  readonly poolSize: number;
  readonly binary: string | undefined;
  readonly seed: number;
  readonly json: string | undefined;
  readonly parts: ReadonlySet<Part>;
}

/** The help text. */
export const USAGE = `Usage: bun run soak [options]

  --minutes M       How long the load lasts (default 30); RSS is judged from 10 on
  --sessions N      Sessions at any time (default 2000)
  --workers N       Worker processes of the proxy (default 2); 1: no supervisor
  --pool-size N     What the proxy's flag gets (default 4)
  --binary FILE     Soak this executable of tgws instead of its source
  --without PARTS   Leave out, with commas: ${PARTS.join(", ")}
  --seed N          Repeats the order of what happens (default: another one every time)
  --json FILE       Also write every figure to a file
  --help            Print this text

Ctrl-C ends it early. The exit code is 1 when anything was not as it should be.`;

/** Reads the command line; `undefined` asks for the help text. @throws {Error} On anything that is not an option. */
export function parseOptions(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      minutes: { type: "string", default: "30" },
      sessions: { type: "string", default: "2000" },
      workers: { type: "string", default: "2" },
      "pool-size": { type: "string", default: "4" },
      binary: { type: "string" },
      without: { type: "string", default: "" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  return {
    durationMs: parseNumber("--minutes", values.minutes, { least: 0.25, most: 7 * 24 * 60 }) * 60_000,
    sessions: parseInteger("--sessions", values.sessions, { least: 20, most: 20_000 }),
    workers: parseInteger("--workers", values.workers, { least: 1, most: 64 }),
    poolSize: parseInteger("--pool-size", values["pool-size"], { least: 0, most: 64 }),
    binary: values.binary,
    seed: parseInteger("--seed", values.seed, { least: 0, most: 2 ** 32 - 1 }),
    json: values.json,
    parts: parseParts(values.without),
  };
}

interface Range {
  readonly least: number;
  readonly most: number;
}

function parseInteger(flag: string, text: string, range: Range): number {
  const value = parseNumber(flag, text, range);
  if (Number.isInteger(value)) return value;
  throw new Error(`Cannot use ${flag} ${text}: it takes a whole number`);
}

function parseNumber(flag: string, text: string, { least, most }: Range): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (value >= least && value <= most) return value;
  throw new Error(`Cannot use ${flag} ${text}: it takes a number from ${least} to ${most}`);
}

function parseParts(without: string): ReadonlySet<Part> {
  const left = new Set<Part>(PARTS);
  for (const name of without.split(",").filter((word) => word !== "")) {
    const part = PARTS.find((known) => known === name);
    if (part === undefined) throw new Error(`Cannot leave out ${name}: there are ${PARTS.join(", ")}`);
    left.delete(part);
  }
  return left;
}
