import { describe, expect, test } from "bun:test";
import { disarm, quote } from "../../src/config/quote.ts";

const KEY = Uint8Array.fromHex("00112233445566778899aabbccddeeff");

describe("quote()", () => {
  test.each(["", "example.org", "a b", "--port", "пример.рф", "\ud800.org"])("keeps %j", (text) => {
    expect(quote(text)).toBe(text);
  });

  test.each([
    KEY.toHex(),
    `dd${KEY.toHex()}`,
    `name-${KEY.toHex().toUpperCase()}.example`,
    KEY.toBase64(),
    KEY.toBase64({ alphabet: "base64url", omitPadding: true }).replace(/^A/, "q"),
  ])("does not show a key in %s", (text) => {
    expect(quote(text)).toBe("(a secret)");
  });

  test("does not take a long name for a key", () => {
    for (const letter of ["a", "f", "x", "Ab"]) {
      const text = `${letter.repeat(70)}.Example1.org`;
      expect(quote(text)).toBe(text);
    }
  });

  test("does not show what stands before an @", () => {
    expect(quote("socks5://ann:hunter2@192.0.2.7\u0007")).toBe("(a secret)@192.0.2.7?");
    expect(quote(`http://a:b@${KEY.toHex()}`)).toBe("(a secret)(a secret)");
    expect(quote("--port ee0123456789abcd")).toBe("--port (a secret)");
  });

  test("leaves a terminal nothing to obey", () => {
    expect(quote("a\r\nb\u001b[2Jc\u009bd\u202ee\u0000\u2028")).toBe("a??b?[2Jc?d?e??");
  });
});

describe("disarm()", () => {
  test("changes nothing else", () => {
    expect(disarm("é 🙂 пример")).toBe("é 🙂 пример");
  });
});
