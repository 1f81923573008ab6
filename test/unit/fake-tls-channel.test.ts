import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import type { GatherChannel } from "../../src/channel/channel.ts";
import { Splice } from "../../src/channel/splice.ts";
import { type Listener, listenTcp } from "../../src/net/tcp-listen.ts";
import { FakeTlsChannel } from "../../src/proxy/fake-tls-channel.ts";
import {
  MemoryChannel,
  memoryChannelPair,
  plainLink,
  RecordingSink,
  settle,
} from "../support/memory-channel.ts";
import { concat } from "../support/packets.ts";
import { eventually } from "./frame-server.ts";

const NOTHING = new Uint8Array(0);
const DATA = 0x17;
/** A change_cipher_spec record, as clients send one. */
const CHANGE = Uint8Array.of(0x14, 3, 3, 0, 1, 1);

/** Bytes that tell places apart. */
const numbered = (length: number, seed = 0): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, at) => (at * 31 + (at >> 8) + seed) & 0xff);

function record(payload: Uint8Array, type = DATA, version = 0x0303): Uint8Array {
  const { length } = payload;
  return concat(Uint8Array.of(type, version >> 8, version & 0xff, length >> 8, length & 0xff), payload);
}

/** Takes whole records of application data apart. @throws {Error} On anything else. */
function fragmentsOf(wire: Uint8Array): Uint8Array[] {
  const fragments: Uint8Array[] = [];
  for (let at = 0; at < wire.length; ) {
    const [type, major, minor, high = 0, low = 0] = wire.subarray(at, at + 5);
    const length = (high << 8) | low;
    if (type !== DATA || major !== 3 || minor !== 3 || length === 0 || at + 5 + length > wire.length) {
      throw new Error(`no record at ${at}: ${wire.subarray(at, at + 5).toHex()}`);
    }
    fragments.push(wire.subarray(at + 5, at + 5 + length));
    at += 5 + length;
  }
  return fragments;
}

const lengthsOf = (parts: readonly Uint8Array[]): number[] => parts.map(({ length }) => length);
const lengthOf = (parts: readonly Uint8Array[]): number => parts.reduce((sum, { length }) => sum + length, 0);

/** Whether two runs of bytes are the same; a difference of megabytes is of no use in a message. */
const same = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

/** A memory channel that counts the writes to it. */
class CountingChannel extends MemoryChannel {
  writes = 0;
  gathered = 0;

  override write(bytes: Uint8Array): void {
    this.writes += 1;
    super.write(bytes);
  }

  override writeAll(parts: readonly Uint8Array[]): void {
    this.gathered += 1;
    for (const part of parts) super.write(part);
  }
}

/** Fake TLS on one end of a connection in memory, and the client's bare end of it. */
interface Setup {
  readonly client: MemoryChannel;
  readonly clientHears: RecordingSink;
  readonly inner: CountingChannel;
  readonly channel: FakeTlsChannel;
  readonly sink: RecordingSink;
}

function setUp(early: Uint8Array = NOTHING, highWater = 1024 * 1024): Setup {
  const client = new MemoryChannel(highWater);
  const inner = new CountingChannel(highWater);
  MemoryChannel.join(client, inner);
  const clientHears = new RecordingSink();
  client.attach(clientHears);
  const channel = new FakeTlsChannel(inner, early);
  const sink = new RecordingSink();
  channel.attach(sink);
  return { client, clientHears, inner, channel, sink };
}

