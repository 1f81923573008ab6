import { describe, expect, test } from "bun:test";
import { type BannerFacts, formatBanner, formatLinks } from "../../src/cli/banner.ts";
import { drawQrCode } from "../../src/cli/qr-code.ts";
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
    drawQrCode: undefined,
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

  test("prints the links of who is served, and of so many that they can be looked at", () => {
    const users = Array.from({ length: 12 }, (_, at) => ({
      name: `u${at}`,
      settings: { secret: at.toString(16).padStart(32, "0"), enabled: String(at !== 1) },
    }));
    const config = parseConfig({ users });
    const banner = formatBanner(factsOf({}, { config, secrets: config.secrets }));
    expect([...banner.matchAll(/^ {2}(u\d+)$/gm)].map(([, name]) => name)).toEqual([
      "u0",
      "u2",
      "u3",
      "u4",
      "u5",
      "u6",
      "u7",
      "u8",
    ]);
    expect(banner).toContain("\n  and 3 more: tgws users link NAME\n");
  });

  test("does not ask for the secrets of the configuration file behind a load balancer", () => {
    const users = [{ name: "bob", settings: { secret: "0".repeat(32) } }];
    const banner = formatBanner(factsOf({ proxyProtocol: [""], secret: [`ann:${HEX}`], users }));
    expect(banner).toContain("tgws link --host <name> --port <port> --secret <secret>\n");
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

describe("formatBanner(), with fake TLS", () => {
  const SECRET = `ee${HEX}${Buffer.from("example.com").toString("hex")}`;

  test("names the site that it passes for, and the port where sites are", () => {
    const banner = formatBanner(factsOf({ fakeTlsDomain: ["example.com"], host: ["192.0.2.7"] }));
    const query = `server=192.0.2.7&port=1443&secret=${SECRET}`;
    expect(banner).toStartWith(`tgws 1.2.3

  Listening on  192.0.2.7:1443
  Looks like    example.com (strangers see that site)
  Open in app   tg://proxy?${query}
  Share         https://t.me/proxy?${query}

  Web sites are at port 443: --port 443 looks real

  Routes        `);
  });

  test.each([
    ["at port 443", { host: ["192.0.2.7"] }, 443],
    ["on loopback", {}, 1443],
    ["without ee", { host: ["192.0.2.7"], accept: ["dd"] }, 1443],
  ] as const)("does not speak of port 443 %s", (_, raw, port) => {
    const banner = formatBanner(factsOf({ fakeTlsDomain: ["example.com"], ...raw }, { port }));
    expect(banner).not.toContain("--port 443");
    expect(banner.includes("Looks like")).toBe(!("accept" in raw));
  });

  test("breaks a long list of sites at 80 columns", () => {
    const fakeTlsDomain = Array.from({ length: 8 }, (_, at) => `www.site-${at}.example`);
    const banner = formatBanner(factsOf({ fakeTlsDomain }));
    const lines = banner.split("\n").filter((line) => /^ .*www/.test(line) && !line.includes("?"));
    const list = lines.filter((line) => line.includes(", www"));
    expect(list.length).toBeGreaterThan(1);
    expect(list[0]).toStartWith("  Looks like    www.site-0.example, www.site-1.example,");
    for (const line of list.slice(1)) expect(line).toStartWith(`${" ".repeat(16)}www.`);
    expect(Math.max(...list.map(({ length }) => length))).toBeLessThanOrEqual(80);
    expect(banner.replaceAll(/\s+/g, " ")).toContain("www.site-7.example (strangers see those sites)");
  });
});

describe("formatBanner(), behind a proxy", () => {
  test("says who can use it, and how to get a link that works", () => {
    const banner = formatBanner(factsOf({ proxyProtocol: [""] }, { drawQrCode }));
    expect(banner).toStartWith(`tgws 1.2.3

  Listening on  127.0.0.1:1443
  Links         tgws link --host <name> --port <port>

  Only proxies at 127.0.0.0/8, ::1 can use it, with the PROXY protocol.

  Routes `);
    expect(banner).not.toMatch(/Only apps on this computer|proxy\?|[█▀▄]/);
  });

  const EE_SECRET = `ee${HEX}${Buffer.from("c.example").toString("hex")}`;

  test.each<[RawConfig, string]>([
    [{ fakeTlsDomain: ["www.example.com"] }, " --fake-tls-domain www.example.com"],
    [{ secret: [HEX] }, " --secret <secret>"],
    [{ secret: [EE_SECRET] }, " --secret <secret> --fake-tls-domain c.example"],
    [
      { secret: [`ann:${HEX}`, `bob:${HEX.replace("0", "1")}`], fakeTlsDomain: ["a.example", "b.example"] },
      " --secret ann:<secret> --secret bob:<secret> --fake-tls-domain a.example,b.example",
    ],
    [
      { fakeTlsDomain: ["a.example"], accept: ["plain,ee,dd"] },
      " --fake-tls-domain a.example --accept ee,dd",
    ],
    [
      { fakeTlsDomain: ["a.example"], accept: ["ee,plain"] },
      " --fake-tls-domain a.example --accept ee,plain",
    ],
    [{ fakeTlsDomain: ["a.example"], accept: ["dd"] }, ""],
    [{ accept: ["plain"] }, " --accept plain"],
    [{ accept: ["plain,dd"], host: ["0.0.0.0"], maskHost: ["127.0.0.1:8444"], poolSize: ["1"] }, ""],
  ])("names what shapes links, of %j", (raw, expected) => {
    const { config, ...facts } = factsOf({ proxyProtocol: [""], ...raw });
    const banner = formatBanner({ config, ...facts, secrets: config.secrets });
    expect(banner).toContain(`\n  Links         tgws link --host <name> --port <port>${expected}\n`);
    expect(banner).not.toContain(HEX.slice(-8));
  });

  test("keeps to 80 columns, however many they are", () => {
    const trustedProxy = Array.from({ length: 9 }, (_, at) => `2001:db8:${at}::/48`);
    const banner = formatBanner(factsOf({ proxyProtocol: [""], trustedProxy }));
    const lines = banner.split("\n").filter((line) => line.includes("2001:db8"));
    expect(lines.length).toBeGreaterThan(1);
    expect(lines.every((line) => line.startsWith("  ") && line.length <= 80)).toBe(true);
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

  test("draws no QR code that the window would break, and says how wide it has to be", () => {
    const whole = drawQrCode("https://t.me/proxy", 0);
    const width = whole[0]?.length ?? 0;
    expect(drawQrCode("https://t.me/proxy", width)).toEqual(whole);
    expect(drawQrCode("https://t.me/proxy", width - 1)).toEqual([
      `  The QR code needs a window of ${width} columns; tgws link prints it again`,
    ]);
  });

  test("draws one QR code, for the first, as a square", () => {
    const secrets = [
      { name: "ann", key: KEY },
      { name: "bob", key: KEY.toReversed() },
    ];
    const plain = formatLinks(factsOf({}, { secrets }));
    const drawn = formatLinks(factsOf({}, { secrets, drawQrCode })).filter((line) => !plain.includes(line));
    expect(drawn.length).toBeGreaterThan(15);
    expect(drawn.every((line) => /^ {2}[ █▀▄]+$/.test(line))).toBe(true);
    expect(new Set(drawn.map(({ length }) => length)).size).toBe(1);
    expect(Math.abs((drawn[0]?.length ?? 0) - 2 - 2 * drawn.length)).toBeLessThanOrEqual(1);
  });

  const secretFor = (domain: string): string => `ee${HEX}${Buffer.from(domain).toString("hex")}`;
  const pairOf = (secret: string): string[] => {
    const query = `server=127.0.0.1&port=1443&secret=${secret}`;
    return [`  Open in app   tg://proxy?${query}`, `  Share         https://t.me/proxy?${query}`];
  };

  test.each<[RawConfig, string]>([
    [{}, `dd${HEX}`],
    [{ accept: ["dd"] }, `dd${HEX}`],
    [{ accept: ["plain"] }, HEX],
    [{ fakeTlsDomain: ["a.example"] }, secretFor("a.example")],
    [{ fakeTlsDomain: ["a.example"], accept: ["plain,dd"] }, `dd${HEX}`],
  ])("gives one pair without a label for %j", (raw, secret) => {
    expect(formatLinks(factsOf(raw))).toEqual(pairOf(secret));
  });

  test("gives a pair for each domain, and then one without fake TLS", () => {
    const raw: RawConfig = { fakeTlsDomain: ["a.example", "b.example"], accept: ["ee", "dd", "plain"] };
    expect(formatLinks(factsOf(raw))).toEqual([
      "",
      "  a.example",
      ...pairOf(secretFor("a.example")),
      "",
      "  b.example",
      ...pairOf(secretFor("b.example")),
      "",
      "  without fake TLS",
      ...pairOf(`dd${HEX}`),
    ]);
    const plain = formatLinks(factsOf({ ...raw, accept: ["ee", "plain"] }));
    expect(plain.slice(-2)).toEqual(pairOf(HEX));
  });

  test("labels secret and domain where there are several of both, and draws the first", () => {
    const secrets = [
      { name: "ann", key: KEY },
      { name: "bob", key: KEY.toReversed() },
    ];
    const facts = factsOf({ fakeTlsDomain: ["a.example"], accept: ["ee,dd"] }, { secrets, drawQrCode });
    const lines = formatLinks(facts);
    const labels = lines.filter((line) => /^ {2}(?:ann|bob)/.test(line));
    expect(labels).toEqual([
      "  ann, a.example",
      "  ann, without fake TLS",
      "  bob, a.example",
      "  bob, without fake TLS",
    ]);
    const drawn = lines.flatMap((line, at) => (/[█▀▄]/.test(line) ? [at] : []));
    expect(drawn[0]).toBeGreaterThan(lines.indexOf("  ann, a.example"));
    expect(drawn.at(-1)).toBeLessThan(lines.indexOf("  ann, without fake TLS"));
  });
});
