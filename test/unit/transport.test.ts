import { describe, expect, test } from "bun:test";
import { tagByte, transportOfTag } from "../../src/protocol/mtproto/transport.ts";

describe("transportOfTag()", () => {
  test("names the three transports that obfuscated2 carries", () => {
    expect(transportOfTag(Uint8Array.of(0xef, 0xef, 0xef, 0xef))).toBe("abridged");
    expect(transportOfTag(Uint8Array.of(0xee, 0xee, 0xee, 0xee))).toBe("intermediate");
    expect(transportOfTag(Uint8Array.of(0xdd, 0xdd, 0xdd, 0xdd))).toBe("padded");
  });

  test("returns undefined for four equal bytes that name nothing", () => {
    expect(transportOfTag(Uint8Array.of(0, 0, 0, 0))).toBeUndefined();
    expect(transportOfTag(Uint8Array.of(0xed, 0xed, 0xed, 0xed))).toBeUndefined();
  });

  test.each([0, 1, 2, 3])("returns undefined when only byte %d differs", (place) => {
    for (const byte of [0xef, 0xee, 0xdd]) {
      const tag = new Uint8Array(4).fill(byte);
      tag[place] = byte ^ 1;
      expect(transportOfTag(tag)).toBeUndefined();
    }
  });
});

describe("tagByte()", () => {
  test.each(["abridged", "intermediate", "padded"] as const)(
    "is the inverse of transportOfTag for %s",
    (transport) => {
      expect(transportOfTag(new Uint8Array(4).fill(tagByte(transport)))).toBe(transport);
    },
  );
});
