import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HandshakeError } from "../../src/core/errors.ts";
import { FakeTlsChannel } from "../../src/proxy/fake-tls-channel.ts";
import { memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";
import { concat } from "../support/packets.ts";

const SEED = 20_253;
const NOTHING = new Uint8Array(0);
const CHANGE = Uint8Array.of(0x14, 3, 3, 0, 1, 1);

const recordLength = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 60 }) },
  { weight: 2, arbitrary: fc.constantFrom(255, 256, 1_369, 2_878, 8_191, 8_192) },
  { weight: 1, arbitrary: fc.constantFrom(16_383, 16_384, 16_385, 16_640) },
);
const chunkSizes = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20, size: "max" }),
  fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 20, size: "max" }),
  fc.array(fc.constantFrom(1, 5, 6, 8_191, 8_192, 65_536), { minLength: 1, maxLength: 8 }),
);

function record(payload: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(0x17, 3, 3, payload.length >> 8, payload.length & 0xff), payload);
}

/** Bytes whose places can be told apart, from `seed` on. */
const numbered = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) + seed * 7) & 0xff);

/** Cuts `bytes` into copies: a chunk belongs to who gets it, and is changed. */
function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = sizes[chunks.length % sizes.length] ?? bytes.length;
    chunks.push(bytes.slice(at, at + size));
    at += size;
  }
  return chunks;
}

/** Feeds chunks to a channel; `wire` is what its client hears. */
async function feed(
  chunks: readonly Uint8Array[],
  early = NOTHING,
): Promise<{ sink: RecordingSink; wire: RecordingSink }> {
  const [client, inner] = memoryChannelPair(1024 * 1024);
  const [sink, wire] = [new RecordingSink(), new RecordingSink()];
  client.attach(wire);
  const channel = new FakeTlsChannel(inner, early);
  channel.attach(sink);
  await Promise.resolve(); // what came early is given now
  for (const chunk of chunks) channel.onChunk(chunk);
  return { sink, wire };
}

/** What a reader that sees the whole stream at once finds in it, written anew from RFC 8446. */
function readAll(stream: Uint8Array): { readonly bytes: Uint8Array; readonly broken: boolean } {
  const fragments: Uint8Array[] = [];
  let broken = false;
  let rest = stream;
  if (rest[0] === 0x14) {
    broken = rest.subarray(0, 6).some((byte, at) => byte !== CHANGE[at]);
    // Its header is judged when it is whole, its one byte after that.
    if (broken)
      broken = rest.length >= 6 || (rest.length === 5 && rest.some((byte, at) => byte !== CHANGE[at]));
    if (broken || rest.length < 6) return { bytes: NOTHING, broken };
    rest = rest.subarray(6);
  }
  while (rest.length >= 5 && !broken) {
    const [type, major, minor, high = 0, low = 0] = rest;
    const length = high * 256 + low;
    broken = type !== 0x17 || major !== 3 || minor !== 3 || length < 1 || length > 16_640;
    if (!broken) fragments.push(rest.subarray(5, 5 + length));
    rest = rest.subarray(5 + length);
  }
  return { bytes: concat(...fragments), broken };
}

describe("FakeTlsChannel, reading", () => {
  test("gives the same bytes for any chunking of any records", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(recordLength, { maxLength: 12, size: "max" }),
        fc.boolean(),
        fc.nat(40),
        chunkSizes,
        async (lengths, change, earlyLength, sizes) => {
          const payloads = lengths.map((length, at) => numbered(length, at));
          const stream = concat(change ? CHANGE : NOTHING, ...payloads.map(record));
          const early = stream.slice(0, earlyLength);
          const { sink } = await feed(cut(stream.subarray(earlyLength), sizes), early);
          expect(sink.error).toBeUndefined();
          expect(sink.calls.every((call) => call === "chunk")).toBe(true);
          expect(sink.chunks.every(({ length }) => length > 0)).toBe(true);
          expect(Buffer.compare(sink.bytes, concat(...payloads))).toBe(0);
        },
      ),
      { seed: SEED, numRuns: 300 },
    );
  });

  /** Streams of bytes that look like records for a while, or not at all. */
  const almost = fc
    .array(
      fc.oneof(
        {
          weight: 5,
          arbitrary: fc.integer({ min: 1, max: 30 }).map((length) => record(numbered(length, 1))),
        },
        { weight: 2, arbitrary: fc.constant(CHANGE) },
        { weight: 2, arbitrary: fc.uint8Array({ maxLength: 12 }) },
        {
          weight: 3,
          arbitrary: fc
            .tuple(
              fc.constantFrom(0x14, 0x15, 0x16, 0x17, 0x18),
              fc.constantFrom(2, 3),
              fc.constantFrom(1, 3, 4),
              fc.constantFrom(0, 1, 2, 16_640, 16_641, 65_535),
              fc.constantFrom(0, 1, 2),
            )
            .map(([type, major, minor, length, first]) =>
              Uint8Array.of(type, major, minor, length >> 8, length & 0xff, first),
            ),
        },
      ),
      { maxLength: 10, size: "max" },
    )
    .map((parts) => concat(...parts));

  test("gives the bytes before the first thing that no client sends, then one BAD_RECORD, and never throws", async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(almost, chunkSizes, async (stream, sizes) => {
        const { sink, wire } = await feed(cut(stream, sizes));
        const { bytes, broken } = readAll(stream);
        expect(Buffer.compare(sink.bytes, bytes)).toBe(0);
        const ends = sink.calls.filter((call) => call !== "chunk");
        expect(ends).toEqual(broken ? ["close"] : []);
        await settle(3);
        if (!broken) return expect(wire.calls).toEqual([]);
        refused += 1;
        expect(sink.calls.at(-1)).toBe("close");
        expect(sink.error).toBeInstanceOf(HandshakeError);
        expect(sink.error).toMatchObject({ code: "BAD_RECORD" });
        const gaveUp = sink.error?.message.includes("the client sent an alert") === true;
        expect(wire.calls).toEqual(gaveUp ? ["end"] : ["chunk", "end"]);
        if (gaveUp) return;
        expect(wire.length).toBe(24);
        expect(wire.bytes.subarray(0, 5).toHex()).toBe("1703030013");
      }),
      { seed: SEED, numRuns: 500 },
    );
    expect(refused).toBeGreaterThan(100);
  });
});

describe("FakeTlsChannel, both ways", () => {
  test("reads what it has written, however much at once, under any chunking", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.integer({ min: 1, max: 5_000 }),
            fc.constantFrom(1_369, 4_096, 4_097, 16_384, 16_385, 65_536, 131_072),
          ),
          { minLength: 1, maxLength: 8 },
        ),
        chunkSizes,
        async (lengths, sizes) => {
          const [far, inner] = memoryChannelPair(1024 * 1024);
          const wire = new RecordingSink();
          far.attach(wire);
          const writer = new FakeTlsChannel(inner, NOTHING);
          const written = lengths.map((length, at) => numbered(length, at));
          for (const bytes of written) writer.write(bytes);
          far.end();
          inner.end();
          await wire.until((heard) => heard.heard("end"));
          const { sink } = await feed(cut(wire.bytes, sizes));
          expect(sink.error).toBeUndefined();
          expect(Buffer.compare(sink.bytes, concat(...written))).toBe(0);
        },
      ),
      { seed: SEED, numRuns: 100 },
    );
  });
});
