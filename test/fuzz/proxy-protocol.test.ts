import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ProxyHeaderError } from "../../src/core/errors.ts";
import { measureProxyHeader, type ProxyHeaderProgress } from "../../src/protocol/proxy-protocol.ts";

const RUNS = { seed: 20_251, numRuns: 2_000 };
const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const port = fc.integer({ min: 0, max: 65_535 });
const payload = fc.uint8Array({ maxLength: 40 });

/** A header and what is to be read from it, made with none of the code under test. */
interface Sample {
  readonly bytes: Uint8Array;
  readonly version: 1 | 2;
  readonly source: { readonly address: string; readonly port: number } | undefined;
}

/** What `measureProxyHeader` returns, or its own error; any other error is thrown on. */
function outcomeOf(bytes: Uint8Array): ProxyHeaderProgress | ProxyHeaderError {
  try {
    return measureProxyHeader(bytes);
  } catch (error) {
    if (error instanceof ProxyHeaderError) return error;
    throw error;
  }
}

/** As URLs have it, which for IPv6 is RFC 5952; IPv4 within IPv6 alone is written otherwise there. */
function canonical(address: string): string {
  if (!address.includes(":")) return address;
  // Bun's URL refuses some that end like IPv4: e:e9::1:192.0.2.7.
  const groups = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...octets) => {
    const [a = 0, b = 0, c = 0, d = 0] = octets.slice(0, 4).map(Number);
    return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
  });
  const text = new URL(`http://[${groups}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(text) ?? [];
  if (high === undefined || low === undefined) return text;
  const octets = [high, low]
    .map((group) => Number.parseInt(group, 16))
    .flatMap((group) => [group >> 8, group & 255]);
  return octets.join(".");
}

/** CRC-32C as a remainder of polynomials over GF(2), most significant bit first. */
function crc32c(bytes: Uint8Array): number {
  const bits = [...bytes].flatMap((byte) => Array.from({ length: 8 }, (_, bit) => (byte >> bit) & 1));
  bits.push(...Array<number>(32).fill(0));
  for (let at = 0; at < 32; at += 1) bits[at] = (bits[at] ?? 0) ^ 1;
  let rest = 0n;
  for (const bit of bits) {
    rest = (rest << 1n) | BigInt(bit);
    if (rest >> 32n) rest ^= 0x1_1edc_6f41n;
  }
  const reflected = [...rest.toString(2).padStart(32, "0")].toReversed().join("");
  return ~Number.parseInt(reflected, 2) >>> 0;
}

const ipv4 = fc.ipV4();
const groups = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff })), {
  minLength: 8,
  maxLength: 8,
});
const mapped = groups.map((all) => [0, 0, 0, 0, 0, 0xffff, all[6] ?? 0, all[7] ?? 0]);
const ipv6Groups = fc.oneof({ weight: 4, arbitrary: groups }, { weight: 1, arbitrary: mapped });
const ipv6 = fc.oneof(
  fc.ipV6(),
  ipv6Groups.map((all) => all.map((group) => group.toString(16)).join(":")),
  ipv6Groups.map((all) => all.map((group) => group.toString(16).padStart(4, "0").toUpperCase()).join(":")),
);

function lineOf(family: "TCP4" | "TCP6", address: fc.Arbitrary<string>): fc.Arbitrary<Sample> {
  return fc
    .tuple(address, address, port, port)
    .map(([source, destination, from, to]) => ({
      bytes: Buffer.from(`PROXY ${family} ${source} ${destination} ${from} ${to}\r\n`, "latin1"),
      version: 1 as const,
      source: { address: canonical(source), port: from },
    }))
    .filter(({ bytes }) => bytes.length <= 107);
}

const unknownLine: fc.Arbitrary<Sample> = fc
  .string({ unit: "binary-ascii", maxLength: 91 })
  .filter((text) => !text.includes("\r\n"))
  .chain((text) => fc.constantFrom("", ` ${text}`))
  .map((rest) => ({
    bytes: Buffer.from(`PROXY UNKNOWN${rest}\r\n`, "latin1"),
    version: 1 as const,
    source: undefined,
  }));

const tlvs = fc
  .array(
    fc.tuple(
      fc.integer({ min: 0, max: 255 }).filter((type) => type !== 3),
      fc.uint8Array({ maxLength: 60 }),
    ),
    { maxLength: 6 },
  )
  .map((all) => all.map(([type, value]) => Buffer.from([type, 0, value.length, ...value])));
/** Before which of them the checksum goes; beyond the last there is none. */
const checksumAt = fc.integer({ min: 0, max: 9 });

function headerOf(
  familyByte: number,
  addresses: Uint8Array,
  extra: readonly Uint8Array[],
  at: number,
): Buffer {
  const all = [...extra];
  const crcTlv = Buffer.from([3, 0, 4, 0, 0, 0, 0]);
  if (at <= all.length) all.splice(at, 0, crcTlv);
  const rest = Buffer.concat([addresses, ...all]);
  const fixed = Buffer.from([0x21, familyByte, rest.length >> 8, rest.length & 255]);
  const header = Buffer.concat([SIGNATURE, fixed, rest]);
  if (at <= extra.length) {
    const before = extra.slice(0, at).reduce((sum, tlv) => sum + tlv.length, 0);
    header.writeUInt32BE(crc32c(header), 16 + addresses.length + before + 3);
  }
  return header;
}

const tcp4: fc.Arbitrary<Sample> = fc
  .tuple(ipv4, ipv4, port, port, tlvs, checksumAt)
  .map(([source, destination, from, to, extra, at]) => {
    const addresses = Buffer.alloc(12);
    addresses.set(source.split(".").map(Number), 0);
    addresses.set(destination.split(".").map(Number), 4);
    addresses.writeUInt16BE(from, 8);
    addresses.writeUInt16BE(to, 10);
    return {
      bytes: headerOf(0x11, addresses, extra, at),
      version: 2,
      source: { address: source, port: from },
    };
  });

const tcp6: fc.Arbitrary<Sample> = fc
  .tuple(ipv6Groups, ipv6Groups, port, port, tlvs, checksumAt)
  .map(([source, destination, from, to, extra, at]) => {
    const addresses = Buffer.alloc(36);
    [...source, ...destination, from, to].forEach((value, index) => {
      addresses.writeUInt16BE(value, 2 * index);
    });
    const address = canonical(source.map((group) => group.toString(16)).join(":"));
    return { bytes: headerOf(0x21, addresses, extra, at), version: 2, source: { address, port: from } };
  });

const unix: fc.Arbitrary<Sample> = fc
  .tuple(fc.uint8Array({ minLength: 216, maxLength: 216 }), tlvs, checksumAt)
  .map(([addresses, extra, at]) => ({
    bytes: headerOf(0x31, addresses, extra, at),
    version: 2,
    source: undefined,
  }));

const local: fc.Arbitrary<Sample> = fc
  .tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 300, size: "max" }))
  .map(([family, rest]) => ({
    bytes: Buffer.concat([SIGNATURE, Buffer.from([0x20, family, rest.length >> 8, rest.length & 255]), rest]),
    version: 2,
    source: undefined,
  }));

const header = fc.oneof(lineOf("TCP4", ipv4), lineOf("TCP6", ipv6), unknownLine, tcp4, tcp6, unix, local);

describe("measureProxyHeader()", () => {
  test("reads what an encoder of its own wrote, and nothing of what follows", () => {
    fc.assert(
      fc.property(header, payload, ({ bytes, version, source }, after) => {
        expect(measureProxyHeader(Buffer.concat([bytes, after]))).toEqual({
          kind: "whole",
          length: bytes.length,
          version,
          source,
        });
      }),
      RUNS,
    );
  });

  test("finds every beginning of a header unfinished, and never asks for more than it has", () => {
    fc.assert(
      fc.property(header, ({ bytes }) => {
        for (let length = 0; length < bytes.length; length += 1) {
          const progress = measureProxyHeader(bytes.subarray(0, length));
          if (progress.kind === "whole") throw new Error(`whole after ${length} of ${bytes.length}`);
          if (progress.needed <= length || progress.needed > bytes.length) {
            throw new Error(`${progress.needed} after ${length} of ${bytes.length}`);
          }
        }
      }),
      { ...RUNS, numRuns: 500 },
    );
  });

  const almost = fc
    .tuple(header, fc.array(fc.tuple(fc.nat(600), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }))
    .map(([{ bytes }, changes]) => {
      const changed = Uint8Array.from(bytes);
      for (const [at, byte] of changes) changed[at % changed.length] = byte;
      return changed;
    });
  const anything = fc.oneof(
    fc.uint8Array({ maxLength: 300, size: "max" }),
    almost,
    fc
      .tuple(fc.constantFrom("PROXY ", "PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"), payload)
      .map(([start, rest]) => Buffer.concat([Buffer.from(start), rest])),
    fc
      .string({ unit: fc.constantFrom(..."0123456789abcdefABCDEF:. \r\n%"), maxLength: 110, size: "max" })
      .map((text) => Buffer.from(`PROXY TCP6 ${text}`)),
    fc
      .tuple(fc.constantFrom(0x20, 0x21, 0x22), payload)
      .map(([command, rest]) => Buffer.concat([SIGNATURE, Buffer.from([command]), rest])),
  );

  test("gives a value or its own error for any bytes", () => {
    fc.assert(
      fc.property(anything, (bytes) => {
        const outcome = outcomeOf(bytes);
        if (outcome instanceof ProxyHeaderError) {
          const likeV1 = Buffer.from("PROXY ").equals(bytes.subarray(0, 6));
          const likeV2 = SIGNATURE.equals(bytes.subarray(0, 12));
          expect(outcome.code).toBe("BAD_PROXY_HEADER");
          expect(outcome.why).toBe(likeV1 || likeV2 ? "malformed" : "missing");
        } else if (outcome.kind === "whole") {
          expect(outcome.length).toBeLessThanOrEqual(bytes.length);
          expect(measureProxyHeader(bytes.subarray(0, outcome.length))).toEqual(outcome);
        } else {
          expect(outcome.needed).toBeGreaterThan(bytes.length);
          expect(outcome.needed).toBeLessThanOrEqual(16 + 4096);
        }
      }),
      { ...RUNS, numRuns: 10_000 },
    );
  });

  test("never takes back what it said of fewer bytes", () => {
    fc.assert(
      fc.property(anything, (bytes) => {
        let settled: ReturnType<typeof outcomeOf> | undefined;
        let needed = 0;
        for (let length = 0; length <= bytes.length; length += 1) {
          const outcome = outcomeOf(bytes.subarray(0, length));
          if (settled !== undefined) {
            if (settled instanceof ProxyHeaderError) expect(outcome).toBeInstanceOf(ProxyHeaderError);
            else expect(outcome).toEqual(settled);
            continue;
          }
          if (outcome instanceof ProxyHeaderError || outcome.kind === "whole") settled = outcome;
          if (settled === outcome && !(outcome instanceof ProxyHeaderError)) {
            expect(length).toBeGreaterThanOrEqual(needed);
          }
          if (!(outcome instanceof ProxyHeaderError) && outcome.kind === "partial") {
            expect(outcome.needed).toBeGreaterThanOrEqual(needed);
            needed = outcome.needed;
          }
        }
      }),
      RUNS,
    );
  });

  test("refuses any other addresses under a checksum", () => {
    const checked = fc.tuple(ipv4, port, tlvs).map(([address, from, extra]) => {
      const addresses = Buffer.from([
        ...address.split(".").map(Number),
        0,
        0,
        0,
        0,
        from >> 8,
        from & 255,
        0,
        0,
      ]);
      return headerOf(0x11, addresses, extra, 0);
    });
    fc.assert(
      fc.property(checked, fc.nat(11), fc.integer({ min: 1, max: 255 }), (bytes, offset, flip) => {
        const changed = Uint8Array.from(bytes);
        changed[16 + offset] = (changed[16 + offset] ?? 0) ^ flip;
        expect(outcomeOf(changed)).toBeInstanceOf(ProxyHeaderError);
      }),
      RUNS,
    );
  });
});
