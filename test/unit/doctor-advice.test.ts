import { describe, expect, test } from "bun:test";
import { adviseOn } from "../../src/cli/doctor-advice.ts";
import { DC2, diagnosis, everywhere, fail, MIXED, way } from "./doctor-diagnoses.ts";

describe("adviseOn()", () => {
  const fine = "Every data centre has a working route.";
  const idle = `${fine} There is nothing to do`;
  const none = "No data centre can be reached.";

  test("says one line when all is fine", () => {
    expect(adviseOn(everywhere((target) => [way(target, "direct-ws", "ok")]))).toEqual([`${idle}.`]);
  });

  test("does not mind a blocked route beside one that works", () => {
    const targets = everywhere((target) => [
      way(target, "direct-ws", fail("TIMEOUT")),
      way(target, "direct-tcp", fail("REFUSED")),
      way(target, "cf-domain", fail("DNS"), { host: "kws2.example" }),
      way(target, "cf-worker", "ok"),
    ]);
    expect(adviseOn(targets)).toEqual([
      `${fine} The direct routes fail here, so tgws uses cf-worker by itself: there is nothing to do.`,
    ]);
    const half = targets.map(({ target, ways }) =>
      diagnosis(target, ...ways, way(target, "fronted-ws", "ok")),
    );
    expect(adviseOn(half)).toEqual([`${idle}: what fails is passed over.`]);
  });

  test("always has something to say, also about a failure that matches nothing", () => {
    expect(adviseOn([diagnosis(DC2, way(DC2, "cf-domain", fail("UNKNOWN")))])).toEqual([
      none,
      "The reasons above match nothing that is known: please report them.",
      expect.stringMatching(/^A way out may be to use a Worker .*--upstream-proxy\.$/),
    ]);
    expect(adviseOn([diagnosis(DC2)]).slice(0, 2)).toEqual([none, "No route serves DC 2: see --route."]);
  });

  test("draws no conclusions from half of the facts", () => {
    expect(adviseOn(MIXED)).toEqual([
      "It was stopped before everything was tried: run it again for advice.",
      "Failed until then: cf-domain (TIMEOUT) and direct-tcp (STALLED).",
    ]);
  });
});
