import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { asksForQuickAck, beginsLikePacket } from "../../src/protocol/mtproto/first-answer.ts";

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const WITHOUT = { wantsQuickAck: false };
const WITH = { wantsQuickAck: true };

describe("beginsLikePacket()", () => {
  test.each([
    ["abridged", "", undefined],
    ["abridged", "01", true],
    ["abridged", "7e", true],
    ["abridged", "00", false],
    ["abridged", "7f", undefined],
    ["abridged", "7f 7f 00", undefined],
    ["abridged", "7f 7f 00 00", true],
    ["abridged", "7f 7e 00 00", false], // the short form would do
    ["abridged", "7f 00 00 08", true], // 2 MiB
    ["abridged", "7f 01 00 08", false],
    ["abridged", "80", false],
    ["intermediate", "", undefined],
    ["intermediate", "04 00 00", undefined],
    ["intermediate", "04 00 00 00", true],
    ["intermediate", "00 00 00 00", false],
    ["intermediate", "05 00 00 00", false],
    ["intermediate", "00 00 20 00", true], // 2 MiB
    ["intermediate", "04 00 20 00", false],
    ["intermediate", "01 00 00 80", false],
    ["padded", "05 00 00 00", true],
    ["padded", "03 00 00 00", false],
    ["padded", "01 00 20 00", false],
    ["intermediate", "15 03 03 00 02 02 28", false], // a TLS alert, should it come through in clear
    ["padded", "48 54 54 50 2f 31 2e 31", false], // HTTP/1.1
  ] as const)("says of %s %s: %p", (transport, hex, expected) => {
    expect(beginsLikePacket(bytes(hex), transport, WITHOUT)).toBe(expected);
  });

  test.each([
    ["abridged", "80 00 00 00"],
    ["intermediate", "00 00 00 80"],
    ["padded", "78 56 34 f2"],
  ] as const)("takes a quick-ack token of %s for one only when it was asked for", (transport, hex) => {
    expect(beginsLikePacket(bytes(hex), transport, WITH)).toBe(true);
    expect(beginsLikePacket(bytes(hex), transport, WITHOUT)).toBe(false);
  });

  test("reads the header where the bytes begin in their buffer", () => {
    expect(beginsLikePacket(bytes("ff ff ff ff 04 00 00 00").subarray(4), "padded", WITHOUT)).toBe(true);
  });

  test("knows every packet by four bytes, and never takes back what it has said", () => {
    const anyPacket = fc.record({
      transport: fc.constantFrom("abridged" as const, "intermediate" as const, "padded" as const),
      words: fc.integer({ min: 1, max: 524_288 }),
      quickAck: fc.boolean(),
    });
    fc.assert(
      fc.property(anyPacket, ({ transport, words, quickAck }) => {
        const header = new Uint8Array(4);
        const view = new DataView(header.buffer);
        if (transport !== "abridged") view.setUint32(0, words * 4, true);
        else if (words < 0x7f) header[0] = words;
        else view.setUint32(0, words * 256 + 0x7f, true);
        const asked = { wantsQuickAck: quickAck };
        expect(beginsLikePacket(header, transport, asked)).toBe(true);
        for (let length = 0; length < 4; length += 1) {
          expect(beginsLikePacket(header.subarray(0, length), transport, asked)).not.toBe(false);
        }
      }),
    );
  });

  test("says the same of any bytes however many there are, once it can tell", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 4, maxLength: 12 }),
        fc.constantFrom("abridged" as const, "intermediate" as const, "padded" as const),
        fc.boolean(),
        (plain, transport, wantsQuickAck) => {
          const said = beginsLikePacket(plain, transport, { wantsQuickAck });
          expect(said).toBeBoolean();
          for (let length = 0; length < plain.length; length += 1) {
            const before = beginsLikePacket(plain.subarray(0, length), transport, { wantsQuickAck });
            expect([undefined, said]).toContain(before);
          }
        },
      ),
    );
  });
});

describe("asksForQuickAck()", () => {
  test.each([
    ["abridged", "81 00 00 00", true],
    ["abridged", "01 00 00 80", false],
    ["intermediate", "04 00 00 80", true],
    ["intermediate", "84 00 00 00", false],
    ["padded", "05 00 00 80", true],
    ["padded", "05", false],
    ["abridged", "", false],
  ] as const)("says of %s %s: %p", (transport, hex, expected) => {
    expect(asksForQuickAck(bytes(hex), transport)).toBe(expected);
  });
});
