import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { ipVersion } from "../../src/core/ip-address.ts";

describe("ipVersion()", () => {
  test.each([
    "127.0.0.1",
    "255.255.255.255",
    "256.0.0.1",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "1.2.3.4 ",
    "",
    "a",
    ":",
    "::",
    "::1",
    "1::",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "1::3::5",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7",
    ":::",
    "12345::",
    "g::",
    "::ffff:1.2.3.4",
    "::ffff:1.2.3.256",
    "1.2.3.4::",
    "::1.2.3.4:5",
    "64:ff9b::192.0.2.1",
    "fe80::1%eth0",
    "fe80::1%",
    "fe80::1%a b",
    "1:2:3:4:5:6:1.2.3.4",
    "1:2:3:4:5:6:7:1.2.3.4",
    "::1:2:3:4:5:6:1.2.3.4",
    "[::1]",
    "1:2:3:4:5:6:7:8::",
  ])("says of %p what node:net says", (text) => {
    expect(ipVersion(text)).toBe(isIP(text) as 0 | 4 | 6);
  });

  test("agrees with node:net on addresses and on what looks like them", () => {
    const pieces = fc.constantFrom(
      "0",
      "1",
      "f",
      "ffff",
      ":",
      "::",
      ".",
      "255",
      "256",
      "1.2.3.4",
      "%",
      "eth0",
      "g",
      "00",
    );
    const texts = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.string(),
      fc.array(pieces, { maxLength: 16 }).map((all) => all.join("")),
    );
    fc.assert(
      fc.property(texts, (text) => expect(ipVersion(text)).toBe(isIP(text) as 0 | 4 | 6)),
      { numRuns: 5_000 },
    );
  });
});
