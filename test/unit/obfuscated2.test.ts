import { describe, expect, test } from "bun:test";
import { HandshakeError } from "../../src/core/errors.ts";
import { isReservedStart, parseInit, writeInit } from "../../src/protocol/mtproto/obfuscated2.ts";

/** A plain init: zeros, but for the four tag bytes at 56 and the dc id at 60. */
function plainInit(tag: readonly number[], dc: readonly [number, number]): Uint8Array {
  const init = new Uint8Array(64);
  init.set(tag, 56);
  init.set(dc, 60);
  return init;
}

const ABRIDGED = [0xef, 0xef, 0xef, 0xef];

describe("parseInit()", () => {
  test("reads the tag at 56 and the dc id at 60 as little-endian", () => {
    expect(parseInit(plainInit([0xee, 0xee, 0xee, 0xee], [0xcb, 0x00]))).toEqual({
      transport: "intermediate",
      dcId: 203,
    });
    expect(parseInit(plainInit([0xdd, 0xdd, 0xdd, 0xdd], [0x12, 0x27]))).toEqual({
      transport: "padded",
      dcId: 10_002,
    });
  });

  test("reads the dc id as a signed 16-bit number", () => {
    expect(parseInit(plainInit(ABRIDGED, [0xfe, 0xff])).dcId).toBe(-2);
    expect(parseInit(plainInit(ABRIDGED, [0x00, 0x80])).dcId).toBe(-32_768);
    expect(parseInit(plainInit(ABRIDGED, [0xff, 0x7f])).dcId).toBe(32_767);
  });

  test("ignores every byte that is not a field", () => {
    const noisy = new Uint8Array(64).fill(0x5a);
    noisy.set(ABRIDGED, 56);
    noisy.set([0x05, 0x00], 60);
    expect(parseInit(noisy)).toEqual({ transport: "abridged", dcId: 5 });
  });

  test("reads an init that is a view into the middle of a larger buffer", () => {
    const larger = new Uint8Array(200).fill(0x77);
    larger.set(plainInit(ABRIDGED, [0x04, 0x00]), 50);
    expect(parseInit(larger.subarray(50, 114))).toEqual({ transport: "abridged", dcId: 4 });
  });

  test.each([0, 1, 63, 65, 128])("throws BAD_LENGTH on %d bytes", (length) => {
    expect(() => parseInit(new Uint8Array(length).fill(0xef))).toThrow(
      expect.objectContaining({ code: "BAD_LENGTH" }),
    );
  });

  test("throws BAD_TRANSPORT_TAG on an unknown tag", () => {
    const parse = () => parseInit(plainInit([0xef, 0xef, 0xef, 0xee], [2, 0]));
    expect(parse).toThrow(HandshakeError);
    expect(parse).toThrow(expect.objectContaining({ code: "BAD_TRANSPORT_TAG" }));
  });
});

describe("writeInit()", () => {
  test.each([
    { transport: "abridged", dcId: 1 },
    { transport: "intermediate", dcId: -203 },
    { transport: "padded", dcId: -10_003 },
  ] as const)("is what parseInit reads: $transport, $dcId", (init) => {
    const noise = new Uint8Array(64).fill(0xa5);
    writeInit(noise, init);
    expect(parseInit(noise)).toEqual(init);
  });

  test("changes bytes 56-61 only", () => {
    const noise = new Uint8Array(64).fill(0xa5);
    writeInit(noise, { transport: "abridged", dcId: 2 });
    expect(noise.subarray(0, 56)).toEqual(new Uint8Array(56).fill(0xa5));
    expect(noise.subarray(56)).toEqual(Uint8Array.of(0xef, 0xef, 0xef, 0xef, 2, 0, 0xa5, 0xa5));
  });
});

describe("isReservedStart()", () => {
  const text = (start: string): number[] => [...Buffer.from(start, "latin1")];

  test.each([
    ["the abridged tag", [0xef]],
    ["HEAD", text("HEAD")],
    ["POST", text("POST")],
    ["GET", text("GET ")],
    ["OPTIONS", text("OPTI")],
    ["the padded tag", [0xdd, 0xdd, 0xdd, 0xdd]],
    ["the intermediate tag", [0xee, 0xee, 0xee, 0xee]],
    ["a TLS record", [0x16, 0x03, 0x01, 0x02]],
    ["a second word of zero", [1, 2, 3, 4, 0, 0, 0, 0]],
  ])("is true for %s", (_, start) => {
    const init = new Uint8Array(64).fill(0x42);
    init.set(start);
    expect(isReservedStart(init)).toBe(true);
    const shifted = new Uint8Array(70).fill(0x42);
    shifted.set(init, 3);
    expect(isReservedStart(shifted.subarray(3, 67))).toBe(true);
  });

  test.each([
    ["noise", [0x42, 0x42, 0x42, 0x42]],
    ["a TLS record of another version or length", [0x16, 0x03, 0x01, 0x03]],
    ["a tag byte that is not repeated", [0xdd, 0xdd, 0xdd, 0xde]],
    ["a method in lower case", text("get ")],
    ["a second word that is almost zero", [1, 2, 3, 4, 0, 0, 0, 1]],
    ["a first word of zero", [0, 0, 0, 0]],
  ])("is false for %s", (_, start) => {
    const init = new Uint8Array(64).fill(0x42);
    init.set(start);
    expect(isReservedStart(init)).toBe(false);
  });
});
