import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { type Config, parseConfig, ROUTE_NAMES } from "../../src/config/config.ts";
import { MAX_FAKE_TLS_DOMAINS } from "../../src/config/fake-tls.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "../../src/config/fields.ts";
import { readFlags, scanFlags } from "../../src/config/read-flags.ts";
import { MAX_SECRETS } from "../../src/config/users.ts";
import { ConfigError } from "../../src/core/errors.ts";
import { isDomainName } from "../../src/protocol/cf-domains.ts";
import { DC_NUMBERS, TEST_DC_NUMBERS } from "../../src/protocol/mtproto/dc.ts";
import { formatSecret, MAX_DOMAIN_LENGTH, parseSecretText } from "../../src/protocol/mtproto/secret.ts";

const RUNS = { seed: 20_253, numRuns: 3_000 };
const NAMES = Object.keys(FIELDS) as FieldName[];
const fieldOf = (name: FieldName): Field => FIELDS[name];

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme-ascii", maxLength: 20 }),
  fc.constantFrom("", "-", "--", "=", ":", "__proto__", "constructor", "\0", "\ud800"),
);
const hexSecret = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((key) => key.toHex());
const address = fc.oneof(
  fc.ipV4(),
  fc.ipV6(),
  fc.ipV6().map((ip) => `[${ip}]`),
  fc.domain(),
);

const routes = fc.array(fc.constantFrom(...ROUTE_NAMES, "", "direct"), { minLength: 1, maxLength: 5 });
const place = fc
  .tuple(
    fc.constantFrom("", "https://", "wss://", "http://", "ann:b@"),
    fc.oneof(fc.domain(), fc.constantFrom("localhost", "пример.рф", "a..b", "*.a.b", "xn--a.b")),
    fc.constantFrom("", ":443", ":0", ":x", "/", ":8443/", "/path"),
  )
  .map((parts) => parts.join(""));

/** What could stand for a value, mostly nearly right. */
const value = fc.oneof(
  text,
  fc.integer({ min: -2, max: 70_000 }).map(String),
  fc.double().map(String),
  address,
  hexSecret,
  routes.map((names) => names.join(",")),
  place,
  fc.array(place, { maxLength: 3 }).map((places) => places.join("; ")),
  fc
    .tuple(fc.constantFrom("", "*.", "*"), fc.domain(), address)
    .map(([star, name, ip]) => `${star}${name}=${ip}`),
  fc.webUrl(),
  fc.tuple(fc.constantFrom("", "dd", "ee", "ann:", ":", "a b:"), hexSecret).map((parts) => parts.join("")),
  fc.tuple(hexSecret, fc.domain()).map(([key, domain]) => `ee${key}${Buffer.from(domain).toString("hex")}`),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => bytes.toBase64()),
  fc
    .array(fc.constantFrom("plain", "dd", "ee", "DD", "ed"), { maxLength: 4 })
    .map((forms) => forms.join(",")),
  fc.tuple(address, fc.integer({ min: -1, max: 130 })).map((parts) => parts.join("/")),
  fc
    .tuple(fc.integer({ min: -1, max: 210 }), address, fc.option(fc.integer({ min: -1, max: 70_000 })))
    .map(([dc, ip, port]) => (port === null ? `${dc}:${ip}` : `${dc}:${ip}:${port}`)),
);

const flag = fc.constantFrom(...NAMES).map((name) => `--${fieldOf(name).flag}`);
const argument = fc.oneof(
  { weight: 4, arbitrary: fc.tuple(flag, value).map(([left, right]) => [left, right]) },
  { weight: 4, arbitrary: fc.tuple(flag, value).map(([left, right]) => [`${left}=${right}`]) },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom(
        "-v",
        "--verbose",
        "--force-test-dc",
        "--no-tls-verify",
        "--no-cfproxy",
        "--proxy-protocol",
      )
      .map((word) => [word]),
  },
  { weight: 1, arbitrary: text.map((word) => [`--${word}`]) },
  { weight: 1, arbitrary: fc.oneof(flag, text, value).map((word) => [word]) },
);
const argv = fc.array(argument, { maxLength: 6 }).map((words) => words.flat());

