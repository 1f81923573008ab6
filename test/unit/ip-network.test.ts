import { describe, expect, test } from "bun:test";
import { BlockList, isIP } from "node:net";
import fc from "fast-check";
import { FormatError } from "../../src/core/errors.ts";
import { formatIp } from "../../src/core/ip-address.ts";
import { IpNetwork, isPublicAddress } from "../../src/core/ip-network.ts";

function errorOf(text: string): FormatError {
  try {
    IpNetwork.parse(text);
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error(`${text} was taken`);
}

const contains = (network: string, ip: string): boolean => IpNetwork.parse(network).contains(ip);

describe("IpNetwork.parse()", () => {
  test.each([
    ["10.0.0.0/8", "10.0.0.0/8"],
    ["0.0.0.0/0", "0.0.0.0/0"],
    ["192.0.2.7", "192.0.2.7"],
    ["192.0.2.7/32", "192.0.2.7"],
    [" 192.0.2.4/30\n", "192.0.2.4/30"],
    ["::/0", "::/0"],
    ["::1", "::1"],
    ["::1/128", "::1"],
    ["2001:DB8:0:0::/32", "2001:db8::/32"],
    ["[2001:db8::7]", "2001:db8::7"],
    ["[2001:db8::]/32", "2001:db8::/32"],
    ["::ffff:10.0.0.0/104", "10.0.0.0/8"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["::ffff:0:0/96", "0.0.0.0/0"],
    ["::/80", "::/80"],
  ])("reads %j", (text, expected) => {
    expect(IpNetwork.parse(text).toString()).toBe(expected);
  });

  test.each([
    ["", "not an IP address or network"],
    ["/8", "not an IP address or network"],
    ["10.0.0/8", "not an IP address or network"],
    ["example.org", "not an IP address or network"],
    ["[10.0.0.0]/8", "not an IP address or network"],
    ["fe80::1%eth0", "not an IP address or network"],
    ["10.0.0.0-10.0.0.9", "not an IP address or network"],
    ["10.0.0.0/", "what stands after / is not a number from 0 to 32"],
    ["10.0.0.0/33", "what stands after / is not a number from 0 to 32"],
    ["10.0.0.0/-1", "what stands after / is not a number from 0 to 32"],
    ["10.0.0.0/8/8", "what stands after / is not a number from 0 to 32"],
    ["10.0.0.0/255.0.0.0", "what stands after / is not a number from 0 to 32"],
    ["2001:db8::/129", "what stands after / is not a number from 0 to 128"],
  ])("throws BAD_ADDRESS on %j: %s", (text, message) => {
    expect(errorOf(text)).toMatchObject({
      code: "BAD_ADDRESS",
      message,
      hint: expect.stringContaining("10.0.0.0/8"),
    });
  });

  test.each([
    ["10.0.0.1/8", 8, "10.0.0.0/8", "10.0.0.1"],
    ["192.0.2.7/31", 31, "192.0.2.6/31", "192.0.2.7"],
    ["1.0.0.0/0", 0, "0.0.0.0/0", "1.0.0.0"],
    ["2001:db8::1/32", 32, "2001:db8::/32", "2001:db8::1"],
    ["2001:db8:f000::/33", 33, "2001:db8:8000::/33", "2001:db8:f000::"],
  ])(
    "throws BAD_ADDRESS on the bits after the prefix of %s, and names both meanings",
    (text, bits, network, ip) => {
      expect(errorOf(text)).toMatchObject({
        code: "BAD_ADDRESS",
        message: `bits are set after the first ${bits}`,
        hint: `the network is ${network}, the address alone is ${ip}`,
      });
    },
  );
});

describe("IpNetwork.contains()", () => {
  test.each([
    ["10.0.0.0/8", "10.255.255.255", true],
    ["10.0.0.0/8", "11.0.0.0", false],
    ["192.0.2.4/30", "192.0.2.7", true],
    ["192.0.2.4/30", "192.0.2.8", false],
    ["0.0.0.0/0", "255.255.255.255", true],
    ["192.0.2.7", "192.0.2.7", true],
    ["192.0.2.7", "192.0.2.6", false],
    ["2001:db8::/33", "2001:db8:7fff::1", true],
    ["2001:db8::/33", "2001:db8:8000::1", false],
    ["::1", "0:0::0001", true],
    ["fe80::/10", "febf::1%eth0", true],
    ["10.0.0.0/8", "::ffff:10.1.2.3", true],
    ["10.0.0.0/8", "::ffff:a01:203", true],
    ["10.0.0.0/8", "::10.1.2.3", false],
    ["::ffff:10.0.0.0/104", "10.1.2.3", true],
    ["::/0", "2001:db8::1", true],
    ["::/0", "10.1.2.3", false],
    ["0.0.0.0/0", "::1", false],
    // The first bytes are those of 10.0.0.0/8.
    ["10.0.0.0/8", "a00::", false],
  ])("of %s with %s is %p", (network, ip, expected) => {
    expect(contains(network, ip)).toBe(expected);
  });

  test.each(["", "10.1.2", "10.1.2.3.4", "010.1.2.3", "10.1.2.3/8", "[::1]", "10.1.2.3 ", "localhost", "\0"])(
    "is false for %j, whatever the network",
    (ip) => {
      expect(contains("0.0.0.0/0", ip)).toBe(false);
      expect(contains("::/0", ip)).toBe(false);
    },
  );

  test("agrees with the BlockList of node:net", () => {
    const family = fc.constantFrom(4, 16).chain((length) =>
      fc.record({
        network: fc.uint8Array({ minLength: length, maxLength: length }),
        flipped: fc.integer({ min: 0, max: length * 8 }),
        bits: fc.integer({ min: 0, max: length * 8 }),
      }),
    );
    fc.assert(
      fc.property(family, ({ network, flipped, bits }) => {
        const start = network.map((byte, at) => byte & ~(0xff >> Math.min(8, Math.max(0, bits - at * 8))));
        const address = network.slice();
        const at = flipped >> 3;
        if (at < address.length) address[at] = (address[at] ?? 0) ^ (0x80 >> (flipped & 7));
        const name = network.length === 4 ? "ipv4" : "ipv6";
        const list = new BlockList();
        list.addSubnet(formatIp(start), bits, name);
        const found = contains(`${formatIp(start)}/${bits}`, formatIp(address));
        expect(found).toBe(list.check(formatIp(address), name));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("isPublicAddress()", () => {
  test.each([
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "149.154.167.220",
    "2001:67c:4e8:f002::a",
    "2606:4700::6810:84e5",
    "2001:200::1",
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
    "2002:101:101::1",
  ])("is true for %s", (ip) => {
    expect(isPublicAddress(ip)).toBe(true);
  });

  test.each([
    ["this network", "0.0.0.0"],
    ["this network", "0.255.255.255"],
    ["private", "10.0.0.1"],
    ["private", "172.16.0.1"],
    ["private", "172.31.255.255"],
    ["private", "192.168.1.1"],
    ["shared by a provider", "100.64.0.1"],
    ["shared by a provider", "100.127.255.255"],
    ["loopback", "127.0.0.1"],
    ["loopback", "127.255.255.254"],
    ["link-local", "169.254.169.254"],
    ["for protocols", "192.0.0.8"],
    ["documentation", "192.0.2.1"],
    ["documentation", "198.51.100.1"],
    ["documentation", "203.0.113.1"],
    ["a benchmark's", "198.18.0.1"],
    ["a benchmark's", "198.19.255.255"],
    ["multicast", "224.0.0.1"],
    ["multicast", "239.255.255.255"],
    ["reserved", "240.0.0.1"],
    ["broadcast", "255.255.255.255"],
    ["unspecified", "::"],
    ["loopback", "::1"],
    ["unique local", "fc00::1"],
    ["unique local", "fdff::1"],
    ["link-local", "fe80::1"],
    ["link-local", "fe80::1%eth0"],
    ["site-local, given up", "fec0::1"],
    ["multicast", "ff02::1"],
    ["documentation", "2001:db8::1"],
    ["documentation", "3fff::1"],
    ["Teredo", "2001::1"],
    ["discarded", "100::1"],
    ["mapped loopback", "::ffff:127.0.0.1"],
    ["mapped private", "::ffff:a00:1"],
    ["IPv4-compatible, given up", "::1.1.1.1"],
    ["NAT64 of private", "64:ff9b::10.0.0.1"],
    ["NAT64 of loopback", "64:ff9b::7f00:1"],
    ["6to4 of private", "2002:c0a8:101::1"],
    ["6to4 of loopback", "2002:7f00:1::"],
    ["local NAT64", "64:ff9b:1::1.1.1.1"],
    ["nothing", ""],
    ["a name", "example.org"],
    ["a name of loopback", "localhost"],
    ["a number", "2130706433"],
    ["short", "127.1"],
    ["octal", "0177.0.0.1"],
    ["in brackets", "[2606:4700::1]"],
    ["with a zone", "2606:4700::1%eth0"],
  ])("is false for what is %s: %s", (_, ip) => {
    expect(isPublicAddress(ip)).toBe(false);
  });

  test("says of an IPv4 address the same in every form", () => {
    fc.assert(
      fc.property(fc.ipV4(), (ip) => {
        const [a = 0, b = 0, c = 0, d = 0] = ip.split(".").map(Number);
        const hex = Uint8Array.of(a, b, c, d).toHex();
        const expected = isPublicAddress(ip);
        for (const form of [`::ffff:${ip}`, `64:ff9b::${ip}`, `2002:${hex.slice(0, 4)}:${hex.slice(4)}::1`]) {
          expect(isIP(form)).toBe(6);
          expect(isPublicAddress(form)).toBe(expected);
        }
      }),
    );
  });
});
