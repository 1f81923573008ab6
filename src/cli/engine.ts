import type { Config } from "../config/config.ts";
import type { RawConfig } from "../config/fields.ts";
import type { Figures } from "../observe/figures.ts";
import type { Readiness, WorkerReport } from "../observe/status-report.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import type { NamedFiles } from "./named-files.ts";

/** What an engine runs with. */
export interface Settings {
  readonly config: Config;
  /** What `config` was made of. */
  readonly raw: RawConfig;
  /** Those of the configuration, or the one that is kept. */
  readonly secrets: readonly NamedSecret[];
  /** What is in the files that `config` names; without, they are read when it is used. */
  readonly files?: NamedFiles | undefined;
}

/** What an engine has done, and how it is. */
export interface Collected {
  readonly figures: Figures;
  readonly workers: readonly WorkerReport[];
}

/** What carries clients to Telegram: in this process, or in workers. */
export interface Engine {
  /** Where clients connect. */
  readonly port: number;
  readonly readiness: Readiness;
  /** Uses other settings for what comes; throws when it cannot, and then goes on as before. */
  reload(settings: Settings): Promise<void>;
  collect(): Promise<Collected>;
  /** Ends the sessions of these users. */
  revoke(users: readonly string[]): void;
  /** The sessions of a user go at most so fast from now on, in bytes per second; `undefined`: as fast as they go. */
  setRate(user: string, rate: number | undefined): void;
  /** Does not tell what these users have moved until now: the count was set to zero. */
  forget(users: ReadonlySet<string>): void;
  /** Replaces the processes that can be replaced. */
  restart(): void;
  /** Accepts nobody any more, and ends what has not ended after `graceMs`. */
  stop(graceMs: number): Promise<void>;
}