describe("FakeTlsChannel, reading", () => {
  test("gives the fragment of a record", async () => {
    const { client, sink } = setUp();
    client.write(record(numbered(64)));
    await settle();
    expect(sink.calls).toEqual(["chunk"]);
    expect(sink.bytes).toEqual(Buffer.from(numbered(64)));
  });

  test("gives the records of one chunk as one piece", async () => {
    const { client, sink } = setUp();
    client.write(concat(record(numbered(5)), record(numbered(1, 5)), record(numbered(300, 6))));
    await settle();
    expect(sink.calls).toEqual(["chunk"]);
    expect(sink.bytes).toEqual(Buffer.concat([numbered(5), numbered(1, 5), numbered(300, 6)]));
  });

  test("reads records that come byte by byte", () => {
    const { channel, sink } = setUp();
    const wire = concat(CHANGE, record(numbered(20)), record(numbered(1)), record(numbered(300)));
    for (const byte of wire) channel.onChunk(Uint8Array.of(byte));
    expect(sink.bytes).toEqual(Buffer.concat([numbered(20), numbered(1), numbered(300)]));
    expect(sink.calls).toEqual(Array.from({ length: 321 }, () => "chunk"));
  });

  test("does not mix up the headers of two channels, nor those in and out", () => {
    const [one, other] = [setUp(), setUp()];
    one.channel.onChunk(record(numbered(300)).slice(0, 4));
    other.channel.onChunk(record(numbered(7)).slice(0, 3));
    one.channel.write(numbered(2));
    one.channel.onChunk(record(numbered(300)).slice(4));
    other.channel.onChunk(record(numbered(7)).slice(3));
    expect(one.sink.bytes).toEqual(Buffer.from(numbered(300)));
    expect(other.sink.bytes).toEqual(Buffer.from(numbered(7)));
  });

  test("reads records that are cut in two anywhere", () => {
    const wire = concat(CHANGE, record(numbered(7)), record(numbered(9, 7)));
    for (let cut = 0; cut <= wire.length; cut += 1) {
      const { channel, sink } = setUp();
      channel.onChunk(wire.slice(0, cut));
      channel.onChunk(wire.slice(cut));
      expect(sink.bytes).toEqual(Buffer.concat([numbered(7), numbered(9, 7)]));
    }
  });

  test.each([1, 16_384, 16_385, 16_640])("takes a record of %i bytes", async (length) => {
    const { client, sink, clientHears } = setUp();
    client.write(record(numbered(length)));
    client.write(record(numbered(3)));
    await settle();
    expect(same(sink.bytes, concat(numbered(length), numbered(3)))).toBe(true);
    expect(clientHears.calls).toEqual([]);
  });

  test("gives what came with the hello first, but not from inside attach", async () => {
    const wire = concat(CHANGE, record(numbered(10)), record(numbered(100, 10)));
    const { client, sink } = setUp(wire.slice(0, 40));
    client.write(wire.slice(40));
    expect(sink.calls).toEqual([]);
    await settle();
    expect(sink.bytes).toEqual(Buffer.concat([numbered(10), numbered(100, 10)]));
  });

  test("gives what came with the hello to the last of two sinks, before the client's end", async () => {
    const [client, inner] = memoryChannelPair();
    client.end();
    await settle();
    const channel = new FakeTlsChannel(inner, record(numbered(10)));
    const [first, last] = [new RecordingSink(), new RecordingSink()];
    channel.attach(first);
    channel.attach(last);
    await settle();
    expect(first.calls).toEqual([]);
    expect(last.calls).toEqual(["chunk", "end"]);
  });

  test("keeps the place within a record when another sink is attached", async () => {
    const { client, channel, sink } = setUp();
    const wire = record(numbered(100));
    client.write(wire.slice(0, 60));
    await settle();
    const later = new RecordingSink();
    channel.attach(later);
    client.write(wire.slice(60));
    client.write(record(numbered(5)));
    await settle();
    expect(lengthOf(sink.chunks)).toBe(55);
    expect(concat(...sink.chunks, ...later.chunks)).toEqual(concat(numbered(100), numbered(5)));
  });

  test("tells a later sink again that the client has ended", async () => {
    const { client, channel, sink } = setUp();
    client.end();
    await settle();
    const later = new RecordingSink();
    channel.attach(later);
    expect(later.calls).toEqual([]);
    await settle();
    expect(later.calls).toEqual(["end"]);
    expect(sink.calls).toEqual(["end"]);
  });

  test("passes a reset on with its error, also to a later sink", async () => {
    const { client, channel, sink } = setUp();
    client.destroy();
    await settle();
    expect(sink.calls).toEqual(["close"]);
    expect(sink.error).toEqual(new Error("connection reset by peer"));
    const later = new RecordingSink();
    channel.attach(later);
    await settle();
    expect(later.calls).toEqual(["close"]);
    expect(later.error).toEqual(sink.error);
  });

  test("passes an end within a record on as an end", async () => {
    const { client, sink } = setUp();
    client.write(record(numbered(100)).slice(0, 50));
    client.end();
    await settle();
    expect(sink.calls).toEqual(["chunk", "end"]);
    expect(sink.length).toBe(45);
  });
});

