import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { formatIp, ipVersion, parseIp } from "../../src/core/ip-address.ts";

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

const hexOf = (text: string): string | undefined => parseIp(text)?.toHex();

describe("parseIp()", () => {
  test.each([
    ["0.0.0.0", "00000000"],
    ["192.0.2.255", "c00002ff"],
    ["::", "0".repeat(32)],
    ["::1", `${"0".repeat(31)}1`],
    ["1::", `0001${"0".repeat(28)}`],
    ["2001:DB8::a:0:7", "20010db8000000000000000a00000007"],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
    ["1:2:3:4:5:6:7::", "00010002000300040005000600070000"],
    ["::2:3:4:5:6:7:8", "00000002000300040005000600070008"],
    ["::ffff:192.0.2.7", "00000000000000000000ffffc0000207"],
    ["64:ff9b::192.0.2.7", "0064ff9b0000000000000000c0000207"],
    ["1:2:3:4:5:6:192.0.2.7", "000100020003000400050006c0000207"],
  ])("reads %s", (text, bytes) => {
    expect(hexOf(text)).toBe(bytes);
  });

  test.each([
    "",
    "1.2.3",
    "1.2.3.4/8",
    "01.2.3.4",
    "[::1]",
    "fe80::1%eth0",
    "1.2.3.4%1",
    "example.org",
    "1::2::3",
  ])("gives undefined for %j", (text) => {
    expect(parseIp(text)).toBeUndefined();
  });

  test("reads whatever node:net takes for an address, but for zones", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), (text) => {
        const length = { 0: undefined, 4: 4, 6: 16 }[text.includes("%") ? 0 : isIP(text)];
        expect(parseIp(text)?.length).toBe(length);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe("formatIp()", () => {
  // The examples of RFC 5952, section 4, and the ends of an address.
  test.each([
    ["192.0.2.7", "192.0.2.7"],
    ["2001:0db8::0001", "2001:db8::1"],
    ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:DB8::A", "2001:db8::a"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["0:0:0:0:0:0:0:1", "::1"],
    ["1:0:0:0:0:0:0:0", "1::"],
    ["1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7:0"],
    ["::ffff:192.0.2.7", "::ffff:c000:207"],
  ])("writes %s as %s", (text, expected) => {
    expect(formatIp(parseIp(text) ?? new Uint8Array())).toBe(expected);
  });

  test("writes what parseIp reads", () => {
    const address = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.array(fc.constantFrom(0, 0, 1, 0xab00), { minLength: 8, maxLength: 8 }).map((groups) => {
        const view = new DataView(new ArrayBuffer(16));
        for (const [at, group] of groups.entries()) view.setUint16(at * 2, group);
        return new Uint8Array(view.buffer);
      }),
    );
    fc.assert(
      fc.property(address, (bytes) => {
        const text = formatIp(bytes);
        expect(isIP(text)).toBe(bytes.length === 4 ? 4 : 6);
        expect(parseIp(text)?.toHex()).toBe(bytes.toHex());
      }),
      { numRuns: 2_000 },
    );
  });
});
