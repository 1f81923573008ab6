import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import { DC_NUMBERS, TEST_DC_NUMBERS } from "../../src/protocol/mtproto/dc.ts";
import {
  DEFAULT_DC_IPS,
  DEFAULT_TCP_IPS,
  DEFAULT_TCP_IPV6,
  TEST_TCP_IPS,
  TEST_TCP_IPV6,
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

describe("the TCP addresses", () => {
  test.each([
    ["IPv4", 4, DC_NUMBERS, DEFAULT_TCP_IPS],
    ["IPv6", 6, DC_NUMBERS, DEFAULT_TCP_IPV6],
    ["test IPv4", 4, TEST_DC_NUMBERS, TEST_TCP_IPS],
    ["test IPv6", 6, TEST_DC_NUMBERS, TEST_TCP_IPV6],
  ] as const)("are complete: %s", (_, version, numbers, ips) => {
    expect([...ips.keys()]).toEqual([...numbers]);
    expect([...ips.values()].map((ip) => isIP(ip))).toEqual(numbers.map(() => version));
    expect(new Set(ips.values()).size).toBe(numbers.length);
  });
});
