import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { Config } from "../config/config.ts";
import { quote } from "../config/quote.ts";
import { formatBytes } from "../core/bytes.ts";
import { ConfigError, type ConfigIssue, FormatError } from "../core/errors.ts";
import { IpNetwork } from "../core/ip-network.ts";
import { looksLikeSecret } from "../protocol/mtproto/secret.ts";
import type { AddressLists } from "../proxy/address-lists.ts";
import type { ReadText } from "./named-files.ts";

const MOST_ENTRIES = 100_000;
const MOST_BYTES = 4 * 1024 * 1024;
/** Of a file that is something else than a list: so many of its lines are named. */
const MOST_ISSUES = 20;
const HINT = "one network or address a line, for example 10.0.0.0/8 or 2001:db8::1; # begins a comment";

/** Who may come, and where that stands. */
export interface ReadAddressLists {
  /** `undefined`: everybody. */
  readonly lists: AddressLists | undefined;
  /** Whole names of the files that were read, to be watched. */
  readonly files: readonly string[];
  /** What they were made of: while this stays the same, so do they. */
  readonly key: string;
}

/**
 * Reads what `--allow` and `--deny` name. Each takes networks, and files with one a line.
 *
 * @param readText Reads a file.
 * @param before Is returned when nothing in it would be different: 50,000 networks take 0.1 s.
 * @throws {ConfigError} With every line that cannot be read, by its number; with files that cannot be.
 */
export async function readAddressLists(
  { allow, deny }: Pick<Config, "allow" | "deny">,
  readText: ReadText = readList,
  before?: ReadAddressLists,
): Promise<ReadAddressLists> {
  if (allow.length === 0 && deny.length === 0) return { lists: undefined, files: [], key: "" };
  const texts = readTexts([...allow, ...deny], readText);
  const key = createHash("sha256")
    .update(JSON.stringify([allow, deny, [...texts.values()].map(String)]))
    .digest("hex");
  if (before?.key === key) return before;
  const reader = new ListReader(texts);
  const allowed = reader.read("--allow", allow);
  const denied = reader.read("--deny", deny);
  if (reader.issues.length > 0) throw new ConfigError(reader.issues);
  const { NetworkSet } = await import("../core/network-set.ts"); // by need, as few have such lists
  const { AddressLists } = await import("../proxy/address-lists.ts");
  return {
    lists: new AddressLists({
      allow: allow.length > 0 ? new NetworkSet(allowed) : undefined,
      deny: deny.length > 0 ? new NetworkSet(denied) : undefined,
    }),
    files: reader.files,
    key,
  };
}

/** The texts of those of `entries` that are no networks, or why there is none. */
function readTexts(entries: readonly string[], readText: ReadText): ReadonlyMap<string, string | Error> {
  const texts = new Map<string, string | Error>();
  for (const entry of entries) {
    if (parseNetwork(entry) !== undefined) continue;
    try {
      texts.set(entry, readText(entry));
    } catch (error) {
      texts.set(entry, error instanceof Error ? error : new Error(String(error)));
    }
  }
  return texts;
}

function parseNetwork(text: string): IpNetwork | undefined {
  try {
    return IpNetwork.parse(text);
  } catch (error) {
    if (error instanceof FormatError) return undefined;
    throw error;
  }
}

class ListReader {
  readonly issues: ConfigIssue[] = [];
  readonly files: string[] = [];
  readonly #texts: ReadonlyMap<string, string | Error>;

  constructor(texts: ReadonlyMap<string, string | Error>) {
    this.#texts = texts;
  }

  read(path: string, entries: readonly string[]): IpNetwork[] {
    return entries.flatMap((entry) => parseNetwork(entry) ?? this.#readFile(path, entry));
  }

  #readFile(path: string, name: string): IpNetwork[] {
    this.files.push(resolve(name));
    const text = this.#texts.get(name);
    if (typeof text !== "string") {
      const what = looksLikeSecret(name) ? "(a secret): no such file" : `${name}: ${text?.message}`;
      this.#complain(path, `cannot read ${what}`);
      return [];
    }
    const networks: IpNetwork[] = [];
    let issues = 0;
    for (const [index, line] of text.split("\n").entries()) {
      const entry = line.replace(/#.*$/s, "").trim();
      if (entry === "") continue;
      try {
        networks.push(IpNetwork.parse(entry));
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        issues += 1;
        if (issues <= MOST_ISSUES) {
          this.#complain(
            path,
            `${name}, line ${index + 1}, "${shorten(quote(entry))}": ${error.message}`,
            error.hint,
          );
        }
      }
    }
    if (issues > MOST_ISSUES) this.#complain(path, `${name}: ${issues - MOST_ISSUES} more lines like these`);
    if (networks.length > MOST_ENTRIES) {
      this.#complain(path, `${name} has ${networks.length} entries, more than ${MOST_ENTRIES}`);
    }
    return networks;
  }

  #complain(path: string, message: string, hint: string = HINT): void {
    this.issues.push({ path, message, hint });
  }
}

/** Reads a list. @throws {Error} Also what is no file, such as a pipe: it might never end, or never begin. */
export function readList(name: string): string {
  const stat = statSync(name);
  if (!stat.isFile()) throw new Error("it is no file");
  if (stat.size > MOST_BYTES) {
    throw new Error(`it has ${formatBytes(stat.size)}, more than ${formatBytes(MOST_BYTES)}`);
  }
  return readFileSync(name, "utf8");
}

const SHOWN = 40;

function shorten(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
