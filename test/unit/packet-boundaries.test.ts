import { describe, expect, test } from "bun:test";
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
