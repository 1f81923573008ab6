import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  DEFAULT_CF_LIST,
  decodeDomain,
  isDomainName,
  MAX_DOMAINS,
  MIN_DOMAINS,
  parseDomainList,
} from "../../src/protocol/cf-domains.ts";

/** The other direction, as whoever writes the list does it. */
function encodeDomain(domain: string): string {
  const label = domain.slice(0, -".co.uk".length);
  const places = [...label].filter((character) => /[A-Za-z]/.test(character)).length;
  const rotated = [...label].map((character) => {
    const alphabet = [..."abcdefghijklmnopqrstuvwxyz"];
    const at = alphabet.indexOf(character.toLowerCase());
    if (at < 0) return character;
    const letter = alphabet[(at + places) % 26] ?? "";
    return character === character.toLowerCase() ? letter : letter.toUpperCase();
  });
  return `${rotated.join("")}.com`;
}

describe("decodeDomain()", () => {
  test.each([
    ["virkgj.com", "pclead.co.uk"],
    ["VirkGj.com", "PcleAd.co.uk"],
    ["vir-kg1j.com", "pcl-ea1d.co.uk"],
    [`${"b".repeat(26)}.com`, `${"b".repeat(26)}.co.uk`],
    [`${"b".repeat(27)}.com`, `${"a".repeat(27)}.co.uk`],
    ["1.com", "1.co.uk"],
    ["cd.cd.com", "yz.yz.co.uk"],
    ["virkgj.org", "virkgj.org"],
    ["pclead.co.uk", "pclead.co.uk"],
    ["virkgj.COM", "virkgj.COM"],
  ])("reads %s as %s", (encoded, domain) => {
    expect(decodeDomain(encoded)).toBe(domain);
  });

  test.each([
    "",
    ".com",
    "com",
    "a b.com",
    "-a.com",
    "a-.com",
    "пример.com",
    "localhost",
    "a.b.",
    "192.0.2.7",
  ])("finds no domain in %j", (encoded) => {
    expect(decodeDomain(encoded)).toBeUndefined();
  });

  test("gives back what was encoded, for any name", () => {
    const label = fc.stringMatching(/^[A-Za-z0-9](?:[A-Za-z0-9-]{0,20}[A-Za-z0-9])?$/);
    fc.assert(
      fc.property(fc.array(label, { minLength: 1, maxLength: 3 }), (labels) => {
        const domain = `${labels.join(".")}.co.uk`;
        expect(decodeDomain(encodeDomain(domain))).toBe(domain);
      }),
      { seed: 20_254, numRuns: 1_000 },
    );
  });
});

describe("parseDomainList()", () => {
  test("reads a name a line, and skips blanks, comments and what is no name", () => {
    const text =
      "\ufeff# domains\r\nvirkgj.com\r\n\r\n  example.org\t\n#virkgj.com\n<html>\nexample\n1.2.3.4";
    expect(parseDomainList(text)).toEqual(["pclead.co.uk", "example.org"]);
  });

  test("takes a name once, in whatever case", () => {
    expect(parseDomainList("virkgj.com\nPCLEAD.co.uk\nVIRKGJ.com\na.example\nA.EXAMPLE")).toEqual([
      "pclead.co.uk",
      "a.example",
    ]);
  });

  test("reads so many names, and no more", () => {
    const names = Array.from({ length: MAX_DOMAINS + 50 }, (_, at) => `d${at}.example`);
    expect(parseDomainList(names.join("\n"))).toEqual(names.slice(0, MAX_DOMAINS));
  });

  test("gives up a text that goes on and on", () => {
    expect(parseDomainList(`${"#\n".repeat(100_000)}a.example`)).toEqual([]);
    expect(parseDomainList("a".repeat(4_000_000))).toEqual([]);
  });

  test("finds nothing in nothing", () => {
    expect(parseDomainList("")).toEqual([]);
  });
});

describe("isDomainName()", () => {
  const longest = `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(61)}`;

  test.each(["a.b", "A-1.xn--p1ai", "1.2.c3", longest])("takes %s", (text) => {
    expect(isDomainName(text)).toBe(true);
  });

  test.each([
    "",
    "a",
    "a.",
    ".a",
    "a..b",
    "a.1",
    "a_b.c",
    "a.-b",
    "a.b-",
    `${"a".repeat(64)}.b`,
    `${longest}d`,
  ])("refuses %j", (text) => {
    expect(isDomainName(text)).toBe(false);
  });
});

const DEFAULT_CF_DOMAINS = parseDomainList(DEFAULT_CF_LIST);

describe("DEFAULT_CF_LIST", () => {
  test("holds enough, decoded", () => {
    expect(DEFAULT_CF_DOMAINS.length).toBeGreaterThanOrEqual(MIN_DOMAINS);
    expect(DEFAULT_CF_DOMAINS).toHaveLength(20);
    expect(DEFAULT_CF_DOMAINS[0]).toBe("pclead.co.uk");
    expect(DEFAULT_CF_DOMAINS.every((domain) => domain.endsWith(".co.uk"))).toBe(true);
  });
});