describe("FakeTlsChannel, change_cipher_spec", () => {
  test.each([
    ["alone", [CHANGE, record(numbered(9))]],
    ["with the first record", [concat(CHANGE, record(numbered(9)))]],
    [
      "with a part of the first record",
      [concat(CHANGE, record(numbered(9)).slice(0, 3)), record(numbered(9)).slice(3)],
    ],
    ["in two halves", [CHANGE.slice(0, 5), concat(CHANGE.slice(5), record(numbered(9)))]],
  ])("may come before the first record: %s", async (_, chunks) => {
    const { client, sink, clientHears } = setUp();
    for (const chunk of chunks) client.write(chunk);
    await settle();
    expect(sink.bytes).toEqual(Buffer.from(numbered(9)));
    expect(sink.calls).toEqual(["chunk"]);
    expect(clientHears.calls).toEqual([]);
  });

  test("may come with the hello, whole or in part", async () => {
    for (let cut = 0; cut <= CHANGE.length; cut += 1) {
      const { client, sink } = setUp(CHANGE.slice(0, cut));
      client.write(concat(CHANGE.slice(cut), record(numbered(9))));
      await settle(4);
      expect(sink.bytes).toEqual(Buffer.from(numbered(9)));
    }
  });
});

/** What no client sends, after records that are fine. */
const VIOLATIONS: readonly (readonly [string, Uint8Array, number])[] = [
  ["an empty record", record(NOTHING), 0],
  ["an empty record after another", concat(record(numbered(4)), record(NOTHING)), 4],
  ["a record of 16,641 bytes", record(numbered(16_641)), 0],
  ["a record of 65,535 bytes", record(numbered(65_535)), 0],
  ["a handshake record", record(numbered(40), 0x16), 0],
  ["a heartbeat", record(numbered(3), 0x18), 0],
  ["HTTP", Buffer.from("GET / HTTP/1.1\r\n\r\n"), 0],
  ["a record of TLS 1.0", record(numbered(9), DATA, 0x0301), 0],
  ["a record of TLS 1.3 by its number", record(numbered(9), DATA, 0x0304), 0],
  ["a version with another first byte", record(numbered(9), DATA, 0x0203), 0],
  ["a second change_cipher_spec", concat(CHANGE, CHANGE), 0],
  ["a change_cipher_spec after data", concat(record(numbered(9)), CHANGE), 9],
  ["a change_cipher_spec of 2 bytes", Uint8Array.of(0x14, 3, 3, 0, 2, 1, 1), 0],
  ["a change_cipher_spec of no bytes", Uint8Array.of(0x14, 3, 3, 0, 0), 0],
  ["a change_cipher_spec that is 0", Uint8Array.of(0x14, 3, 3, 0, 1, 0), 0],
  ["a change_cipher_spec that is 2, and more", concat(Uint8Array.of(0x14, 3, 3, 0, 1, 2), numbered(50)), 0],
  ["a change_cipher_spec that is 2, and a record", concat(CHANGE.with(5, 2), record(numbered(50))), 0],
  ["a change_cipher_spec of TLS 1.0", Uint8Array.of(0x14, 3, 1, 0, 1, 1), 0],
];

/** Checks that the client has heard one alert, as TLS 1.3 encrypts one, and then the end. */
function expectAlert(clientHears: RecordingSink): void {
  const wire = clientHears.bytes;
  expect(wire.subarray(0, 5)).toEqual(Buffer.of(0x17, 3, 3, 0, 19));
  expect(wire.length).toBe(24);
  expect(clientHears.calls.filter((call) => call !== "chunk")).toEqual(["end"]);
}

