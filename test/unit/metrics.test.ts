import { describe, expect, test } from "bun:test";
import { REFUSAL_REASONS } from "../../src/core/events.ts";
import { NO_FIGURES } from "../../src/observe/figures.ts";
import { newHistogram } from "../../src/observe/histogram.ts";
import { METRICS, readMetrics } from "../../src/observe/metrics.ts";
import { formatMetrics, type Metric } from "../../src/observe/prometheus-text.ts";
import { END_REASONS, MASK_REASONS } from "../../src/observe/reasons.ts";
import type { StatusReport, WorkerReport, WorkerState } from "../../src/observe/status-report.ts";
import { type Family, parseMetrics } from "../support/prometheus.ts";
import { sampleFigures, sampleReport, sampleUser } from "../support/status-report.ts";

const metricsOf = (report: StatusReport): string => formatMetrics(readMetrics(report));
const parsed = (report = sampleReport()): ReadonlyMap<string, Family> => parseMetrics(metricsOf(report));

function valueIn(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const family = families.get(name.replace(/_(bucket|sum|count)$/, "")) ?? families.get(name);
  const wanted = Object.entries(labels);
  return family?.series.find(
    (one) => one.name === name && wanted.every(([label, value]) => one.labels[label] === value),
  )?.value;
}

describe("formatMetrics()", () => {
  const metric = (changes: Partial<Metric>): Metric => ({
    name: "tgws_x",
    type: "gauge",
    help: "A thing.",
    samples: [{ value: 1 }],
    ...changes,
  });

  test("writes HELP, TYPE and the series", () => {
    expect(
      formatMetrics([metric({ samples: [{ value: 1.5 }, { labels: { a: "b", c: 2 }, value: 0 }] })]),
    ).toBe('# HELP tgws_x A thing.\n# TYPE tgws_x gauge\ntgws_x 1.5\ntgws_x{a="b",c="2"} 0\n');
  });

  test("escapes what labels and help must not hold", () => {
    const text = formatMetrics([
      metric({ help: "back\\slash\nnew line", samples: [{ labels: { a: 'q"\\\n' }, value: 1 }] }),
    ]);
    expect(text).toContain("# HELP tgws_x back\\\\slash\\nnew line\n");
    expect(text).toContain('tgws_x{a="q\\"\\\\\\n"} 1\n');
    expect(parseMetrics(text).get("tgws_x")?.series[0]?.labels).toEqual({ a: 'q"\\\n' });
  });

  test("leaves out a metric without series", () => {
    expect(formatMetrics([metric({ samples: [] })])).toBe("");
  });

  test("adds up the buckets of a histogram, in seconds", () => {
    const value = { ...newHistogram(), sumMicros: 1_500_000 };
    value.counts[0] = 2;
    value.counts[1] = 1;
    value.counts[value.counts.length - 1] = 4;
    const families = parseMetrics(formatMetrics([metric({ type: "histogram", samples: [{ value }] })]));
    expect(valueIn(families, "tgws_x_bucket", { le: "0.01" })).toBe(2);
    expect(valueIn(families, "tgws_x_bucket", { le: "0.025" })).toBe(3);
    expect(valueIn(families, "tgws_x_bucket", { le: "10" })).toBe(3);
    expect(valueIn(families, "tgws_x_bucket", { le: "+Inf" })).toBe(7);
    expect(valueIn(families, "tgws_x_count")).toBe(7);
    expect(valueIn(families, "tgws_x_sum")).toBe(1.5);
  });
});

