import { describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { HandshakeError } from "../../src/core/errors.ts";
import { openClientInit, sealServerInit } from "../../src/crypto/obfuscated2-ciphers.ts";
import { isReservedStart } from "../../src/protocol/mtproto/obfuscated2.ts";
import { makeInit, openInit } from "../support/obfuscated2.ts";
import { TRANSPORTS } from "../support/packets.ts";
import vectors from "../vectors/obfuscated2.json" with { type: "json" };

const SECRET = Uint8Array.from({ length: 16 }, (_, at) => at * 7);

describe("openClientInit()", () => {
  for (const vector of vectors.vectors) {
    test(`agrees with other implementations: ${vector.name}`, () => {
      const opened = openClientInit(Uint8Array.fromHex(vector.init), Uint8Array.fromHex(vector.secret));
      expect(opened.init).toEqual({ transport: vector.transport as "abridged", dcId: vector.dcId });
      expect(opened.outbound.update(Uint8Array.fromHex(vector.up.wire)).toHex()).toBe(vector.up.plain);
      expect(opened.inbound.update(Uint8Array.fromHex(vector.down.plain)).toHex()).toBe(vector.down.wire);
    });
  }

  test.each([1, -2, 203, -203, 10_002, -10_002, 32_767, -32_768])(
    "reads what a client sealed: dc id %d",
    (dcId) => {
      for (const transport of TRANSPORTS) {
        const { bytes } = makeInit({ transport, dcId }, SECRET);
        expect(openClientInit(bytes, SECRET).init).toEqual({ transport, dcId });
      }
    },
  );

  test("goes on in both directions where the client does, whatever the chunks", () => {
    const client = makeInit({ transport: "abridged", dcId: 2 }, SECRET);
    const opened = openClientInit(client.bytes, SECRET);
    for (const length of [1, 15, 16, 17, 4_096, 70_000]) {
      const plain = new Uint8Array(randomBytes(length));
      expect(opened.outbound.update(client.up.update(plain))).toEqual(plain as Buffer);
      expect(client.down.update(opened.inbound.update(plain))).toEqual(plain as Buffer);
    }
  });

  test("leaves the bytes that it was given unchanged", () => {
    const { bytes } = makeInit({ transport: "padded", dcId: 4 }, SECRET);
    const before = bytes.slice();
    openClientInit(bytes, SECRET);
    expect(bytes).toEqual(before);
  });

  test("opens an init that is a view into the middle of a larger buffer", () => {
    const { bytes } = makeInit({ transport: "intermediate", dcId: 5 }, SECRET);
    const larger = new Uint8Array(100);
    larger.set(bytes, 13);
    expect(openClientInit(larger.subarray(13, 77), SECRET).init).toEqual({
      transport: "intermediate",
      dcId: 5,
    });
  });

  test("opens an init whose start is reserved, since clients inside fake TLS send such", () => {
    const { bytes } = makeInit({ transport: "padded", dcId: 2 }, SECRET);
    bytes[0] = 0xef; // bytes 0-7 are not part of the keys
    expect(openClientInit(bytes, SECRET).init).toEqual({ transport: "padded", dcId: 2 });
    bytes.fill(0, 4, 8);
    expect(openClientInit(bytes, SECRET).init).toEqual({ transport: "padded", dcId: 2 });
  });

  test("throws BAD_TRANSPORT_TAG on a wrong secret, even by one bit", () => {
    const { bytes } = makeInit({ transport: "abridged", dcId: 2 }, SECRET);
    for (let bit = 0; bit < 128; bit += 1) {
      const wrong = SECRET.slice();
      wrong[bit >> 3] = (wrong[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => openClientInit(bytes, wrong)).toThrow(
        expect.objectContaining({ code: "BAD_TRANSPORT_TAG" }),
      );
    }
  });

  test("throws BAD_TRANSPORT_TAG on an init that was sealed for Telegram, without a secret", () => {
    const { bytes } = makeInit({ transport: "abridged", dcId: 2 }, undefined);
    expect(() => openClientInit(bytes, SECRET)).toThrow(HandshakeError);
  });
});

describe("sealServerInit()", () => {
  test.each([1, -4, 203, -203, 10_001, -10_003])(
    "is what Telegram reads without a secret: dc id %d",
    (dcId) => {
      for (const transport of TRANSPORTS) {
        const { bytes } = sealServerInit({ transport, dcId });
        expect(bytes.length).toBe(64);
        const opened = openInit(bytes, undefined);
        expect(opened.transport).toBe(transport);
        expect(opened.dcId).toBe(dcId);
      }
    },
  );

  test("goes on in both directions where Telegram does", () => {
    const sealed = sealServerInit({ transport: "padded", dcId: 2 });
    const telegram = openInit(sealed.bytes, undefined);
    for (const length of [1, 16, 63, 20_000]) {
      const plain = new Uint8Array(randomBytes(length));
      expect(telegram.up.update(sealed.outbound.update(plain))).toEqual(plain as Buffer);
      expect(sealed.inbound.update(telegram.down.update(plain))).toEqual(plain as Buffer);
    }
  });

  test("sends bytes 0-55 in the clear and 56-63 encrypted", () => {
    // The clear tag would be four equal bytes; encrypted, all four are equal once in 2^24.
    const tags = Array.from({ length: 8 }, () =>
      sealServerInit({ transport: "abridged", dcId: 2 }).bytes.subarray(56, 60),
    );
    expect(tags.some((tag) => tag.toHex() !== "efefefef")).toBe(true);
    expect(new Set(tags.map((tag) => tag.toHex())).size).toBeGreaterThan(1);
  });

  test("never starts like another protocol, and never twice the same", () => {
    const seen = new Set<string>();
    for (let sample = 0; sample < 5_000; sample += 1) {
      const { bytes } = sealServerInit({ transport: "abridged", dcId: 2 });
      expect(isReservedStart(bytes)).toBe(false);
      expect(bytes[0]).not.toBe(0xef); // 1 in 256 without the check: 5000 samples would have some 20
      seen.add(bytes.subarray(8, 56).toHex());
    }
    expect(seen.size).toBe(5_000);
  });
});
