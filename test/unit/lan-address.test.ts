import { afterAll, afterEach, describe, expect, mock, test } from "bun:test";
import * as os from "node:os";

type Interfaces = ReturnType<typeof os.networkInterfaces>;

/** What the module under test is told this machine has; `undefined`: the truth. */
let pretended: Interfaces | undefined;
const real = { ...os };
await mock.module("node:os", () => ({
  ...real,
  networkInterfaces: () => pretended ?? real.networkInterfaces(),
}));
const { isLoopback, linkHost } = await import("../../src/cli/lan-address.ts");

afterEach(() => {
  pretended = undefined;
});
afterAll(() => mock.module("node:os", () => real));

function entry(address: string, internal = false): os.NetworkInterfaceInfo {
  const shared = { address, netmask: "", mac: "00:00:00:00:00:00", internal, cidr: null };
  return address.includes(":") ? { ...shared, family: "IPv6", scopeid: 0 } : { ...shared, family: "IPv4" };
}

const LOOPBACK = [entry("127.0.0.1", true), entry("::1", true)];

describe("linkHost()", () => {
  test.each(["127.0.0.1", "192.0.2.7", "::1", "proxy.example.org", "localhost"])(
    "leaves %s as it is",
    (host) => {
      expect(linkHost(host)).toBe(host);
    },
  );

  test.each([
    ["the address in the network", { lo: LOOPBACK, eth0: [entry("192.168.1.5")] }, "192.168.1.5"],
    [
      "IPv4 before IPv6",
      { eth0: [entry("2001:db8::5"), entry("192.168.1.5")], wlan0: [entry("192.168.1.6")] },
      "192.168.1.5",
    ],
    [
      "a real interface before those of containers and tunnels",
      {
        docker0: [entry("172.17.0.1")],
        "br-1f2e": [entry("172.18.0.1")],
        tailscale0: [entry("100.64.0.1")],
        utun3: [entry("10.8.0.2")],
        "vEthernet (WSL)": [entry("172.20.0.1")],
        wlan0: [entry("192.168.1.5")],
      },
      "192.168.1.5",
    ],
    ["a tunnel when there is nothing else", { lo: LOOPBACK, wg0: [entry("10.8.0.2")] }, "10.8.0.2"],
    [
      "no address that was given to itself",
      { eth0: [entry("169.254.7.7")], eth1: [entry("192.168.1.5")] },
      "192.168.1.5",
    ],
    ["loopback on a machine without a network", { lo: LOOPBACK }, "127.0.0.1"],
    ["loopback without any interface", {}, "127.0.0.1"],
  ])("takes for 0.0.0.0 and :: %s", (_, interfaces, expected) => {
    pretended = interfaces;
    expect(linkHost("0.0.0.0")).toBe(expected);
    expect(linkHost("::")).toBe(expected);
  });

  test("takes IPv6 only for ::, and not one of the link", () => {
    pretended = { lo: LOOPBACK, eth0: [entry("fe80::5"), entry("2001:db8::5")] };
    expect(linkHost("::")).toBe("2001:db8::5");
    expect(linkHost("0.0.0.0")).toBe("127.0.0.1");
  });

  test("finds an address of this machine", () => {
    const own = Object.values(os.networkInterfaces()).flatMap((entries) => entries ?? []);
    expect(["127.0.0.1", ...own.map(({ address }) => address)]).toContain(linkHost("0.0.0.0"));
  });
});

describe("isLoopback()", () => {
  test.each(["127.0.0.1", "127.1.2.3", "::1", "localhost"])("is true for %s", (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  test.each(["0.0.0.0", "::", "192.168.1.5", "2001:db8::1", "example.org"])("is false for %s", (host) => {
    expect(isLoopback(host)).toBe(false);
  });
});
