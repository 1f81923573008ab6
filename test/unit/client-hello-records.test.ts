import { describe, expect, test } from "bun:test";
import { HandshakeError } from "../../src/core/errors.ts";
import { measureClientHello, zeroRandom } from "../../src/protocol/tls/client-hello-records.ts";

const MAX_BODY = 16_384;

/** A handshake message of `bodyLength` bytes after its header, none of which is zero. */
function message(bodyLength: number): Uint8Array {
  const body = Uint8Array.from({ length: bodyLength }, (_, at) => 1 + (at % 255));
  return Uint8Array.of(1, bodyLength >> 16, (bodyLength >> 8) & 0xff, bodyLength & 0xff, ...body);
}

/** Puts `bytes` into records whose fragments have `lengths`, and one more for the rest. */
function records(bytes: Uint8Array, ...lengths: readonly number[]): Uint8Array {
  const out: number[] = [];
  let at = 0;
  for (const length of [...lengths, bytes.length - lengths.reduce((sum, one) => sum + one, 0)]) {
    out.push(0x16, 3, 1, length >> 8, length & 0xff, ...bytes.subarray(at, at + length));
    at += length;
  }
  return Uint8Array.from(out);
}

/** `count` records of one byte, and a last one. */
const ones = (count: number): readonly number[] => Array.from({ length: count }, () => 1);
const hex = (text: string): Uint8Array => Uint8Array.fromHex(text.replaceAll(" ", ""));

function whole(bytes: Uint8Array) {
  const progress = measureClientHello(bytes);
  if (progress.kind !== "whole") throw new Error(`${progress.needed} bytes are needed`);
  return progress;
}

function expectRefused(bytes: Uint8Array): void {
  const refused = expect.objectContaining({ code: "BAD_CLIENT_HELLO" });
  expect(() => measureClientHello(bytes)).toThrow(HandshakeError);
  expect(() => measureClientHello(bytes)).toThrow(refused);
}

