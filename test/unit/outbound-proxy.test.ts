import { describe, expect, test } from "bun:test";
import { parseOutboundProxy } from "../../src/config/outbound-proxy.ts";
import { FormatError } from "../../src/core/errors.ts";
import { bypasses, formatOutboundProxy, proxyUrl } from "../../src/net/outbound-proxy.ts";

function failureOf(text: string): FormatError {
  try {
    parseOutboundProxy(text, undefined);
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error(`${text} was accepted`);
}

describe("parseOutboundProxy()", () => {
  test.each([
    ["http://proxy.example.org:3128", "http", "proxy.example.org", 3128],
    ["HTTP://Proxy.Example.ORG:3128/", "http", "proxy.example.org", 3128],
    ["http://proxy", "http", "proxy", 8080],
    ["socks5://192.0.2.1", "socks5", "192.0.2.1", 1080],
    ["socks5://192.0.2.1:", "socks5", "192.0.2.1", 1080],
    ["socks5h://localhost:9050", "socks5", "localhost", 9050],
    [" socks5://[2001:DB8::1]:1081 ", "socks5", "2001:db8::1", 1081],
    ["socks5://[::1]/", "socks5", "::1", 1080],
  ] as const)("reads %s", (text, kind, host, port) => {
    expect(parseOutboundProxy(text, undefined)).toEqual({
      kind,
      host,
      port,
      username: undefined,
      password: undefined,
      bypass: [],
    });
  });

  test.each([
    ["http://user:pass@h:1", "user", "pass"],
    ["http://user@h:1", "user", undefined],
    ["http://user:@h:1", "user", ""],
    ["http://a%40b:p%3A%2F%23%25@h:1", "a@b", "p:/#%"],
    ["http://user:p@ss:w@h:1", "user", "p@ss:w"],
    ["socks5://%D1%8E:%F0%9F%98%80@h:1", "ю", "😀"],
  ])("reads the credentials of %s", (text, username, password) => {
    expect(parseOutboundProxy(text, undefined)).toMatchObject({ host: "h", port: 1, username, password });
  });

  test.each([
    "",
    "proxy:8080",
    "//proxy:8080",
    "ftp://proxy",
    "socks4://proxy",
    "http://",
    "http://:8080",
    "http://pro xy:1",
    "http://proxy:port",
    "http://proxy:0",
    "http://proxy:65536",
    "http://proxy:99999999999999999999",
    "http://proxy:80/path",
    "http://proxy:80?x",
    "http://proxy:80#x",
    "http://proxy:80:90",
    "http://::1:80",
    "http://[::1",
    "http://[1.2.3.4]:80",
    "http://[::1]x:80",
    "http://999.1.1.1",
    "http://1.2.3",
    "http://-x-",
    `http://${"a".repeat(254)}`,
  ])("refuses %p with a hint", (text) => {
    const error = failureOf(text);
    expect(error.code).toBe("BAD_VALUE");
    expect(error.hint).toMatch(/http:\/\/host:port|percent-encode/);
  });

  test("says what to write instead of https", () => {
    const error = failureOf("https://user:hunter2@proxy:443");
    expect(error.message).toContain("only http and socks5");
    expect(error.hint).toContain("http://");
  });

  test.each([
    "https://hunter1:hunter2@proxy",
    "http://hunter1:hunter2@pro xy",
    "http://hunter1:hunter2@proxy:x",
    "http://hunter1:hunter2@proxy:80/path",
    "http://hunter1:hunter/2@proxy:80",
    "http://hunter1:hunter#2@proxy:80",
    "http://hunter1:hunter%ZZ2@proxy:80",
    "http://:hunter2@proxy:80",
    "http://hunter%3A1:hunter2@proxy:80",
    `socks5://hunter1:${"hunter".repeat(50)}@proxy:80`,
    "hunter1:hunter2@proxy:80",
  ])("does not quote the credentials of %s", (text) => {
    const error = failureOf(text);
    expect(`${error.message} ${error.hint}`).not.toContain("hunter");
  });

  test("splits NO_PROXY at commas and spaces", () => {
    const proxy = parseOutboundProxy("http://h", " a.org,,B.org  .c.org ,10.0.0.0/8 ");
    expect(proxy.bypass).toEqual(["a.org", "b.org", ".c.org", "10.0.0.0/8"]);
  });
});

describe("bypasses()", () => {
  test.each([
    ["*", "example.org", 443, true],
    ["example.org", "example.org", 443, true],
    ["example.org", "EXAMPLE.org.", 443, true],
    ["Example.Org", "a.b.example.org", 443, true],
    ["example.org", "notexample.org", 443, false],
    ["example.org", "example.org.evil.net", 443, false],
    [".example.org", "a.example.org", 443, true],
    [".example.org", "example.org", 443, true],
    ["*.example.org", "a.example.org", 443, true],
    ["example.org:443", "example.org", 443, true],
    ["example.org:443", "example.org", 80, false],
    ["*:443", "x", 443, true],
    ["*:443", "x", 80, false],
    ["192.0.2.1", "192.0.2.1", 443, true],
    ["192.0.2.1:80", "192.0.2.1", 443, false],
    ["192.0.2.1", "192.0.2.10", 443, false],
    ["0.2.1", "192.0.2.1", 443, true],
    ["10.0.0.0/8", "10.200.3.4", 443, true],
    ["10.0.0.0/8", "11.0.0.1", 443, false],
    ["10.0.0.0/8", "10.example.org", 443, false],
    ["10.0.0.0/8:443", "10.1.1.1", 443, true],
    ["10.0.0.0/8:80", "10.1.1.1", 443, false],
    ["0.0.0.0/0", "10.1.1.1", 443, true],
    ["2001:db8::1", "2001:DB8:0:0::1", 443, true],
    ["[2001:db8::1]", "2001:db8::1", 443, true],
    ["[2001:db8::1]:80", "2001:db8::1", 443, false],
    ["[2001:db8::1]:443", "2001:db8::1", 443, true],
    ["2001:db8::/32", "2001:db8:ffff::1", 443, true],
    ["2001:db8::/32", "2001:db9::1", 443, false],
    ["2001:db8::/32", "192.0.2.1", 443, false],
    ["localhost", "127.0.0.1", 443, false],
    ["", "127.0.0.1", 443, false],
    ["", "localhost", 443, false],
    ["127.0.0.0/8 localhost", "127.0.0.1", 443, true],
  ])("NO_PROXY=%p, %s:%d: %p", (noProxy, host, port, expected) => {
    expect(bypasses(parseOutboundProxy("http://h", noProxy), host, port)).toBe(expected);
  });

  test.each([
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/x",
    "x/8",
    "/",
    ".",
    ":",
    "[",
    "[]:1",
    "::/129",
  ])("takes no notice of the entry %p", (entry) => {
    const proxy = parseOutboundProxy("http://h", entry);
    for (const host of ["10.0.0.1", "::1", "example.org"]) expect(bypasses(proxy, host, 443)).toBe(false);
  });
});

describe("formatOutboundProxy()", () => {
  test("leaves the credentials out", () => {
    const proxy = parseOutboundProxy("socks5h://user:hunter2@[::1]:9050", undefined);
    expect(formatOutboundProxy(proxy)).toBe("socks5://[::1]:9050");
  });
});

describe("proxyUrl()", () => {
  test("is read back as the same proxy", () => {
    const proxy = parseOutboundProxy("http://a%40b:p%3A%2F%23%25%20ю@[::1]:3128", undefined);
    expect(proxyUrl(proxy)).toBe("http://a%40b:p%3A%2F%23%25%20%D1%8E@[::1]:3128");
    expect(parseOutboundProxy(proxyUrl(proxy), undefined)).toEqual(proxy);
    const plain = parseOutboundProxy("http://h", undefined);
    expect(proxyUrl(plain)).toBe("http://h:8080");
  });
});
