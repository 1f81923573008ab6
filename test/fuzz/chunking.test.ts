import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ByteReader } from "../../src/channel/byte-reader.ts";
import { Splice } from "../../src/channel/splice.ts";
import { CipherTransform, joinLinks, type Link } from "../../src/channel/transform.ts";
import { createAesCtr } from "../../src/crypto/aes-ctr.ts";
import { openClientInit, sealServerInit } from "../../src/crypto/obfuscated2-ciphers.ts";
import { PacketBoundaries } from "../../src/protocol/mtproto/packet-boundaries.ts";
import { PacketFramer, Scratch } from "../../src/upstream/packet-framer.ts";
import { memoryChannelPair, plainLink, RecordingSink, toOutput } from "../support/memory-channel.ts";
import { makeInit, openInit } from "../support/obfuscated2.ts";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";

const SEED = 20_252;
const transports = fc.constantFrom(...TRANSPORTS);
const never = new AbortController().signal;
const SECRET = new Uint8Array(16).fill(0x5e);

/** Lengths of payloads: mostly small, some around the limits of headers and buffers, few large. */
const payloadWords = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 40 }) },
  { weight: 3, arbitrary: fc.constantFrom(0x7d, 0x7e, 0x7f, 0x80, 1_022, 1_023, 1_024, 1_025, 2_048) },
  { weight: 1, arbitrary: fc.integer({ min: 2_000, max: 20_000 }) },
);

interface PacketPlan {
  readonly words: number;
  readonly extra: number;
  readonly quickAck: boolean;
  readonly fill: number;
}

const packetPlan: fc.Arbitrary<PacketPlan> = fc.record({
  words: payloadWords,
  extra: fc.integer({ min: 0, max: 15 }),
  quickAck: fc.boolean(),
  fill: fc.integer({ min: 0, max: 255 }),
});

/** Bytes that tell places apart, up to `maxLength` of them. */
const anyBytes = (maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc
    .tuple(fc.integer({ min: 0, max: maxLength }), fc.integer({ min: 0, max: 255 }))
    .map(([length, seed]) => Uint8Array.from({ length }, (_, at) => (at ^ (at >> 8) ^ seed) & 0xff));

/** Sizes of chunks, used again from the start when they are used up. */
const chunkSizes = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20, size: "max" }),
  fc.array(fc.integer({ min: 1, max: 20_000 }), { minLength: 1, maxLength: 20, size: "max" }),
  fc.array(fc.constantFrom(1, 4_095, 4_096, 4_097, 8_191, 8_192, 65_536), { minLength: 1, maxLength: 8 }),
);

function makePacket(
  transport: (typeof TRANSPORTS)[number],
  { words, extra, quickAck, fill }: PacketPlan,
): Uint8Array {
  const length = words * 4 + (transport === "padded" ? extra : 0);
  const payload = Uint8Array.from({ length }, (_, at) => (at * 7 + fill) & 0xff);
  return encodePacket(transport, payload, { quickAck });
}

/** Cuts `bytes` into copies, since whoever gets a chunk may detach it. */
function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let at = 0;
  while (at < bytes.length) {
    const size = sizes[chunks.length % sizes.length] ?? bytes.length;
    chunks.push(bytes.slice(at, at + size));
    at += size;
  }
  return chunks;
}

function isBroken(transport: (typeof TRANSPORTS)[number], stream: Uint8Array): boolean {
  const boundaries = new PacketBoundaries(transport);
  for (let at = 0; at < stream.length; ) at = boundaries.advance(stream, at);
  return boundaries.broken;
}

const hashes = (messages: readonly Uint8Array[]): string[] =>
  messages.map((message) => `${message.length} ${Bun.hash(message).toString(16)}`);

describe("PacketFramer", () => {
  const iv = new Uint8Array(16);
  const cipher = (): ReturnType<typeof createAesCtr> => createAesCtr(new Uint8Array(32), iv);

  test("writes the same messages for any chunking of any packets", () => {
    fc.assert(
      fc.property(
        transports,
        fc.array(packetPlan, { minLength: 1, maxLength: 12, size: "max" }),
        chunkSizes,
        (transport, plans, sizes) => {
          const packets = plans.map((plan) => makePacket(transport, plan));
          const framer = new PacketFramer(cipher(), transport, new Scratch());
          const decipher = cipher();
          const messages: Uint8Array[] = [];
          for (const chunk of cut(concat(...packets), sizes)) {
            framer.push(
              chunk,
              toOutput((message) => messages.push(decipher.update(message))),
            );
          }
          expect(hashes(messages)).toEqual(hashes(packets));
        },
      ),
      { seed: SEED, numRuns: 400 },
    );
  });

  test("loses, adds and reorders no byte of any stream, broken ones included", () => {
    fc.assert(
      fc.property(
        transports,
        fc.array(packetPlan, { maxLength: 3 }),
        fc.uint8Array({ maxLength: 400, size: "max" }),
        chunkSizes,
        (transport, plans, garbage, sizes) => {
          const stream = concat(...plans.map((plan) => makePacket(transport, plan)), garbage);
          const framer = new PacketFramer(cipher(), transport, new Scratch());
          const decipher = cipher();
          const messages: Uint8Array[] = [];
          for (const chunk of cut(stream, sizes)) {
            framer.push(
              chunk,
              toOutput((message) => messages.push(decipher.update(message))),
            );
          }
          const out = concat(...messages);
          // What is missing at the end is a packet that is not whole; what is there is right.
          expect(Buffer.compare(out, stream.subarray(0, out.length))).toBe(0);
          if (isBroken(transport, stream)) expect(out.length).toBe(stream.length);
        },
      ),
      { seed: SEED, numRuns: 400 },
    );
  });
});

