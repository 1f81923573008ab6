import { describe, expect, test } from "bun:test";
import { formatRelayPath } from "../../src/protocol/relay/request.ts";

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