describe("FakeTlsChannel, given what no client sends", () => {
  test.each(VIOLATIONS)("answers %s with an alert and its end, and closes", async (_, wire, good) => {
    const { client, clientHears, sink } = setUp();
    client.write(wire);
    client.write(record(numbered(10)));
    await settle();
    expectAlert(clientHears);
    expect(sink.calls).toEqual(good > 0 ? ["chunk", "close"] : ["close"]);
    expect(sink.length).toBe(good);
    expect(sink.error).toMatchObject({ name: "HandshakeError", code: "BAD_RECORD" });
    expect(sink.error?.message).toStartWith("Cannot read record: ");
  });

  test.each(VIOLATIONS)("answers %s the same way when it comes byte by byte", (_, wire, good) => {
    const { channel, sink } = setUp();
    for (const byte of wire) channel.onChunk(Uint8Array.of(byte));
    expect(sink.length).toBe(good);
    expect(sink.calls.filter((call) => call !== "chunk")).toEqual(["close"]);
    expect(sink.error).toMatchObject({ code: "BAD_RECORD" });
  });

  test("ends without a word when the client sends an alert in the clear, as one that gives up", async () => {
    const { client, clientHears, sink } = setUp();
    client.write(Uint8Array.of(0x15, 3, 3, 0, 2, 2, 40));
    await settle();
    expect(clientHears.calls).toEqual(["end"]);
    expect(sink.calls).toEqual(["close"]);
    expect(sink.error).toMatchObject({ code: "BAD_RECORD" });
  });

  test("does not wait for more than the header", async () => {
    const { client, clientHears } = setUp();
    client.write(Uint8Array.of(0x17, 3, 3, 0x41));
    await settle();
    expect(clientHears.calls).toEqual([]);
    client.write(Uint8Array.of(0x01));
    await settle();
    expectAlert(clientHears);
  });

  test("gives and sends nothing afterwards, and says nothing more", async () => {
    const { client, clientHears, channel, sink } = setUp();
    client.write(concat(record(numbered(4)), record(NOTHING), record(numbered(5))));
    await settle();
    client.write(record(numbered(6)));
    channel.write(numbered(10));
    channel.write(numbered(10_000));
    await settle();
    client.end();
    await settle();
    expect(sink.calls).toEqual(["chunk", "close"]);
    expect(sink.length).toBe(4);
    expect(clientHears.length).toBe(24);
    channel.end();
    channel.close();
    channel.destroy();
    await settle();
    expect(sink.calls).toEqual(["chunk", "close"]);
  });

  test("takes back nothing of what was sent before", async () => {
    const { client, clientHears, channel } = setUp();
    channel.write(numbered(100));
    channel.write(numbered(10_000));
    client.write(record(NOTHING));
    await settle(60);
    expect(concat(...fragmentsOf(clientHears.bytes)).subarray(0, 10_100)).toEqual(
      concat(numbered(100), numbered(10_000)),
    );
    expect(clientHears.calls.at(-1)).toBe("end");
  });

  test("makes up another alert for every connection", async () => {
    const alerts = new Set<string>();
    for (let connection = 0; connection < 5; connection += 1) {
      const { client, clientHears } = setUp();
      client.write(record(NOTHING));
      await settle(5);
      alerts.add(clientHears.bytes.subarray(5).toHex());
    }
    expect(alerts.size).toBe(5);
  });

  test("notices it in what came with the hello, but not from inside attach", async () => {
    const { clientHears, sink } = setUp(concat(record(numbered(3)), CHANGE));
    expect(sink.calls).toEqual([]);
    await settle();
    expect(sink.calls).toEqual(["chunk", "close"]);
    expectAlert(clientHears);
  });

  test("tells a later sink that it is closed, and why", async () => {
    const { client, channel } = setUp();
    client.write(concat(record(numbered(64)), record(NOTHING)));
    await settle();
    const later = new RecordingSink();
    channel.attach(later);
    expect(later.calls).toEqual([]);
    await settle();
    expect(later.calls).toEqual(["close"]);
    expect(later.error).toMatchObject({ code: "BAD_RECORD" });
  });

  test("ends a splice, and closes the other side", async () => {
    const { client, channel } = setUp();
    const [telegram, upstream] = memoryChannelPair();
    const telegramHears = new RecordingSink();
    telegram.attach(telegramHears);
    const splice = new Splice({ client: channel, upstream, link: plainLink, counts: { up: 0, down: 0 } });
    client.write(concat(record(numbered(64)), record(NOTHING)));
    expect(await splice.ended).toMatchObject({ endedBy: "client", error: { code: "BAD_RECORD" } });
    expect(telegramHears.bytes).toEqual(Buffer.from(numbered(64)));
  });
});

describe("FakeTlsChannel.refuse()", () => {
  test("answers as a server that cannot decrypt: an alert, and its end", async () => {
    const { channel, clientHears } = setUp();
    channel.refuse();
    channel.write(numbered(10));
    await settle();
    expectAlert(clientHears);
  });
});

