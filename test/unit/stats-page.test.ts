import { describe, expect, test } from "bun:test";
import { formatStatsPage } from "../../src/observe/stats-page.ts";
import { sampleReport } from "../support/status-report.ts";

function pageOf(report = sampleReport()): ReadonlyMap<string, string> {
  const lines = formatStatsPage(report).trimEnd().split("\n");
  const pairs = lines.map((line): [string, string] => {
    const [key = "", value = "", ...more] = line.split("\t");
    expect(more).toEqual([]);
    expect(key).toMatch(/^[\w.-]+$/);
    return [key, value];
  });
  expect(new Set(pairs.map(([key]) => key)).size).toBe(pairs.length);
  return new Map(pairs);
}

describe("formatStatsPage()", () => {
  test("has MTProxy's keys where the meaning is the same", () => {
    const page = pageOf();
    expect(Object.fromEntries([...page].filter(([key]) => !key.startsWith("tgws_")))).toEqual({
      pid: String(process.pid),
      start_time: "1700000000",
      current_time: "1700000060",
      uptime: "60",
      vmrss_bytes: expect.stringMatching(/^\d+$/),
      config_filename: "/etc/tgws/config.toml",
      config_loaded_at: "1700000000",
      workers: "2",
      total_special_connections: "7",
      total_max_special_connections: "4000",
      ext_connections: "6",
      ext_connections_created: "95",
      total_network_buffers_used_size: "4096",
      connections_failed_lru: "3",
      version: "tgws-1.2.3",
    });
  });

  test("has the rest under names of its own", () => {
    const page = pageOf();
    expect(page.get("tgws_connections_total")).toBe("120");
    expect(page.get("tgws_connections_shed")).toBe("5");
    expect(page.get("tgws_bytes_down")).toBe("2000");
    expect(page.get("tgws_ended_client_closed")).toBe("90");
    expect(page.get("tgws_refused_user_quota")).toBe("2");
    expect(page.get("tgws_user_ann_bytes_down")).toBe("6000");
  });

  test("says 0 workers when one process does everything", () => {
    const { workers } = sampleReport();
    expect(pageOf(sampleReport({ workers: workers.slice(0, 1) })).get("workers")).toBe("0");
  });

  test("leaves out what there is not", () => {
    const config = { file: undefined, loadedAt: 0, lastError: undefined };
    expect(pageOf(sampleReport({ config })).has("config_filename")).toBe(false);
  });

  test("keeps one line a key, whatever the file is called", () => {
    const config = { file: "/tmp/a\tb\nc", loadedAt: 0, lastError: undefined };
    expect(pageOf(sampleReport({ config })).get("config_filename")).toBe("/tmp/a b c");
  });
});
