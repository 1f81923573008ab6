import { describe, expect, test } from "bun:test";
import { isIP } from "node:net";
import fc from "fast-check";
import { Pins, parsePin } from "../../src/config/pins.ts";
import { TgwsError } from "../../src/core/errors.ts";
import { openClientInit, sealServerInit } from "../../src/crypto/obfuscated2-ciphers.ts";
import {
  DEFAULT_CF_LIST,
  decodeDomain,
  isDomainName,
  MAX_DOMAINS,
  parseDomainList,
} from "../../src/protocol/cf-domains.ts";
import { DC_NUMBERS, formatDcId, parseDcId, TEST_DC_NUMBERS } from "../../src/protocol/mtproto/dc.ts";
import { isReservedStart, parseInit, writeInit } from "../../src/protocol/mtproto/obfuscated2.ts";
import { PacketBoundaries } from "../../src/protocol/mtproto/packet-boundaries.ts";
import { formatSecret, parseSecret } from "../../src/protocol/mtproto/secret.ts";
import { transportOfTag } from "../../src/protocol/mtproto/transport.ts";
import { formatRelayPath } from "../../src/protocol/relay/request.ts";
import { makeInit, openInit } from "../support/obfuscated2.ts";
import { TRANSPORTS } from "../support/packets.ts";

const RUNS = { seed: 20_251, numRuns: 2_000 };
const bytes = (constraints: fc.IntArrayConstraints = {}): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array(constraints);
const transport = fc.constantFrom(...TRANSPORTS);
const int16 = fc.integer({ min: -32_768, max: 32_767 });
const key = bytes({ minLength: 16, maxLength: 16 });

/** What `parse` returns, or the code of our own error; any other error is thrown on. */
function outcomeOf<T>(parse: () => T): { value: T } | { code: string } {
  try {
    return { value: parse() };
  } catch (error) {
    if (error instanceof TgwsError) return { code: error.code };
    throw error;
  }
}

/** Mostly 64 bytes, often with a tag in the right place. */
const initBytes = fc.oneof(
  bytes({ maxLength: 130 }),
  bytes({ minLength: 64, maxLength: 64 }),
  fc.tuple(bytes({ minLength: 64, maxLength: 64 }), fc.constantFrom(0xef, 0xee, 0xdd)).map(([init, tag]) => {
    init.fill(tag, 56, 60);
    return init;
  }),
);

describe("parseInit()", () => {
  test("gives a transport and a 16-bit dc id, or an error of ours, for any bytes", () => {
    fc.assert(
      fc.property(initBytes, (init) => {
        const outcome = outcomeOf(() => parseInit(init));
        if ("code" in outcome) {
          expect(outcome.code).toBe(init.length === 64 ? "BAD_TRANSPORT_TAG" : "BAD_LENGTH");
          if (init.length === 64) expect(transportOfTag(init.subarray(56, 60))).toBeUndefined();
          return;
        }
        const { dcId } = outcome.value;
        expect(new DataView(init.buffer, init.byteOffset).getInt16(60, true)).toBe(dcId);
        expect(TRANSPORTS).toContain(outcome.value.transport);
      }),
      RUNS,
    );
  });

  test("reads what writeInit wrote, over any noise", () => {
    fc.assert(
      fc.property(bytes({ minLength: 64, maxLength: 64 }), transport, int16, (noise, transport, dcId) => {
        const before = noise.slice();
        writeInit(noise, { transport, dcId });
        expect(parseInit(noise)).toEqual({ transport, dcId });
        expect(noise.subarray(0, 56)).toEqual(before.subarray(0, 56));
        expect(noise.subarray(62)).toEqual(before.subarray(62));
      }),
      RUNS,
    );
  });
});

describe("parseDcId()", () => {
  test("gives a data centre that there is, for any 16-bit number", () => {
    for (let id = -32_768; id <= 32_767; id += 1) {
      const target = parseDcId(id);
      const known: readonly number[] = target.test ? TEST_DC_NUMBERS : DC_NUMBERS;
      if (!known.includes(target.dc)) throw new Error(`${id} gives DC ${target.dc}`);
      const back = formatDcId(target);
      if (back !== id && back !== 2) throw new Error(`${id} becomes ${back}`);
    }
  });
});

describe("parseSecret()", () => {
  const text = fc.oneof(
    fc.string({ maxLength: 80, size: "max" }),
    fc.string({ unit: "grapheme", maxLength: 40, size: "max" }),
    fc.string({ unit: fc.constantFrom(..."0123456789abcdefABCDEF"), maxLength: 80, size: "max" }),
    fc.string({ unit: fc.constantFrom(..."ABCxyz019+/-_="), maxLength: 60, size: "max" }),
  );

  test("gives 16 bytes or BAD_SECRET for any text, and never quotes it", () => {
    fc.assert(
      fc.property(text, (secret) => {
        try {
          expect(parseSecret(secret).length).toBe(16);
        } catch (error) {
          if (!(error instanceof TgwsError)) throw error;
          expect(error.code).toBe("BAD_SECRET");
          if (secret.length >= 20) expect(`${error.message}${error.stack}`).not.toContain(secret);
        }
      }),
      RUNS,
    );
  });

  test("reads any key in every spelling", () => {
    fc.assert(
      fc.property(key, (secret) => {
        const padded = Uint8Array.of(0xdd, ...secret);
        const spellings = [
          formatSecret(secret, "plain"),
          formatSecret(secret, "padded"),
          formatSecret(secret, "padded").toUpperCase(),
          secret.toBase64(),
          padded.toBase64({ alphabet: "base64url", omitPadding: true }),
        ];
        for (const spelling of spellings) expect(parseSecret(spelling)).toEqual(secret);
      }),
      RUNS,
    );
  });
});

