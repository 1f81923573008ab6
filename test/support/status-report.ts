import type { UserFigures } from "../../src/core/users.ts";
import type { Figures } from "../../src/observe/figures.ts";
import { countTime, newHistogram } from "../../src/observe/histogram.ts";
import { readProcessFigures } from "../../src/observe/process-figures.ts";
import type { StatusReport } from "../../src/observe/status-report.ts";

/** Figures in which nothing is missing. */
export function sampleFigures(): Figures {
  const opening = newHistogram();
  for (const ms of [5, 80, 80, 700, 60_000]) countTime(opening, ms);
  return {
    connections: {
      total: 120,
      active: 7,
      ended: { "client-closed": 90, stranger: 20, overload: 3 },
      masked: { digest: 4 },
      refused: { "user-quota": 2 },
      badHeaders: { missing: 1 },
      shed: 5,
    },
    bytes: { up: 1_000, down: 2_000, maskedUp: 30, maskedDown: 40 },
    routes: [
      {
        route: "direct-ws",
        dc: 2,
        attempts: 100,
        sessions: 95,
        lost: 5,
        failures: { TIMEOUT: 3 },
        opening,
        bytesUp: 1_000,
        bytesDown: 2_000,
      },
    ],
    setUp: opening,
    users: { ann: { active: 6, sessions: 95, bytesUp: 1_000, bytesDown: 2_000 } },
    pools: { routes: { hits: 10, misses: 4 }, cf: { hits: 1, misses: 2 } },
    queuedBytes: 4_096,
    log: { written: 300, folded: 1_000, dropped: 12 },
  };
}

/** A user in whom nothing is missing. */
export function sampleUser(name = "ann"): UserFigures {
  return {
    name,
    enabled: true,
    connections: 6,
    addresses: 2,
    up: 5_000,
    down: 6_000,
    maxConnections: 20,
    maxAddresses: 3,
    quotaBytes: 1_000_000,
    expiresAt: 1_800_000_000_000,
    rateBytes: 500_000,
    refused: { "user-quota": 2 },
  };
}

/** A report in which nothing is missing. */
export function sampleReport(changes: Partial<StatusReport> = {}): StatusReport {
  const process = { ...readProcessFigures(), openFds: 40, maxFds: 1_024 };
  return {
    version: "1.2.3",
    time: 1_700_000_060_500,
    startedAt: 1_700_000_000_000,
    process,
    workers: [
      { index: 0, pid: 100, state: "running", startedAt: 1_700_000_000_000, restarts: 0, process },
      { index: 1, pid: 101, state: "draining", startedAt: 1_700_000_030_000, restarts: 2, process },
    ],
    figures: sampleFigures(),
    users: [sampleUser()],
    limits: { maxConnections: 4_000, maxPerAddress: 50, addressRate: 10, bufferBytes: 100_000_000 },
    config: { file: "/etc/tgws/config.toml", loadedAt: 1_700_000_000_000, lastError: "port: 0 is too small" },
    routes: { learned: [] },
    ...changes,
  };
}
