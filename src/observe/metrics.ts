import { REFUSAL_REASONS } from "../core/events.ts";
import type { RouteFigures, Tally } from "./figures.ts";
import type { Metric, MetricType, Sample } from "./prometheus-text.ts";
import { END_REASONS, MASK_REASONS, PROXY_HEADER_FAULTS } from "./reasons.ts";
import { type StatusReport, WORKER_STATES, type WorkerReport, type WorkerState } from "./status-report.ts";

/** A metric, and how its series are read from a report. */
export interface MetricDefinition {
  readonly name: string;
  readonly type: MetricType;
  /** One sentence. */
  readonly help: string;
  readonly read: (report: StatusReport) => readonly Sample[];
}

/** What `/metrics` shows, in that order. docs/METRICS.md lists the same. */
export const METRICS: readonly MetricDefinition[] = [
  gauge("tgws_build_info", "The version, as a label.", ({ version }) => [{ labels: { version }, value: 1 }]),
  gauge("tgws_start_time_seconds", "When tgws was started, in seconds since 1970.", ({ startedAt }) =>
    one(startedAt / 1_000),
  ),

  counter("tgws_connections_total", "Connections that clients and strangers have made.", ({ figures }) =>
    one(figures.connections.total),
  ),
  gauge("tgws_connections_active", "Connections that are open now.", ({ figures }) =>
    one(figures.connections.active),
  ),
  counter("tgws_connections_ended_total", "Connections that have ended, by reason.", ({ figures }) =>
    tally("reason", figures.connections.ended, END_REASONS),
  ),
  counter("tgws_connections_masked_total", "Connections shown the cover site, by reason.", ({ figures }) =>
    tally("reason", figures.connections.masked, MASK_REASONS),
  ),
  counter("tgws_connections_refused_total", "Connections over a limit, by the limit.", ({ figures }) =>
    tally("reason", figures.connections.refused, REFUSAL_REASONS),
  ),
  counter("tgws_bad_proxy_headers_total", "Connections without a usable PROXY header, by fault.", (report) =>
    tally("fault", report.figures.connections.badHeaders, PROXY_HEADER_FAULTS),
  ),
  counter("tgws_connections_shed_total", "Connections closed unread for want of resources.", ({ figures }) =>
    one(figures.connections.shed),
  ),
  histogram("tgws_session_setup_seconds", "From accept until a way to the data centre is open.", (report) => [
    { value: report.figures.setUp },
  ]),

  counter("tgws_bytes_total", "Bytes of clients; up is to Telegram.", ({ figures: { bytes } }) =>
    upAndDown(bytes.up, bytes.down),
  ),
  counter(
    "tgws_masked_bytes_total",
    "Bytes between strangers and the cover site.",
    ({ figures: { bytes } }) => upAndDown(bytes.maskedUp, bytes.maskedDown),
  ),
  gauge("tgws_queued_bytes", "Bytes that wait for a client or a data centre.", ({ figures }) =>
    one(figures.queuedBytes),
  ),

  counter("tgws_route_attempts_total", "Ways that began to open.", (report) =>
    routes(report, ({ attempts }) => one(attempts)),
  ),
  counter("tgws_route_failures_total", "Ways that did not open or carried nothing, by error.", (report) =>
    routes(report, ({ failures }) => tally("code", failures)),
  ),
  counter("tgws_route_sessions_total", "Sessions that the route opened for or took over.", (report) =>
    routes(report, ({ sessions }) => one(sessions)),
  ),
  counter("tgws_route_sessions_lost_total", "Of those, the ones that it did not serve after all.", (report) =>
    routes(report, ({ lost }) => one(lost)),
  ),
  histogram("tgws_route_open_seconds", "How long opening took, when a client waited for it.", (report) =>
    routes(report, ({ opening }) => [{ value: opening }]),
  ),
  counter(
    "tgws_route_bytes_total",
    "Bytes of clients that the route carried, from its first answer on.",
    (report) => routes(report, ({ bytesUp, bytesDown }) => upAndDown(bytesUp, bytesDown)),
  ),
  counter("tgws_pool_requests_total", "Connections asked of the warm pools.", ({ figures: { pools } }) =>
    Object.entries(pools).flatMap(([pool, { hits, misses }]) => [
      { labels: { pool, result: "hit" }, value: hits },
      { labels: { pool, result: "miss" }, value: misses },
    ]),
  ),

  gauge("tgws_user_enabled", "1 when the user may connect, 0 when disabled.", ({ users }) =>
    users.map(({ name, enabled }) => ({ labels: { user: name }, value: enabled ? 1 : 0 })),
  ),
  gauge("tgws_user_connections", "Connections of the user that are open now.", ({ users }) =>
    users.map(({ name, connections }) => ({ labels: { user: name }, value: connections })),
  ),
  gauge("tgws_user_addresses", "Different addresses that the user is connected from.", ({ users }) =>
    users.map(({ name, addresses }) => ({ labels: { user: name }, value: addresses })),
  ),
  counter("tgws_user_sessions_total", "Connections that the user has made.", ({ figures }) =>
    Object.entries(figures.users).map(([user, { sessions }]) => ({ labels: { user }, value: sessions })),
  ),
  counter("tgws_user_bytes_total", "Bytes of the user since the start.", ({ figures }) =>
    Object.entries(figures.users).flatMap(([user, { bytesUp, bytesDown }]) =>
      labelled({ user }, upAndDown(bytesUp, bytesDown)),
    ),
  ),
  gauge("tgws_user_used_bytes", "Bytes of the user that count towards the quota.", ({ users }) =>
    users.flatMap(({ name, up, down }) => labelled({ user: name }, upAndDown(up, down))),
  ),
  counter("tgws_user_refused_total", "Connections of the user over a limit, by the limit.", ({ users }) =>
    users.flatMap(({ name, refused }) => labelled({ user: name }, tally("reason", refused))),
  ),
  gauge("tgws_user_max_connections", "Connections that the user may have.", ({ users }) =>
    users.flatMap(({ name, maxConnections }) => limit(name, maxConnections)),
  ),
  gauge("tgws_user_max_addresses", "Addresses that the user may be connected from.", ({ users }) =>
    users.flatMap(({ name, maxAddresses }) => limit(name, maxAddresses)),
  ),
  gauge("tgws_user_quota_bytes", "Bytes that the user may move.", ({ users }) =>
    users.flatMap(({ name, quotaBytes }) => limit(name, quotaBytes)),
  ),
  gauge("tgws_user_rate_bytes", "Bytes per second that the user may move.", ({ users }) =>
    users.flatMap(({ name, rateBytes }) => limit(name, rateBytes)),
  ),
  gauge("tgws_user_expiry_time_seconds", "When the user expires, in seconds since 1970.", ({ users }) =>
    users.flatMap(({ name, expiresAt }) => limit(name, expiresAt && expiresAt / 1_000)),
  ),

  gauge("tgws_limit_connections", "Connections that the server takes.", ({ limits }) =>
    perhaps(limits.maxConnections),
  ),
  gauge("tgws_limit_connections_per_address", "Connections that one address may have.", ({ limits }) =>
    perhaps(limits.maxPerAddress),
  ),
  gauge("tgws_limit_address_rate", "New connections per second of one address.", ({ limits }) =>
    perhaps(limits.addressRate),
  ),
  gauge("tgws_limit_buffer_bytes", "Bytes that may wait in queues.", ({ limits }) =>
    perhaps(limits.bufferBytes),
  ),
  gauge("tgws_config_load_time_seconds", "When the configuration in force was read.", ({ config }) =>
    one(config.loadedAt / 1_000),
  ),
  gauge("tgws_config_error", "1 when the newest configuration cannot be used.", ({ config }) =>
    one(config.lastError === undefined ? 0 : 1),
  ),
  counter("tgws_log_lines_total", "Log lines, by what became of them.", ({ figures: { log } }) =>
    Object.entries(log).map(([result, value]) => ({ labels: { result }, value })),
  ),

  gauge("tgws_workers", "Processes that serve clients, by state.", ({ workers }) =>
    WORKER_STATES.map((state) => ({
      labels: { state },
      value: workers.filter((worker) => worker.state === state).length,
    })),
  ),
  counter("tgws_worker_restarts_total", "How often the worker died and was started again.", (report) =>
    ofWorkers(report, ({ restarts }) => one(restarts)),
  ),
  gauge("tgws_worker_start_time_seconds", "When the worker was started, in seconds since 1970.", (report) =>
    ofWorkers(report, ({ startedAt, pid }) => (pid === undefined ? [] : one(startedAt / 1_000))),
  ),
  counter("tgws_worker_cpu_seconds_total", "Processor time of the worker.", (report) =>
    ofWorkers(report, ({ process }) =>
      process === undefined
        ? []
        : [
            { labels: { mode: "user" }, value: process.cpuUserSeconds },
            { labels: { mode: "system" }, value: process.cpuSystemSeconds },
          ],
    ),
  ),
  gauge("tgws_worker_resident_memory_bytes", "Resident memory of the worker.", (report) =>
    ofWorkers(report, ({ process }) => perhaps(process?.rssBytes)),
  ),
  gauge("tgws_worker_open_fds", "File descriptors that the worker has open.", (report) =>
    ofWorkers(report, ({ process }) => perhaps(process?.openFds)),
  ),
  gauge("tgws_worker_max_fds", "File descriptors that the worker may have open.", (report) =>
    ofWorkers(report, ({ process }) => perhaps(process?.maxFds)),
  ),
  gauge(
    "tgws_worker_event_loop_lag_seconds",
    "The worker's longest stall of the last minute or two.",
    (report) => ofWorkers(report, ({ process }) => perhaps(process && process.loopLagMs / 1_000)),
  ),

  counter("process_cpu_seconds_total", "Processor time of the process that answers.", ({ process }) =>
    one(process.cpuUserSeconds + process.cpuSystemSeconds),
  ),
  gauge("process_resident_memory_bytes", "Resident memory of the process that answers.", ({ process }) =>
    perhaps(process.rssBytes),
  ),
  gauge("process_open_fds", "File descriptors that the process that answers has open.", ({ process }) =>
    perhaps(process.openFds),
  ),
  gauge("process_max_fds", "File descriptors that the process that answers may have open.", ({ process }) =>
    perhaps(process.maxFds),
  ),
  gauge("process_start_time_seconds", "When the process that answers was started.", ({ process }) =>
    one(process.startedAt / 1_000),
  ),
];

