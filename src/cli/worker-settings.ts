import { type Config, parseConfig } from "../config/config.ts";
import type { RawConfig } from "../config/fields.ts";
import { defaultBufferBytes } from "../net/memory-limit.ts";
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

/**
 * Returns what one of `workers` processes runs with.
 *
 * @throws {ConfigError} When a supervisor of another version has sent what this one does not know.
 */
export function parseWorkerSettings({ raw, kept, files }: WorkerSettings, workers: number): Settings {
  const config = shareOf(parseConfig(raw), workers);
  const secrets = kept === undefined ? config.secrets : [{ name: KEPT_USER, key: Uint8Array.fromHex(kept) }];
  return { config, raw, secrets, files };
}

/** What all workers may use together is divided, but for connections: those the supervisor counts. */
function shareOf(config: Config, workers: number): Config {
  const part = (whole: number): number => Math.ceil(whole / workers);
  return {
    ...config,
    maskMax: part(config.maskMax),
    bufferBytes: part(config.bufferBytes ?? defaultBufferBytes()),
  };
}