describe("FakeTlsChannel, owner of chunks", () => {
  test("passes on the buffer that it was given", () => {
    const { channel, sink } = setUp();
    const chunk = concat(record(numbered(16_000)), record(numbered(9_000)), record(numbered(7)));
    const { buffer } = chunk;
    channel.onChunk(chunk);
    expect(sink.chunks.map((part) => part.buffer === buffer)).toEqual([true]);
    expect(same(sink.bytes, concat(numbered(16_000), numbered(9_000), numbered(7)))).toBe(true);
  });

  test("gives back the memory of what it passes on to nobody", async () => {
    const { channel, client } = setUp();
    const bad = new Uint8Array(10_000);
    channel.onChunk(bad);
    expect(bad.length).toBe(0);
    const afterwards = record(numbered(10_000));
    channel.onChunk(afterwards);
    expect(afterwards.length).toBe(0);
    client.destroy();
  });

  test("works on a view of a larger buffer", () => {
    const { channel, sink } = setUp();
    const wire = concat(numbered(50), CHANGE, record(numbered(30)), record(numbered(40)), numbered(50));
    channel.onChunk(wire.subarray(50, -50));
    expect(sink.bytes).toEqual(Buffer.concat([numbered(30), numbered(40)]));
    expect(wire.subarray(0, 50)).toEqual(numbered(50));
    expect(wire.subarray(-50)).toEqual(numbered(50));
  });
});

describe("FakeTlsChannel.write()", () => {
  test("makes one record of a small write, in one write", async () => {
    const { channel, clientHears, inner } = setUp();
    channel.write(numbered(100));
    channel.write(numbered(1));
    await settle();
    expect(clientHears.chunks.map((chunk) => fragmentsOf(chunk))).toEqual([[numbered(100)], [numbered(1)]]);
    expect([inner.writes, inner.gathered]).toEqual([2, 0]);
  });

  test("makes records of growing sizes until they have 16 KiB, in one gathered write", async () => {
    const { channel, clientHears, inner } = setUp();
    channel.write(numbered(150_000));
    await settle(60);
    const fragments = fragmentsOf(clientHears.bytes);
    const growing = Array.from({ length: 11 }, (_, at) => (at + 1) * 1_369);
    const left = 150_000 - growing.reduce((sum, length) => sum + length, 0) - 3 * 16_384;
    expect(lengthsOf(fragments)).toEqual([...growing, 16_384, 16_384, 16_384, left]);
    expect(same(concat(...fragments), numbered(150_000))).toBe(true);
    expect([inner.writes, inner.gathered]).toEqual([0, 1]);
  });

  test("grows with small records, too", async () => {
    const { channel, clientHears } = setUp();
    channel.write(numbered(10));
    channel.write(numbered(3_000));
    channel.write(numbered(4_000));
    await settle();
    expect(lengthsOf(fragmentsOf(clientHears.bytes))).toEqual([10, 2_738, 262, 4_000]);
  });

  test.each([1_368, 1_369, 1_370, 4_095, 4_096, 4_097, 16_383, 16_384, 16_385, 65_536])(
    "loses nothing of %i bytes, early or late",
    async (length) => {
      const { channel, clientHears } = setUp();
      const writes = 20;
      for (let write = 0; write < writes; write += 1) channel.write(numbered(length, write));
      await settle(400);
      const fragments = fragmentsOf(clientHears.bytes);
      const sent = concat(...Array.from({ length: writes }, (_, write) => numbered(length, write)));
      expect(same(concat(...fragments), sent)).toBe(true);
      expect(Math.max(...lengthsOf(fragments))).toBeLessThanOrEqual(16_384);
    },
  );

  test("makes whole records of 16 KiB of every slice of a splice, once they have grown", async () => {
    const { channel, clientHears, inner } = setUp();
    channel.write(numbered(256 * 1024));
    await settle(80);
    const before = clientHears.length;
    channel.write(numbered(64 * 1024));
    await settle(80);
    const fragments = fragmentsOf(clientHears.bytes.subarray(before));
    expect(lengthsOf(fragments)).toEqual([16_384, 16_384, 16_384, 16_384]);
    expect(inner.gathered).toBe(2);
  });

  test("makes no record of nothing", async () => {
    const { channel, clientHears } = setUp();
    channel.write(NOTHING);
    await settle();
    expect(clientHears.calls).toEqual([]);
  });

  test("leaves the bytes as they are", () => {
    const { channel } = setUp();
    const [small, large] = [numbered(100), numbered(100_000)];
    channel.write(small);
    channel.write(large);
    expect(same(small, numbered(100))).toBe(true);
    expect(same(large, numbered(100_000))).toBe(true);
  });

  test("does not mix up the bytes of two channels", async () => {
    const [one, other] = [setUp(), setUp()];
    one.channel.write(numbered(50, 1));
    other.channel.write(numbered(60, 2));
    one.channel.write(numbered(70, 3));
    await settle();
    expect(fragmentsOf(one.clientHears.bytes)).toEqual([numbered(50, 1), numbered(70, 3)].map(toBuffer));
    expect(fragmentsOf(other.clientHears.bytes)).toEqual([toBuffer(numbered(60, 2))]);
  });
});

