import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { formatIp } from "../../src/core/ip-address.ts";
import { IpNetwork } from "../../src/core/ip-network.ts";
import { NetworkSet } from "../../src/core/network-set.ts";

const setOf = (...networks: string[]): NetworkSet => new NetworkSet(networks.map(IpNetwork.parse));

describe("NetworkSet", () => {
  test("holds nothing when it is empty", () => {
    expect(setOf().contains("192.0.2.1")).toBe(false);
    expect(setOf().contains("::")).toBe(false);
  });

  test.each([
    ["10.0.0.0", true],
    ["10.255.255.255", true],
    ["9.255.255.255", false],
    ["11.0.0.0", false],
    ["192.0.2.7", true],
    ["192.0.2.6", false],
    ["192.0.2.8", false],
    ["::ffff:10.1.2.3", true],
    ["2001:db8::", true],
    ["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true],
    ["2001:db9::", false],
    ["fe80::1%eth0", true],
    ["", false],
    ["example.org", false],
  ])("says of %s: %p", (ip, inside) => {
    expect(setOf("192.0.2.7", "10.0.0.0/8", "2001:db8::/32", "fe80::1").contains(ip)).toBe(inside);
  });

  test("is everything with 0.0.0.0/0 and ::/0, each for its own kind", () => {
    expect(setOf("0.0.0.0/0").contains("255.255.255.255")).toBe(true);
    expect(setOf("0.0.0.0/0").contains("::1")).toBe(false);
    expect(setOf("::/0").contains("ffff::")).toBe(true);
    expect(setOf("::/0").contains("192.0.2.1")).toBe(false);
  });

  test("joins what overlaps", () => {
    const set = setOf("10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "10.255.255.255");
    expect(set.size).toBe(1);
    expect(set.contains("10.200.0.1")).toBe(true);
  });

  test("says the same as the networks one by one", () => {
    const network = fc
      .record({ bytes: fc.uint8Array({ minLength: 4, maxLength: 4 }), bits: fc.integer({ min: 0, max: 32 }) })
      .map(({ bytes, bits }) => {
        const cleared = bytes.map(
          (byte, at) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - at * 8))) & 0xff,
        );
        return IpNetwork.parse(`${formatIp(cleared)}/${bits}`);
      });
    const address = fc.uint8Array({ minLength: 4, maxLength: 4 }).map(formatIp);
    fc.assert(
      fc.property(
        fc.array(network, { maxLength: 20 }),
        fc.array(address, { maxLength: 20 }),
        (networks, ips) => {
          const set = new NetworkSet(networks);
          for (const ip of ips) expect(set.contains(ip)).toBe(networks.some((one) => one.contains(ip)));
        },
      ),
    );
  });
});
