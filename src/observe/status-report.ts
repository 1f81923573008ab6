import type { UserFigures } from "../core/users.ts";
import type { Figures } from "./figures.ts";
import type { ProcessFigures } from "./process-figures.ts";

/**
 * How a worker is.
 *
 * - `starting` it is not accepting yet
 * - `running` it accepts
 * - `draining` it accepts nobody, and waits for its sessions to end
 * - `waiting` it has died, and is started again after a while
 */
export type WorkerState = "starting" | "running" | "draining" | "waiting";

/** Every {@link WorkerState}. */
export const WORKER_STATES: readonly WorkerState[] = ["starting", "running", "draining", "waiting"];

/** One process that serves clients. Without workers that is the only one. */
export interface WorkerReport {
  /** From 0. */
  readonly index: number;
  readonly pid: number | undefined;
  readonly state: WorkerState;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** How often one that died was started again in its place. */
  readonly restarts: number;
  /** `undefined` when it has not told in time. */
  readonly process: ProcessFigures | undefined;
}

/** Limits that the whole server keeps; `undefined`: none. */
export interface LimitsReport {
  readonly maxConnections: number | undefined;
  readonly maxPerAddress: number | undefined;
  /** New connections per second of one address. */
  readonly addressRate: number | undefined;
  /** Bytes that may wait in all queues. */
  readonly bufferBytes: number | undefined;
}

/** Where the configuration comes from. */
export interface ConfigReport {
  readonly file: string | undefined;
  /** When the one that is in force was read: milliseconds since 1970. */
  readonly loadedAt: number;
  /** Why a newer one is not in force. */
  readonly lastError: string | undefined;
}

/** How the proxy is, all processes together: what `/api/status` answers, and all else is made of. */
export interface StatusReport {
  readonly version: string;
  /** When this was put together: milliseconds since 1970. */
  readonly time: number;
  readonly startedAt: number;
  /** The process that answers. */
  readonly process: ProcessFigures;
  readonly workers: readonly WorkerReport[];
  /** Of all processes, those that have ended included. */
  readonly figures: Figures;
  readonly users: readonly UserFigures[];
  readonly limits: LimitsReport;
  readonly config: ConfigReport;
  /** What was learned about routes: any JSON value. */
  readonly routes?: unknown;
}

/** Whether clients are served now; `reason` says for a person why, or why not. */
export interface Readiness {
  readonly ok: boolean;
  readonly reason: string;
}
