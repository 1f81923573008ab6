import { heapStats } from "bun:jsc";
import { describe, expect, test } from "bun:test";
import type { StreamCipher } from "../../src/channel/transform.ts";
import { createAesCtr } from "../../src/crypto/aes-ctr.ts";
import { PacketFramer, Scratch } from "../../src/upstream/packet-framer.ts";
import { toOutput } from "../support/memory-channel.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";

const KEY = new Uint8Array(32).fill(3);
const IV = new Uint8Array(16).fill(5);
const newCipher = (): StreamCipher => createAesCtr(KEY, IV);

/** Payload bytes that tell packets and places apart, and look like lengths now and then. */
const payload = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + seed * 17) & 0xff);

/** Pushes the chunks and decrypts what is written, message by message; messages are only borrowed. */
function frame(transport: (typeof TRANSPORTS)[number], chunks: readonly Uint8Array[]): Uint8Array[] {
  const framer = new PacketFramer(newCipher(), transport, new Scratch());
  const decipher = newCipher();
  const messages: Uint8Array[] = [];
  const output = toOutput((message) => messages.push(decipher.update(message)));
  for (const chunk of chunks) framer.push(chunk, output);
  return messages;
}

function cut(bytes: Uint8Array, size: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
  return chunks;
}

const hex = (messages: readonly Uint8Array[]): string[] => messages.map((message) => message.toHex());

describe("PacketFramer", () => {
  for (const transport of TRANSPORTS) {
    const packets = [
      encodePacket(transport, payload(4, 1)),
      encodePacket(transport, payload(40, 2), { quickAck: true }),
      encodePacket(transport, payload(4_096 + 4, 3)),
      encodePacket(transport, payload(8, 4)),
      encodePacket(transport, payload(30_000, 5), { quickAck: true }),
      encodePacket(transport, payload(508, 6)),
    ];
    const stream = concat(...packets);

    test.each([1, 2, 3, 5, 64, 1_000, 4_095, 4_096, 4_097, 8_192, 20_000, stream.length])(
      `writes one message per ${transport} packet for chunks of %d bytes`,
      (size) => {
        expect(hex(frame(transport, cut(stream, size)))).toEqual(hex(packets));
      },
    );
  }

  test("writes padded packets whose length is no multiple of four", () => {
    const packets = [1, 2, 3, 41, 43].map((length) => encodePacket("padded", payload(length, length)));
    expect(hex(frame("padded", cut(concat(...packets), 7)))).toEqual(hex(packets));
  });

  test("writes nothing before a packet is whole", () => {
    const packet = encodePacket("intermediate", payload(100, 1));
    expect(frame("intermediate", [packet.subarray(0, -1)])).toEqual([]);
    expect(frame("intermediate", [packet.subarray(0, 3)])).toEqual([]);
  });

  test("puts large and small pieces of one packet together in order", () => {
    const packet = encodePacket("abridged", payload(60_000, 9));
    const sizes = [1, 3, 5_000, 1, 4_096, 4_095, 4_095, 10, 9_000, 2, 2, 20_000];
    const chunks: Uint8Array[] = [];
    let at = 0;
    for (const size of sizes) {
      chunks.push(packet.subarray(at, at + size));
      at += size;
    }
    chunks.push(packet.subarray(at));
    expect(hex(frame("abridged", chunks))).toEqual([packet.toHex()]);
  });

  test("ends a packet, writes whole ones and begins another within one chunk", () => {
    const packets = [9_000, 12, 16, 20_000].map((length) =>
      encodePacket("intermediate", payload(length, length)),
    );
    const stream = concat(...packets);
    const chunks = [stream.subarray(0, 8_999), stream.subarray(8_999, 12_000), stream.subarray(12_000)];
    expect(hex(frame("intermediate", chunks))).toEqual(hex(packets));
  });

  test("puts packets together that are longer than the common scratch", () => {
    const packets = [
      encodePacket("intermediate", payload(2 * 1024 * 1024, 1)),
      encodePacket("intermediate", payload(8, 2)),
    ];
    const messages = frame("intermediate", cut(concat(...packets), 100_000));
    expect(
      messages.map((message, at) => Buffer.compare(message, packets[at] ?? new Uint8Array(0)) === 0),
    ).toEqual([true, true]);
  });

  test("shares one scratch between streams", () => {
    const scratch = new Scratch();
    const framers = [0, 1].map(
      () => new PacketFramer({ update: (bytes) => bytes.slice() }, "abridged", scratch),
    );
    const packets = [0, 1].map((seed) => encodePacket("abridged", payload(400, seed)));
    const messages: string[] = [];
    const output = toOutput((message) => messages.push(message.toHex()));
    for (const part of [0, 1]) {
      for (const [at, framer] of framers.entries()) {
        const packet = packets[at] ?? new Uint8Array(0);
        framer.push(part === 0 ? packet.subarray(0, 100) : packet.subarray(100), output);
      }
    }
    expect(messages).toEqual(hex(packets));
  });

  test("leaves the chunk to its owner", () => {
    const chunk = encodePacket("intermediate", payload(50_000, 1));
    const before = chunk.slice();
    frame("intermediate", [chunk]);
    expect(chunk).toEqual(before);
  });
});

