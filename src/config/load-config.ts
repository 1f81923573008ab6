import { join } from "node:path";
import { ConfigError, type ConfigIssue, StartError } from "../core/errors.ts";
import { looksLikeSecret } from "../protocol/mtproto/secret.ts";
import { type Config, parseConfig } from "./config.ts";
import { readEnvironment } from "./environment.ts";
import { FIELD_NAMES, FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";
import { readFileSettings } from "./file-settings.ts";
import type { Origin, Origins } from "./origin.ts";
import { type OtherFlags, scanFlags } from "./read-flags.ts";
import { configFolder, type Environment } from "./secret-store.ts";
import { type FileText, parseToml, readFileText } from "./toml-file.ts";
import type { RawUser } from "./user-fields.ts";
import { type Written, WrittenBuilder } from "./written.ts";

/** The configuration file's name in the configuration folder. */
export const CONFIG_FILE = "config.toml";

/** Where settings come from besides the command line. */
export interface Surroundings {
  readonly environment: Environment;
  readonly platform: NodeJS.Platform;
  /** Flags of the command that are no settings. */
  readonly flags?: OtherFlags;
  /** Instead of what is in the configuration file. */
  readonly fileText?: string;
}

/** What all sources together say. */
export interface LoadedConfig {
  /** Its warnings are those of {@link parseConfig}, and those about the sources. */
  readonly config: Config;
  /** Plain JSON; {@link parseConfig} makes the same of it, but for the warnings about the sources. */
  readonly raw: RawConfig;
  readonly origins: Origins;
  /** The configuration file that was read. */
  readonly file: string | undefined;
  /** Where it is, or would be looked for. */
  readonly place: string | undefined;
  /** It is there, and nothing is in it, not even a comment: as when somebody is about to write it, or the disk is full. */
  readonly blank: boolean;
  readonly warnings: readonly string[];
}

/**
 * Reads flags, environment and configuration file. What stands in an earlier one of these counts; a list is taken
 * as a whole.
 *
 * @throws {ConfigError} With every problem of all sources.
 */
export function loadConfig(rawArgs: readonly string[], surroundings: Surroundings): LoadedConfig {
  const sources = [readArgs(rawArgs, surroundings.flags), readEnvironment(surroundings.environment)];
  const place = findFile(sources, surroundings);
  const { written, state, blank } = readFile(place, surroundings.fileText);
  sources.push(written);
  const { raw, origins } = mergeSources(sources);
  const issues = sources.flatMap((source) => source.issues);
  // What a file that cannot be read would have said is not known: what depends on it cannot be judged.
  const judged = state === "unusable" ? withoutDependents(raw) : raw;
  const config = sortingIssues(place, () => parseConfig(judged, issues, origins));
  const warnings = [...sources.flatMap((source) => source.warnings), ...config.warnings];
  return {
    config: Object.freeze({ ...config, warnings }),
    raw,
    origins,
    file: state === "read" ? place?.path : undefined,
    place: place?.path,
    blank,
    warnings,
  };
}

/**
 * Where the configuration file is, or would be: `--config`, `TGWS_CONFIG`, or the configuration folder.
 *
 * @returns `undefined` when nothing names a folder.
 */
export function configFilePath(rawArgs: readonly string[], surroundings: Surroundings): string | undefined {
  const sources = [readArgs(rawArgs, surroundings.flags), readEnvironment(surroundings.environment)];
  return findFile(sources, surroundings)?.path;
}

/** A file, and who asks for it: without an origin it need not be there. */
interface FilePlace {
  readonly path: string;
  readonly origin: Origin | undefined;
}

function findFile(
  sources: readonly Written[],
  { environment, platform }: Surroundings,
): FilePlace | undefined {
  for (const { fields, origins } of sources) {
    const path = fields.get("config")?.[0];
    if (path !== undefined) return { path, origin: origins.get("config") };
  }
  try {
    return { path: join(configFolder(environment, platform), CONFIG_FILE), origin: undefined };
  } catch (error) {
    if (error instanceof StartError) return undefined; // no home folder: so there is no file in it
    throw error;
  }
}

function readArgs(rawArgs: readonly string[], flags: OtherFlags = {}): Written {
  const { raw, issues } = scanFlags(rawArgs, FIELD_NAMES, flags);
  const written = new WrittenBuilder();
  written.issues.push(...issues);
  for (const name of FIELD_NAMES) {
    const texts = raw[name];
    if (texts !== undefined) written.set(name, texts, { source: "flag", path: `--${FIELDS[name].flag}` });
  }
  return written;
}

interface FileOutcome {
  readonly written: Written;
  readonly state: "read" | "absent" | "unusable";
  readonly blank: boolean;
}

function readFile(place: FilePlace | undefined, instead: string | undefined): FileOutcome {
  const written = new WrittenBuilder();
  if (place === undefined) return { written, state: "absent", blank: false };
  const { path, origin } = place;
  try {
    const file = instead === undefined ? readNamed(path) : { text: instead, mode: 0o600 };
    if (file === undefined) {
      if (origin === undefined) return { written, state: "absent", blank: false };
      const shown = looksLikeSecret(path) ? "(a secret)" : path;
      const message = path.trim() === "" ? "is empty" : `${shown}: no such file`;
      written.refuse(origin.path, message, "tgws config init makes one");
      return { written, state: "unusable", blank: false };
    }
    const settings = readFileSettings(path, parseToml(path, file.text));
    const warnings = [...settings.warnings, ...findOpenSecrets(path, file, settings)];
    return { written: { ...settings, warnings }, state: "read", blank: file.text.trim() === "" };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    written.issues.push(...error.issues);
    return { written, state: "unusable", blank: false };
  }
}

/** @throws {ConfigError} */
function readNamed(path: string): FileText | undefined {
  return /^\s*$|\0/.test(path) ? undefined : readFileText(path);
}

/** Group and owner may be there to read: a service often runs as neither root nor the owner. */
function findOpenSecrets(path: string, { mode }: FileText, { fields, users }: Written): string[] {
  const sensitive = [...fields.keys()].some((name) => (FIELDS[name] as Field).sensitive === true);
  if ((!sensitive && users.length === 0) || (mode & 0o006) === 0 || process.platform === "win32") return [];
  return [
    `${path} holds secrets, and everybody on this machine can read it: chmod ${(mode & 0o770).toString(8)} ${path}`,
  ];
}

/** Lets the issues of the file be said from its top to its bottom, whoever found them; after all others. */
function sortingIssues<T>(place: FilePlace | undefined, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof ConfigError) || place === undefined) throw error;
    const lineOf = ({ path }: ConfigIssue): number => {
      const rest = path.startsWith(`${place.path}:`) ? path.slice(place.path.length + 1) : "";
      return Number(/^\d+/.exec(rest)?.[0] ?? 0);
    };
    throw new ConfigError(error.issues.toSorted((one, other) => lineOf(one) - lineOf(other)));
  }
}

