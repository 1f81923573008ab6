import { describe, expect, test } from "bun:test";
import { FormatError } from "../../src/core/errors.ts";
import {
  formatSecret,
  looksLikeSecret,
  MAX_DOMAIN_LENGTH,
  parseSecret,
  parseSecretText,
  redact,
} from "../../src/protocol/mtproto/secret.ts";

/** Its base64 has both characters that base64url writes differently, and padding. */
const KEY = Uint8Array.from([0xfb, 0xff, 0xbe, 0x3f, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const PADDED = Uint8Array.of(0xdd, ...KEY);
const hex = (bytes: Uint8Array): string => bytes.toHex();
const base64 = (bytes: Uint8Array): string => bytes.toBase64();
const base64url = (bytes: Uint8Array): string => bytes.toBase64({ alphabet: "base64url", omitPadding: true });
const fakeTls = (domain: string): Uint8Array => Uint8Array.of(0xee, ...KEY, ...Buffer.from(domain));
/** A domain of that many bytes. */
const domainOf = (length: number): string =>
  `${"abc.".repeat(100).slice(0, length - 4)}.com`.replace("..", ".a");

function errorOf(text: string): FormatError {
  try {
    parseSecret(text);
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error("parseSecret accepted it");
}

describe("parseSecret()", () => {
  test.each([
    ["hexadecimal", hex(KEY)],
    ["upper-case hexadecimal", hex(KEY).toUpperCase()],
    ["base64", base64(KEY)],
    ["base64 without padding", base64(KEY).replace(/=+$/, "")],
    ["base64url", base64url(KEY)],
    ["hexadecimal with dd", `dd${hex(KEY)}`],
    ["hexadecimal with DD", `DD${hex(KEY).toUpperCase()}`],
    ["base64 with dd", base64(PADDED)],
    ["base64url with dd", base64url(PADDED)],
    ["base64 in the escapes of a link", encodeURIComponent(base64(KEY))],
    ["base64 with dd in the escapes of a link", encodeURIComponent(base64(PADDED))],
    ["a copy with white space around it", `  ${hex(KEY)}\n`],
  ])("reads the 16 key bytes from %s", (_, text) => {
    expect(parseSecret(text)).toEqual(KEY);
  });

  test("takes 16 bytes that begin with dd or ee for a whole key", () => {
    const dd = `dd${"00".repeat(15)}`;
    const ee = `ee${"00".repeat(15)}`;
    expect(parseSecret(dd).toHex()).toBe(dd);
    expect(parseSecret(ee).toHex()).toBe(ee);
  });

  test("takes text that is both hexadecimal and base64 for hexadecimal", () => {
    const text = "0123456789abcdef0123456789abcdef";
    expect(parseSecret(text).toHex()).toBe(text);
  });

  test.each([
    ["nothing", ""],
    ["too few digits", hex(KEY).slice(2)],
    ["an odd digit", hex(KEY).slice(1)],
    ["17 bytes without dd", `aa${hex(KEY)}`],
    ["18 bytes with dd", `dd${hex(KEY)}00`],
    ["neither alphabet", "not a secret at all!"],
    ["a link without a secret", "tg://proxy?server=192.0.2.7&port=443"],
    ["a link with an empty one", "https://t.me/proxy?secret=&port=443"],
    ["a link with a wrong one", `tg://proxy?secret=${hex(KEY)}00`],
  ])("throws BAD_SECRET on %s", (_, text) => {
    expect(errorOf(text).code).toBe("BAD_SECRET");
  });

  test("gives the key alone of an ee secret", () => {
    expect(parseSecret(hex(fakeTls("example.com")))).toEqual(KEY);
  });

  test.each([
    ["a long one", `${hex(KEY)}ab`],
    ["an ee one without a domain", `ee${hex(KEY)}`],
    ["an ee one with a wrong domain", hex(fakeTls("exa mple.com"))],
    ["an ee one with a domain in clear that may go on with the key", `ee${hex(KEY)}a-site.net`],
    ["an ee one with a wrong domain in clear", `ee${hex(KEY)}www.a_site.net`],
    ["a link with a mistyped one", `tg://proxy?server=2001:db8::7&secret=${hex(KEY).slice(0, -1)}g`],
    ["an ee one in base64 with a wrong domain", base64url(fakeTls("192.0.2.7"))],
    ["a mistyped one", `${hex(KEY).slice(0, -1)}g`],
    ["base64 of a wrong length", base64url(KEY.subarray(0, 15))],
  ])("never quotes the secret: %s", (_, text) => {
    const error = errorOf(text);
    const said = `${error.message} ${error.hint} ${error.stack}`;
    for (let at = 0; at + 8 <= text.length; at += 1) expect(said).not.toContain(text.slice(at, at + 8));
    expect(error.cause).toBeUndefined();
  });
});

describe("parseSecretText()", () => {
  test.each([
    ["hexadecimal", hex],
    ["upper-case hexadecimal", (bytes: Uint8Array) => hex(bytes).toUpperCase()],
    ["base64", base64],
    ["base64 without padding", (bytes: Uint8Array) => base64(bytes).replace(/=+$/, "")],
    ["base64url", base64url],
  ])("reads key and domain of an ee secret in %s", (_, format) => {
    for (const domain of ["example.com", "xn--e1afmkfd.xn--p1ai", "a-1.b.example"]) {
      expect(parseSecretText(format(fakeTls(domain)))).toEqual({ key: KEY, domain });
    }
  });

  test("finds no domain in the other forms", () => {
    for (const text of [hex(KEY), base64(KEY), `dd${hex(KEY)}`, base64url(PADDED)]) {
      expect(parseSecretText(text)).toEqual({ key: KEY, domain: undefined });
    }
    const ee = `ee${"00".repeat(15)}`;
    expect(parseSecretText(ee)).toEqual({ key: Uint8Array.fromHex(ee), domain: undefined });
  });

  test.each([
    ["tg://proxy?server=192.0.2.7&port=443&secret=", ""],
    ["tg:proxy?secret=", "&server=192.0.2.7"],
    [" https://t.me/proxy?server=2001:db8::7&port=443&secret=", "#top\n"],
    ["telegram.me/proxy?secret=", ""],
    ["HTTPS://T.ME/proxy?port=443&secret=", ""],
  ])("takes the secret of the link %j...%j", (before, after) => {
    for (const format of [hex, base64, base64url]) {
      expect(parseSecretText(`${before}${format(KEY)}${after}`)).toEqual({ key: KEY, domain: undefined });
      const text = `${before}${encodeURIComponent(format(fakeTls("example.com")))}${after}`;
      expect(parseSecretText(text)).toEqual({ key: KEY, domain: "example.com" });
    }
  });

  test("takes a domain in clear after ee and a key in hexadecimal", () => {
    expect(parseSecretText(`ee${hex(KEY)}www.Example.com`)).toEqual({ key: KEY, domain: "www.example.com" });
    expect(parseSecretText(`EE${hex(KEY).toUpperCase()}site.example`).domain).toBe("site.example");
  });

  test.each(["example.com", "0.example.com"])("takes no domain that may go on with the key: %s", (domain) => {
    expect(errorOf(`ee${hex(KEY)}${domain}`)).toMatchObject({
      code: "BAD_SECRET",
      message: "Cannot use secret: it is not clear where its key ends and its domain begins",
      hint: expect.stringContaining("--secret <32 digits> --fake-tls-domain www.example.com"),
    });
  });

  test("gives the domain in lower case", () => {
    expect(parseSecretText(hex(fakeTls("Example.COM"))).domain).toBe("example.com");
  });

  test("takes a domain as long as apps take it, and no longer", () => {
    const domain = domainOf(MAX_DOMAIN_LENGTH);
    expect(domain).toHaveLength(182);
    expect(parseSecretText(hex(fakeTls(domain))).domain).toBe(domain);
    expect(() => parseSecretText(`ee${hex(KEY)}${"61".repeat(500_000)}`)).toThrow("longer than 182 bytes");
    const error = errorOf(hex(fakeTls(domainOf(MAX_DOMAIN_LENGTH + 1))));
    expect(error).toMatchObject({
      code: "BAD_SECRET",
      message: "Cannot use secret: its domain is longer than 182 bytes, which apps refuse",
    });
  });

  test.each([
    ["nothing", "", "an `ee` secret ends with a domain, and this one has none"],
    ["one label", "localhost", "what follows its key is not a domain"],
    ["an IP address", "192.0.2.7", "what follows its key is not a domain"],
    ["a port", "example.com:443", "what follows its key is not a domain"],
    ["a space", "exa mple.com", "what follows its key is not a domain"],
    ["a zero", "example.com\0", "what follows its key is not a domain"],
    ["a dot at its end", "example.com.", "what follows its key is not a domain"],
    ["what is not ASCII", "пример.рф", "what follows its key is not a domain"],
  ])("throws BAD_SECRET on a domain that is %s", (_, domain, what) => {
    for (const format of [hex, base64, base64url]) {
      const error = errorOf(format(fakeTls(domain)));
      expect(error).toMatchObject({ code: "BAD_SECRET", message: `Cannot use secret: ${what}` });
      if (domain !== "") expect(`${error.message} ${error.hint}`).not.toContain(domain);
    }
  });
});

describe("looksLikeSecret() and redact()", () => {
  test.each([hex, base64, base64url])("hide ee secrets", (format) => {
    for (const domain of ["", "example.com", domainOf(182), "not a domain"]) {
      const text = format(fakeTls(domain));
      expect(looksLikeSecret(text)).toBe(true);
      expect(redact(text)).toBe("(a secret)");
    }
  });

  test.each([
    "0123456789abcdef0123456789abcde",
    "ee0123456789abcd",
    "ee0123456789abcdef0123456789ab:",
    "01234567-89ab-cdef-0123-456789abcdef",
    "tg://proxy?secret=0123456789ab",
    "12345678901234567890123456789012",
    base64url(KEY),
    "https://t.me/proxy?server=a&port=1&secret=7vv7%2B%2F%2F7%2B%2Fv%2B%2B%2Fv7%2b%2fv7%2B%2FthLmV4YW1wbGU%3D",
    "%4aghijklmnopqrstuvwxY1",
  ])("hide what may be most of one, with the word around it: %s", (text) => {
    expect(redact(text)).toBe("(a secret)");
    expect(redact(`a ${text} b`)).toBe("a (a secret) b");
  });

  test("know one in a link's own escapes", () => {
    expect(looksLikeSecret(encodeURIComponent(base64(KEY)))).toBe(true);
    expect(looksLikeSecret("ABEiM0RVZneImaq7zN3u%2Fw%3D%3D")).toBe(true);
  });

  test.each([
    "2001:db8:1234:5678:9abc:def0:1234:5678",
    "203:2a0a:f280:0203:a:5000::100",
    "00-11-22-33-44-55",
    "deadbeef01.example.org",
    "xn--e1afmkfd.xn--p1ai",
    "a".repeat(63),
    "123456789012",
    "/var/log/tgws-20260102.log",
    "--cfproxy-worker-domain",
  ])("hide nothing of %s", (text) => {
    expect(redact(text)).toBe(text);
  });
});

describe("formatSecret()", () => {
  test("writes hexadecimal, with dd before it for padded packets", () => {
    expect(formatSecret(KEY, "plain")).toBe(hex(KEY));
    expect(formatSecret(KEY, "padded")).toBe(`dd${hex(KEY)}`);
  });

  test("writes ee and the domain for fake TLS, in hexadecimal", () => {
    expect(formatSecret(KEY, { fakeTls: "example.com" })).toBe(`ee${hex(KEY)}6578616d706c652e636f6d`);
  });

  test("writes what parseSecretText reads", () => {
    const text = formatSecret(KEY, { fakeTls: "xn--e1afmkfd.xn--p1ai" });
    expect(parseSecretText(text)).toEqual({ key: KEY, domain: "xn--e1afmkfd.xn--p1ai" });
  });

  test("writes what parseSecret reads", () => {
    expect(parseSecret(formatSecret(KEY, "plain"))).toEqual(KEY);
    expect(parseSecret(formatSecret(KEY, "padded"))).toEqual(KEY);
  });
});
