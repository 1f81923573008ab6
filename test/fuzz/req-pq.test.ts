import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { FormatError } from "../../src/core/errors.ts";
import {
  encodeReqPqMulti,
  parseResPq,
  type ResPq,
  transportErrorOf,
} from "../../src/protocol/mtproto/req-pq.ts";
import { concat } from "../support/packets.ts";
import { tlBytes, tlInt, tlLong } from "../support/tl.ts";

const RUNS = { seed: 20_251, numRuns: 2_000 };
const bytes = (minLength: number, maxLength = minLength): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength, size: "max" });

/** The parts of an answer, its TL written by other code than the one under test. */
const parts = fc.record({
  messageId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  nonce: bytes(16),
  serverNonce: bytes(16),
  pq: bytes(0, 300),
  fingerprints: fc.array(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { maxLength: 6 }),
  padding: bytes(0, 15),
});

function encodeResPq(fields: typeof parts extends fc.Arbitrary<infer T> ? T : never): Uint8Array {
  const { messageId, nonce, serverNonce, pq, fingerprints, padding } = fields;
  const vector = concat(tlInt(0x1cb5c415), tlInt(fingerprints.length), ...fingerprints.map(tlLong));
  const body = concat(tlInt(0x05162463), nonce, serverNonce, tlBytes(pq), vector);
  return concat(tlLong(0n), tlLong(messageId), tlInt(body.length), body, padding);
}

/** What is parsed, or `undefined` for our own error; any other error is thrown on. */
function parse(payload: Uint8Array): ResPq | undefined {
  try {
    return parseResPq(payload);
  } catch (error) {
    if (error instanceof FormatError && error.code === "BAD_VALUE") return undefined;
    throw error;
  }
}

describe("parseResPq()", () => {
  test("reads every answer that a server can write", () => {
    fc.assert(
      fc.property(parts, (fields) => {
        const { nonce, serverNonce, fingerprints } = fields;
        expect(parse(encodeResPq(fields))).toEqual({
          nonce,
          serverNonce,
          fingerprintCount: fingerprints.length,
        });
      }),
      RUNS,
    );
  });

  test("gives a value or BAD_VALUE for an answer with bytes changed, cut and added", () => {
    const edit = fc.tuple(fc.nat(400), fc.nat(255));
    fc.assert(
      fc.property(
        parts,
        fc.array(edit, { maxLength: 4 }),
        fc.nat(400),
        bytes(0, 40),
        (fields, edits, cut, tail) => {
          const payload = encodeResPq(fields);
          for (const [at, value] of edits) if (at < payload.length) payload[at] = value;
          const parsed = parse(concat(payload.subarray(0, cut), tail));
          if (parsed !== undefined) expect(parsed.nonce.length + parsed.serverNonce.length).toBe(32);
        },
      ),
      RUNS,
    );
  });

  test("gives a value or BAD_VALUE for any bytes, and never takes a question for an answer", () => {
    fc.assert(
      fc.property(bytes(0, 200), bytes(16), (payload, nonce) => {
        parse(payload);
        transportErrorOf(payload);
        expect(parse(encodeReqPqMulti({ nonce, messageId: 4n }))).toBeUndefined();
      }),
      RUNS,
    );
  });
});
