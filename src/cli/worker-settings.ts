import { parseConfig } from "../config/config.ts";
import type { RawConfig } from "../config/fields.ts";
import type { Settings } from "./engine.ts";
import type { NamedFiles } from "./named-files.ts";
import { KEPT_USER } from "./secrets.ts";

/** {@link Settings} as JSON, on their way to a worker. */
export interface WorkerSettings {
  readonly raw: RawConfig;
  /** The secret that is kept on disk, as hexadecimal, when it is the one that serves. */
  readonly kept: string | undefined;
  /** What is in the files that `raw` names; a supervisor of an earlier version sends none. */
  readonly files?: NamedFiles | undefined;
}

/** @throws {ConfigError} When a supervisor of another version has sent what this one does not know. */
export function parseWorkerSettings({ raw, kept, files }: WorkerSettings): Settings {
  const config = parseConfig(raw);
  const secrets = kept === undefined ? config.secrets : [{ name: KEPT_USER, key: Uint8Array.fromHex(kept) }];
  return { config, raw, secrets, files };
}