/** All of them with their series. */
export function readMetrics(report: StatusReport): readonly Metric[] {
  return METRICS.map(({ name, type, help, read }) => ({ name, type, help, samples: read(report) }));
}

type Read = MetricDefinition["read"];

/** Which of the workers with one number is the one to show: the highest, of those the last. */
const PRECEDENCE: Readonly<Record<WorkerState, number>> = {
  draining: 0,
  waiting: 1,
  starting: 2,
  running: 3,
};

function counter(name: string, help: string, read: Read): MetricDefinition {
  return { name, type: "counter", help, read };
}

function gauge(name: string, help: string, read: Read): MetricDefinition {
  return { name, type: "gauge", help, read };
}

function histogram(name: string, help: string, read: Read): MetricDefinition {
  return { name, type: "histogram", help, read };
}

function one(value: number): readonly Sample[] {
  return [{ value }];
}

function perhaps(value: number | undefined): readonly Sample[] {
  return value === undefined ? [] : one(value);
}

function limit(user: string, value: number | undefined): readonly Sample[] {
  return value === undefined ? [] : [{ labels: { user }, value }];
}

function upAndDown(up: number, down: number): readonly Sample[] {
  return [
    { labels: { direction: "up" }, value: up },
    { labels: { direction: "down" }, value: down },
  ];
}

