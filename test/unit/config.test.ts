import { describe, expect, test } from "bun:test";
import { type Config, DEFAULT_CF_LIST_URL, parseConfig, ROUTE_NAMES } from "../../src/config/config.ts";
import { MAX_FAKE_TLS_DOMAINS } from "../../src/config/fake-tls.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import { Pins } from "../../src/config/pins.ts";
import { MAX_SECRETS } from "../../src/config/users.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";
import { formatSecret } from "../../src/protocol/mtproto/secret.ts";

const HEX = "00112233445566778899aabbccddeeff";
const KEY = Uint8Array.fromHex(HEX);

function issuesOf(raw: RawConfig): readonly ConfigIssue[] {
  try {
    parseConfig(raw);
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  throw new Error(`no complaint about ${JSON.stringify(raw)}`);
}

/** Another secret for each number. */
const secretOf = (number: number): string => number.toString(16).padStart(32, "0");

const both = (...ips: readonly string[]) => ips.map((ip) => ({ ip, port: 443 }));

describe("parseConfig()", () => {
  test("fills in the defaults of tg-ws-proxy", () => {
    const expected: Config = {
      host: "127.0.0.1",
      port: 1443,
      users: [],
      fileUsers: [],
      secrets: [],
      fakeTlsDomains: [],
      accept: { plain: true, padded: true, fakeTls: false },
      maskHost: undefined,
      maskMax: 512,
      proxyProtocol: false,
      trustedProxies: [],
      routes: ["direct-ws", "cf-domain", "direct-tcp"],
      tcpAddresses: new Map([
        [1, both("149.154.175.50", "2001:b28:f23d:f001::a")],
        [2, both("149.154.167.51", "2001:67c:4e8:f002::a")],
        [3, both("149.154.175.100", "2001:b28:f23d:f003::a")],
        [4, both("149.154.167.91", "2001:67c:4e8:f004::a")],
        [5, both("149.154.171.5", "2001:b28:f23f:f005::a")],
        [203, both("91.105.192.100", "2a0a:f280:203:a:5000::100")],
      ]),
      testTcpAddresses: new Map([
        [1, both("149.154.175.10", "2001:b28:f23d:f001::e")],
        [2, both("149.154.167.40", "2001:67c:4e8:f002::e")],
        [3, both("149.154.175.117", "2001:b28:f23d:f003::e")],
      ]),
      frontDomain: undefined,
      workerDomains: [],
      workerToken: undefined,
      cfDomains: [],
      cfListUrl: "https://raw.githubusercontent.com/Flowseal/tg-ws-proxy/main/.github/cfproxy-domains.txt",
      upstreamProxy: undefined,
      pins: new Pins(),
      dcAddresses: new Map([
        [2, { ip: "149.154.167.220", port: 443 }],
        [4, { ip: "149.154.167.220", port: 443 }],
      ]),
      poolSize: 4,
      maxConnections: undefined,
      maxPerAddress: undefined,
      addressRate: undefined,
      handshakeTimeoutMs: 10_000,
      queueBytes: 256 * 1024,
      bufferBytes: undefined,
      allow: [],
      deny: [],
      workers: 1,
      drainMs: 300_000,
      status: undefined,
      statusToken: undefined,
      user: undefined,
      group: undefined,
      logFormat: "auto",
      logLevel: "info",
      forceTestDc: false,
      tlsVerify: true,
      tlsCaFile: undefined,
      logFile: undefined,
      verbose: false,
      warnings: [],
    };
    expect(parseConfig({})).toEqual(expected);
  });

  test("returns what nobody can change", () => {
    expect(Object.isFrozen(parseConfig({}))).toBe(true);
  });

  test("turns switches on", () => {
    expect(
      parseConfig({ forceTestDc: [""], noTlsVerify: [""], proxyProtocol: [""], verbose: [""] }),
    ).toMatchObject({
      proxyProtocol: true,
      forceTestDc: true,
      tlsVerify: false,
      verbose: true,
    });
  });

  test("says every problem at once", () => {
    const raw: RawConfig = {
      port: ["x"],
      bufKb: ["1"],
      secret: ["short"],
      dcIp: ["2"],
      logFile: ["a.log"],
      logMaxMb: ["-1"],
    };
    expect(issuesOf(raw).map(({ path }) => path)).toEqual([
      "--port",
      "--secret",
      "--dc-ip",
      "--buf-kb",
      "--log-max-mb",
    ]);
    expect(() => parseConfig(raw)).toThrow(/--port: x: not a whole number from 0 to 65535\n/);
  });
});

describe("parseConfig(), numbers", () => {
  const read = {
    port: ({ port }: Config) => port,
    poolSize: ({ poolSize }: Config) => poolSize,
    bufKb: ({ queueBytes }: Config) => queueBytes / 1024,
    logBackups: ({ logFile }: Config) => logFile?.backups,
    maskMax: ({ maskMax }: Config) => maskMax,
  } as const;

  test.each([
    ["port", 0, 65_535],
    ["poolSize", 0, 64],
    ["bufKb", 4, 16_384],
    ["logBackups", 0, 100],
    ["maskMax", 1, 65_535],
  ] as const)("takes %s from %d to %d, and nothing beyond", (name, least, most) => {
    for (const value of [least, most]) {
      expect(read[name](parseConfig({ logFile: ["x"], [name]: [String(value)] }))).toBe(value);
    }
    for (const value of [least - 1, most + 1]) {
      expect(issuesOf({ [name]: [String(value)] })).toMatchObject([
        { message: `${value}: not a whole number from ${least} to ${most}` },
      ]);
    }
  });

  test.each([
    "",
    " ",
    "1.5",
    "+5",
    "-5",
    "0x10",
    "1e3",
    "5 ",
    "٥",
    "Infinity",
    "NaN",
    "99999999999999999999",
  ])("does not take %j for a whole number", (text) => {
    for (const name of ["port", "poolSize", "bufKb", "logBackups", "maskMax"] as const) {
      expect(issuesOf({ [name]: [text] })).toHaveLength(1);
    }
  });

  test.each([
    ["5", 5 * 1024 * 1024],
    ["0.5", 512 * 1024],
    ["0.03", 31_457],
    ["10000", 10_000 * 1024 * 1024],
  ])("takes a log size of %s MB", (text, maxBytes) => {
    expect(parseConfig({ logFile: ["x"], logMaxMb: [text] }).logFile?.maxBytes).toBe(maxBytes);
  });

  test.each(["0", "0.02", "10001", "1.", ".5", "1,5", "1e1", "-1", "five"])(
    "refuses a log size of %j MB",
    (text) => {
      expect(issuesOf({ logFile: ["a.log"], logMaxMb: [text] })).toEqual([
        {
          path: "--log-max-mb",
          message: `${text}: not a number from 0.03 to 10000`,
          hint: "--log-max-mb <MB>; 5 without it",
        },
      ]);
    },
  );
});

describe("parseConfig(), files", () => {
  test("puts the options of the log file together", () => {
    expect(parseConfig({ logFile: ["a.log"], logMaxMb: ["1"], logBackups: ["3"] }).logFile).toEqual({
      path: "a.log",
      maxBytes: 1024 * 1024,
      backups: 3,
    });
    expect(parseConfig({ logFile: ["a.log"] }).logFile).toEqual({
      path: "a.log",
      maxBytes: 5 * 1024 * 1024,
      backups: 0,
    });
  });

  test("checks the options of a log file that there is not", () => {
    expect(parseConfig({ logBackups: ["3"] }).logFile).toBeUndefined();
    expect(issuesOf({ logBackups: ["x"] })).toHaveLength(1);
  });

  test.each(["logFile", "tlsCa"] as const)("refuses an empty name for %s", (name) => {
    expect(issuesOf({ [name]: [""] })).toMatchObject([{ message: "is empty" }]);
  });

  test("takes the name of a CA file as it is", () => {
    expect(parseConfig({ tlsCa: ["../my ca.pem"] }).tlsCaFile).toBe("../my ca.pem");
  });
});

describe("parseConfig(), host", () => {
  test.each([
    ["0.0.0.0", "0.0.0.0"],
    ["::", "::"],
    ["[::1]", "::1"],
    ["fe80::1%eth0", "fe80::1%eth0"],
    ["proxy-1.example.org", "proxy-1.example.org"],
  ])("takes %s", (text, host) => {
    expect(parseConfig({ host: [text] }).host).toBe(host);
  });

  test.each(["a b", "http://127.0.0.1", "[]", "[::1", "127.0.0.1/8", "é"])("refuses %j", (text) => {
    expect(issuesOf({ host: [text] })).toEqual([
      {
        path: "--host",
        message: `${text}: not an address`,
        hint: "for example 127.0.0.1, 0.0.0.0, :: or a name of this machine",
      },
    ]);
  });

  test.each(["999.1.1.1", "5.5", "1.2.3.4.5", ":::", "fe80::1::2", "[a]"])(
    "refuses %j, which is no IP",
    (text) => {
      expect(issuesOf({ host: [text] })).toMatchObject([{ message: `${text}: not an address` }]);
    },
  );

  test.each(["0.0.0.0:8443", "[::]:8443", "localhost:8443"])("says where the port of %s goes", (text) => {
    expect(issuesOf({ host: [text] })).toMatchObject([{ hint: "a port goes to --port" }]);
  });
});

describe("parseConfig(), upstream proxy", () => {
  test("says with all other issues what is wrong with it, and repeats no password", () => {
    const issues = issuesOf({ port: ["x"], upstreamProxy: ["ftp://me:hunter2@192.0.2.1"] });
    expect(issues.map(({ path }) => path)).toEqual(["--port", "--upstream-proxy"]);
    expect(issues[1]?.message).toBe("Cannot use a proxy of kind ftp://: only http and socks5 are spoken");
    // With the host forgotten, this is a password.
    expect(issuesOf({ upstreamProxy: ["socks5://me:99887766"] })).toMatchObject([
      { message: "Cannot read the proxy: the port is not from 1 to 65535" },
    ]);
    expect(issuesOf({ upstreamProxy: ["socks5://a\u202eb"] })).toMatchObject([
      { message: "Cannot read the proxy: no host is called a?b" },
    ]);
  });

  test.each(["http://h", "socks5h://user:p%40ss@[::1]:9050/"])("takes %s as it is", (text) => {
    expect(parseConfig({ upstreamProxy: [text] }).upstreamProxy).toBe(text);
  });
});

describe("parseConfig(), what is empty or holds what a terminal obeys", () => {
  test.each([
    "host",
    "port",
    "fakeTlsDomain",
    "accept",
    "maskHost",
    "maskMax",
    "trustedProxy",
    "route",
    "dcIp",
    "dcTcp",
    "frontDomain",
    "cfproxyWorkerDomain",
    "cfproxyWorkerToken",
    "cfproxyList",
    "upstreamProxy",
    "resolve",
    "logMaxMb",
  ] as const)("says that %s is empty, and what it could be", (name) => {
    expect(issuesOf({ [name]: [""] })).toMatchObject([{ message: "is empty", hint: expect.any(String) }]);
  });

  test.each([
    ["route", "--route"],
    ["accept", "--accept"],
    ["fakeTlsDomain", "--fake-tls-domain"],
    ["trustedProxy", "--trusted-proxy"],
  ] as const)("says that there is nothing for %s in commas alone", (name, path) => {
    expect(issuesOf({ [name]: [" , "] })).toMatchObject([
      { path, message: "is empty", hint: expect.any(String) },
    ]);
  });

  test.each([
    ["host", "a\nb", "a?b: not an address"],
    ["dcIp", "2:1.2\u001b[2J", "2:1.2?[2J: 1.2?[2J is not an IP address"],
    ["resolve", "a\u009b=b", "a?=b: what stands before = is not a name"],
  ] as const)("leaves a terminal nothing to obey of %s", (name, text, message) => {
    expect(issuesOf({ [name]: [text] })).toMatchObject([{ message }]);
  });

  test.each([
    ["dcIp", "2:192.0.2.7,4:192.0.2.7"],
    ["dcIp", "2:192.0.2.7:443;4:192.0.2.7"],
    ["dcTcp", "2:192.0.2.7, 4:192.0.2.7"],
    ["resolve", "a.b=192.0.2.7,c.d=192.0.2.8"],
  ] as const)("asks to repeat the flag of %s for what commas separate", (name, text) => {
    expect(issuesOf({ [name]: [text] })).toMatchObject([
      { message: expect.stringContaining(": not of the form "), hint: "repeat the flag for each" },
    ]);
  });
});

describe("parseConfig(), secrets", () => {
  test.each([
    HEX,
    HEX.toUpperCase(),
    `dd${HEX}`,
    KEY.toBase64(),
    KEY.toBase64({ alphabet: "base64url", omitPadding: true }),
  ])("takes %s", (text) => {
    expect(parseConfig({ secret: [text] }).secrets).toEqual([{ name: "secret1", key: KEY }]);
  });

  test("names them by number, or as they say", () => {
    const { secrets } = parseConfig({
      secret: [secretOf(1), `alice:${secretOf(2)}`, `bob-2.x_y:${secretOf(3)}`],
    });
    expect(secrets.map(({ name }) => name)).toEqual(["secret1", "alice", "bob-2.x_y"]);
  });

  test("serves as many as fit, and no more", () => {
    const many = Array.from({ length: MAX_SECRETS }, (_, at) => secretOf(at));
    expect(parseConfig({ secret: many }).secrets).toHaveLength(MAX_SECRETS);
    expect(issuesOf({ secret: [...many, secretOf(MAX_SECRETS)] })).toEqual([
      { path: "--secret", message: "1001 secrets, but 1000 is the most" },
    ]);
  });

  test.each([
    ["two of one name", [`a:${secretOf(1)}`, `a:${secretOf(2)}`], "two secrets are named a"],
    [
      "a given name that is another's number",
      [`secret2:${HEX}`, secretOf(2)],
      "two secrets are named secret2",
    ],
    ["one in two forms", [`a:${HEX}`, `b:dd${HEX.toUpperCase()}`], "b repeats another secret"],
    ["an empty name", [`:${HEX}`], "the name of secret 1 is not"],
    ["a name with a space", [`a b:${HEX}`], "the name of secret 1 is not"],
    ["a name that is too long", [`${"a".repeat(33)}:${HEX}`], "the name of secret 1 is not"],
    ["one that is too short", [`a:${HEX.slice(2)}`], "a: Cannot use secret: it is 15 bytes long"],
    ["one that is too long", [`a:${HEX}00`], "a: Cannot use secret: it is 17 bytes long"],
    ["one that is neither", ["a:?!"], "a: Cannot use secret: it is neither hexadecimal nor base64"],
    ["none at all", [""], "is empty"],
    ["a name alone", ["a:"], "a: Cannot use secret: it is empty"],
    [
      "a link without a secret",
      ["tg://proxy?server=192.0.2.7"],
      "secret1: Cannot use secret: it is a link without one",
    ],
    [
      "one for fake TLS without a domain",
      [`ee${HEX}`],
      "secret1: Cannot use secret: an `ee` secret ends with a domain, and this one has none",
    ],
    [
      "one for fake TLS with what is no domain",
      [`a:ee${HEX}616263`],
      "a: Cannot use secret: what follows its key is not a domain",
    ],
    [
      "one with and without a domain",
      [HEX, `b:${formatSecret(KEY, { fakeTls: "example.org" })}`],
      "b repeats another secret",
    ],
  ])("refuses %s", (_, secret, message) => {
    expect(issuesOf({ secret })).toMatchObject([
      { path: "--secret", message: expect.stringContaining(message) },
    ]);
  });

  const SENSITIVE = "c0ffee00c0ffee00c0ffee00c0ffee00";

  test.each([
    [[`${SENSITIVE}00`]],
    [[`${SENSITIVE}zz`]],
    [[`ee${SENSITIVE}6162`]],
    [[`ee${SENSITIVE}`]],
    [[`ee${SENSITIVE}612e6f7267`, `ee${SENSITIVE}622e6f7267`]],
    [[`a b:${SENSITIVE}`]],
    [[`a:${SENSITIVE}`, `a:${SENSITIVE}`]],
    [[`a:${SENSITIVE}`, `b:${SENSITIVE}`]],
    [[`a:b:${SENSITIVE}`]],
    [Array.from({ length: 17 }, () => SENSITIVE)],
    [[`${SENSITIVE.slice(1)}:alice`]],
    [[`ee${SENSITIVE.slice(0, 14)}:${SENSITIVE.slice(14)}`]],
    [[`${Buffer.from(SENSITIVE, "hex").toString("base64url").slice(0, 20)}:alice`]],
    [[`ee${SENSITIVE}example.org`]],
    [[`tg://proxy?server=2001:db8::7&secret=${SENSITIVE.slice(1)}`]],
    [[`alice:https://t.me/proxy?secret=${SENSITIVE}00`]],
  ])("does not quote the secret in %j", (secret) => {
    expect(JSON.stringify(issuesOf({ secret }))).not.toContain(SENSITIVE.slice(0, 8));
  });

  test.each([
    ["what is nearly one", `${SENSITIVE.slice(1)}:alice`],
    ["one with a colon in it", `ee${SENSITIVE.slice(0, 14)}:${SENSITIVE.slice(14)}`],
  ])("says what a name is for %s", (_, text) => {
    expect(issuesOf({ secret: ["ann:00", text] })[1]).toEqual({
      path: "--secret",
      message: expect.stringMatching(/^secret 2: Cannot use secret: /),
      hint: "what stands before the colon is the name: alice:<secret>",
    });
  });

  test.each([
    ["tg://proxy?server=192.0.2.7&port=443&secret=", "secret1"],
    ["https://t.me/proxy?server=2001:db8::7&port=443&secret=", "secret1"],
    ["t.me/proxy?secret=", "secret1"],
    ["ann:tg://proxy?server=192.0.2.7&port=443&secret=", "ann"],
  ])("takes the link %s...", (link, name) => {
    expect(parseConfig({ secret: [`${link}dd${HEX}`] }).secrets).toEqual([{ name, key: KEY }]);
    expect(parseConfig({ secret: [`${link}${formatSecret(KEY, { fakeTls: "a.example" })}`] })).toMatchObject({
      secrets: [{ name, key: KEY }],
      fakeTlsDomains: ["a.example"],
    });
  });

  // Its base64 begins with what follows the scheme of a link.
  test("takes a name before base64 that begins with slashes", () => {
    const key = Uint8Array.of(0xff, 0xff, ...KEY.subarray(2));
    expect(key.toBase64()).toStartWith("//");
    expect(parseConfig({ secret: [`alice:${key.toBase64()}`] }).secrets).toEqual([{ name: "alice", key }]);
  });

  // Name and secret the wrong way round: 32 digits would do for a name.
  test.each([[`${SENSITIVE}:alice`], [`${SENSITIVE}:`]])(
    "does not quote a secret that stands where the name should: %s",
    (text) => {
      expect(JSON.stringify(issuesOf({ secret: [text] }))).not.toContain(SENSITIVE);
    },
  );
});

/** An `ee` secret: the number makes its key. */
const eeSecretOf = (number: number, domain: string): string =>
  formatSecret(Uint8Array.fromHex(secretOf(number)), { fakeTls: domain });

describe("parseConfig(), fake TLS", () => {
  test.each([
    ["example.org", "example.org"],
    ["Example.ORG.", "example.org"],
    ["пример.рф", "xn--e1afmkfd.xn--p1ai"],
    ["https://www.example.org/", "www.example.org"],
    ["http://www.example.org", "www.example.org"],
    [`${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(50)}.org`, undefined],
  ])("takes the domain %s", (text, domain) => {
    expect(parseConfig({ fakeTlsDomain: [text] })).toMatchObject({
      fakeTlsDomains: [domain ?? text],
      accept: { plain: false, padded: false, fakeTls: true },
      warnings: [],
    });
  });

  test("takes several, in their order, with commas or each for itself", () => {
    const { fakeTlsDomains } = parseConfig({ fakeTlsDomain: ["b.example, a.example", "c.example"] });
    expect(fakeTlsDomains).toEqual(["b.example", "a.example", "c.example"]);
  });

  const LONG = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(51)}.org`;

  test.each([
    ["example", "not a domain"],
    ["localhost", "not a domain"],
    ["exa_mple.org", "not a domain"],
    ["*.example.org", "not a domain"],
    ["wss://example.org", "not a domain"],
    ["192.0.2.7", "an IP address, but apps send a name"],
    ["192.0.2.7:443", "an IP address, but apps send a name"],
    ["https://192.0.2.7/", "an IP address, but apps send a name"],
    ["[2001:db8::7]:443", "an IP address, but apps send a name"],
    ["[2001:db8::7]", "an IP address, but apps send a name"],
    ["2001:db8::7", "an IP address, but apps send a name"],
  ])("refuses the domain %j: %s", (text, message) => {
    expect(issuesOf({ fakeTlsDomain: [text] })).toEqual([
      {
        path: "--fake-tls-domain",
        message: `${text}: ${message}`,
        hint: "the name of a web site, for example example.com",
      },
    ]);
  });

  test.each([
    ["https://example.org/path", "not a domain alone", "leave out what follows the name: example.org"],
    ["example.org:443/?x", "not a domain alone", "leave out what follows the name: example.org"],
    [LONG, "longer than 182 bytes, which apps refuse", "take a shorter name"],
  ])("says what to change of %s", (text, message, hint) => {
    expect(issuesOf({ fakeTlsDomain: [text] })).toEqual([
      { path: "--fake-tls-domain", message: `${text}: ${message}`, hint },
    ]);
  });

  test("refuses a port, and says where it goes", () => {
    expect(issuesOf({ fakeTlsDomain: ["example.org:8443"] })).toEqual([
      {
        path: "--fake-tls-domain",
        message: "example.org:8443: a port cannot be in it",
        hint: "leave it out; --mask-host example.org:8443 says where the site is reached",
      },
    ]);
    expect(issuesOf({ fakeTlsDomain: ["example.org:"] })).toMatchObject([
      { message: "example.org:: a port cannot be in it" },
    ]);
  });

  test.each([["a.example,A.example."], ["a.example,https://a.example/"]])("refuses one twice: %s", (text) => {
    expect(issuesOf({ fakeTlsDomain: [text] })).toMatchObject([
      { message: expect.stringMatching(/: named twice$/), hint: "keep one of them" },
    ]);
  });

  test("takes as many as fit, and no more", () => {
    const many = Array.from({ length: MAX_FAKE_TLS_DOMAINS }, (_, at) => `d${at}.example`);
    expect(parseConfig({ fakeTlsDomain: many }).fakeTlsDomains).toEqual(many);
    const tooMany = { path: "--fake-tls-domain", message: "17 domains, but 16 is the most" };
    expect(issuesOf({ fakeTlsDomain: [...many, "x.example"] })).toMatchObject([tooMany]);
    expect(issuesOf({ fakeTlsDomain: many, secret: [eeSecretOf(1, "x.example")] })).toMatchObject([tooMany]);
  });

  test.each([eeSecretOf(1, "a.example"), "0123456789abcdef0123456789abcde"])(
    "says where a secret goes that stands for a domain, and does not quote it: %s",
    (text) => {
      expect(issuesOf({ fakeTlsDomain: [text] })).toEqual([
        { path: "--fake-tls-domain", message: "(a secret): not a domain", hint: "secrets go to --secret" },
      ]);
    },
  );

  test("is turned on by an ee secret, with its domain", () => {
    const config = parseConfig({ secret: [`ann:${eeSecretOf(7, "a.example")}`, secretOf(8)] });
    expect(config).toMatchObject({
      secrets: [
        { name: "ann", key: Uint8Array.fromHex(secretOf(7)) },
        { name: "secret2", key: Uint8Array.fromHex(secretOf(8)) },
      ],
      fakeTlsDomains: ["a.example"],
      accept: { plain: false, padded: false, fakeTls: true },
      warnings: [],
    });
  });

  test("joins the domains of ee secrets to the others, each once", () => {
    const secret = ["a.example", "b.example", "a.example"].map((domain, at) => eeSecretOf(at, domain));
    expect(parseConfig({ secret, fakeTlsDomain: ["c.example", "b.example"] }).fakeTlsDomains).toEqual([
      "c.example",
      "b.example",
      "a.example",
    ]);
  });

  test("says how one secret gets a second domain", () => {
    const secret = [eeSecretOf(1, "a.example"), eeSecretOf(1, "b.example")];
    expect(issuesOf({ secret })).toEqual([
      {
        path: "--secret",
        message: "secret2 repeats another secret",
        hint: "--fake-tls-domain b.example adds its domain",
      },
    ]);
  });

  test("says that one secret is enough for links with and without fake TLS, in whatever order", () => {
    const secret = [`dd${secretOf(1)}`, eeSecretOf(1, "a.example")];
    const hint = "the `ee` one is enough: --accept ee,dd keeps both links";
    expect(issuesOf({ secret })).toMatchObject([{ message: "secret2 repeats another secret", hint }]);
    expect(issuesOf({ secret: secret.toReversed() })).toMatchObject([{ hint }]);
    expect(issuesOf({ secret: [secretOf(1), `dd${secretOf(1)}`] })).toMatchObject([
      { hint: "leave one of them out" },
    ]);
  });
});

describe("parseConfig(), accepted forms", () => {
  const DOMAIN: RawConfig = { fakeTlsDomain: ["a.example"] };

  test.each<[RawConfig, string]>([
    [{}, "plain dd"],
    [DOMAIN, "ee"],
    [{ accept: ["plain"] }, "plain"],
    [{ accept: ["DD"] }, "dd"],
    [{ ...DOMAIN, accept: ["ee"] }, "ee"],
    [{ ...DOMAIN, accept: ["ee,dd", "plain"] }, "plain dd ee"],
    [{ secret: [eeSecretOf(1, "a.example")], accept: ["ee, plain"] }, "plain ee"],
  ])("of %j are %s", (raw, expected) => {
    const { accept, warnings } = parseConfig(raw);
    expect(accept).toEqual({
      plain: expected.includes("plain"),
      padded: expected.includes("dd"),
      fakeTls: expected.includes("ee"),
    });
    expect(warnings).toEqual([]);
  });

  test.each([["ee"], ["dd,ee"]])("need a domain for ee: %s", (text) => {
    expect(issuesOf({ accept: [text] })).toEqual([
      {
        path: "--accept",
        message: "ee needs --fake-tls-domain",
        hint: "add --fake-tls-domain <domain>, or leave out ee",
      },
    ]);
  });

  test("need no domain that is there, but wrong", () => {
    const issues = issuesOf({ accept: ["ee"], fakeTlsDomain: ["?"] });
    expect(issues.map(({ path }) => path)).toEqual(["--fake-tls-domain"]);
  });

  test.each([
    ["plian", "did you mean plain? the forms are plain, dd, ee"],
    ["ddd", "did you mean dd? the forms are plain, dd, ee"],
    ["padded", "did you mean dd? the forms are plain, dd, ee"],
    ["Secure", "did you mean dd? the forms are plain, dd, ee"],
    ["fake-tls", "did you mean ee? the forms are plain, dd, ee"],
    ["everything", "the forms are plain, dd, ee"],
    ["__proto__", "the forms are plain, dd, ee"],
  ])("are not %s", (text, hint) => {
    expect(issuesOf({ accept: [text] })).toEqual([
      { path: "--accept", message: `${text}: no such form`, hint },
    ]);
  });

  test("are no secrets, which are not quoted", () => {
    expect(issuesOf({ accept: ["ee0123456789abcdef01"] })).toEqual([
      {
        path: "--accept",
        message: "(a secret): no such form",
        hint: "the forms are plain, dd, ee; secrets go to --secret",
      },
    ]);
  });

  test("are named once each", () => {
    expect(issuesOf({ accept: ["dd", "plain,DD"] })).toEqual([
      { path: "--accept", message: "DD: named twice", hint: "keep one of them" },
    ]);
  });

  test.each<[RawConfig, readonly string[]]>([
    [
      { maskHost: ["127.0.0.1"], maskMax: ["5"] },
      [
        "--mask-host has no effect without --fake-tls-domain",
        "--mask-max has no effect without --fake-tls-domain",
      ],
    ],
    [
      { ...DOMAIN, maskHost: ["127.0.0.1"], accept: ["dd"] },
      [
        "--fake-tls-domain has no effect without ee in --accept",
        "--mask-host has no effect without ee in --accept",
      ],
    ],
    [
      { secret: [eeSecretOf(1, "a.example")], accept: ["dd"] },
      ["the domain of an ee secret has no effect without ee in --accept"],
    ],
    [{ trustedProxy: ["10.0.0.0/8"] }, ["--trusted-proxy has no effect without --proxy-protocol"]],
    [{ ...DOMAIN, maskHost: ["127.0.0.1"], maskMax: ["5"], proxyProtocol: [""], trustedProxy: ["::1"] }, []],
  ])("warn of what has no effect: %j", (raw, warnings) => {
    expect(parseConfig(raw).warnings).toEqual(warnings);
  });

  test("leave no domain where ee is not among them", () => {
    expect(parseConfig({ ...DOMAIN, accept: ["dd"] }).fakeTlsDomains).toEqual([]);
  });
});

describe("parseConfig(), the cover site", () => {
  test.each([
    ["127.0.0.1:8443", "127.0.0.1", 8443],
    ["127.0.0.1", "127.0.0.1", 443],
    ["[2001:DB8::7]:8443", "2001:db8::7", 8443],
    ["[::1]", "::1", 443],
    ["2001:db8::7", "2001:db8::7", 443],
    ["localhost:8443", "localhost", 8443],
    ["https://127.0.0.1:8443/", "127.0.0.1", 8443],
    ["Nginx", "nginx", 443],
    ["www.Example.org.:1", "www.example.org", 1],
    ["пример.рф:65535", "xn--e1afmkfd.xn--p1ai", 65_535],
  ])("is at %s", (text, host, port) => {
    expect(parseConfig({ fakeTlsDomain: ["a.example"], maskHost: [text] }).maskHost).toEqual({ host, port });
  });

  test.each([
    ["a.example:0", "not a whole number from 1 to 65535"],
    ["a.example:65536", "not a whole number from 1 to 65535"],
    ["a.example:", "not a whole number from 1 to 65535"],
    ["[::1]:0", "not a whole number from 1 to 65535"],
    ["a.example:1:2", "not of the form host:port"],
    ["a.example:x", "not of the form host:port"],
    ["a.example:443,b.example:443", "not of the form host:port"],
    ["unix:/run/site.sock", "not of the form host:port"],
    ["http://a.example", "not of the form host:port"],
    ["8443", "not of the form host:port"],
    [":8443", "not of the form host:port"],
    ["256.0.0.1:443", "not of the form host:port"],
    ["[127.0.0.1]:443", "not of the form host:port"],
    ["[::1", "not of the form host:port"],
    ["::1]:443", "not of the form host:port"],
    ["[::1]443", "not of the form host:port"],
    ["fe80::1%eth0", "not of the form host:port"],
    ["https://a.example/path", "not of the form host:port"],
    ["a b", "not of the form host:port"],
  ])("is not at %j: %s", (text, reason) => {
    expect(issuesOf({ maskHost: [text] })).toMatchObject([
      { path: "--mask-host", message: `${text}: ${reason}`, hint: expect.stringContaining("127.0.0.1:8443") },
    ]);
  });

  test.each(["9443", ":9443"])("is asked for with its host where %s is its port", (text) => {
    expect(issuesOf({ maskHost: [text] })).toMatchObject([{ hint: "for this machine: 127.0.0.1:9443" }]);
  });
});

describe("parseConfig(), trusted proxies", () => {
  const networksOf = (...trustedProxy: readonly string[]): string[] =>
    parseConfig({ proxyProtocol: [""], trustedProxy }).trustedProxies.map(String);

  test("are on this machine by default", () => {
    expect(parseConfig({ proxyProtocol: [""] }).trustedProxies.map(String)).toEqual(["127.0.0.0/8", "::1"]);
  });

  test("are the networks and addresses that are named, and no others", () => {
    expect(networksOf("10.0.0.0/8,192.0.2.7", "2001:db8::/32")).toEqual([
      "10.0.0.0/8",
      "192.0.2.7",
      "2001:db8::/32",
    ]);
  });

  test.each([
    [
      "10.0.0.1/8",
      "bits are set after the first 8",
      "the network is 10.0.0.0/8, the address alone is 10.0.0.1",
    ],
    ["proxy.example", "not an IP address or network", expect.stringContaining("for example 10.0.0.0/8")],
    ["10.0.0.0/33", "what stands after / is not a number from 0 to 32", expect.any(String)],
  ])("are not %s: %s", (text, reason, hint) => {
    expect(issuesOf({ trustedProxy: ["::1", text] })).toEqual([
      { path: "--trusted-proxy", message: `${text}: ${reason}`, hint },
    ]);
  });

  test("are named once each, whatever the spelling", () => {
    expect(issuesOf({ trustedProxy: ["::1,0:0::1/128"] })).toMatchObject([
      { message: "0:0::1/128: named twice" },
    ]);
  });
});

describe("parseConfig(), addresses of data centres", () => {
  test.each([
    ["2:192.0.2.7", { ip: "192.0.2.7", port: 443 }],
    ["2:192.0.2.7:8443", { ip: "192.0.2.7", port: 8443 }],
    ["2:2001:db8::7", { ip: "2001:db8::7", port: 443 }],
    ["2:[2001:db8::7]", { ip: "2001:db8::7", port: 443 }],
    ["2:[2001:db8::7]:8443", { ip: "2001:db8::7", port: 8443 }],
    ["2:::1", { ip: "::1", port: 443 }],
  ])("takes %s", (text, address) => {
    expect(parseConfig({ dcIp: [text] }).dcAddresses).toEqual(new Map([[2, address]]));
  });

  test("replaces the defaults, all of them", () => {
    const { dcAddresses } = parseConfig({ dcIp: ["1:192.0.2.1", "203:192.0.2.203"] });
    expect([...dcAddresses.keys()]).toEqual([1, 203]);
  });

  test.each([
    ["192.0.2.7", "not of the form DC:IP[:port]"],
    ["2", "not of the form DC:IP[:port]"],
    ["2:", "not of the form DC:IP[:port]"],
    ["two:192.0.2.7", "not of the form DC:IP[:port]"],
    ["-2:192.0.2.7", "not of the form DC:IP[:port]"],
    ["2:192.0.2.7:", "not of the form DC:IP[:port]"],
    ["2:192.0.2.7:443:1", "not of the form DC:IP[:port]"],
    ["2:[2001:db8::7", "not of the form DC:IP[:port]"],
    ["2:[]:443", "[] is not an IP address"],
    ["6:192.0.2.7", "there is no DC 6"],
    ["0:192.0.2.7", "there is no DC 0"],
    ["10002:192.0.2.7", "there is no DC 10002"],
    ["99999999999999999999999:192.0.2.7", "there is no DC 99999999999999999999999"],
    ["2:192.0.2", "192.0.2 is not an IP address"],
    ["2:192.0.2.256", "192.0.2.256 is not an IP address"],
    ["2:example.org", "example.org is not an IP address"],
    ["2:192.0.2.7:0", "not a whole number from 1 to 65535"],
    ["2:192.0.2.7:65536", "not a whole number from 1 to 65535"],
  ])("refuses %j: %s", (text, reason) => {
    expect(issuesOf({ dcIp: [text] })).toMatchObject([{ path: "--dc-ip", message: `${text}: ${reason}` }]);
  });

  test("refuses a second address for one data centre", () => {
    expect(issuesOf({ dcIp: ["2:192.0.2.7", "2:192.0.2.8"] })).toEqual([
      {
        path: "--dc-ip",
        message: "2:192.0.2.8: DC 2 has an address already",
        hint: "keep one of them",
      },
    ]);
  });

  test("says what is wrong with each of them", () => {
    expect(issuesOf({ dcIp: ["x", "2:192.0.2.7", "9:192.0.2.7"] })).toHaveLength(2);
  });
});

/** What the routes that need a domain need. */
const DOMAINS: RawConfig = { frontDomain: ["front.example"], cfproxyWorkerDomain: ["worker.example"] };

describe("parseConfig(), routes", () => {
  test("takes all of them when they have what they need", () => {
    expect(parseConfig(DOMAINS).routes).toEqual([...ROUTE_NAMES]);
    expect(parseConfig(DOMAINS).warnings).toEqual([]);
  });

  test("leaves out the ones without a domain when nobody named them", () => {
    expect(parseConfig({ frontDomain: ["front.example"] }).routes).toEqual([
      "direct-ws",
      "fronted-ws",
      "cf-domain",
      "direct-tcp",
    ]);
  });

  test.each([
    [["direct-tcp"], ["direct-tcp"]],
    [
      ["direct-tcp", "direct-ws"],
      ["direct-tcp", "direct-ws"],
    ],
    [["cf-domain,direct-ws"], ["cf-domain", "direct-ws"]],
    [["DIRECT-WS, Cf-Domain"], ["direct-ws", "cf-domain"]],
    [
      [",direct-ws, ,", "cf-domain,"],
      ["direct-ws", "cf-domain"],
    ],
    [
      ["cf-worker, fronted-ws", "direct-ws"],
      ["cf-worker", "fronted-ws", "direct-ws"],
    ],
  ] as const)("takes those named in %j, in their order", (route, routes) => {
    expect(parseConfig({ ...DOMAINS, route }).routes).toEqual([...routes]);
  });

  test.each([
    ["toString", "toString", "the routes are direct-ws, fronted-ws, cf-worker, cf-domain, direct-tcp"],
    ["direct_ws", "direct_ws", "did you mean direct-ws?"],
    ["direct-ws,cf-domains", "cf-domains", "did you mean cf-domain?"],
    ["cfworker", "cfworker", "did you mean cf-worker?"],
  ])("does not know %j", (text, named, hint) => {
    expect(issuesOf({ route: [text] })).toEqual([
      { path: "--route", message: `${named}: no such route`, hint },
    ]);
  });

  test.each([[["direct-ws,direct-ws"]], [["direct-ws", "direct-ws"]]])("refuses one twice: %j", (route) => {
    expect(issuesOf({ route })).toEqual([
      { path: "--route", message: "direct-ws: named twice", hint: "keep one of them" },
    ]);
  });

  test("asks for the domains that named routes need", () => {
    expect(issuesOf({ route: ["direct-ws", "fronted-ws", "cf-worker"] })).toEqual([
      {
        path: "--route",
        message: "fronted-ws needs --front-domain",
        hint: "add --front-domain <domain>, or leave out fronted-ws",
      },
      {
        path: "--route",
        message: "cf-worker needs --cfproxy-worker-domain",
        hint: "add --cfproxy-worker-domain <domain>, or leave out cf-worker",
      },
    ]);
  });

  test("does not ask for a domain that is there, but wrong", () => {
    const issues = issuesOf({ route: ["fronted-ws"], frontDomain: ["?"] });
    expect(issues.map(({ path }) => path)).toEqual(["--front-domain"]);
  });

  test("leaves out cf-domain with --no-cfproxy, and keeps Workers of one's own", () => {
    expect(parseConfig({ ...DOMAINS, noCfproxy: [""] })).toMatchObject({
      routes: ["direct-ws", "fronted-ws", "cf-worker", "direct-tcp"],
      warnings: [],
    });
    expect(parseConfig({ noCfproxy: [""], route: ["cf-domain,direct-ws"] })).toMatchObject({
      routes: ["direct-ws"],
      warnings: ["--route cf-domain has no effect with --no-cfproxy"],
    });
  });

  test("refuses to have none", () => {
    expect(issuesOf({ noCfproxy: [""], route: ["cf-domain"] })).toEqual([
      {
        path: "--route",
        message: "--no-cfproxy leaves no route",
        hint: "leave out --no-cfproxy, or name another route",
      },
    ]);
  });

  test.each<[RawConfig, readonly string[]]>([
    [
      { frontDomain: ["a.example"], route: ["direct-ws"] },
      ["--front-domain has no effect without the route fronted-ws"],
    ],
    [
      { cfproxyWorkerDomain: ["a.example"], cfproxyWorkerToken: ["t"], route: ["direct-ws"] },
      [
        "--cfproxy-worker-domain has no effect without the route cf-worker",
        "--cfproxy-worker-token has no effect without the route cf-worker",
      ],
    ],
    [{ cfproxyWorkerToken: ["t"] }, ["--cfproxy-worker-token has no effect without --cfproxy-worker-domain"]],
    [
      { cfproxyDomain: ["a.example"], cfproxyList: ["https://a.example/"], noCfproxy: [""] },
      ["--cfproxy-domain has no effect with --no-cfproxy", "--cfproxy-list has no effect with --no-cfproxy"],
    ],
    [
      { cfproxyDomain: ["a.example"], cfproxyList: ["https://a.example/"] },
      ["--cfproxy-list has no effect with --cfproxy-domain"],
    ],
    [
      { cfproxyDomain: ["a.example"], route: ["direct-ws"] },
      ["--cfproxy-domain has no effect without the route cf-domain"],
    ],
    [
      { dcTcp: ["2:192.0.2.7"], route: ["direct-ws"] },
      ["--dc-tcp has no effect without the route direct-tcp"],
    ],
    [
      { dcIp: ["2:192.0.2.7"], route: ["direct-tcp"] },
      ["--dc-ip has no effect without the route direct-ws or fronted-ws"],
    ],
    [
      { tlsCa: ["a.pem"], noTlsVerify: [""], logMaxMb: ["1"], logBackups: ["1"] },
      [
        "--tls-ca has no effect with --no-tls-verify",
        "--log-max-mb has no effect without --log-file",
        "--log-backups has no effect without --log-file",
      ],
    ],
    [{ ...DOMAINS, cfproxyWorkerToken: ["t"], dcTcp: ["2:192.0.2.7"], cfproxyDomain: ["a.example"] }, []],
  ])("warns of what has no effect: %j", (raw, warnings) => {
    expect(parseConfig(raw).warnings).toEqual(warnings);
  });
});

describe("parseConfig(), domains", () => {
  test.each([
    ["example.org", "example.org", 443],
    ["Example.ORG.", "example.org", 443],
    ["example.org:8443", "example.org", 8443],
    ["localhost:8443", "localhost", 8443],
    ["пример.рф", "xn--e1afmkfd.xn--p1ai", 443],
    ["ПРИМЕР.рф:1", "xn--e1afmkfd.xn--p1ai", 1],
    ["https://my-worker.name.workers.dev/", "my-worker.name.workers.dev", 443],
    ["WSS://worker.example:8443/", "worker.example", 8443],
  ])("takes %s", (text, domain, port) => {
    const raw = { frontDomain: [text], cfproxyWorkerDomain: [text], cfproxyDomain: [text] };
    const config = parseConfig(raw);
    expect(config.frontDomain).toEqual({ domain, port });
    expect(config.workerDomains).toEqual([{ domain, port }]);
    expect(config.cfDomains).toEqual([{ domain, port }]);
  });

  test.each([
    ["example", "not a domain"],
    ["192.0.2.7", "not a domain"],
    ["0x7f.1", "not a domain"],
    ["[2001:db8::7]", "not a domain"],
    ["exa_mple.org", "not a domain"],
    ["exa%6dple.org", "not a domain"],
    ["exa\\mple.org", "not a domain"],
    ["-example.org", "not a domain"],
    ["example..org", "not a domain"],
    ["*.example.org", "not a domain"],
    [`${"x".repeat(64)}.org`, "not a domain"],
    [`${"abc.".repeat(63)}org`, "not a domain"],
    ["xn--a.b", "not a domain"],
    ["\ud800.org", "not a domain"],
    ["http://example.org", "not a domain alone"],
    ["https://example.org/apiws", "not a domain alone"],
    ["example.org?x", "not a domain alone"],
    ["example.org:", "not a whole number from 1 to 65535"],
    ["example.org:0", "not a whole number from 1 to 65535"],
    ["example.org:65536", "not a whole number from 1 to 65535"],
    ["example.org:1:2", "not a whole number from 1 to 65535"],
  ])("refuses %j: %s", (text, reason) => {
    expect(issuesOf({ frontDomain: [text] })).toMatchObject([
      { path: "--front-domain", message: `${text}: ${reason}`, hint: expect.any(String) },
    ]);
  });

  test("takes several from one text, and each of them once", () => {
    const { workerDomains } = parseConfig({
      cfproxyWorkerDomain: ["a.example, https://b.example/;C.example:8443 ", "A.example:443", "c.example"],
    });
    expect(workerDomains.map(({ domain, port }) => `${domain}:${port}`)).toEqual([
      "a.example:443",
      "b.example:443",
      "c.example:8443",
      "c.example:443",
    ]);
  });

  test("says which of several is wrong, and that none is none", () => {
    expect(issuesOf({ cfproxyDomain: ["a.example, b, c.example", " ;,"] })).toMatchObject([
      { path: "--cfproxy-domain", message: "b: not a domain" },
      { path: "--cfproxy-domain", message: " ;,: there is no domain in it" },
    ]);
  });

  test("does not quote what stands before an @", () => {
    const issues = issuesOf({ frontDomain: ["https://ann:hunter2@example.org"] });
    expect(issues).toMatchObject([{ message: "(a secret)@example.org: not a domain" }]);
  });
});

describe("parseConfig(), the address of the list", () => {
  test.each([
    "https://example.org/list.txt",
    "https://192.0.2.7:8443/a?b=c",
    "http://localhost:8080/list",
    "http://127.0.0.1/list",
    "http://[::1]:8080/list",
    DEFAULT_CF_LIST_URL,
  ])("takes %s", (url) => {
    expect(parseConfig({ cfproxyList: [url] }).cfListUrl).toBe(url);
  });

  test.each([
    ["example.org/list.txt", "not an address of the web"],
    ["file:///etc/passwd", "not an address of the web"],
    ["https://", "not an address of the web"],
    ["https://exa mple.org/", "not an address of the web"],
    ["http://example.org/list.txt", "http is for this machine only"],
    ["http://localhost.example.org/", "http is for this machine only"],
    ["http://127.0.0.1.example.org/", "http is for this machine only"],
  ])("refuses %j: %s", (text, reason) => {
    expect(issuesOf({ cfproxyList: [text] })).toMatchObject([
      { path: "--cfproxy-list", message: `${text}: ${reason}`, hint: expect.any(String) },
    ]);
  });

  test("refuses a password, and does not quote it", () => {
    expect(issuesOf({ cfproxyList: ["https://ann:hunter2@example.org/"] })).toMatchObject([
      { message: "(a secret)@example.org/: a name or password cannot be in it" },
    ]);
  });
});

describe("parseConfig(), what is not to be quoted", () => {
  test("takes a token of visible characters", () => {
    const token = `${"!".repeat(255)}~`;
    expect(parseConfig({ ...DOMAINS, cfproxyWorkerToken: [token] }).workerToken).toBe(token);
  });

  test.each(["hunter 2", "hunter2\n", "hünter", "x".repeat(257)])("refuses the token %j", (text) => {
    expect(issuesOf({ cfproxyWorkerToken: [text] })).toEqual([
      {
        path: "--cfproxy-worker-token",
        message: "not 1-256 visible ASCII characters",
        hint: "--cfproxy-worker-token <token>",
      },
    ]);
  });

  test("keeps the outbound proxy as it was written", () => {
    const text = "socks5://ann:hunter2@192.0.2.7:1080";
    expect(parseConfig({ upstreamProxy: [text] }).upstreamProxy).toBe(text);
  });

  test.each(["", " "])("refuses the outbound proxy %j", (text) => {
    expect(issuesOf({ upstreamProxy: [text] })).toMatchObject([
      { path: "--upstream-proxy", message: "is empty" },
    ]);
  });
});

describe("parseConfig(), pinned names", () => {
  test("gives the addresses of names", () => {
    const { pins } = parseConfig({ resolve: ["example.org=192.0.2.7", "*.example.org=[2001:db8::7]"] });
    expect(pins.addressOf("example.org")).toBe("192.0.2.7");
    expect(pins.addressOf("www.example.org")).toBe("2001:db8::7");
    expect(pins.addressOf("example.net")).toBeUndefined();
  });

  test("says what is wrong with each", () => {
    expect(issuesOf({ resolve: ["x", "a.b=192.0.2.7", "a.b=192.0.2.8", "c.d=e"] })).toMatchObject([
      { path: "--resolve", message: "x: not of the form NAME=IP" },
      { path: "--resolve", message: "a.b=192.0.2.8: a.b has the address 192.0.2.7 already" },
      { path: "--resolve", message: "c.d=e: what stands after = is not an IP address" },
    ]);
  });
});

describe("parseConfig(), TCP addresses", () => {
  test("replaces those of the data centres that are named, in the order given", () => {
    const { tcpAddresses, testTcpAddresses } = parseConfig({
      dcTcp: ["2:2001:db8::7", "203:192.0.2.203:8443", "2:192.0.2.7"],
    });
    const plain = parseConfig({});
    expect(tcpAddresses.get(2)).toEqual(both("2001:db8::7", "192.0.2.7"));
    expect(tcpAddresses.get(203)).toEqual([{ ip: "192.0.2.203", port: 8443 }]);
    for (const dc of [1, 3, 4, 5]) expect(tcpAddresses.get(dc)).toEqual(plain.tcpAddresses.get(dc) ?? []);
    expect(testTcpAddresses).toEqual(plain.testTcpAddresses);
  });

  test("takes 10001-10003 for the data centres of the test", () => {
    const { tcpAddresses, testTcpAddresses } = parseConfig({ dcTcp: ["10002:192.0.2.7:8443"] });
    expect(testTcpAddresses.get(2)).toEqual([{ ip: "192.0.2.7", port: 8443 }]);
    expect(testTcpAddresses.size).toBe(3);
    expect(tcpAddresses).toEqual(parseConfig({}).tcpAddresses);
  });

  test.each([
    ["2", "not of the form DC:IP[:port]"],
    ["9:192.0.2.7", "there is no DC 9"],
    ["10004:192.0.2.7", "there is no DC 10004"],
    ["2:example.org", "example.org is not an IP address"],
  ])("refuses %j: %s", (text, reason) => {
    expect(issuesOf({ dcTcp: [text] })).toMatchObject([{ path: "--dc-tcp", message: `${text}: ${reason}` }]);
  });

  test("refuses the same address twice", () => {
    expect(issuesOf({ dcTcp: ["2:192.0.2.7", "2:192.0.2.7:443"] })).toMatchObject([
      { path: "--dc-tcp", message: "2:192.0.2.7:443: DC 2 has this address already" },
    ]);
  });
});