/** Lets each source overwrite what those say that count less. */
function mergeSources(sources: readonly Written[]): { readonly raw: RawConfig; readonly origins: Origins } {
  const fields: Partial<Record<FieldName, readonly string[]>> = {};
  const origins = new Map<string, Origin>();
  for (const source of sources.toReversed()) {
    for (const name of source.fields.keys()) {
      for (const twin of TWINS.get(name) ?? []) {
        delete fields[twin];
        origins.delete(twin);
      }
    }
    for (const [name, texts] of source.fields) fields[name] = texts;
    for (const [place, origin] of source.origins) origins.set(place, origin);
  }
  const users: readonly RawUser[] = sources.flatMap((source) => source.users);
  return { raw: users.length > 0 ? { ...fields, users } : fields, origins };
}

/** Two words for one thing: `-v` overrules what the file says about `log-level`. */
const TWINS: ReadonlyMap<FieldName, readonly FieldName[]> = new Map<FieldName, readonly FieldName[]>([
  ["logLevel", ["verbose"]],
  ["verbose", ["logLevel"]],
]);

/** Leaves out what is wrong only when something else is not there. */
function withoutDependents(raw: RawConfig): RawConfig {
  const { route: _route, accept: _accept, noCfproxy: _noCfproxy, ...rest } = raw;
  return rest;
}
