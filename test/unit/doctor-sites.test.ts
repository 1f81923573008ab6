import { describe, expect, test } from "bun:test";
import type { DoctorOptions } from "../../src/cli/doctor.ts";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import { adviseOnSites } from "../../src/cli/doctor-advice-on-sites.ts";
import type { DoctorJson } from "../../src/cli/doctor-json.ts";
import { formatSites } from "../../src/cli/doctor-report.ts";
import type { SiteReport } from "../../src/proxy/cover-report.ts";
import { DC2, diagnosis, everywhere, fail, MIXED, PLAIN, way } from "./doctor-diagnoses.ts";
import { fakeRoute, type Run, start, withoutTimes } from "./doctor-fakes.ts";

const FINE: SiteReport = {
  domain: "www.example.com",
  usable: true,
  address: "127.0.0.1:8443",
  look: "TLS 1.3, X25519, an answer of about 1,263 bytes",
  problems: [],
  notes: [],
};
const WITH_RECORDS: SiteReport = { ...FINE, domain: "a.example", notes: [{ kind: "records", count: 4 }] };

const CAUSE =
  "lost.example.com cannot be reached (127.0.0.1:1: connection refused): whoever opens this address sees that no web " +
  "site is here";
const ACTION = "start the site, or say where it is: --mask-host <host:port>";
const LOST: SiteReport = {
  domain: "lost.example.com",
  usable: false,
  address: undefined,
  look: undefined,
  problems: [
    {
      kind: "unreachable",
      text: `${CAUSE}. Start the site, or say where it is: --mask-host <host:port>`,
      cause: CAUSE,
      action: ACTION,
    },
  ],
  notes: [],
};

describe("formatSites()", () => {
  test("says how each site looks, or that it cannot be used and why, once", () => {
    expect(formatSites([FINE, LOST], PLAIN).join("\n")).toBe(
      `  www.example.com   TLS 1.3, X25519, an answer of about 1,263 bytes
  lost.example.com  cannot be used
    lost.example.com cannot be reached (127.0.0.1:1: connection refused): whoever opens this address
    sees that no web site is here.`,
    );
  });

  test("says last, for all sites together, what there is nothing to do about", () => {
    expect(formatSites([WITH_RECORDS, { ...WITH_RECORDS, domain: "b.example" }], PLAIN).join("\n")).toBe(
      `  a.example  TLS 1.3, X25519, an answer of about 1,263 bytes
  b.example  TLS 1.3, X25519, an answer of about 1,263 bytes
  a.example and b.example answer in 4 TLS records, where Telegram's apps take one: ours is one of
  the same length, which a close look at a served connection can tell. A server with BoringSSL
  answers in one. There is nothing to do about it.`,
    );
  });

  test("does not say how a site looks that is reached and of no use", () => {
    expect(formatSites([{ ...LOST, look: "TLS 1.3, P-256" }], PLAIN)[0]).toBe(
      "  lost.example.com  cannot be used",
    );
  });

  test("makes what servers say harmless to a terminal", () => {
    const problems = LOST.problems.map((problem) => ({ ...problem, cause: "a\u001b[2Jb\nc" }));
    expect(formatSites([{ ...LOST, problems }], PLAIN)[1]).toBe("    a?[2Jb c.");
  });
});

describe("adviseOnSites()", () => {
  test("says an action once for all sites that need it", () => {
    expect(adviseOnSites([FINE, LOST, WITH_RECORDS, { ...LOST, domain: "b.example" }])).toEqual([
      `lost.example.com and b.example: ${ACTION}.`,
    ]);
  });
});

describe("adviseOn(), sites", () => {
  const fine = "Every data centre has a working route.";
  const line = `lost.example.com: ${ACTION}.`;
  const works = everywhere((target) => [way(target, "direct-ws", "ok")]);

  test("says last what to do about a site, and then not that there is nothing to do", () => {
    expect(adviseOn(works, { sites: [LOST] })).toEqual([fine, line]);
    expect(adviseOn([diagnosis(DC2)], { sites: [LOST] }).at(-1)).toBe(line);
    expect(adviseOn(MIXED, { sites: [LOST] }).at(-1)).toBe(line);
  });

  test("does not mind a site with nothing to do about it", () => {
    expect(adviseOn(works, { sites: [FINE, WITH_RECORDS] })).toEqual([`${fine} There is nothing to do.`]);
  });

  test("does not blame a site for what a computer without a network cannot reach", () => {
    const targets = everywhere((target) => [way(target, "direct-ws", fail("UNREACHABLE"))]);
    expect(adviseOn(targets, { online: false, sites: [LOST] })).toEqual(adviseOn(targets, { online: false }));
  });
});

describe("runDoctor(), sites", () => {
  const run = (sites: readonly SiteReport[], options: Partial<DoctorOptions> = {}): Run =>
    start({ routes: [fakeRoute("direct-ws")], cover: async () => sites, ...options });

  test("says what strangers are shown and what to do about it, and returns what the routes say", async () => {
    const { code, printed } = run([LOST]);
    expect(await code).toBe(0);
    expect(withoutTimes(printed[0] ?? "")).toEndWith(`

What strangers are shown
  lost.example.com  cannot be used
    lost.example.com cannot be reached (127.0.0.1:1: connection refused): whoever opens this address
    sees that no web site is here.

What works, by the fastest route
  DC 2  messages direct-ws N ms, media direct-ws N ms

What to do
  Every data centre has a working route.
  lost.example.com: start the site, or say where it is: --mask-host <host:port>.`);
  });

  test("says in JSON of each site whether it can be used, where it is and what to do", async () => {
    const { code, printed } = run([FINE, WITH_RECORDS, LOST], { json: true });
    expect(await code).toBe(0);
    const { ok, sites, advice } = JSON.parse(printed[0] ?? "") as DoctorJson;
    const { address, look } = FINE;
    const problems: string[] = [];
    expect(ok).toBe(true);
    expect(sites as unknown).toEqual([
      { domain: "www.example.com", usable: true, address, look, problems, notes: [] },
      {
        ...{ domain: "a.example", usable: true, address, look, problems },
        notes: [expect.stringMatching(/^a\.example answers in 4 TLS records, .* answers in one$/)],
      },
      {
        ...{ domain: "lost.example.com", usable: false, notes: [] },
        problems: [`${CAUSE}. Start the site, or say where it is: --mask-host <host:port>`],
      },
    ]);
    expect(advice).toEqual(["Every data centre has a working route.", `lost.example.com: ${ACTION}.`]);
  });
});