describe("PacketBoundaries", () => {
  test("moves on through any bytes, and never beyond a chunk", () => {
    fc.assert(
      fc.property(
        transport,
        fc.array(bytes({ minLength: 1, maxLength: 40, size: "max" }), { maxLength: 12, size: "max" }),
        (transport, chunks) => {
          const boundaries = new PacketBoundaries(transport);
          let broken = false;
          for (const chunk of chunks) {
            let at = 0;
            while (at < chunk.length) {
              const next = boundaries.advance(chunk, at);
              if (next <= at || next > chunk.length)
                throw new Error(`from ${at} to ${next} of ${chunk.length}`);
              if (next < chunk.length && !boundaries.atBoundary) throw new Error("it stops within a packet");
              if (broken && !boundaries.broken) throw new Error("it is whole again");
              broken = boundaries.broken;
              at = next;
            }
          }
        },
      ),
      RUNS,
    );
  });
});

describe("openClientInit()", () => {
  test("opens what a client with the same secret made, and no other", () => {
    fc.assert(
      fc.property(key, key, transport, int16, (secret, other, transport, dcId) => {
        const { bytes: init } = makeInit({ transport, dcId }, secret);
        expect(openClientInit(init, secret).init).toEqual({ transport, dcId });
        if (secret.toHex() === other.toHex()) return;
        expect(outcomeOf(() => openClientInit(init, other))).toEqual({ code: "BAD_TRANSPORT_TAG" });
      }),
      { ...RUNS, numRuns: 1_000 },
    );
  });

  test("gives an init or an error of ours for any 64 bytes and any secret", () => {
    fc.assert(
      fc.property(
        bytes({ minLength: 64, maxLength: 64 }),
        bytes({ maxLength: 40, size: "max" }),
        (init, secret) => {
          outcomeOf(() => openClientInit(init, secret));
        },
      ),
      RUNS,
    );
  });
});

describe("sealServerInit()", () => {
  test("makes what Telegram reads, for any transport and dc id", () => {
    fc.assert(
      fc.property(transport, int16, (transport, dcId) => {
        const { bytes: init } = sealServerInit({ transport, dcId });
        expect(openInit(init, undefined)).toMatchObject({ transport, dcId });
        expect(isReservedStart(init)).toBe(false);
      }),
      { ...RUNS, numRuns: 1_000 },
    );
  });
});

const anyText = fc.oneof(
  fc.string({ unit: "binary", maxLength: 80, size: "max" }),
  fc.string({ unit: fc.constantFrom(..."abcXYZ019.-_#=&?%/:*[] \r\n"), maxLength: 120, size: "max" }),
);

describe("parseDomainList()", () => {
  const line = fc.oneof(
    anyText,
    fc.domain(),
    fc.constantFrom(...DEFAULT_CF_LIST.trim().split("\n"), "virkgj.com", "", "#"),
  );

  test("gives names only, each once, for any text", () => {
    fc.assert(
      fc.property(fc.array(line, { maxLength: 20 }), fc.constantFrom("\n", "\r\n"), (lines, end) => {
        const domains = parseDomainList(lines.join(end));
        expect(domains.every(isDomainName)).toBe(true);
        expect(new Set(domains.map((domain) => domain.toLowerCase())).size).toBe(domains.length);
        expect(domains.length).toBeLessThanOrEqual(MAX_DOMAINS);
      }),
      RUNS,
    );
  });

  test("decodes any name to one of its length, or to none", () => {
    fc.assert(
      fc.property(line, (encoded) => {
        const domain = decodeDomain(encoded);
        if (domain === undefined) return;
        expect(isDomainName(domain)).toBe(true);
        expect(domain.length).toBe(encoded.endsWith(".com") ? encoded.length + 2 : encoded.length);
      }),
      RUNS,
    );
  });
});

describe("formatRelayPath()", () => {
  test("writes what URL.searchParams reads", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.constantFrom(...DC_NUMBERS), (dst, dc) => {
        const { pathname, searchParams } = new URL(formatRelayPath({ dst, dc }), "wss://relay.example");
        expect(pathname).toBe("/apiws");
        expect([...searchParams]).toEqual([
          ["dst", dst],
          ["dc", String(dc)],
        ]);
      }),
      RUNS,
    );
  });
});

describe("parsePin()", () => {
  const ip = fc.oneof(fc.ipV4(), fc.ipV6());

  test("gives a pin that answers, or an error of ours, for any text", () => {
    const text = fc.oneof(
      anyText,
      fc
        .tuple(fc.constantFrom("", "*.", "*"), fc.oneof(fc.domain(), anyText), fc.oneof(ip, anyText))
        .map(([star, name, address]) => `${star}${name}=${address}`),
    );
    fc.assert(
      fc.property(text, (written) => {
        const outcome = outcomeOf(() => parsePin(written));
        if ("code" in outcome) return expect(outcome.code).toBe("BAD_ADDRESS");
        const pin = outcome.value;
        const pins = new Pins([pin]);
        expect(isIP(pin.ip)).not.toBe(0);
        expect(pins.addressOf(pin.scope === "name" ? pin.name : `www.${pin.name}`)).toBe(pin.ip);
        if (pin.scope === "suffix") expect(pins.addressOf(pin.name)).toBeUndefined();
      }),
      RUNS,
    );
  });
});