/** What `parse` returns, or our complaint; any other error is thrown on. */
function outcomeOf<T>(parse: () => T): { readonly value: T } | ConfigError {
  try {
    return { value: parse() };
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
}

function expectComplaint({ issues, code }: ConfigError): void {
  expect(code).toBe("BAD_CONFIG");
  expect(issues.length).toBeGreaterThan(0);
  for (const { message, hint } of issues) {
    expect(message).not.toBe("");
    expect(hint).not.toBe("");
  }
}

function expectSound(config: Config): void {
  expect(config.host).not.toBe("");
  expect(config.port).toBeWithin(0, 65_536);
  expect(config.poolSize).toBeWithin(0, 65);
  expect(config.queueBytes).toBeWithin(4 * 1024, 16 * 1024 * 1024 + 1);
  expect(config.secrets.length).toBeLessThanOrEqual(MAX_SECRETS);
  expect(config.secrets.every(({ key, name }) => key.length === 16 && name !== "")).toBe(true);
  expect(new Set(config.secrets.map(({ name }) => name)).size).toBe(config.secrets.length);
  for (const [dc, { ip, port }] of config.dcAddresses) {
    expect(DC_NUMBERS).toContain(dc as (typeof DC_NUMBERS)[number]);
    expect(isIP(ip)).not.toBe(0);
    expect(port).toBeWithin(1, 65_536);
  }
  expectSoundRoutes(config);
  expectSoundFakeTls(config);
  expectSoundLimits(config);
  if (config.logFile === undefined) return;
  expect(config.logFile.path).not.toBe("");
  expect(config.logFile.backups).toBeWithin(0, 101);
  expect(config.logFile.maxBytes).toBeWithin(30_000, 10_000 * 1024 * 1024 + 1);
}

function expectSoundLimits(config: Config): void {
  for (const limit of [config.maxConnections, config.maxPerAddress, config.addressRate, config.bufferBytes])
    expect(limit === undefined || (limit > 0 && Number.isFinite(limit))).toBe(true);
  expect(config.handshakeTimeoutMs).toBeWithin(100, 600_001);
  expect(config.drainMs).toBeWithin(0, 86_400_001);
  expect(config.workers === "auto" || (config.workers > 0 && config.workers <= 256)).toBe(true);
  expect([...config.allow, ...config.deny]).not.toContain("");
  expect(config.users.map(({ name }) => name)).toEqual(config.secrets.map(({ name }) => name));
  expect(config.verbose).toBe(config.logLevel === "debug");
  expect(config.status === undefined || config.status.host !== "").toBe(true);
}

function expectSoundFakeTls(config: Config): void {
  const { fakeTlsDomains, accept, maskHost, maskMax, proxyProtocol, trustedProxies } = config;
  expect(accept.fakeTls).toBe(fakeTlsDomains.length > 0);
  expect(Object.values(accept)).toContain(true);
  expect(fakeTlsDomains.length).toBeLessThanOrEqual(MAX_FAKE_TLS_DOMAINS);
  expect(new Set(fakeTlsDomains).size).toBe(fakeTlsDomains.length);
  for (const domain of fakeTlsDomains) {
    expect(isDomainName(domain)).toBe(true);
    expect(domain).toBe(domain.toLowerCase());
    expect(domain.length).toBeLessThanOrEqual(MAX_DOMAIN_LENGTH);
    const key = new Uint8Array(16);
    expect(parseSecretText(formatSecret(key, { fakeTls: domain }))).toEqual({ key, domain });
  }
  expect(maskMax).toBeWithin(1, 65_536);
  if (proxyProtocol) expect(trustedProxies).not.toBeEmpty();
  if (maskHost === undefined) return;
  expect(isIP(maskHost.host) !== 0 || /^[a-z0-9.-]+$/.test(maskHost.host)).toBe(true);
  expect(maskHost.port).toBeWithin(1, 65_536);
}

function expectSoundRoutes(config: Config): void {
  const { routes, frontDomain, workerDomains, cfDomains } = config;
  expect(routes).not.toBeEmpty();
  expect(new Set(routes).size).toBe(routes.length);
  if (routes.includes("fronted-ws")) expect(frontDomain).toBeDefined();
  if (routes.includes("cf-worker")) expect(workerDomains).not.toBeEmpty();
  for (const { domain, port } of [...workerDomains, ...cfDomains, ...(frontDomain ? [frontDomain] : [])]) {
    expect(domain === "localhost" || isDomainName(domain)).toBe(true);
    expect(port).toBeWithin(1, 65_536);
  }
  expect([...config.tcpAddresses.keys()]).toEqual([...DC_NUMBERS]);
  expect([...config.testTcpAddresses.keys()]).toEqual([...TEST_DC_NUMBERS]);
  for (const { ip, port } of [...config.tcpAddresses.values(), ...config.testTcpAddresses.values()].flat()) {
    expect(isIP(ip)).not.toBe(0);
    expect(port).toBeWithin(1, 65_536);
  }
  expect(new URL(config.cfListUrl).protocol).toMatch(/^https?:$/);
  expect(config.upstreamProxy).not.toBe("");
  expect(config.workerToken).not.toBe("");
  const pinned = config.pins.addressOf("www.example.org");
  expect(pinned === undefined || isIP(pinned) !== 0).toBe(true);
}

describe("readFlags() and parseConfig()", () => {
  test("give a configuration, or a ConfigError, for any command line", () => {
    let sound = 0;
    fc.assert(
      fc.property(argv, (words) => {
        const outcome = outcomeOf(() => parseConfig(readFlags(words, NAMES)));
        if (outcome instanceof ConfigError) return expectComplaint(outcome);
        sound += 1;
        expectSound(outcome.value);
      }),
      RUNS,
    );
    expect(sound).toBeGreaterThan(RUNS.numRuns / 20);
  });

  test("read the same from --flag value and --flag=value", () => {
    const pairs = fc.array(
      fc.tuple(
        fc.constantFrom(...NAMES.filter((name) => fieldOf(name).kind === "list")),
        value.filter((word) => !word.startsWith("--")),
      ),
      { maxLength: 6 },
    );
    fc.assert(
      fc.property(pairs, (settings) => {
        const apart = settings.flatMap(([name, word]) => [`--${fieldOf(name).flag}`, word]);
        const joined = settings.map(([name, word]) => `--${fieldOf(name).flag}=${word}`);
        expect(readFlags(apart, NAMES)).toEqual(readFlags(joined, NAMES));
      }),
      RUNS,
    );
  });
});

describe("parseConfig()", () => {
  test("gives a configuration, or a ConfigError, for any texts", () => {
    const raw = fc.record(
      Object.fromEntries(NAMES.map((name) => [name, fc.array(value, { minLength: 1, maxLength: 3 })])),
      { requiredKeys: [] },
    ) as fc.Arbitrary<RawConfig>;
    fc.assert(
      fc.property(raw, (settings) => {
        const outcome = outcomeOf(() => parseConfig(settings));
        if (outcome instanceof ConfigError) expectComplaint(outcome);
        else expectSound(outcome.value);
      }),
      RUNS,
    );
  });

  test("quotes no secret, whatever is wrong with it", () => {
    const damage = fc.constantFrom<(secret: string) => string>(
      (secret) => `${secret}0`,
      (secret) => `${secret}00`,
      (secret) => `ee${secret}`,
      (secret) => `${secret}?`,
      (secret) => `ann:bob:${secret}`,
      (secret) => `a name:${secret}`,
      (secret) => ` ${secret}.`,
      (secret) => `ee${secret}${Buffer.from("no domain").toString("hex")}`,
      (secret) => Buffer.from(`ee${secret}00`, "hex").toString("base64url"),
    );
    fc.assert(
      fc.property(hexSecret, damage, (secret, spoil) => {
        fc.pre(!secret.startsWith("dd")); // one byte more makes a good one of it
        const outcome = outcomeOf(() => parseConfig({ secret: [spoil(secret)] }));
        if (!(outcome instanceof ConfigError)) throw new Error("unreachable: it is damaged");
        expect(JSON.stringify([outcome.message, outcome.issues])).not.toContain(secret);
      }),
      RUNS,
    );
  });

  test("quotes no token and no password, whatever is wrong with it", () => {
    const password = fc.stringMatching(/^[A-Z][a-z]{5}[0-9]{6}$/);
    const damage = fc.constantFrom<(password: string) => readonly string[]>(
      (text) => ["--cfproxy-worker-token", `${text} `],
      (text) => ["--cfproxy-worker-token", `${text}\u00e9`],
      (text) => ["--cfproxy-worker-token", text, text],
      (text) => ["--cfproxy-worker-token", text, `--cfproxy-worker-token=${text}`],
      (text) => ["--upstream-proxy", `http://a:${text}@b.c`, `--upstream-proxy=http://a:${text}@b.c`],
      (text) => ["--upstream-proxy", "http://a:b", `${text}@b.c`],
      (text) => ["--front-domain", `https://a:${text}@b.c`],
      (text) => ["--cfproxy-list", `https://a:${text}@b.c`],
      (text) => [`socks5://a:${text}@b.c`],
    );
    fc.assert(
      fc.property(password, damage, (text, spoil) => {
        const outcome = outcomeOf(() => {
          const { raw, issues } = scanFlags(spoil(text), NAMES);
          return parseConfig(raw, issues);
        });
        if (!(outcome instanceof ConfigError)) throw new Error("unreachable: it is damaged");
        expect(JSON.stringify([outcome.message, outcome.issues])).not.toContain(text);
      }),
      { ...RUNS, numRuns: 1_000 },
    );
  });
});