describe("measureClientHello()", () => {
  test("finds the message and the random in one record", () => {
    const bytes = records(message(500));
    const found = whole(bytes);
    expect(found.length).toBe(509);
    expect(found.message).toEqual(message(500));
    expect(found.message.buffer).toBe(bytes.buffer);
    expect(found.randomParts).toEqual([{ offset: 11, length: 32 }]);
  });

  test("does not look at what follows", () => {
    const bytes = records(message(60));
    for (const rest of [[0x17], [0x16, 3, 3, 0, 1, 2], [0x14, 3, 3, 0, 1, 1], [0xff, 0xff, 0xff]]) {
      expect(whole(Uint8Array.of(...bytes, ...rest))).toMatchObject({ length: 69, message: message(60) });
    }
  });

  test.each<[readonly number[], readonly (readonly [offset: number, length: number])[]]>([
    [[5], [[16, 32]]],
    [[6], [[16, 32]]],
    [
      [7],
      [
        [11, 1],
        [17, 31],
      ],
    ],
    [
      [37],
      [
        [11, 31],
        [47, 1],
      ],
    ],
    [[38], [[11, 32]]],
    [[1, 1, 1, 1, 1, 1, 32], [[41, 32]]],
    [
      [10, 10, 10],
      [
        [11, 4],
        [20, 10],
        [35, 10],
        [50, 8],
      ],
    ],
  ])("finds the random where the first fragments have %p bytes", (lengths, parts) => {
    const bytes = records(message(60), ...lengths);
    const found = whole(bytes);
    expect(found.message).toEqual(message(60));
    expect(found.randomParts).toEqual(parts.map(([offset, length]) => ({ offset, length })));
    const random = parts.flatMap(([offset, length]) => [...bytes.subarray(offset, offset + length)]);
    expect(random).toEqual([...message(60).subarray(6, 38)]);
  });

  test("joins any number of records up to 64", () => {
    for (let count = 1; count <= 64; count += 1) {
      const bytes = records(message(300), ...ones(count - 1));
      expect(whole(bytes)).toMatchObject({ length: bytes.length, message: message(300) });
    }
  });

  test("throws at the header of the 64th record when the message does not end in it", () => {
    const bytes = records(message(300), ...ones(64));
    const header = 63 * 6 + 5;
    expect(measureClientHello(bytes.subarray(0, header - 1))).toEqual({ kind: "partial", needed: header });
    expectRefused(bytes.subarray(0, header));
    expectRefused(bytes);
  });

  test("asks for each byte of the headers, then for the end of each record", () => {
    const bytes = records(message(60), 20, 20);
    const asked: number[] = [];
    for (let length = 0; length < bytes.length; ) {
      const progress = measureClientHello(bytes.subarray(0, length));
      if (progress.kind === "whole") throw new Error("it is not whole");
      asked.push(progress.needed);
      length = progress.needed;
    }
    expect(asked).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 25, 30, 50, 55, 79]);
    expect(whole(bytes).length).toBe(79);
  });

  test("asks for single bytes while the handshake header is split over records", () => {
    const bytes = records(message(40), 1, 2);
    expect(measureClientHello(bytes.subarray(0, 6))).toEqual({ kind: "partial", needed: 7 });
    expect(measureClientHello(bytes.subarray(0, 13))).toEqual({ kind: "partial", needed: 14 });
    expect(measureClientHello(bytes.subarray(0, 18))).toEqual({ kind: "partial", needed: 19 });
    expect(measureClientHello(bytes.subarray(0, 19))).toEqual({ kind: "partial", needed: bytes.length });
  });

  test("is partial at every byte before the end, and whole at the end", () => {
    for (const lengths of [[], [1], [2, 2], [3, 40], ones(63)]) {
      const bytes = records(message(120), ...lengths);
      for (let length = 0; length < bytes.length; length += 1) {
        const progress = measureClientHello(bytes.subarray(0, length));
        if (progress.kind === "whole") throw new Error(`whole after ${length} bytes`);
        expect(progress.needed).toBeGreaterThan(length);
        expect(progress.needed).toBeLessThanOrEqual(bytes.length);
      }
      expect(whole(bytes).length).toBe(bytes.length);
    }
  });

  test("takes record versions 3.0 to 3.4", () => {
    for (const minor of [0, 1, 2, 3, 4]) {
      const bytes = records(message(60));
      bytes[2] = minor;
      expect(whole(bytes).length).toBe(69);
    }
  });

  test.each([
    ["a stranger's first byte", "15"],
    ["a line of HTTP", "47"],
    ["an init", "ef"],
    ["major version 2", "16 02"],
    ["version 3.5", "16 03 05"],
    ["a record of 0x4100 bytes or more", "16 03 01 41"],
    ["a record of 16,385 bytes", "16 03 01 40 01"],
    ["an empty record", "16 03 01 00 00"],
    ["a ServerHello", "16 03 01 00 40 02"],
    ["a message of 65,536 bytes or more", "16 03 01 00 40 01 01"],
    ["a message of 0x4100 bytes or more", "16 03 01 00 40 01 00 41"],
    ["a message of 16,385 bytes", "16 03 01 00 40 01 00 40 01"],
    ["a message of 37 bytes", "16 03 01 00 29 01 00 00 25"],
    ["a record that goes on after its message", "16 03 01 00 2b 01 00 00 26"],
    ["a second record of another type", `16 03 01 00 04 01 00 00 26 17`],
    ["a second record that goes on after the message", "16 03 01 00 04 01 00 00 26 16 03 01 00 27"],
    ["an empty second record", "16 03 01 00 04 01 00 00 26 16 03 01 00 00"],
  ])("throws BAD_CLIENT_HELLO on %s, at its last byte", (_, text) => {
    const bytes = hex(text);
    expect(measureClientHello(bytes.subarray(0, -1)).kind).toBe("partial");
    expectRefused(bytes);
    expectRefused(Uint8Array.of(...bytes, ...message(60)));
  });

  test("takes messages of 38 and of 16,384 bytes", () => {
    expect(whole(records(message(38))).message).toEqual(message(38));
    expect(whole(records(message(MAX_BODY), 4)).message).toEqual(message(MAX_BODY));
    expect(whole(records(message(MAX_BODY), MAX_BODY)).message).toEqual(message(MAX_BODY));
  });

  test("reads a view into the middle of a larger buffer", () => {
    const bytes = records(message(60), 20);
    const larger = Uint8Array.of(9, 9, 9, ...bytes, 9);
    expect(whole(larger.subarray(3, -1))).toEqual(whole(bytes));
  });
});

describe("zeroRandom()", () => {
  test("zeroes the random alone, in a copy, however records split it", () => {
    for (const lengths of [[], [7], [10, 10, 10], ones(60)]) {
      const bytes = records(message(60), ...lengths);
      const before = bytes.slice();
      const expected = message(60);
      expected.fill(0, 6, 38);
      expect(zeroRandom(bytes, whole(bytes).randomParts)).toEqual(records(expected, ...lengths));
      expect(bytes).toEqual(before);
    }
  });
});
