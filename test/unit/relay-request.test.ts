import { describe, expect, test } from "bun:test";
import { FormatError } from "../../src/core/errors.ts";
import { DC_NUMBERS } from "../../src/protocol/mtproto/dc.ts";
import { formatRelayPath, parseRelayPath } from "../../src/protocol/relay/request.ts";

function errorOf(path: string): FormatError {
  try {
    parseRelayPath(path);
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error(`no complaint about ${path}`);
}

describe("formatRelayPath()", () => {
  test("is what deployed Workers read", () => {
    expect(formatRelayPath({ dst: "149.154.167.51", dc: 2 })).toBe("/apiws?dst=149.154.167.51&dc=2");
  });

  test("escapes the colons of IPv6, and URL.searchParams reads them back", () => {
    const path = formatRelayPath({ dst: "2001:67c:4e8:f002::a", dc: 203 });
    expect(path).toBe("/apiws?dst=2001%3A67c%3A4e8%3Af002%3A%3Aa&dc=203");
    const { searchParams } = new URL(`wss://relay.example${path}`);
    expect([...searchParams]).toEqual([
      ["dst", "2001:67c:4e8:f002::a"],
      ["dc", "203"],
    ]);
  });
});

describe("parseRelayPath()", () => {
  test.each(DC_NUMBERS)("reads what formatRelayPath wrote, for DC %d", (dc) => {
    for (const dst of [
      "0.0.0.0",
      "255.255.255.255",
      "::",
      "::1",
      "1:2:3:4:5:6:7:8",
      "::ffff:192.0.2.7",
      "a::",
    ])
      expect(parseRelayPath(formatRelayPath({ dst, dc }))).toEqual({ dst, dc });
  });

  test.each([
    "/apiws?dc=2&dst=192.0.2.7",
    "/apiws?x=1&dst=192.0.2.7&y&dc=2&",
    "/apiws?%64st=192%2e0.2.7&dc=2",
  ])("reads %s, whatever the order, the rest and the escapes", (path) => {
    expect(parseRelayPath(path)).toEqual({ dst: "192.0.2.7", dc: 2 });
  });

  test.each([
    ["", "another path"],
    ["/", "another path"],
    ["/apiws", "another path"],
    ["/apiws/?dst=192.0.2.7&dc=2", "another path"],
    ["apiws?dst=192.0.2.7&dc=2", "another path"],
    ["/apiws?", "dst is missing"],
    ["/apiws?dst=192.0.2.7", "dc is missing"],
    ["/apiws?dst=192.0.2.7&dst=192.0.2.8&dc=2", "dst is there twice"],
    ["/apiws?dst=192.0.2.7&dc=2&dc=2", "dc is there twice"],
    ["/apiws?dst=192.0.2.7&dc=", "no such dc"],
    ["/apiws?dst=192.0.2.7&dc=02", "no such dc"],
    ["/apiws?dst=192.0.2.7&dc=6", "no such dc"],
    ["/apiws?dst=192.0.2.7&dc=-2", "no such dc"],
    ["/apiws?dst=192.0.2.7&dc=2#", "no such dc"],
    ["/apiws?dst=%zz&dc=2", "escapes are broken"],
    ["/apiws?dst=%ff&dc=2", "escapes are broken"],
    [`/apiws?dst=192.0.2.7&dc=2&x=${"x".repeat(500)}`, "too long"],
  ])("throws BAD_VALUE on %j: %s", (path, reason) => {
    const { code, message } = errorOf(path);
    expect(code).toBe("BAD_VALUE");
    expect(message).toContain(reason);
  });

  test.each([
    "",
    "example.org",
    "localhost",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.07",
    "0x7f.0.0.1",
    "192.0.2.7:443",
    "[::1]",
    ":",
    ":::",
    "::1::",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4::5:6:7:8",
    "12345::",
    "g::",
    "fe80::1%eth0",
    "192.0.2.7::",
    "::192.0.2.7:1",
    "::192.0.2",
    ":1:2:3:4:5:6:7",
  ])("throws BAD_ADDRESS for the address %j", (dst) => {
    expect(errorOf(formatRelayPath({ dst, dc: 2 })).code).toBe("BAD_ADDRESS");
  });
});
