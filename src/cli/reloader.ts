import { type ConfigChanges, compareConfigs } from "../config/compare.ts";
import { parseConfig } from "../config/config.ts";
import { FIELD_NAMES, FIELDS, type FieldName, type RawConfig } from "../config/fields.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { ConfigError } from "../core/errors.ts";
import type { Logger } from "../core/logger.ts";
import type { Rounds } from "../net/rounds.ts";
import { type FileStates, FileWatch, lookAt } from "./file-watch.ts";

/** What a {@link Reloader} works with. */
export interface ReloaderOptions {
  readonly current: LoadedConfig;
  /** How its files were when it was read, from {@link lookAtFilesOf}. */
  readonly files: FileStates;
  /** Reads everything again. @throws {ConfigError} @throws {StartError} */
  readonly load: () => LoadedConfig;
  /** Uses it from now on. @throws {Error} When that cannot be; then nothing has changed. */
  readonly apply: (loaded: LoadedConfig) => Promise<void>;
  readonly log: Logger;
  /** When its files are looked at. */
  readonly rounds?: Rounds;
}

/** Reads the configuration again when it is told to, or a file has changed, and keeps the old one when it is broken. */
export class Reloader {
  readonly #options: ReloaderOptions;
  readonly #watch: FileWatch;
  #current: LoadedConfig;
  /** How its files were when it was read. */
  #files: FileStates;
  #running = false;
  /** Somebody has asked once more meanwhile. */
  #again = false;
  #stopped = false;
  #loadedAt = Date.now();
  #lastError: string | undefined;

  constructor(options: ReloaderOptions) {
    this.#options = options;
    this.#current = options.current;
    this.#files = options.files;
    this.#watch = new FileWatch(() => this.reload(), options.rounds);
    this.#watch.watch(options.files);
  }

  /** What is in force. */
  get current(): LoadedConfig {
    return this.#current;
  }

  /** When that was read: milliseconds since 1970. */
  get loadedAt(): number {
    return this.#loadedAt;
  }

  /** Why a newer one is not in force. */
  get lastError(): string | undefined {
    return this.#lastError;
  }

  /** One at a time: whoever asks meanwhile causes one more. */
  reload(): void {
    this.#again = true;
    if (this.#running) return;
    this.#running = true;
    void this.#run();
  }

  /** Nothing is read any more. What is being applied is not waited for. */
  stop(): void {
    this.#stopped = true;
    this.#watch.stop();
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false;
      await this.#reload();
    }
    this.#running = false;
  }

  async #reload(): Promise<void> {
    const { load, apply, log } = this.#options;
    const before = this.#current;
    // Looked at before they are read: what changes meanwhile is read the next time.
    let files: FileStates = lookAtFilesOf(before);
    try {
      const found = load();
      files = new Map([...lookAtFilesOf(found), ...files]);
      if (before.file !== undefined && found.file === undefined) throw new Error(`${before.file} is gone`);
      if (before.file !== undefined && !before.blank && found.blank)
        throw new Error(`there is nothing in ${found.file}: a comment in it would say that this is meant`);
      const raw = keepAtStart(before.raw, found.raw);
      const next = { ...found, raw, config: parseConfig(raw) };
      await apply(next);
      this.#current = next;
      this.#loadedAt = Date.now();
      this.#lastError = undefined;
      const changes = compareConfigs(before.raw, found.raw);
      log.info(
        `configuration reloaded: ${describeChanges(changes, changedLists(before, this.#files, files))}`,
      );
      for (const warning of found.warnings) if (!before.warnings.includes(warning)) log.warn(warning);
      if (changes.atStart.length > 0)
        log.warn(`takes effect at the next start only: ${namesOf(changes.atStart)}`);
      const named = filesOf(next);
      files = new Map([...files].filter(([path]) => named.includes(path)));
      this.#files = files;
    } catch (error) {
      this.#lastError = error instanceof Error ? error.message : String(error);
      for (const line of explain(error)) log.error(`the configuration stays as it was: ${line}`);
    }
    if (!this.#stopped) this.#watch.watch(files);
  }
}

/** How the files are now that a configuration consists of. */
export function lookAtFilesOf(loaded: LoadedConfig): FileStates {
  return lookAt(filesOf(loaded));
}

/**
 * What the configuration was read from, and what it names that is read at a reload. A file that is not there yet may be
 * made while the proxy runs: by `tgws users add`.
 */
function filesOf({ place, config }: LoadedConfig): string[] {
  const lists = [...config.allow, ...config.deny].filter((text) => !isNetworkText(text));
  return [
    ...(place === undefined ? [] : [place]),
    ...lists,
    ...(config.tlsCaFile === undefined ? [] : [config.tlsCaFile]),
  ];
}

/** A line for each problem. */
function explain(error: unknown): string[] {
  if (!(error instanceof ConfigError)) return [error instanceof Error ? error.message : String(error)];
  return error.issues.map(({ path, message, hint }) => {
    return `${path}: ${message}${hint === undefined ? "" : ` (${hint})`}`;
  });
}

/** What only a start can change stays as it is. */
function keepAtStart(before: RawConfig, found: RawConfig): RawConfig {
  const raw: { -readonly [Name in keyof RawConfig]: RawConfig[Name] } = { ...found };
  for (const name of FIELD_NAMES) {
    if (FIELDS[name].live) continue;
    const old = before[name];
    if (old === undefined) delete raw[name];
    else raw[name] = old;
  }
  return raw;
}

/** Files that the configuration has named all along, and that are others now. */
function changedLists({ place }: LoadedConfig, before: FileStates, now: FileStates): string[] {
  return [...now].flatMap(([path, state]) => {
    const known = before.get(path);
    return path !== place && known !== undefined && known !== state ? [path] : [];
  });
}

/** The names of what has changed, never the values: they may be secret. */
function describeChanges({ live, atStart, users }: ConfigChanges, lists: readonly string[]): string {
  const parts = live.length === 0 ? [] : [`changed ${namesOf(live)}`];
  if (lists.length > 0) parts.push(`read ${listSome(lists)} again`);
  for (const [what, names] of [
    ["new users", users.added],
    ["removed users", users.removed],
    ["changed users", users.changed],
  ] as const) {
    if (names.length > 0) parts.push(`${what} ${listSome(names)}`);
  }
  if (parts.length > 0) return parts.join("; ");
  return atStart.length > 0 ? "nothing that can change now" : "nothing has changed";
}

function namesOf(fields: readonly FieldName[]): string {
  return fields.map((name) => FIELDS[name].flag).join(", ");
}

const MOST_NAMED = 8;

function listSome(names: readonly string[]): string {
  const more = names.length > MOST_NAMED ? ` and ${names.length - MOST_NAMED} more` : "";
  return names.slice(0, MOST_NAMED).join(", ") + more;
}

/** As the configuration has checked it: a network in CIDR notation, else the name of a file. */
function isNetworkText(text: string): boolean {
  return /^[0-9a-f.:]+\/\d+$/i.test(text);
}
