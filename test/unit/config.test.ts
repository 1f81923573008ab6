import { describe, expect, test } from "bun:test";
import { type Config, MAX_SECRETS, parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";

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

describe("parseConfig()", () => {
  test("fills in the defaults of tg-ws-proxy", () => {
    const expected: Config = {
      host: "127.0.0.1",
      port: 1443,
      secrets: [],
      dcAddresses: new Map([
        [2, { ip: "149.154.167.220", port: 443 }],
        [4, { ip: "149.154.167.220", port: 443 }],
      ]),
      poolSize: 4,
      queueBytes: 256 * 1024,
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
    expect(parseConfig({ forceTestDc: [""], noTlsVerify: [""], verbose: [""] })).toMatchObject({
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
  } as const;

  test.each([
    ["port", 0, 65_535],
    ["poolSize", 0, 64],
    ["bufKb", 4, 16_384],
    ["logBackups", 0, 100],
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
    for (const name of ["port", "poolSize", "bufKb", "logBackups"] as const) {
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

  test.each(["0", "0.02", "10001", "1.", ".5", "1,5", "1e1", "-1", "", "five"])(
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
    expect(issuesOf({ [name]: [""] })).toMatchObject([
      { message: expect.stringContaining("not a file name") },
    ]);
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

  test.each(["", "a b", "http://127.0.0.1", "[]", "[::1", "127.0.0.1/8", "a\nb", "é"])(
    "refuses %j",
    (text) => {
      expect(issuesOf({ host: [text] })).toEqual([
        {
          path: "--host",
          message: `${text}: not an address`,
          hint: "for example 127.0.0.1, 0.0.0.0, :: or a name of this machine",
        },
      ]);
    },
  );
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
    expect(issuesOf({ secret: [...many, secretOf(99)] })).toEqual([
      { path: "--secret", message: "17 secrets, but 16 is the most" },
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
    ["none at all", [""], "secret1: Cannot use secret: it is 0 bytes long"],
    [
      "fake TLS",
      [`ee${HEX}${Buffer.from("example.org").toString("hex")}`],
      "secret1: Cannot use secret: `ee` secrets (fake TLS) are not supported yet",
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
    [[`a b:${SENSITIVE}`]],
    [[`a:${SENSITIVE}`, `a:${SENSITIVE}`]],
    [[`a:${SENSITIVE}`, `b:${SENSITIVE}`]],
    [[`a:b:${SENSITIVE}`]],
    [Array.from({ length: 17 }, () => SENSITIVE)],
  ])("does not quote the secret in %j", (secret) => {
    expect(JSON.stringify(issuesOf({ secret }))).not.toContain(SENSITIVE.slice(0, 8));
  });

  // Name and secret the wrong way round: 32 digits would do for a name.
  test.each([[`${SENSITIVE}:alice`], [`${SENSITIVE}:`]])(
    "does not quote a secret that stands where the name should: %s",
    (text) => {
      expect(JSON.stringify(issuesOf({ secret: [text] }))).not.toContain(SENSITIVE);
    },
  );
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
    ["", "not of the form DC:IP[:port]"],
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