/** Client, proxy and Telegram on one connection: the proxy's own link, and the other two's streams. */
function makeStreams(transport: (typeof TRANSPORTS)[number]): {
  link: Link;
  client: ReturnType<typeof makeInit>;
  telegram: ReturnType<typeof openInit>;
} {
  const client = makeInit({ transport, dcId: 2 }, SECRET);
  const opened = openClientInit(client.bytes, SECRET);
  const sealed = sealServerInit({ transport, dcId: 2 });
  const link = joinLinks(
    { up: new CipherTransform(opened.outbound), down: new CipherTransform(opened.inbound) },
    {
      up: new PacketFramer(sealed.outbound, transport, new Scratch()),
      down: new CipherTransform(sealed.inbound),
    },
  );
  return { link, client, telegram: openInit(sealed.bytes, undefined) };
}

describe("joinLinks()", () => {
  test("carries any packets up, one a message, and any bytes down, under any chunking", () => {
    fc.assert(
      fc.property(
        transports,
        fc.array(packetPlan, { minLength: 1, maxLength: 8 }),
        anyBytes(30_000),
        chunkSizes,
        chunkSizes,
        (transport, plans, down, upSizes, downSizes) => {
          const { link, client, telegram } = makeStreams(transport);
          const packets = plans.map((plan) => makePacket(transport, plan));
          const messages: Uint8Array[] = [];
          for (const chunk of cut(client.up.update(concat(...packets)), upSizes)) {
            link.up.push(
              chunk,
              toOutput((message) => messages.push(telegram.up.update(message))),
            );
          }
          expect(hashes(messages)).toEqual(hashes(packets));
          const received: Uint8Array[] = [];
          for (const chunk of cut(telegram.down.update(down), downSizes)) {
            link.down.push(
              chunk,
              toOutput((bytes) => received.push(client.down.update(bytes))),
            );
          }
          expect(hashes([concat(...received)])).toEqual(hashes([down]));
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });
});

describe("ByteReader", () => {
  test("gives the same bytes for any chunking and any sizes of reads", async () => {
    await fc.assert(
      fc.asyncProperty(
        anyBytes(600),
        fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 20, size: "max" }),
        fc.array(fc.integer({ min: 0, max: 100 }), { maxLength: 12, size: "max" }),
        async (bytes, sizes, reads) => {
          const [peer, channel] = memoryChannelPair(1024 * 1024);
          const reader = new ByteReader(channel);
          for (const chunk of cut(bytes, sizes)) peer.write(chunk);
          peer.end();
          const taken: Uint8Array[] = [];
          let left = bytes.length;
          for (const length of reads) {
            if (length > left) {
              await expect(reader.read(length, never)).rejects.toMatchObject({ code: "CLOSED" });
              break;
            }
            const part = await reader.read(length, never);
            expect(part.length).toBe(length);
            taken.push(part.slice());
            left -= length;
          }
          taken.push((await reader.read(left, never)).slice());
          expect(concat(...taken)).toEqual(bytes);
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });
});

describe("Splice", () => {
  test("delivers every byte both ways with any chunks, any high water and pauses at any time", async () => {
    await fc.assert(
      fc.asyncProperty(
        anyBytes(20_000),
        anyBytes(20_000),
        fc.array(fc.integer({ min: 1, max: 3_000 }), { minLength: 1, maxLength: 10, size: "max" }),
        fc.integer({ min: 1, max: 8_000 }),
        fc.array(fc.constantFrom("app", "telegram", "none"), { maxLength: 20, size: "max" }),
        async (up, down, sizes, highWater, pauses) => {
          const [app, client] = memoryChannelPair(highWater);
          const [telegram, upstream] = memoryChannelPair(highWater);
          const [appHears, telegramHears] = [new RecordingSink(), new RecordingSink()];
          app.attach(appHears);
          telegram.attach(telegramHears);
          const counts = { up: 0, down: 0 };
          const splice = new Splice({ client, upstream, link: plainLink, counts });
          for (const chunk of cut(up, sizes)) app.write(chunk);
          for (const chunk of cut(down, sizes)) telegram.write(chunk);
          for (const side of pauses) {
            app.resume();
            telegram.resume();
            if (side === "app") app.pause();
            if (side === "telegram") telegram.pause();
            await new Promise((resolve) => setImmediate(resolve));
          }
          app.resume();
          telegram.resume();
          app.end();
          telegram.end();
          await splice.ended;
          await appHears.until((sink) => sink.heard("close"));
          await telegramHears.until((sink) => sink.heard("close"));
          expect(hashes([telegramHears.bytes, appHears.bytes])).toEqual(hashes([up, down]));
          expect(counts).toEqual({ up: up.length, down: down.length });
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });
});
