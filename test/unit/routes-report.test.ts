import { describe, expect, test } from "bun:test";
import {
  formatDuration,
  formatRoutes,
  routesToJson,
  type TargetRoutes,
  toLine,
} from "../../src/cli/routes-report.ts";

const NOW = Date.parse("2026-03-01T12:00:00Z");

const ROUTES: readonly TargetRoutes[] = [
  {
    target: "DC 4 media",
    ways: [
      {
        route: "direct-ws",
        endpoint: "kws4-1.web.telegram.org at 149.154.167.220",
        state: "good",
        openMs: 43.26,
        reason: undefined,
        again: undefined,
        wonAt: NOW - 3 * 60_000,
      },
      {
        route: "cf-domain",
        endpoint: "kws4-1.example.co.uk",
        state: "untried",
        openMs: undefined,
        reason: undefined,
        again: undefined,
        wonAt: undefined,
      },
      {
        route: "direct-tcp",
        endpoint: "149.154.167.91:443",
        state: "failed",
        openMs: 80,
        reason: "STALLED",
        again: 0,
        wonAt: NOW - 2 * 3_600_000,
      },
      {
        route: "cf-worker",
        endpoint: "mine.workers.dev",
        state: "failed",
        openMs: undefined,
        reason: "STATUS",
        again: 25_400,
        wonAt: undefined,
      },
    ],
  },
  { target: "DC 203", ways: [] },
];

describe("formatRoutes()", () => {
  test("draws one way a line, in the order of trying", () => {
    expect(formatRoutes(ROUTES, NOW).join("\n")).toBe(
      `DC 4 media
  1. direct-ws   kws4-1.web.telegram.org at 149.154.167.220  good, opens in 43 ms, carried data 3 min ago
  2. cf-domain   kws4-1.example.co.uk                        untried
  3. direct-tcp  149.154.167.91:443                          failed: STALLED, may be tried again, carried data 2 h ago
  4. cf-worker   mine.workers.dev                            failed: STATUS (an HTTP error), goes last for another 25 s
DC 203
  no route serves it`,
    );
  });

  test("draws nothing for nothing", () => {
    expect(formatRoutes([], NOW)).toEqual([]);
  });

  test("does not count time that a clock was set back", () => {
    const [line = ""] = formatRoutes(ROUTES.slice(0, 1), NOW - 3_600_000).slice(1);
    expect(line).toEndWith("good, opens in 43 ms, carried data just now");
  });
});

describe("routesToJson()", () => {
  test("gives every field, null for what is unknown", () => {
    const [first] = routesToJson(ROUTES);
    expect(first?.target).toBe("DC 4 media");
    expect(first?.ways[0]).toEqual({
      route: "direct-ws",
      endpoint: "kws4-1.web.telegram.org at 149.154.167.220",
      state: "good",
      openMs: 43.3,
      reason: null,
      againMs: null,
      wonAt: "2026-03-01T11:57:00.000Z",
    });
    expect(first?.ways[3]).toEqual({
      route: "cf-worker",
      endpoint: "mine.workers.dev",
      state: "failed",
      openMs: null,
      reason: "STATUS",
      againMs: 25_400,
      wonAt: null,
    });
    expect(JSON.stringify(routesToJson(ROUTES.slice(1)))).toBe('[{"target":"DC 203","ways":[]}]');
  });

  test("takes a moment from a broken file that is none", () => {
    const [way] = ROUTES[0]?.ways ?? [];
    if (way === undefined) throw new Error("no way");
    const [broken] = routesToJson([{ target: "DC 1", ways: [{ ...way, wonAt: 1e300 }] }]);
    expect(broken?.ways[0]?.wonAt).toBeNull();
  });
});

describe("formatDuration()", () => {
  test.each([
    [0, "0 ms"],
    [43.4, "43 ms"],
    [999.4, "999 ms"],
    [999.6, "1 s"],
    [99_400, "99 s"],
    [100_000, "2 min"],
    [50 * 60_000, "50 min"],
    [100 * 60_000, "2 h"],
    [47 * 3_600_000, "47 h"],
    [72 * 3_600_000, "3 days"],
  ])("formats %d ms as %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe("toLine()", () => {
  test("leaves a terminal nothing to obey", () => {
    expect(toLine("a\r\nb\u001b[2Jc\u009bd\u202ee\u0000")).toBe("a b?[2Jc?d?e?");
  });
});
