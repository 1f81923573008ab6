import type { LevelLogger } from "../observe/log.ts";

/** Has a bug cost a session at most, never the process. */
export function survive(log: LevelLogger): void {
  const say = (error: unknown): void => {
    const verbose = log.enabled("debug");
    const text = error instanceof Error ? (verbose && error.stack) || error.message : String(error);
    log.error(`a bug, please report it: ${text || error}`);
  };
  process.on("uncaughtException", say);
  process.on("unhandledRejection", say);
}