const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes);

describe("FakeTlsChannel, a channel like the one inside", () => {
  test("is congested while that one is, and says when it is not any more", async () => {
    const { client, clientHears, channel, sink, inner } = setUp(NOTHING, 1_000);
    client.pause();
    channel.write(numbered(500));
    expect(channel.congested).toBe(false);
    channel.write(numbered(500));
    expect(channel.congested).toBe(true);
    expect(channel.queuedBytes).toBe(1_010);
    expect(channel.queuedBytes).toBe(inner.queuedBytes);
    client.resume();
    await sink.until((heard) => heard.heard("drain"));
    expect(sink.calls).toEqual(["drain"]);
    await clientHears.until(({ length }) => length === 1_010);
  });

  test("pauses and resumes the source", async () => {
    const { client, channel, sink, inner } = setUp();
    channel.pause();
    client.write(record(numbered(10)));
    await settle();
    expect(sink.calls).toEqual([]);
    expect(inner.paused).toBe(true);
    channel.resume();
    await sink.until(({ length }) => length === 10);
  });

  test("ends for writing alone", async () => {
    const { client, clientHears, channel, sink } = setUp();
    channel.write(numbered(10));
    channel.end();
    channel.write(numbered(10));
    await clientHears.until((heard) => heard.heard("end"));
    expect(clientHears.length).toBe(15);
    client.write(record(numbered(20)));
    await sink.until(({ length }) => length === 20);
    client.end();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.calls).toEqual(["chunk", "end", "close"]);
    expect(sink.error).toBeUndefined();
  });

  test("closes, and is dropped", async () => {
    const closed = setUp();
    closed.channel.close();
    expect(closed.sink.calls).toEqual([]);
    await closed.sink.until((heard) => heard.heard("close"));
    expect(closed.clientHears.error).toBeUndefined();
    const dropped = setUp();
    dropped.channel.destroy();
    expect(dropped.sink.calls).toEqual([]);
    await dropped.sink.until((heard) => heard.heard("close"));
    await dropped.clientHears.until((heard) => heard.heard("close"));
    expect(dropped.clientHears.error).toBeInstanceOf(Error);
    const reset = setUp();
    reset.channel.reset();
    await reset.clientHears.until((heard) => heard.heard("close"));
    expect(reset.clientHears.error).toBeInstanceOf(Error);
  });

  test("asks for a sign of life as that one does", () => {
    const { channel, inner } = setUp();
    channel.ping();
    expect(inner.pings).toBe(1);
    expect([channel.answersPings, channel.unanswered]).toEqual([true, false]);
    inner.answersPings = false;
    inner.unanswered = true;
    expect([channel.answersPings, channel.unanswered]).toEqual([false, true]);
  });
});

