/**
 * Measures what looking costs: `bun run scripts/bench/observe.ts`.
 *
 * Figures and pages of 10,000 live sessions, and log lines that are folded, left out or written, each as the
 * median of several runs on this machine.
 */
import type { SessionEvent, SessionView } from "../../src/core/events.ts";
import { createRecordLogger } from "../../src/observe/log.ts";
import { FoldingSink } from "../../src/observe/log-folding.ts";
import { readMetrics } from "../../src/observe/metrics.ts";
import { readProcessFigures } from "../../src/observe/process-figures.ts";
import { formatMetrics } from "../../src/observe/prometheus-text.ts";
import { SessionLog } from "../../src/observe/session-log.ts";
import { Stats } from "../../src/observe/stats.ts";
import type { StatusReport } from "../../src/observe/status-report.ts";

const SESSIONS = 10_000;
const USERS = 100;
const LINES = 200_000;
const RUNS = 15;

function medianMs(work: () => void): number {
  const times: number[] = [];
  for (let run = 0; run < RUNS; run += 1) {
    const begin = performance.now();
    work();
    times.push(performance.now() - begin);
  }
  return times.sort((a, b) => a - b)[RUNS >> 1] ?? 0;
}

function liveSession(id: number): SessionView {
  const route = id % 3 === 0 ? "cf-domain" : "direct-ws";
  return {
    id,
    client: "192.0.2.1",
    secret: `user${id % USERS}`,
    target: "DC 2",
    dc: (id % 5) + 1,
    route,
    endpoint: "somewhere",
    counts: { up: id, down: id * 10 },
    startedAt: performance.now(),
  };
}

const stats = new Stats({ pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } });
for (let id = 0; id < SESSIONS; id += 1) {
  const session = liveSession(id);
  stats.observe({ type: "started", session });
  stats.observe({ type: "identified", session });
  stats.observe({ type: "connected", session, warm: false, openMs: id % 400 });
}
const report = (): StatusReport => ({
  version: "0",
  time: Date.now(),
  startedAt: 0,
  process: readProcessFigures(),
  workers: [],
  figures: stats.figures(),
  users: [],
  limits: {
    maxConnections: undefined,
    maxPerAddress: undefined,
    addressRate: undefined,
    bufferBytes: undefined,
  },
  config: { file: undefined, loadedAt: 0, lastError: undefined },
});
const metrics = (): string => formatMetrics(readMetrics(report()));
const say = (what: string, value: number, unit: string): void =>
  console.log(`${what.padEnd(60)} ${value.toFixed(2)} ${unit}`);

say(
  `figures of ${SESSIONS} sessions`,
  medianMs(() => stats.figures()),
  "ms",
);
say(`/metrics of ${SESSIONS} sessions, ${USERS} users (${metrics().length} bytes)`, medianMs(metrics), "ms");
say(
  "process figures",
  medianMs(() => readProcessFigures()),
  "ms",
);

const log = createRecordLogger({ level: "debug", write: () => {} });
const stranger = { ...liveSession(1), secret: undefined, target: undefined, route: undefined };
const flood = (perLine: () => void): number => {
  const ms = medianMs(() => {
    for (let line = 0; line < LINES; line += 1) perLine();
  });
  return (ms * 1_000) / LINES;
};
const fields = { session: 1, client: "192.0.2.1", reason: "stranger" };
say(
  "a line that is folded",
  flood(() => log.debug("not a client: dropped", fields)),
  "µs",
);
const clientFields = { ...fields, user: "ann" };
say(
  "a line over the budget",
  flood(() => log.debug("client", clientFields)),
  "µs",
);
const sessionLog = new SessionLog(log);
const observe = (observer: { observe(event: SessionEvent): void }) => (): void => {
  const session = { ...stranger };
  observer.observe({ type: "started", session });
  observer.observe({ type: "ended", session, reason: "stranger", error: undefined });
};
say("a stranger's two events in the log at debug", flood(observe(sessionLog)), "µs");
log.setLevel("info");
say("a stranger's two events in the log at info", flood(observe(sessionLog)), "µs");
say("a stranger's two events in the stats", flood(observe(stats)), "µs");
const sink = new FoldingSink({ write: () => {} });
let at = 0;
say(
  "a line that passes, without its output",
  flood(() => {
    at += 1_000;
    sink.write({ time: at, level: "info", message: "session ended", fields: clientFields });
  }),
  "µs",
);
process.exit();