/** @param known Names that are shown as 0 when nothing has happened, so that their first time is a change. */
function tally(label: string, counts: Tally, known: readonly string[] = []): readonly Sample[] {
  const names = new Set([...known, ...Object.keys(counts)]);
  return [...names].map((name) => ({ labels: { [label]: name }, value: counts[name] ?? 0 }));
}

function labelled(labels: NonNullable<Sample["labels"]>, samples: readonly Sample[]): readonly Sample[] {
  return samples.map((sample) => ({ labels: { ...labels, ...sample.labels }, value: sample.value }));
}

function routes(report: StatusReport, read: (one: RouteFigures) => readonly Sample[]): readonly Sample[] {
  return report.figures.routes.flatMap((figures) =>
    labelled({ route: figures.route, dc: figures.dc }, read(figures)),
  );
}

/** Of several workers with one number, the one that accepts: no series may come twice. */
function ofWorkers(report: StatusReport, read: (one: WorkerReport) => readonly Sample[]): readonly Sample[] {
  const chosen = new Map<number, WorkerReport>();
  for (const worker of report.workers) {
    const other = chosen.get(worker.index);
    if (other === undefined || PRECEDENCE[worker.state] >= PRECEDENCE[other.state])
      chosen.set(worker.index, worker);
  }
  return [...chosen.values()].flatMap((worker) => labelled({ worker: worker.index }, read(worker)));
}
