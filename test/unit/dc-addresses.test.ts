import { describe, expect, test } from "bun:test";
import {
  DEFAULT_DC_IPS,
  webSocketDc,
  webSocketHost,
  webSocketPath,
} from "../../src/protocol/mtproto/dc-addresses.ts";

describe("webSocketHost()", () => {
  test("prefers the plain name for messages and falls back to -1", () => {
    const target = { dc: 4, media: false, test: false };
    expect(webSocketHost(target, "preferred")).toBe("kws4.web.telegram.org");
    expect(webSocketHost(target, "alternate")).toBe("kws4-1.web.telegram.org");
  });

  test("prefers -1 for media and falls back to the plain name", () => {
    const target = { dc: 4, media: true, test: false };
    expect(webSocketHost(target, "preferred")).toBe("kws4-1.web.telegram.org");
    expect(webSocketHost(target, "alternate")).toBe("kws4.web.telegram.org");
  });

  test("uses the names of DC 2 for DC 203", () => {
    expect(webSocketHost({ dc: 203, media: false, test: false }, "preferred")).toBe("kws2.web.telegram.org");
    expect(webSocketHost({ dc: 203, media: true, test: false }, "preferred")).toBe("kws2-1.web.telegram.org");
  });
});

describe("webSocketDc()", () => {
  test.each([1, 2, 3, 4, 5])("leaves DC %d alone", (dc) => {
    expect(webSocketDc(dc)).toBe(dc);
  });
});

describe("webSocketPath()", () => {
  test("is another path for the test environment", () => {
    expect(webSocketPath({ dc: 2, media: false, test: false })).toBe("/apiws");
    expect(webSocketPath({ dc: 2, media: true, test: true })).toBe("/apiws_test");
  });
});

describe("DEFAULT_DC_IPS", () => {
  test("pins the two data centres that the address serves, and no other", () => {
    expect([...DEFAULT_DC_IPS]).toEqual([
      [2, "149.154.167.220"],
      [4, "149.154.167.220"],
    ]);
  });
});
