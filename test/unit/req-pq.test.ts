import { describe, expect, test } from "bun:test";
import { FormatError } from "../../src/core/errors.ts";
import {
  clientMessageId,
  encodeReqPqMulti,
  parseResPq,
  transportErrorOf,
} from "../../src/protocol/mtproto/req-pq.ts";

const NONCE = Uint8Array.fromHex("3e0549828cca27e966b301a48fece2fc");
const SERVER_NONCE = Uint8Array.fromHex("a5cf4d33f4a11ea877ba4aa573907330");

/** The answer of the protocol's own example: pq is 17ed48941a08f981, one fingerprint. */
const RES_PQ = [
  "0000000000000000", // auth_key_id
  "01c8831ec97ae551", // message_id
  "40000000", // length: 64
  "63241605", // resPQ
  NONCE.toHex(),
  SERVER_NONCE.toHex(),
  "0817ed48941a08f981000000", // pq, a string of 8 bytes and its padding
  "15c4b51c01000000216be86c022bb4c3", // a vector of one fingerprint
].join("");

const answer = (hex: string = RES_PQ): Uint8Array => Uint8Array.fromHex(hex);

/** What the parser says against `payload`. */
function complaint(payload: Uint8Array): string {
  try {
    parseResPq(payload);
  } catch (error) {
    if (error instanceof FormatError) return `${error.code} ${error.message}`;
    throw error;
  }
  throw new Error("It was parsed");
}

/** The example with the bytes from `at` on replaced. */
function changed(at: number, hex: string): Uint8Array {
  const bytes = answer();
  bytes.set(Uint8Array.fromHex(hex), at);
  return bytes;
}

describe("encodeReqPqMulti()", () => {
  test("writes key id 0, message id, length, constructor and nonce", () => {
    const messageId = 0x51e57ac91e83c800n;
    expect(encodeReqPqMulti({ nonce: NONCE, messageId }).toHex()).toBe(
      [
        "0000000000000000", // auth_key_id
        "00c8831ec97ae551", // message_id
        "14000000", // length: 20
        "f18e7ebe", // req_pq_multi
        "3e0549828cca27e966b301a48fece2fc",
      ].join(""),
    );
  });

  test.each([0, 15, 17])("refuses a nonce of %d bytes", (length) => {
    expect(() => encodeReqPqMulti({ nonce: new Uint8Array(length), messageId: 4n })).toThrow(RangeError);
  });
});

describe("clientMessageId()", () => {
  test("is unix time times 2^32, divisible by 4", () => {
    const id = clientMessageId(1_700_000_000_500, 0);
    expect(id >> 32n).toBe(1_700_000_000n);
    expect(id & 0xffffffffn).toBe(0x80000000n);
    for (let ms = 0; ms < 1_000; ms += 1) expect(clientMessageId(1_700_000_000_000 + ms, ms) % 4n).toBe(0n);
  });

  test("grows with the sequence, and takes a time with fractions", () => {
    const ids = [0, 1, 2].map((sequence) => clientMessageId(1_700_000_000_000.7, sequence));
    expect(ids.map((id) => id - (ids[0] ?? 0n))).toEqual([0n, 4n, 8n]);
  });
});

describe("parseResPq()", () => {
  test("reads both nonces and counts the fingerprints", () => {
    expect(parseResPq(answer())).toEqual({ nonce: NONCE, serverNonce: SERVER_NONCE, fingerprintCount: 1 });
  });

  test("gives copies", () => {
    const payload = answer();
    const { nonce } = parseResPq(payload);
    payload.fill(0);
    expect(nonce).toEqual(NONCE);
  });

  test("reads a payload that is a view into a larger buffer", () => {
    const bytes = new Uint8Array(200);
    bytes.set(answer(), 7);
    expect(parseResPq(bytes.subarray(7, 7 + 84)).nonce).toEqual(NONCE);
  });

  test("takes up to 15 bytes of padding, and no more", () => {
    const padded = (length: number): Uint8Array => answer(RES_PQ + "ab".repeat(length));
    expect(parseResPq(padded(15)).fingerprintCount).toBe(1);
    expect(complaint(padded(16))).toBe("BAD_VALUE Cannot parse resPQ: its length says 64 of 80 bytes");
  });

  test("reads several fingerprints, and none", () => {
    const three = RES_PQ.replace("4000000063241605", "5000000063241605").replace("15c4b51c01", "15c4b51c03");
    expect(parseResPq(answer(three + "00".repeat(16))).fingerprintCount).toBe(3);
    const none = RES_PQ.replace("4000000063241605", "3800000063241605").replace("15c4b51c01", "15c4b51c00");
    expect(parseResPq(answer(none.slice(0, -16))).fingerprintCount).toBe(0);
  });

  test("reads a pq with a long length", () => {
    const long = RES_PQ.replace("0817ed48941a08f9", "fe08000017ed4894");
    expect(parseResPq(answer(long)).fingerprintCount).toBe(1);
  });

  test("throws BAD_VALUE for every cut", () => {
    for (let length = 0; length < 84; length += 1) {
      expect(complaint(answer().subarray(0, length))).toStartWith("BAD_VALUE Cannot parse resPQ");
    }
  });

  test.each<[string, Uint8Array, string]>([
    ["a key id", changed(0, "01"), "it is encrypted"],
    ["another constructor", changed(20, "f18e7ebe"), "its constructor is 0xbe7e8ef1"],
    ["a length beyond the end", changed(16, "41000000"), "its length says 65 of 64 bytes"],
    ["the longest length", changed(16, "ffffffff"), "its length says 4294967295 of 64 bytes"],
    ["a length that is too short", changed(16, "00000000"), "its length says 0 of 64 bytes"],
    ["a pq beyond the end", changed(56, "fd"), "its pq cannot be 253 bytes"],
    ["a pq of 16 MiB", changed(56, "feffffff"), "its pq cannot be 16777215 bytes"],
    ["a pq with a length that is none", changed(56, "ff"), "its pq cannot be 255 bytes"],
    ["a pq up to the end", changed(56, "1b"), "it ends before its fingerprints"],
    ["no vector", changed(68, "00000000"), "its fingerprints are no vector"],
    ["too few fingerprints", changed(72, "02000000"), "it has no 2 fingerprints"],
    ["absurdly many fingerprints", changed(72, "ffffffff"), "it has no 4294967295 fingerprints"],
    ["too many fingerprints", changed(72, "00000000"), "it has no 0 fingerprints"],
  ])("throws BAD_VALUE on %s", (_, payload, why) => {
    expect(complaint(payload)).toBe(`BAD_VALUE Cannot parse resPQ: ${why}`);
  });
});

describe("transportErrorOf()", () => {
  test.each([
    [-404, "6cfeffff"],
    [-429, "53feffff"],
    [-1, "ffffffff"],
  ])("reads %d", (code, hex) => {
    const error = transportErrorOf(Uint8Array.fromHex(hex));
    expect(error?.answer).toBe(code);
    expect(error?.message).toBe(`Telegram answered ${code}`);
  });

  test.each(["", "6cfeff", "6cfeffffff", "00000000", "ffffff7f", RES_PQ])("finds none in %p", (hex) => {
    expect(transportErrorOf(Uint8Array.fromHex(hex))).toBeUndefined();
  });
});
