import { describe, expect, test } from "bun:test";
import { type Config, parseConfig } from "../../src/config/config.ts";
import type { FieldName, RawConfig } from "../../src/config/fields.ts";
import { ConfigError } from "../../src/core/errors.ts";

function messageOf(raw: RawConfig): string {
  try {
    parseConfig(raw);
  } catch (error) {
    if (error instanceof ConfigError) return error.issues.map(({ message }) => message).join("; ");
    throw error;
  }
  throw new Error(`no complaint about ${JSON.stringify(raw)}`);
}

describe("parseConfig(), limits", () => {
  test.each([
    ["maxConnections", "maxConnections", ["1", "10000000"], [1, 10_000_000], ["0", "-1", "1.5", "x", ""]],
    ["maxPerAddress", "maxPerAddress", ["1", "200"], [1, 200], ["0", "1e3"]],
    ["addressRate", "addressRate", ["0.5", "20"], [0.5, 20], ["0", "-1", "Infinity"]],
    ["handshakeSeconds", "handshakeTimeoutMs", ["0.1", "10"], [100, 10_000], ["0", "601"]],
    ["bufferMb", "bufferBytes", ["1", "0512"], [1024 ** 2, 512 * 1024 ** 2], ["0", "1048577", "1 GB"]],
    ["drainSeconds", "drainMs", ["0", "0.5"], [0, 500], ["-1", "86401"]],
  ] satisfies [FieldName, keyof Config, string[], number[], string[]][])(
    "reads %s as %s",
    (name, key, good, values, bad) => {
      expect(good.map((text) => parseConfig({ [name]: [text] })[key])).toEqual(values);
      for (const text of bad)
        expect(messageOf({ [name]: [text] })).toMatch(/not a (?:whole )?number|is empty/);
    },
  );

  test("reads networks and names of files, each once", () => {
    const allow = ["192.0.2.0/24, 2001:db8::/32", "192.0.2.0/24", "./friends.txt", "[::1]", "bad-cafe.txt"];
    expect(parseConfig({ allow }).allow).toEqual([
      "192.0.2.0/24",
      "2001:db8::/32",
      "./friends.txt",
      "::1",
      "bad-cafe.txt",
    ]);
    expect(parseConfig({ deny: ["/etc/tgws/deny"] }).deny).toEqual(["/etc/tgws/deny"]);
  });

  test.each([
    ["192.0.2.1/24", "192.0.2.1/24: bits are set after the first 24"],
    ["192.0.2.0/33", "192.0.2.0/33: what stands after / is not a number from 0 to 32"],
    ["192.0.2", "192.0.2: not an IP address or network"],
    ["1234", "1234: neither a network nor a file name"],
    ["", "is empty"],
    ["10.0.0.0/8,,", "is empty; is empty"],
  ])("refuses %j as a network", (text, message) => {
    expect(messageOf({ deny: [text] })).toBe(message);
  });
});

describe("parseConfig(), running", () => {
  test.each([
    ["9090", { host: "127.0.0.1", port: 9090 }],
    [":9090", { host: "127.0.0.1", port: 9090 }],
    ["0.0.0.0:0", { host: "0.0.0.0", port: 0 }],
    ["[::1]:9090", { host: "::1", port: 9090 }],
    ["LocalHost:9090", { host: "localhost", port: 9090 }],
  ])("reads the status address %s", (text, status) => {
    expect(parseConfig({ status: [text] }).status).toEqual(status);
  });

  test.each([
    "",
    "x",
    "::1",
    "1.2.3.4",
    "[1.2.3.4]:5",
    "a b:5",
    "[::1]",
    "127.0.0.1:65536",
    "1.2.3.4.5:6",
    "[x]:1",
  ])("refuses the status address %j", (text) => {
    expect(messageOf({ status: [text] })).toMatch(/not of the form host:port|not a whole number|is empty/);
  });

  test("warns of a status that is open to the network without a token", () => {
    const warnings = (raw: RawConfig) => parseConfig(raw).warnings;
    expect(warnings({ status: ["0.0.0.0:1"] })).toHaveLength(1);
    expect(warnings({ status: ["[::]:1"], statusToken: ["x"] })).toEqual([]);
    for (const text of ["1", "127.8.9.1:1", "[::1]:1", "localhost:1"])
      expect(warnings({ status: [text] })).toEqual([]);
    expect(warnings({ statusToken: ["x"] })).toEqual(["--status-token has no effect without --status"]);
  });

  test("reads workers, user and group", () => {
    expect(parseConfig({ workers: ["Auto"] }).workers).toBe("auto");
    expect(parseConfig({ workers: ["256"] }).workers).toBe(256);
    expect(parseConfig({ user: ["_tgws-1"], group: ["65534"] })).toMatchObject({
      user: "_tgws-1",
      group: "65534",
    });
    expect(parseConfig({ group: ["x"] }).warnings).toEqual(["--group has no effect without --user"]);
    for (const text of ["0", "257", "all"]) expect(messageOf({ workers: [text] })).toContain(text);
    for (const text of ["-x", "a b", "a/b", "../x", "a:b"])
      expect(messageOf({ user: [text] })).toContain("not a name");
  });

  test("does not repeat a token that is wrong", () => {
    expect(messageOf({ statusToken: ["a secret token"] })).toBe("not 1-256 visible ASCII characters");
  });
});

describe("parseConfig(), logs", () => {
  test("reads level and format, in any case", () => {
    expect(parseConfig({ logLevel: ["WARN"], logFormat: ["Json"] })).toMatchObject({
      logLevel: "warn",
      logFormat: "json",
      verbose: false,
    });
    expect(parseConfig({ logLevel: ["debug"] }).verbose).toBe(true);
    expect(parseConfig({ verbose: [""] }).logLevel).toBe("debug");
    expect(parseConfig({ verbose: [""], logLevel: ["debug"] }).verbose).toBe(true);
  });

  test("names the words that there are", () => {
    expect(messageOf({ logLevel: ["loud"] })).toBe("loud: not one of error, warn, info, debug");
    expect(messageOf({ logFormat: ["xml"] })).toBe("xml: not one of auto, pretty, plain, json");
  });
});