describe("PacketFramer on a broken stream", () => {
  const first = encodePacket("intermediate", payload(8, 1));

  test.each([
    ["zero", Uint8Array.of(0, 0, 0, 0)],
    ["absurd", Uint8Array.of(0xff, 0xff, 0xff, 0x7f)],
  ])("passes everything from a length that is %s on, unsplit and byte-exact", (_, header) => {
    const tail = concat(header, first, first);
    const more = concat(first, first);
    expect(hex(frame("intermediate", [concat(first, tail), more]))).toEqual([
      first.toHex(),
      tail.toHex(),
      more.toHex(),
    ]);
  });

  test.each([1, 2, 3, 4, 7])("loses no byte when it breaks in chunks of %d", (size) => {
    for (const transport of TRANSPORTS) {
      const good = encodePacket(transport, payload(500, 3));
      const bad = transport === "abridged" ? Uint8Array.of(0x7f, 0, 0, 0) : Uint8Array.of(0, 0, 0, 0);
      const stream = concat(good, bad, payload(100, 4));
      const messages = frame(transport, cut(stream, size));
      expect(messages[0]?.toHex()).toBe(good.toHex());
      expect(concat(...messages).toHex()).toBe(stream.toHex());
    }
  });

  test("passes a broken stream on at once, instead of waiting for a length", () => {
    expect(frame("abridged", [Uint8Array.of(0x00)])).toHaveLength(1);
    expect(frame("abridged", [Uint8Array.of(0x00), Uint8Array.of(0x7f)])).toHaveLength(2);
  });
});

describe("PacketFramer, a packet of 1 MiB byte by byte", () => {
  test("needs memory for its bytes, not an object for each", () => {
    const packet = encodePacket("intermediate", payload(1024 * 1024, 1));
    const copies: StreamCipher = { update: (bytes) => bytes.slice() };
    const framer = new PacketFramer(copies, "intermediate", new Scratch());
    const messages: boolean[] = [];
    const output = toOutput((message) => messages.push(Buffer.compare(message, packet) === 0));
    Bun.gc(true);
    const before = heapStats();
    for (let at = 0; at < packet.length - 1; at += 1) framer.push(packet.subarray(at, at + 1), output);
    Bun.gc(true);
    const after = heapStats();
    const arrays = (stats: typeof before): number => stats.objectTypeCounts["Uint8Array"] ?? 0;
    expect(arrays(after) - arrays(before)).toBeLessThan(1_000);
    expect(after.heapSize + after.extraMemorySize - before.heapSize - before.extraMemorySize).toBeLessThan(
      4 * 1024 * 1024,
    );

    framer.push(packet.subarray(-1), output);
    expect(messages).toEqual([true]);
  });
});
