import { describe, expect, test } from "bun:test";
import { formatFindings, formatReasons } from "../../src/cli/doctor-report.ts";
import type { WayReport } from "../../src/upstream/standings.ts";
import { DC2, DC5, diagnosis, fail, inspection, MIXED, PLAIN, WHOLE, way } from "./doctor-diagnoses.ts";

describe("formatFindings()", () => {
  test("shows the first three of the learned order, and leaves out what is empty", () => {
    const unknown = { openMs: undefined, reason: undefined, again: undefined, wonAt: undefined };
    const ways = ["a", "b", "c", "d"].map(
      (endpoint): WayReport => ({ route: "cf-domain", endpoint, state: "untried", ...unknown }),
    );
    const learned = [{ target: "DC 2", ways }];
    expect(
      formatFindings({ targets: [], ok: true, complete: true, advice: [], learned, sites: [] }, PLAIN),
    ).toBe(
      `The order in which clients' connections try them (tgws routes shows all)
  DC 2
    1. cf-domain  a  untried
    2. cf-domain  b  untried
    3. cf-domain  c  untried`,
    );
  });
});

describe("formatReasons()", () => {
  test("lists each reason once, with what the stage says, and makes it harmless", () => {
    const lost = {
      ...inspection(["tcp", 40], ["tls", 41], ["upgrade", 40, fail("REDIRECT", "HTTP 302")]),
      location: "https://a.example/\u001b[2J",
    };
    const targets = [
      ...MIXED,
      diagnosis(DC2, way(DC2, "direct-ws", fail("REDIRECT", "HTTP 302"))),
      diagnosis(DC5, way(DC5, "direct-ws", fail("REDIRECT", "HTTP 302"), { inspection: lost })),
      diagnosis(DC5, way(DC5, "direct-tcp", fail("STALLED", "stopped after 16.2 KB"), { inspection: WHOLE })),
    ];
    expect(formatReasons(targets, { color: false, width: 88 }).join("\n")).toBe(
      [
        "  TIMEOUT      cf-domain: no WebSocket within 4 s (DC 2); TCP: no answer within 5 s",
        "  STALLED      direct-tcp: stopped after 16.2 KB (DC 2 and 5)",
        "  REDIRECT     direct-ws: HTTP 302 (DC 2 and 5); for example it leads to",
        "               https://a.example/?[2J",
      ].join("\n"),
    );
  });

  test("is empty when nothing failed", () => {
    expect(formatReasons([diagnosis(DC2, way(DC2, "direct-ws", "ok"))], PLAIN)).toEqual([]);
  });
});
