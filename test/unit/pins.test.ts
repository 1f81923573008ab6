import { describe, expect, test } from "bun:test";
import { Pins, parsePin } from "../../src/config/pins.ts";
import { FormatError } from "../../src/core/errors.ts";

const pinsOf = (...texts: readonly string[]): Pins => new Pins(texts.map(parsePin));

describe("parsePin()", () => {
  test.each([
    ["example.org=192.0.2.7", { name: "example.org", scope: "name", ip: "192.0.2.7" }],
    ["Example.ORG.=192.0.2.7", { name: "example.org", scope: "name", ip: "192.0.2.7" }],
    [" example.org = 192.0.2.7 ", { name: "example.org", scope: "name", ip: "192.0.2.7" }],
    ["example.org=2001:DB8::7", { name: "example.org", scope: "name", ip: "2001:db8::7" }],
    ["example.org=[2001:db8:0:0::7]", { name: "example.org", scope: "name", ip: "2001:db8::7" }],
    ["example.org=::0:0:0:0:192.0.2.7", { name: "example.org", scope: "name", ip: "::c000:207" }],
    ["*.example.org=192.0.2.7", { name: "example.org", scope: "suffix", ip: "192.0.2.7" }],
    ["*.org=192.0.2.7", { name: "org", scope: "suffix", ip: "192.0.2.7" }],
    ["localhost=::1", { name: "localhost", scope: "name", ip: "::1" }],
    ["пример.рф=192.0.2.7", { name: "xn--e1afmkfd.xn--p1ai", scope: "name", ip: "192.0.2.7" }],
  ] as const)("reads %j", (text, pin) => {
    expect(parsePin(text)).toEqual(pin);
  });

  test.each([
    ["", "not of the form NAME=IP"],
    ["example.org", "not of the form NAME=IP"],
    ["=192.0.2.7", "what stands before = is not a name"],
    ["*=192.0.2.7", "what stands before = is not a name"],
    ["*.=192.0.2.7", "what stands before = is not a name"],
    ["a.*.org=192.0.2.7", "what stands before = is not a name"],
    ["192.0.2.1=192.0.2.7", "what stands before = is not a name"],
    ["https://example.org=192.0.2.7", "what stands before = is not a name"],
    ["example.org=", "what stands after = is not an IP address"],
    ["example.org=example.net", "what stands after = is not an IP address"],
    ["example.org=192.0.2.256", "what stands after = is not an IP address"],
    ["example.org=[192.0.2.7]", "what stands after = is not an IP address"],
    ["example.org=[2001:db8::7]:443", "what stands after = is not an IP address"],
    ["example.org=fe80::1%eth0", "what stands after = is not an IP address"],
    ["example.org=192.0.2.7=", "what stands after = is not an IP address"],
  ])("throws BAD_ADDRESS on %j: %s", (text, message) => {
    expect(() => parsePin(text)).toThrow(expect.objectContaining({ code: "BAD_ADDRESS", message }));
  });
});

describe("Pins", () => {
  test("knows nothing of other names", () => {
    expect(new Pins().addressOf("example.org")).toBeUndefined();
    expect(pinsOf("example.org=192.0.2.7").addressOf("www.example.org")).toBeUndefined();
  });

  test("takes the name itself before a suffix, and the longest suffix first", () => {
    const pins = pinsOf(
      "*.org=192.0.2.1",
      "*.a.example.org=192.0.2.2",
      "*.example.org=192.0.2.3",
      "x.a.example.org=::1",
    );
    expect(pins.addressOf("x.a.example.org")).toBe("::1");
    expect(pins.addressOf("y.a.example.org")).toBe("192.0.2.2");
    expect(pins.addressOf("a.example.org")).toBe("192.0.2.3");
    expect(pins.addressOf("example.org")).toBe("192.0.2.1");
    expect(pins.addressOf("org")).toBeUndefined();
  });

  test("does not take a suffix for its own name, nor for a part of a label", () => {
    const pins = pinsOf("*.example.org=192.0.2.7");
    expect(pins.addressOf("example.org")).toBeUndefined();
    expect(pins.addressOf("myexample.org")).toBeUndefined();
    expect(pins.addressOf("a.b.example.org")).toBe("192.0.2.7");
  });

  test("does not mind case and a trailing dot", () => {
    const pins = pinsOf("Example.org=192.0.2.7", "*.Example.org.=192.0.2.8");
    expect(pins.addressOf("EXAMPLE.ORG.")).toBe("192.0.2.7");
    expect(pins.addressOf("WWW.example.ORG.")).toBe("192.0.2.8");
  });

  test("takes the same address twice, in whatever spelling", () => {
    expect(pinsOf("a.b=::1", "A.b.=[0:0::1]").addressOf("a.b")).toBe("::1");
  });

  test.each([
    ["a.b=192.0.2.7", "a.b=192.0.2.8", "a.b has the address 192.0.2.7 already"],
    ["*.a.b=192.0.2.7", "*.a.b=::1", "*.a.b has the address 192.0.2.7 already"],
  ])("throws BAD_VALUE for %s beside %s", (one, other, message) => {
    expect(() => pinsOf(one, other)).toThrow(FormatError);
    expect(() => pinsOf(one, other)).toThrow(message);
  });

  test("answers the oddest names", () => {
    const pins = pinsOf("*.b=192.0.2.7");
    for (const name of ["", ".", "..", "__proto__", "b"]) expect(pins.addressOf(name)).toBeUndefined();
    expect(pins.addressOf(".b")).toBe("192.0.2.7");
  });
});
