import { describe, expect, test } from "bun:test";
import type { RouteErrorCode } from "../../src/core/errors.ts";
import { Cooldowns } from "../../src/upstream/cooldowns.ts";

function startClock(): { cooldowns: Cooldowns; pass: (ms: number) => void } {
  let now = 1_000_000;
  return {
    cooldowns: new Cooldowns(() => now),
    pass: (ms) => {
      now += ms;
    },
  };
}

describe("Cooldowns", () => {
  test("begins with nothing cooling", () => {
    expect(startClock().cooldowns.cooling("one")).toBe(false);
  });

  test.each([
    ["REDIRECT", 600_000],
    ["STATUS", 60_000],
    ["PROTOCOL", 60_000],
    ["TLS", 60_000],
    ["REFUSED", 30_000],
    ["UNREACHABLE", 10_000],
    ["TIMEOUT", 30_000],
    ["DNS", 10_000],
    ["CLOSED", 30_000],
    ["UNKNOWN", 30_000],
  ] as [RouteErrorCode, number][])("cools an endpoint for its time after %s: %d ms", (code, duration) => {
    const { cooldowns, pass } = startClock();
    cooldowns.failed("one", code);
    expect(cooldowns.cooling("one")).toBe(true);
    pass(duration - 1);
    expect(cooldowns.cooling("one")).toBe(true);
    pass(1);
    expect(cooldowns.cooling("one")).toBe(false);
  });

  test("does not cool an endpoint that the caller gave up", () => {
    const { cooldowns } = startClock();
    cooldowns.failed("one", "ABORTED");
    expect(cooldowns.cooling("one")).toBe(false);
  });

  test("does not shorten a cooldown when an attempt is given up during it", () => {
    const { cooldowns } = startClock();
    cooldowns.failed("one", "REDIRECT");
    cooldowns.failed("one", "ABORTED");
    expect(cooldowns.cooling("one")).toBe(true);
  });

  test("keeps the longer of two cooldowns, whichever comes first", () => {
    const { cooldowns, pass } = startClock();
    cooldowns.failed("one", "REDIRECT");
    cooldowns.failed("one", "TIMEOUT");
    cooldowns.failed("two", "TIMEOUT");
    cooldowns.failed("two", "REDIRECT");
    pass(599_999);
    expect(["one", "two"].map((endpoint) => cooldowns.cooling(endpoint))).toEqual([true, true]);
    pass(1);
    expect(["one", "two"].map((endpoint) => cooldowns.cooling(endpoint))).toEqual([false, false]);
  });

  test("ends with success", () => {
    const { cooldowns } = startClock();
    cooldowns.failed("one", "REDIRECT");
    cooldowns.succeeded("one");
    expect(cooldowns.cooling("one")).toBe(false);
  });

  test("begins anew with another failure", () => {
    const { cooldowns, pass } = startClock();
    cooldowns.failed("one", "TIMEOUT");
    pass(29_999);
    cooldowns.failed("one", "TIMEOUT");
    pass(29_999);
    expect(cooldowns.cooling("one")).toBe(true);
  });

  test("tells endpoints apart", () => {
    const { cooldowns } = startClock();
    cooldowns.failed("one", "TIMEOUT");
    expect(cooldowns.cooling("two")).toBe(false);
    cooldowns.succeeded("two");
    expect(cooldowns.cooling("one")).toBe(true);
  });

  test("has a clock of its own", () => {
    const cooldowns = new Cooldowns();
    cooldowns.failed("one", "TIMEOUT");
    expect(cooldowns.cooling("one")).toBe(true);
  });
});