describe("FakeTlsChannel over TCP", () => {
  let listener: Listener;
  const accepted: GatherChannel[] = [];

  beforeAll(() => {
    listener = listenTcp({ host: "127.0.0.1", port: 0, highWater: 256 * 1024 }, ({ channel }) => {
      channel.attach(new RecordingSink());
      accepted.push(channel);
    });
  });
  afterAll(() => listener.stop());

  async function openPair(): Promise<{ client: Socket; channel: FakeTlsChannel; sink: RecordingSink }> {
    const number = accepted.length;
    const client = connect({ host: "127.0.0.1", port: listener.port, allowHalfOpen: true });
    await eventually(() => accepted.length > number);
    const inner = accepted[number];
    if (inner === undefined) throw new Error("unreachable");
    const channel = new FakeTlsChannel(inner, NOTHING);
    const sink = new RecordingSink();
    channel.attach(sink);
    return { client, channel, sink };
  }

  /** Writes of all kinds of sizes, from one record to many. */
  const SIZES = [1, 16, 1_369, 4_096, 4_097, 16_384, 65_536, 262_144, 524_288];

  test("carries many MiB to a slow reader, through congestion", async () => {
    const { client, channel, sink } = await openPair();
    const received: Uint8Array[] = [];
    let ended = false;
    client.on("end", () => {
      ended = true;
    });
    client.on("data", (chunk: Uint8Array) => {
      received.push(chunk);
      if (received.length % 8 !== 0) return;
      client.pause();
      setImmediate(() => client.resume());
    });
    const expected = new Bun.SHA1();
    const block = numbered(524_288);
    let drains = 0;
    let total = 0;
    for (let write = 0; total < 24 * 1024 * 1024; write += 1) {
      const bytes = block.subarray(0, SIZES[write % SIZES.length]);
      bytes[0] = write & 0xff;
      expected.update(bytes);
      total += bytes.length;
      channel.write(bytes);
      bytes[bytes.length - 1] = write & 0xff; // only borrowed for the call
      if (!channel.congested) continue;
      drains += 1;
      await sink.until(({ calls }) => calls.length === drains);
    }
    channel.end();
    await eventually(() => ended);
    const actual = new Bun.SHA1();
    const fragments = fragmentsOf(Buffer.concat(received));
    for (const fragment of fragments) actual.update(fragment);
    expect(lengthOf(fragments)).toBe(total);
    expect(actual.digest("hex")).toBe(expected.digest("hex"));
    expect(drains).toBeGreaterThan(0);
    expect(new Set(sink.calls)).toEqual(new Set(["drain"]));
    client.destroy();
  });

  test("carries many MiB from a client to a slow sink", async () => {
    const { client, channel, sink } = await openPair();
    const parts: Uint8Array[] = [CHANGE];
    const payload = numbered(16 * 1024 * 1024);
    for (let at = 0, count = 0; at < payload.length; count += 1) {
      const length = [1, 64, 2_878, 16_384, 16_640][count % 5] ?? 1;
      parts.push(record(payload.subarray(at, at + length)));
      at += length;
    }
    client.end(Buffer.concat(parts));
    for (let turn = 0; !sink.heard("end"); turn += 1) {
      if (turn % 8 === 0) channel.pause();
      await settle(1);
      channel.resume();
      await settle(1);
    }
    expect(same(sink.bytes, payload)).toBe(true);
    client.destroy();
  });

  test("sends the alert before its end, also to a client that has much to say", async () => {
    const { client, sink } = await openPair();
    const received: Uint8Array[] = [];
    const saw = { ended: false, error: undefined as Error | undefined };
    client.on("data", (chunk: Uint8Array) => received.push(chunk));
    client.on("end", () => {
      saw.ended = true;
    });
    client.on("error", (error) => {
      saw.error = error;
    });
    client.write(record(numbered(64)));
    client.write(new Uint8Array(2 * 1024 * 1024));
    await eventually(() => saw.ended);
    expect(saw.error).toBeUndefined();
    expect(lengthOf(received)).toBe(24);
    expect(Buffer.concat(received).subarray(0, 5)).toEqual(Buffer.of(0x17, 3, 3, 0, 19));
    expect(sink.bytes).toEqual(Buffer.from(numbered(64)));
    expect(sink.error).toMatchObject({ code: "BAD_RECORD" });
    client.destroy();
  });

  test("delivers what it has queued before a reset", async () => {
    const { client, channel, sink } = await openPair();
    const received: Uint8Array[] = [];
    let error: Error | undefined;
    client.on("data", (chunk: Uint8Array) => received.push(chunk));
    client.on("error", (what) => {
      error = what;
    });
    channel.write(numbered(100_000));
    channel.reset();
    await sink.until((heard) => heard.heard("close"));
    await eventually(() => error !== undefined);
    expect(error).toMatchObject({ code: "ECONNRESET" });
    expect(same(concat(...fragmentsOf(Buffer.concat(received))), numbered(100_000))).toBe(true);
  });
});
