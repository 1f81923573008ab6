import { describe, expect, test } from "bun:test";
import { formatTable } from "../../src/cli/doctor-table.ts";
import { DC2, DC2_MEDIA, DC5, diagnosis, fail, inspection, MIXED, PLAIN, way } from "./doctor-diagnoses.ts";

describe("formatTable()", () => {
  test("aligns stages, marks what failed, and says what was left out", () => {
    expect(formatTable(MIXED, { color: false, width: 110 }).join("\n")).toBe(
      [
        "                                                          DNS  TCP  TLS upgrade answer media",
        "DC 2",
        "  direct-ws   kws2.web.telegram.org at 149.154.167.220      -   43   47      44     45        ok",
        "  direct-ws   kws2-1.web.telegram.org at 149.154.167.220    -   43   47      44           61  ok, 64.1 KB",
        "  cf-domain   kws2.example.co.uk                           12    x    -       -      -        TIMEOUT",
        "  cf-domain   9 more, not tried here",
        "  direct-tcp  149.154.167.51:443                            -   41    -       -      x        STALLED",
        "  stopped before 2 of its ways were tried",
        "DC 5",
        "  no route serves it",
      ].join("\n"),
    );
  });

  test("draws what messages and media go over alike once", () => {
    const limit = fail("STATUS", "HTTP 429 instead of a WebSocket", 429);
    const targets = [
      diagnosis(DC2, way(DC2, "cf-worker", "ok"), way(DC2, "cf-domain", "ok")),
      diagnosis(DC2_MEDIA, way(DC2_MEDIA, "cf-worker", "ok"), way(DC2_MEDIA, "cf-domain", limit)),
      diagnosis(DC5, way(DC5, "cf-worker", fail("SILENT"))),
    ];
    expect(formatTable(targets, PLAIN).join("\n")).toBe(
      [
        "                                DNS  TCP  TLS upgrade answer media",
        "DC 2",
        "  cf-worker  cf-worker.example    -   43   47      44     45    45  ok",
        "  cf-domain  cf-domain.example    -   43   47      44     45     x  ok; media STATUS HTTP 429",
        "DC 5",
        "  cf-worker  cf-worker.example    -   43   47      44      x        SILENT",
      ].join("\n"),
    );
    expect(formatTable(targets, { color: true, width: 100 })[3]).toContain("\u001b[33mok; media");
  });

  test("does not draw two ways with one endpoint as one", () => {
    const targets = [diagnosis(DC2, way(DC2, "cf-worker", "ok"), way(DC2, "cf-worker", "ok"))];
    expect(formatTable(targets, PLAIN)).toHaveLength(4);
  });

  test("names the HTTP status, which the inspection may know alone", () => {
    const limit = fail("STATUS", "HTTP 429 instead of a WebSocket", 429);
    const stages = inspection(["tcp", 43], ["tls", 47], ["upgrade", 44, limit]);
    const ways = [
      way(DC2, "cf-worker", limit),
      way(DC2, "cf-domain", fail("STATUS"), { inspection: stages }),
      way(DC2, "direct-ws", fail("STATUS")),
      way(DC2, "direct-ws", fail("REDIRECT", "HTTP 302", 302)),
    ];
    const verdicts = formatTable([diagnosis(DC2, ...ways)], PLAIN).map((line) => line.split(/ {2,}/).at(-1));
    expect(verdicts.slice(2)).toEqual(["STATUS HTTP 429", "STATUS HTTP 429", "STATUS", "REDIRECT"]);
  });

  test("says which of messages and media no route serves", () => {
    const lines = formatTable([diagnosis(DC2, way(DC2, "cf-worker", "ok")), diagnosis(DC2_MEDIA)], PLAIN);
    expect(lines.at(-1)).toBe("  no route serves its media");
  });

  test("stays within the width, which costs the middle of long endpoints", () => {
    const lines = formatTable(MIXED, { color: false, width: 84 });
    expect(Math.max(...lines.map((line) => line.length))).toBe(84);
    expect(lines[2]).toBe("  direct-ws   kws2.web.t…54.167.220    -   43   47      44     45        ok");
    expect(Math.max(...formatTable(MIXED, PLAIN).map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  test("keeps 20 columns for the endpoint, however narrow the terminal is", () => {
    expect(formatTable(MIXED, { color: false, width: 10 })[2]).toContain("  kws2.web.t…4.167.220  ");
  });

  test("colours the verdicts for a terminal, and nothing else", () => {
    const lines = formatTable(MIXED, { color: true, width: 100 });
    expect(lines[2]).toEndWith("\u001b[32mok\u001b[39m");
    expect(lines[4]).toEndWith("\u001b[31mTIMEOUT\u001b[39m");
    expect(lines.map((line) => Bun.stripANSI(line))).toEqual(formatTable(MIXED, PLAIN));
  });

  test("says via proxy where there are no stages to see", () => {
    const ways = [
      way(DC2, "direct-ws", "ok", { inspection: undefined }),
      way(DC2, "cf-domain", fail("PROXY"), { inspection: undefined }),
    ];
    expect(formatTable([diagnosis(DC2, ...ways)], PLAIN).join("\n")).toBe(
      [
        "                                DNS  TCP  TLS upgrade answer",
        "DC 2",
        "  direct-ws  direct-ws.example              via proxy     45  ok",
        "  cf-domain  cf-domain.example              via proxy      x  PROXY",
      ].join("\n"),
    );
  });

  test("draws nothing for nothing", () => {
    expect(formatTable([], PLAIN)).toEqual([]);
  });
});
