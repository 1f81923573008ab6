import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { MAX_PACKET_LENGTH, PacketBoundaries } from "../../src/protocol/mtproto/packet-boundaries.ts";
import type { Transport } from "../../src/protocol/mtproto/transport.ts";

/** Walks a stream given as chunks; returns the stream offsets at which packets end. */
function endsOf(boundaries: PacketBoundaries, chunks: readonly Uint8Array[]): number[] {
  const ends: number[] = [];
  let before = 0;
  for (const chunk of chunks) {
    let at = 0;
    while (at < chunk.length) {
      at = boundaries.advance(chunk, at);
      if (boundaries.atBoundary) ends.push(before + at);
    }
    before += chunk.length;
  }
  return ends;
}

/** A packet: header bytes, then a payload that looks like headers. */
function packet(header: readonly number[], payload: number): Uint8Array {
  const bytes = new Uint8Array(header.length + payload).fill(0x7f);
  bytes.set(header);
  return bytes;
}

const oneByOne = (bytes: Uint8Array): Uint8Array[] => [...bytes].map((byte) => Uint8Array.of(byte));

const CASES: readonly { name: string; transport: Transport; header: number[]; payload: number }[] = [
  { name: "the shortest abridged packet", transport: "abridged", header: [0x01], payload: 4 },
  { name: "the longest one-byte abridged length", transport: "abridged", header: [0x7e], payload: 0x7e * 4 },
  { name: "a one-byte length with quick ack", transport: "abridged", header: [0x81], payload: 4 },
  {
    name: "the longest one-byte length with quick ack",
    transport: "abridged",
    header: [0xfe],
    payload: 0x7e * 4,
  },
  { name: "a three-byte length", transport: "abridged", header: [0x7f, 0x7f, 0x00, 0x00], payload: 0x7f * 4 },
  {
    name: "a three-byte length with quick ack",
    transport: "abridged",
    header: [0xff, 0x00, 0x01, 0x00],
    payload: 256 * 4,
  },
  {
    name: "a three-byte length that uses all three",
    transport: "abridged",
    header: [0x7f, 0x01, 0x02, 0x03],
    payload: 0x030201 * 4,
  },
  { name: "an intermediate packet", transport: "intermediate", header: [0x04, 0, 0, 0], payload: 4 },
  {
    name: "an intermediate packet with quick ack",
    transport: "intermediate",
    header: [0x10, 0x01, 0, 0x80],
    payload: 0x110,
  },
  { name: "a padded packet of odd length", transport: "padded", header: [0x2b, 0, 0, 0], payload: 43 },
  { name: "a padded packet with quick ack", transport: "padded", header: [0x2b, 0, 0, 0x80], payload: 43 },
];

