import { describe, expect, test } from "bun:test";
import { type BannerFacts, formatBanner, formatLinks } from "../../src/cli/banner.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";

const HEX = "00112233445566778899aabbccddeeff";
const KEY = Uint8Array.fromHex(HEX);

function factsOf(raw: RawConfig = {}, changes: Partial<BannerFacts> = {}): BannerFacts {
  return {
    version: "1.2.3",
    config: parseConfig(raw),
    port: 1443,
    secrets: [{ name: "default", key: KEY }],
    qr: false,
    ...changes,
  };
}

const QUERY = `server=127.0.0.1&port=1443&secret=dd${HEX}`;

describe("formatBanner()", () => {
  test("says where the proxy is, how an app gets to it, and which way the data goes", () => {
    expect(formatBanner(factsOf())).toBe(`tgws 1.2.3

  Listening on  127.0.0.1:1443
  Open in app   tg://proxy?${QUERY}
  Share         https://t.me/proxy?${QUERY}

  Only apps on this computer can use it. For phones in the same network: --host 0.0.0.0

  Routes        direct-ws, then cf-domain, then direct-tcp
                direct-ws for DC 1, 3, 5 found by DNS
                direct-ws for DC 2, 4, 203 at 149.154.167.220

  Stop with Ctrl-C. Calls do not go through proxies of this kind.
`);
  });

  test("names the port that is really listened on", () => {
    const banner = formatBanner(factsOf({ port: ["0"] }, { port: 50_123 }));
    expect(banner).toContain("127.0.0.1:50123\n");
    expect(banner).toContain("&port=50123&");
  });

  test("puts an IPv6 address into brackets, but not into those of the link", () => {
    const banner = formatBanner(factsOf({ host: ["2001:db8::5"] }));
    expect(banner).toContain("Listening on  [2001:db8::5]:1443\n");
    expect(banner).toContain("server=2001%3Adb8%3A%3A5&");
  });

  test("does not speak of this computer only when others can reach it", () => {
    expect(formatBanner(factsOf({ host: ["0.0.0.0"] }))).not.toContain("Only apps on this computer");
  });

  test("sorts the data centres by their way", () => {
    const dcIp = ["1:192.0.2.1", "2:192.0.2.2:8443", "3:192.0.2.1", "203:192.0.2.203"];
    expect(formatBanner(factsOf({ dcIp }))).toContain(`
  Routes        direct-ws, then cf-domain, then direct-tcp
                direct-ws for DC 1, 3 at 192.0.2.1
                direct-ws for DC 2 at 192.0.2.2, port 8443
                direct-ws for DC 4, 5 found by DNS
                direct-ws for DC 203 at 192.0.2.203
`);
  });

  test("says that all go to the test servers when they do", () => {
    const banner = formatBanner(factsOf({ forceTestDc: [""] }));
    expect(banner).toContain(`
  Routes        direct-ws, then cf-domain, then direct-tcp
                all clients go to the test servers

`);
  });

  test("names the routes in their order, and addresses only for the one that has them", () => {
    const banner = formatBanner(
      factsOf({ route: ["direct-tcp,cf-worker"], cfproxyWorkerDomain: ["w.example.org"] }),
    );
    expect(banner).toContain("\n\n  Routes        direct-tcp, then cf-worker\n\n");
    expect(formatBanner(factsOf({ route: ["direct-tcp"] }))).toContain("\n  Routes        direct-tcp\n");
  });
});

describe("formatLinks()", () => {
  test("gives links for every secret, by name", () => {
    const secrets = [
      { name: "ann", key: KEY },
      { name: "bob", key: KEY.toReversed() },
    ];
    expect(formatLinks(factsOf({}, { secrets }))).toEqual([
      "",
      "  ann",
      `  Open in app   tg://proxy?${QUERY}`,
      `  Share         https://t.me/proxy?${QUERY}`,
      "",
      "  bob",
      `  Open in app   tg://proxy?${QUERY.replace(HEX, KEY.toReversed().toHex())}`,
      `  Share         https://t.me/proxy?${QUERY.replace(HEX, KEY.toReversed().toHex())}`,
    ]);
  });

  test("draws one QR code, for the first, as a square", () => {
    const secrets = [
      { name: "ann", key: KEY },
      { name: "bob", key: KEY.toReversed() },
    ];
    const plain = formatLinks(factsOf({}, { secrets }));
    const drawn = formatLinks(factsOf({}, { secrets, qr: true })).filter((line) => !plain.includes(line));
    expect(drawn.length).toBeGreaterThan(15);
    expect(drawn.every((line) => /^ {2}[ █▀▄]+$/.test(line))).toBe(true);
    expect(new Set(drawn.map(({ length }) => length)).size).toBe(1);
    expect(Math.abs((drawn[0]?.length ?? 0) - 2 - 2 * drawn.length)).toBeLessThanOrEqual(1);
  });
});