describe("METRICS", () => {
  test("have names, types and units as Prometheus wants them", () => {
    for (const { name, type, help } of METRICS) {
      expect(name).toMatch(/^(tgws|process)_[a-z0-9_]+$/);
      expect(name.endsWith("_total")).toBe(type === "counter");
      expect(help).toMatch(/^[A-Z0-9].*\.$/);
      expect(name).not.toMatch(/(milliseconds|_ms|_kb|_mb|megabytes)/);
    }
    expect(new Set(METRICS.map(({ name }) => name)).size).toBe(METRICS.length);
  });

  test("are all shown for a report in which nothing is missing", () => {
    expect([...parsed().keys()]).toEqual(METRICS.map(({ name }) => name));
  });

  test("are read from the right places", () => {
    const families = parsed();
    expect(valueIn(families, "tgws_build_info", { version: "1.2.3" })).toBe(1);
    expect(valueIn(families, "tgws_connections_total")).toBe(120);
    expect(valueIn(families, "tgws_connections_active")).toBe(7);
    expect(valueIn(families, "tgws_connections_ended_total", { reason: "stranger" })).toBe(20);
    expect(valueIn(families, "tgws_connections_shed_total")).toBe(5);
    expect(valueIn(families, "tgws_bytes_total", { direction: "down" })).toBe(2_000);
    expect(valueIn(families, "tgws_masked_bytes_total", { direction: "up" })).toBe(30);
    expect(
      valueIn(families, "tgws_route_failures_total", { route: "direct-ws", dc: "2", code: "TIMEOUT" }),
    ).toBe(3);
    expect(valueIn(families, "tgws_route_open_seconds_count", { route: "direct-ws", dc: "2" })).toBe(5);
    expect(valueIn(families, "tgws_route_open_seconds_sum", { route: "direct-ws" })).toBeCloseTo(60.865, 9);
    expect(valueIn(families, "tgws_pool_requests_total", { pool: "cf", result: "miss" })).toBe(2);
    expect(valueIn(families, "tgws_user_quota_bytes", { user: "ann" })).toBe(1_000_000);
    expect(valueIn(families, "tgws_user_refused_total", { user: "ann", reason: "user-quota" })).toBe(2);
    expect(valueIn(families, "tgws_user_bytes_total", { user: "ann", direction: "up" })).toBe(1_000);
    expect(valueIn(families, "tgws_user_used_bytes", { user: "ann", direction: "up" })).toBe(5_000);
    expect(valueIn(families, "tgws_user_expiry_time_seconds", { user: "ann" })).toBe(1_800_000_000);
    expect(valueIn(families, "tgws_workers", { state: "running" })).toBe(1);
    expect(valueIn(families, "tgws_workers", { state: "waiting" })).toBe(0);
    expect(valueIn(families, "tgws_worker_restarts_total", { worker: "1" })).toBe(2);
    expect(valueIn(families, "tgws_config_error")).toBe(1);
    expect(valueIn(families, "tgws_log_lines_total", { result: "folded" })).toBe(1_000);
    expect(valueIn(families, "process_open_fds")).toBe(40);
    expect(valueIn(families, "process_start_time_seconds")).toBeCloseTo(Date.now() / 1_000, -4);
  });

  test("show one of several workers with the same number: the one that accepts", () => {
    const { process } = sampleReport();
    const worker = (state: WorkerState, restarts: number): WorkerReport => {
      const pid = state === "waiting" ? undefined : 100 + restarts;
      return { index: 0, pid, state, startedAt: pid ?? 0, restarts, process };
    };
    const shown = (...states: readonly WorkerState[]): number | undefined =>
      valueIn(parsed(sampleReport({ workers: states.map(worker) })), "tgws_worker_restarts_total");
    expect(shown("draining", "running")).toBe(1);
    expect(shown("running", "starting")).toBe(0); // being replaced
    expect(shown("draining", "draining", "starting")).toBe(2);
    expect(shown("draining", "waiting")).toBe(1);
    expect(shown("draining", "running", "draining")).toBe(1);
    const waiting = parsed(sampleReport({ workers: [worker("waiting", 3)] }));
    expect(waiting.has("tgws_worker_start_time_seconds")).toBe(false);
    expect(valueIn(waiting, "tgws_workers", { state: "waiting" })).toBe(1);
  });

  test("show reasons that have not happened yet as 0", () => {
    const families = parsed(sampleReport({ figures: NO_FIGURES }));
    for (const reason of END_REASONS)
      expect(valueIn(families, "tgws_connections_ended_total", { reason })).toBe(0);
    for (const reason of MASK_REASONS)
      expect(valueIn(families, "tgws_connections_masked_total", { reason })).toBe(0);
    for (const reason of REFUSAL_REASONS)
      expect(valueIn(families, "tgws_connections_refused_total", { reason })).toBe(0);
  });

  test("leave out limits that there are not", () => {
    const none = { maxConnections: undefined, maxAddresses: undefined, quotaBytes: undefined };
    const families = parsed(
      sampleReport({
        users: [{ ...sampleUser(), ...none, expiresAt: undefined, rateBytes: undefined }],
        limits: {
          maxConnections: undefined,
          maxPerAddress: undefined,
          addressRate: undefined,
          bufferBytes: undefined,
        },
      }),
    );
    const shown = [...families.keys()].filter((name) => /_limit_|quota|_max_[ac]|expiry|_rate_/.test(name));
    expect(shown).toEqual([]);
  });

  test("do not stumble over a worker that says nothing, or a process that cannot tell", () => {
    const dead = { index: 3, pid: undefined, state: "waiting", restarts: 9, startedAt: 0 } as const;
    const { process } = sampleReport();
    const families = parsed(
      sampleReport({
        workers: [{ ...dead, process: undefined }],
        process: { ...process, openFds: undefined, maxFds: undefined },
      }),
    );
    expect(valueIn(families, "tgws_worker_restarts_total", { worker: "3" })).toBe(9);
    expect(families.has("tgws_worker_cpu_seconds_total")).toBe(false);
    expect(families.has("process_open_fds")).toBe(false);
  });

  test("show one process for each worker while it is replaced: a series comes once", () => {
    const [worker] = sampleReport().workers;
    if (worker === undefined) throw new Error("there is none");
    const old = { ...worker, state: "draining", startedAt: 1_000, restarts: 2 } as const;
    const ready = { ...worker, state: "running", startedAt: 2_000, restarts: 2 } as const;
    const next = { ...worker, state: "starting", startedAt: 3_000, restarts: 2 } as const;
    const startOf = (...workers: StatusReport["workers"][number][]): number[] | undefined =>
      parsed(sampleReport({ workers }))
        .get("tgws_worker_start_time_seconds")
        ?.series.map(({ value }) => value);
    expect(startOf(old, old, ready, next)).toEqual([2]);
    expect(startOf(old, next)).toEqual([3]);
    expect(startOf({ ...old, startedAt: 4_000 })).toEqual([4]);
    expect(startOf(old, { ...ready, index: 7 })).toEqual([1, 2]);
  });

  test("keep names of users apart that look alike", () => {
    const users = ["a", "A", "a.b", "a-b", "__proto__"].map(sampleUser);
    const series = parsed(sampleReport({ users })).get("tgws_user_enabled")?.series;
    expect(series?.map(({ labels }) => labels["user"])).toEqual(["a", "A", "a.b", "a-b", "__proto__"]);
  });
});

const promtool = Bun.which("promtool");

describe("promtool check metrics (of Debian's package prometheus; skipped where it is not installed)", () => {
  const check = async (text: string): Promise<{ code: number; said: string }> => {
    const program = Bun.spawn([promtool ?? "", "check", "metrics"], {
      stdin: Buffer.from(text),
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = await Promise.all([program.stdout.text(), program.stderr.text()]);
    return { code: await program.exited, said: said.join("").trim() };
  };

  test.if(promtool !== null)("has nothing to say about a full report", async () => {
    expect(await check(metricsOf(sampleReport()))).toEqual({ code: 0, said: "" });
  });

  test.if(promtool !== null)("has nothing to say about an empty one", async () => {
    const empty = sampleReport({ figures: NO_FIGURES, users: [], workers: [] });
    expect(await check(metricsOf(empty))).toEqual({ code: 0, said: "" });
  });

  test.if(promtool !== null)("would have: it sees a counter without _total", async () => {
    const { figures: _, ...rest } = sampleReport();
    const text = metricsOf({ ...rest, figures: sampleFigures() }).replaceAll(
      "tgws_bytes_total",
      "tgws_bytes",
    );
    expect((await check(text)).said).toContain("tgws_bytes");
  });
});