describe("PacketBoundaries", () => {
  for (const { name, transport, header, payload } of CASES) {
    const bytes = packet(header, payload);

    test(`finds the end of ${name}`, () => {
      const boundaries = new PacketBoundaries(transport);
      expect(boundaries.advance(bytes, 0)).toBe(bytes.length);
      expect(boundaries.atBoundary).toBe(true);
      expect(boundaries.broken).toBe(false);
    });

    test(`does not end ${name} one byte early`, () => {
      const boundaries = new PacketBoundaries(transport);
      const short = bytes.subarray(0, -1);
      expect(boundaries.advance(short, 0)).toBe(short.length);
      expect(boundaries.atBoundary).toBe(false);
    });

    test(`finds two in a row of ${name}, wherever the header is split`, () => {
      for (let split = 1; split <= header.length; split += 1) {
        const chunks = [bytes, bytes.subarray(0, split), bytes.subarray(split)];
        expect(endsOf(new PacketBoundaries(transport), chunks)).toEqual([bytes.length, 2 * bytes.length]);
      }
    });
  }

  test("finds the same ends byte by byte as in one chunk", () => {
    const stream = Buffer.concat([
      packet([0x01], 4),
      packet([0x81], 4),
      packet([0x7f, 0x80, 0x00, 0x00], 0x80 * 4),
      packet([0xff, 0x01, 0x00, 0x00], 4),
      packet([0x02], 8),
    ]);
    const ends = [5, 10, 10 + 516, 526 + 8, 534 + 9];
    expect(endsOf(new PacketBoundaries("abridged"), [stream])).toEqual(ends);
    expect(endsOf(new PacketBoundaries("abridged"), oneByOne(stream))).toEqual(ends);
  });

  test("is at a boundary before the first byte, and not after part of a header", () => {
    const boundaries = new PacketBoundaries("intermediate");
    expect(boundaries.atBoundary).toBe(true);
    expect(boundaries.advance(Uint8Array.of(8, 0), 0)).toBe(2);
    expect(boundaries.atBoundary).toBe(false);
  });

  test("starts where it is told to in a chunk", () => {
    const boundaries = new PacketBoundaries("abridged");
    const chunk = Uint8Array.of(0x99, 0x99, 0x01, 1, 2, 3, 4, 0x01, 5, 6, 7, 8);
    expect(boundaries.advance(chunk, 2)).toBe(7);
    expect(boundaries.advance(chunk, 7)).toBe(12);
  });

  test.each([
    ["abridged", [0x00]],
    ["abridged", [0x80]],
    ["abridged", [0x7f, 0, 0, 0]],
    ["abridged", [0xff, 0, 0, 0]],
    ["intermediate", [0, 0, 0, 0]],
    ["intermediate", [0, 0, 0, 0x80]],
    ["padded", [0, 0, 0, 0]],
  ] as const)("is broken by a length of zero: %s %p", (transport, header) => {
    for (const chunks of [[Uint8Array.from(header)], oneByOne(Uint8Array.from(header))]) {
      const boundaries = new PacketBoundaries(transport);
      endsOf(boundaries, chunks);
      expect(boundaries.broken).toBe(true);
    }
  });

  test("takes a packet of exactly the longest length, and is broken by one byte more", () => {
    const headerFor = (payload: number): Uint8Array => {
      const header = new Uint8Array(4);
      new DataView(header.buffer).setUint32(0, payload, true);
      return header;
    };
    const longest = new PacketBoundaries("intermediate");
    longest.advance(headerFor(MAX_PACKET_LENGTH - 4), 0);
    expect(longest.broken).toBe(false);
    expect(longest.atBoundary).toBe(false);
    const tooLong = new PacketBoundaries("intermediate");
    tooLong.advance(headerFor(MAX_PACKET_LENGTH - 3), 0);
    expect(tooLong.broken).toBe(true);
  });

  test.each([
    ["abridged", [0x7f, 0xff, 0xff, 0xff]],
    ["abridged", [0xff, 0xff, 0xff, 0xff]],
    ["intermediate", [0xff, 0xff, 0xff, 0x7f]],
    ["padded", [0xff, 0xff, 0xff, 0xff]],
  ] as const)("is broken by an absurd length: %s %p", (transport, header) => {
    const boundaries = new PacketBoundaries(transport);
    boundaries.advance(Uint8Array.from(header), 0);
    expect(boundaries.broken).toBe(true);
  });

  test("passes everything on unsplit once it is broken", () => {
    const boundaries = new PacketBoundaries("abridged");
    const chunk = Uint8Array.of(0x01, 1, 2, 3, 4, 0x00, 0x01, 1, 2, 3, 4);
    expect(boundaries.advance(chunk, 0)).toBe(5);
    expect(boundaries.advance(chunk, 5)).toBe(chunk.length);
    expect(boundaries.broken).toBe(true);
    expect(boundaries.advance(packet([0x01], 4), 0)).toBe(5);
    expect(boundaries.advance(Uint8Array.of(0x01), 0)).toBe(1);
  });
});

/** What data centres send, by hand: whole units of the stream, quick-ack tokens among them. */
const DOWN: readonly { transport: Transport; units: readonly Uint8Array[] }[] = [
  {
    transport: "abridged",
    units: [
      packet([0x01], 4),
      // A token comes the other way round here: the byte with the top bit is the first.
      Uint8Array.of(0x81, 0x22, 0x33, 0x44),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0x80, 0x00, 0x00, 0x00),
      packet([0x7e], 0x7e * 4),
      packet([0x7f, 0x7f, 0x00, 0x00], 0x7f * 4),
      Uint8Array.of(0xfe, 0x01, 0x00, 0x00),
      packet([0x7f, 0x80, 0x80, 0x00], 0x8080 * 4),
      // A transport error: -404.
      Uint8Array.of(0x01, 0x6c, 0xfe, 0xff, 0xff),
    ],
  },
  {
    transport: "intermediate",
    units: [
      packet([0x04, 0, 0, 0], 4),
      Uint8Array.of(0x44, 0x33, 0x22, 0x81),
      Uint8Array.of(0xff, 0xff, 0xff, 0xff),
      Uint8Array.of(0x00, 0x00, 0x00, 0x80),
      packet([0x80, 0x80, 0x00, 0x00], 0x8080),
      Uint8Array.of(0x04, 0x00, 0x00, 0x80),
      Uint8Array.of(0x04, 0, 0, 0, 0x6c, 0xfe, 0xff, 0xff),
    ],
  },
  {
    transport: "padded",
    units: [
      packet([0x2b, 0, 0, 0], 43),
      Uint8Array.of(0x44, 0x33, 0x22, 0x81),
      Uint8Array.of(0x2b, 0x00, 0x00, 0x80),
      packet([0x07, 0x01, 0, 0], 0x107),
      Uint8Array.of(0x07, 0, 0, 0, 0x6c, 0xfe, 0xff, 0xff, 1, 2, 3),
    ],
  },
];

/** Cuts `bytes` after each of `lengths`; what is left is the last piece. */
function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const length of lengths) {
    if (at + length >= bytes.length) break;
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return [...pieces, bytes.subarray(at)];
}

describe("PacketBoundaries, on the way down", () => {
  for (const { transport, units } of DOWN) {
    const stream = Buffer.concat(units);
    let sum = 0;
    const ends = units.map(({ length }) => {
      sum += length;
      return sum;
    });

    test(`finds the ends of ${transport} packets and quick-ack tokens, in one chunk and byte by byte`, () => {
      for (const chunks of [[stream], oneByOne(stream)]) {
        const boundaries = new PacketBoundaries(transport, "down");
        expect(endsOf(boundaries, chunks)).toEqual(ends);
        expect(boundaries.broken).toBe(false);
      }
    });

    test(`finds them however the ${transport} stream is cut`, () => {
      fc.assert(
        fc.property(fc.array(fc.integer({ min: 1, max: 700 })), (lengths) => {
          expect(endsOf(new PacketBoundaries(transport, "down"), cut(stream, lengths))).toEqual(ends);
        }),
      );
    });

    test(`is not at a boundary within an ${transport} token`, () => {
      const token = units[1] ?? new Uint8Array(0);
      for (const length of [1, 2, 3]) {
        const boundaries = new PacketBoundaries(transport, "down");
        expect(boundaries.advance(token.subarray(0, length), 0)).toBe(length);
        expect(boundaries.atBoundary).toBe(false);
        expect(boundaries.advance(token.subarray(length), 0)).toBe(4 - length);
        expect(boundaries.atBoundary).toBe(true);
      }
    });
  }

  test.each([
    ["abridged", [0x00]],
    ["abridged", [0x7f, 0, 0, 0]],
    ["abridged", [0x7f, 0xff, 0xff, 0xff]],
    ["intermediate", [0, 0, 0, 0]],
    ["padded", [0xff, 0xff, 0xff, 0x7f]],
  ] as const)("is broken by the lengths that break it on the way up: %s %p", (transport, header) => {
    const boundaries = new PacketBoundaries(transport, "down");
    endsOf(boundaries, [Uint8Array.from(header)]);
    expect(boundaries.broken).toBe(true);
  });

  test("knows no tokens on the way up, where the top bit asks for one", () => {
    const up = new PacketBoundaries("intermediate");
    const bytes = Uint8Array.of(4, 0, 0, 0x80, 1, 2, 3, 4);
    expect(endsOf(up, [bytes])).toEqual([8]);
    const down = new PacketBoundaries("intermediate", "down");
    expect(endsOf(down, [bytes.subarray(0, 4)])).toEqual([4]);
  });
});

describe("PacketBoundaries, on the way up", () => {
  test("finds the same ends however the stream is cut", () => {
    for (const transport of ["abridged", "intermediate", "padded"] as const) {
      const units = CASES.filter((one) => one.transport === transport && one.payload < 10_000).map(
        ({ header, payload }) => packet(header, payload),
      );
      const stream = Buffer.concat(units);
      const whole = endsOf(new PacketBoundaries(transport), [stream]);
      expect(whole).toHaveLength(units.length);
      fc.assert(
        fc.property(fc.array(fc.integer({ min: 1, max: 300 })), (lengths) => {
          expect(endsOf(new PacketBoundaries(transport, "up"), cut(stream, lengths))).toEqual(whole);
        }),
      );
    }
  });
});
