import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import type { GatherChannel } from "../../src/channel/channel.ts";
import { type Listener, listenTcp } from "../../src/net/tcp-listen.ts";
import { RecordingSink, settle } from "../support/memory-channel.ts";
import { eventually } from "./frame-server.ts";

const HIGH_WATER = 256 * 1024;
let listener: Listener;
const accepted: { channel: GatherChannel; sink: RecordingSink }[] = [];

beforeAll(() => {
  listener = listenTcp({ host: "127.0.0.1", port: 0, highWater: HIGH_WATER }, ({ channel }) => {
    const sink = new RecordingSink();
    channel.attach(sink);
    accepted.push({ channel, sink });
  });
});
afterAll(() => listener.stop());

/** A plain TCP client and the channel at the other end of it. */
interface Pair {
  readonly channel: GatherChannel;
  readonly sink: RecordingSink;
  readonly client: Socket;
  readonly received: Uint8Array[];
  readonly clientSaw: { ended: boolean; closed: boolean; error: Error | undefined };
}

async function openPair(): Promise<Pair> {
  const number = accepted.length;
  const client = connect({ host: "127.0.0.1", port: listener.port, noDelay: true, allowHalfOpen: true });
  const received: Uint8Array[] = [];
  const clientSaw: Pair["clientSaw"] = { ended: false, closed: false, error: undefined };
  client.on("data", (chunk: Uint8Array) => received.push(chunk));
  client.on("end", () => {
    clientSaw.ended = true;
  });
  client.on("close", () => {
    clientSaw.closed = true;
  });
  client.on("error", (error) => {
    clientSaw.error = error;
  });
  await eventually(() => accepted.length > number);
  const pair = accepted[number];
  if (pair === undefined) throw new Error("unreachable");
  return { ...pair, client, received, clientSaw };
}

const lengthOf = (chunks: readonly Uint8Array[]): number =>
  chunks.reduce((sum, { length }) => sum + length, 0);
const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

/** Writes numbered blocks until the channel is congested; returns their number. */
function fill(channel: GatherChannel): number {
  let sent = 0;
  while (!channel.congested) {
    channel.write(filled(64 * 1024, sent & 0xff));
    sent += 1;
  }
  return sent;
}

/** Whether `chunks` are the first `count` blocks of {@link fill}, byte for byte. */
function areBlocks(chunks: readonly Uint8Array[], count: number): boolean {
  const bytes = Buffer.concat(chunks);
  if (bytes.length !== count * 64 * 1024) return false;
  for (let block = 0; block < count; block += 1) {
    const part = bytes.subarray(block * 64 * 1024, (block + 1) * 64 * 1024);
    if (!part.every((byte) => byte === (block & 0xff))) return false;
  }
  return true;
}

describe("TcpChannel.write()", () => {
  test("sends bytes, and gives what comes as chunks", async () => {
    const { channel, sink, client, received } = await openPair();
    channel.write(Buffer.from("to the client"));
    client.write("to the server");
    await sink.until(({ length }) => length === 13);
    await eventually(() => lengthOf(received) === 13);
    expect(Buffer.concat(received).toString()).toBe("to the client");
    expect(Buffer.from(sink.bytes).toString()).toBe("to the server");
    client.destroy();
  });

  test("queues what the kernel does not take, and sends it in order when it does", async () => {
    const { channel, client, received } = await openPair();
    client.pause();
    const sent = fill(channel) + 3;
    for (let more = sent - 3; more < sent; more += 1) channel.write(filled(64 * 1024, more & 0xff));
    client.resume();
    await eventually(() => lengthOf(received) >= sent * 64 * 1024);
    expect(areBlocks(received, sent)).toBe(true);
    client.destroy();
  });

  test("sends one large block in as many parts as the kernel takes", async () => {
    const { channel, client, received } = await openPair();
    client.pause();
    const blocks = 256;
    channel.write(Buffer.concat(Array.from({ length: blocks }, (_, block) => filled(64 * 1024, block))));
    client.resume();
    await eventually(() => lengthOf(received) >= blocks * 64 * 1024);
    expect(areBlocks(received, blocks)).toBe(true);
    client.destroy();
  });

  test.each([
    ["Uint8Array", new Uint8Array(64 * 1024)],
    ["Buffer", Buffer.alloc(64 * 1024)],
  ])("only borrows the bytes of a %s that it queues", async (_, scratch) => {
    const { channel, client, received } = await openPair();
    client.pause();
    let sent = 0;
    while (!channel.congested) {
      channel.write(scratch.fill(sent & 0xff));
      sent += 1;
    }
    scratch.fill(0xee);
    client.resume();
    await eventually(() => lengthOf(received) >= sent * 64 * 1024);
    expect(areBlocks(received, sent)).toBe(true);
    client.destroy();
  });

  test("does nothing on a channel that has ended or is closed", async () => {
    const { channel, sink, client, received, clientSaw } = await openPair();
    channel.end();
    channel.write(filled(10, 1));
    await eventually(() => clientSaw.ended);
    expect(received).toEqual([]);
    client.end();
    await sink.until((heard) => heard.heard("close"));
    channel.write(filled(10, 1));
    channel.end();
    channel.destroy();
    await settle();
    expect(sink.calls.at(-1)).toBe("close");
    expect(sink.calls).not.toContain("chunk");
  });
});

describe("TcpChannel.writeAll()", () => {
  test("sends the parts in their order", async () => {
    const { channel, client, received } = await openPair();
    channel.write(Buffer.from("a"));
    channel.writeAll([Buffer.from("bc"), new Uint8Array(0), Buffer.from("def"), Buffer.from("g")]);
    channel.write(Buffer.from("h"));
    await eventually(() => lengthOf(received) === 8);
    expect(Buffer.concat(received).toString()).toBe("abcdefgh");
    client.destroy();
  });

  test("sends nothing for no parts, and for empty ones", async () => {
    const { channel, client, received } = await openPair();
    channel.writeAll([]);
    channel.writeAll([new Uint8Array(0)]);
    channel.writeAll([new Uint8Array(0), new Uint8Array(0)]);
    channel.write(Uint8Array.of(7));
    await eventually(() => lengthOf(received) > 0);
    expect(Buffer.concat(received)).toEqual(Buffer.of(7));
    client.destroy();
  });

  test("sends more parts than the operating system takes at once", async () => {
    const { channel, client, received } = await openPair();
    const parts = Array.from({ length: 5_000 }, (_, at) => filled(1 + (at % 3), at & 0xff));
    channel.writeAll(parts);
    await eventually(() => lengthOf(received) === lengthOf(parts));
    expect(Buffer.compare(Buffer.concat(received), Buffer.concat(parts))).toBe(0);
    client.destroy();
  });

  test("sends parts of many MiB in as many steps as the kernel takes", async () => {
    const { channel, client, received } = await openPair();
    client.pause();
    channel.writeAll(Array.from({ length: 256 }, (_, block) => filled(64 * 1024, block)));
    expect(channel.queuedBytes).toBeGreaterThan(0);
    expect(channel.congested).toBe(true);
    client.resume();
    await eventually(() => lengthOf(received) >= 256 * 64 * 1024);
    expect(areBlocks(received, 256)).toBe(true);
    expect(channel.queuedBytes).toBe(0);
    client.destroy();
  });

  test("keeps its place among other writes while the kernel has no room", async () => {
    const { channel, client, sink, received } = await openPair();
    client.pause();
    const sent = fill(channel);
    channel.writeAll([filled(1_000, sent), filled(64 * 1024 - 1_000, sent)]);
    channel.write(filled(64 * 1024, sent + 1));
    channel.writeAll([filled(64 * 1024, sent + 2), filled(0, 0), filled(64 * 1024, sent + 3)]);
    client.resume();
    await sink.until((heard) => heard.heard("drain"));
    channel.writeAll([filled(30_000, sent + 4), filled(64 * 1024 - 30_000, sent + 4)]);
    const blocks = sent + 5;
    await eventually(() => lengthOf(received) >= blocks * 64 * 1024);
    expect(areBlocks(received, blocks)).toBe(true);
    expect(sink.calls).toEqual(["drain"]);
    client.destroy();
  });

  test("does not overtake a queue when the kernel has room again", async () => {
    const { channel, client, received } = await openPair();
    client.pause();
    let sent = fill(channel);
    const overtaking = sent + 100;
    // The peer has just read, so that there is room; the channel has not been told yet.
    client.on("data", () => {
      if (sent === overtaking || channel.queuedBytes === 0) return;
      channel.writeAll([filled(1_000, sent), filled(64 * 1024 - 1_000, sent)]);
      sent += 1;
    });
    client.resume();
    await eventually(() => lengthOf(received) === sent * 64 * 1024);
    expect(areBlocks(received, sent)).toBe(true);
    client.destroy();
  });

  test.each([
    ["Uint8Array", new Uint8Array(64 * 1024)],
    ["Buffer", Buffer.alloc(64 * 1024)],
  ])("only borrows the parts, of a %s, and the list", async (_, scratch) => {
    const { channel, client, received } = await openPair();
    client.pause();
    const parts = [scratch.subarray(0, 5), scratch.subarray(5)];
    let sent = 0;
    while (!channel.congested) {
      scratch.fill(sent & 0xff);
      channel.writeAll(parts);
      sent += 1;
    }
    scratch.fill(0xee);
    parts.length = 0;
    client.resume();
    await eventually(() => lengthOf(received) >= sent * 64 * 1024);
    expect(areBlocks(received, sent)).toBe(true);
    client.destroy();
  });

  test("does nothing on a channel that has ended or is closed", async () => {
    const { channel, sink, client, received, clientSaw } = await openPair();
    channel.end();
    channel.writeAll([filled(10, 1), filled(10, 2)]);
    await eventually(() => clientSaw.ended);
    client.end();
    await sink.until((heard) => heard.heard("close"));
    channel.writeAll([filled(10, 1), filled(10, 2)]);
    await settle();
    expect(received).toEqual([]);
    expect(channel.queuedBytes).toBe(0);
    expect(sink.calls.at(-1)).toBe("close");
  });

  test("survives a peer that is gone, and whose leaving is not known yet", async () => {
    const { channel, sink, client } = await openPair();
    client.resetAndDestroy();
    for (let write = 0; write < 3; write += 1) channel.writeAll([filled(100, 1), filled(100, 2)]);
    await sink.until((heard) => heard.heard("close"));
    await settle();
    expect(sink.calls.filter((call) => call === "close")).toHaveLength(1);
    expect(channel.queuedBytes).toBe(0);
  });
});

describe("TcpChannel.reset()", () => {
  test("breaks the connection, so that the peer sees no end", async () => {
    const { channel, client, sink, clientSaw } = await openPair();
    channel.reset();
    expect(sink.calls).toEqual([]);
    await eventually(() => clientSaw.closed);
    expect(clientSaw.error).toMatchObject({ code: "ECONNRESET" });
    expect(clientSaw.ended).toBe(false);
    await sink.until((heard) => heard.heard("close"));
    await settle();
    expect(sink.calls).toEqual(["close"]);
    expect(sink.error).toBeUndefined();
    client.destroy();
  });

  test("sends its queue first, and nothing that is written after it", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.pause();
    const sent = fill(channel);
    channel.reset();
    channel.reset();
    channel.write(filled(10, 1));
    channel.writeAll([filled(10, 1)]);
    channel.end();
    channel.close();
    await settle();
    expect(channel.queuedBytes).toBeGreaterThan(0);
    expect(sink.calls).toEqual([]);
    client.resume();
    await eventually(() => clientSaw.closed);
    expect(clientSaw.error).toMatchObject({ code: "ECONNRESET" });
    expect(clientSaw.ended).toBe(false);
    // What the kernel had taken last may be lost with the reset: that is what a reset does.
    expect(lengthOf(received)).toBeLessThanOrEqual(sent * 64 * 1024);
    const whole = Math.floor(lengthOf(received) / (64 * 1024));
    expect(areBlocks([Buffer.concat(received).subarray(0, whole * 64 * 1024)], whole)).toBe(true);
    expect(sink.calls).toEqual(["close"]);
  });

  test("breaks a connection whose own half has ended, or is about to", async () => {
    for (const queued of [0, 16 * 1024 * 1024]) {
      const { channel, client, sink, clientSaw } = await openPair();
      client.pause();
      channel.write(filled(queued, 1));
      channel.end();
      channel.reset();
      client.resume();
      await eventually(() => clientSaw.closed || clientSaw.error !== undefined);
      expect(clientSaw.error).toBeInstanceOf(Error);
      await sink.until((heard) => heard.heard("close"));
      client.destroy();
    }
  });

  test("does not wait for its queue any more when the channel is dropped", async () => {
    const { channel, client, sink, clientSaw } = await openPair();
    client.pause();
    fill(channel);
    channel.reset();
    channel.destroy();
    expect(sink.calls).toEqual([]);
    await sink.until((heard) => heard.heard("close"));
    client.resume();
    await eventually(() => clientSaw.closed);
    expect(clientSaw.error).toMatchObject({ code: "ECONNRESET" });
    channel.reset();
    await settle();
    expect(sink.calls).toEqual(["close"]);
  });
});

describe("TcpChannel.congested", () => {
  test("is false while the peer reads", async () => {
    const { channel, client, sink } = await openPair();
    for (let sent = 0; sent < 50; sent += 1) channel.write(filled(1_000, 1));
    expect(channel.congested).toBe(false);
    await settle();
    expect(sink.calls).toEqual([]);
    client.destroy();
  });

  test("is followed by onDrain, once for each time", async () => {
    const { channel, client, sink } = await openPair();
    for (let round = 0; round < 2; round += 1) {
      client.pause();
      let before: number;
      do {
        fill(channel);
        before = sink.calls.length;
        await settle(50);
      } while (sink.calls.length > before); // the kernel has found room for more
      client.resume();
      await sink.until(({ calls }) => calls.length > before);
      expect(channel.congested).toBe(false);
      await settle(50);
      expect(sink.calls).toHaveLength(before + 1);
    }
    expect(new Set(sink.calls)).toEqual(new Set(["drain"]));
    client.destroy();
  });
});

describe("TcpChannel.pause()", () => {
  test("stops the source until resume, and loses nothing", async () => {
    const { channel, client, sink } = await openPair();
    channel.pause();
    for (let sent = 0; sent < 400; sent += 1) client.write(filled(64 * 1024, sent & 0xff));
    await settle(200);
    expect(sink.length).toBeLessThan(4 * 1024 * 1024);
    expect(client.writableLength).toBeGreaterThan(0);
    channel.resume();
    await sink.until(({ length }) => length === 400 * 64 * 1024);
    expect(areBlocks(sink.chunks, 400)).toBe(true);
    client.destroy();
  });
});

describe("TcpChannel.end()", () => {
  test("sends the queue first, then a FIN, and goes on reading", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.pause();
    const sent = fill(channel);
    channel.end();
    await settle(20);
    client.write(filled(5, 1));
    await sink.until(({ length }) => length === 5);
    expect(clientSaw.ended).toBe(false);
    client.resume();
    await eventually(() => clientSaw.ended);
    expect(areBlocks(received, sent)).toBe(true);
    client.write(filled(6, 2));
    await sink.until(({ length }) => length === 11);
    client.end();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
    expect(sink.calls.at(-1)).toBe("close");
  });

  test("lets the channel go on writing after the peer's FIN", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.end(filled(3, 1));
    await sink.until((heard) => heard.heard("end"));
    expect(sink.length).toBe(3);
    channel.write(filled(300_000, 9));
    channel.end();
    await eventually(() => clientSaw.ended);
    expect(lengthOf(received)).toBe(300_000);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
    expect(sink.calls.filter((call) => call === "end")).toHaveLength(1);
  });
});

describe("TcpChannel.close()", () => {
  test("sends the queue first, then a FIN, and is closed when the peer has ended too", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.pause();
    const sent = fill(channel);
    channel.close();
    channel.close();
    channel.write(filled(10, 1));
    client.resume();
    await eventually(() => clientSaw.ended);
    expect(areBlocks(received, sent)).toBe(true);
    expect(clientSaw.error).toBeUndefined();
    client.end();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
  });

  test("does not reset a peer that is still sending: that could cost it what was sent last", async () => {
    const { channel, client, received, clientSaw } = await openPair();
    channel.write(filled(1_000, 7));
    channel.close();
    for (let sent = 0; sent < 20; sent += 1) client.write(filled(64 * 1024, 1));
    await eventually(() => clientSaw.ended);
    expect(lengthOf(received)).toBe(1_000);
    client.end();
    await eventually(() => clientSaw.closed);
    expect(clientSaw.error).toBeUndefined();
  });
});

describe("TcpChannel, closing", () => {
  test("reports a reset once, with its error", async () => {
    const { client, sink, channel } = await openPair();
    client.write("hello");
    await sink.until(({ length }) => length === 5);
    client.resetAndDestroy();
    await sink.until((heard) => heard.heard("close"));
    await settle(50);
    expect(sink.calls).toEqual(["chunk", "close"]);
    expect(sink.error).toMatchObject({ code: "ECONNRESET" });
    channel.write(filled(10, 1));
    channel.destroy();
  });

  test.each(["write", "writeAll"] as const)(
    "reports a reset as one when it is %s that finds it",
    async (how) => {
      const { client, sink, channel } = await openPair();
      client.resetAndDestroy();
      if (how === "write") channel.write(filled(10, 1));
      else channel.writeAll([filled(10, 1), filled(10, 2)]);
      await sink.until((heard) => heard.heard("close"));
      expect(sink.calls).toEqual(["close"]);
      expect(sink.error).toBeInstanceOf(Error);
    },
  );

  test("gives what a peer sent before it broke the connection", async () => {
    const { client, sink } = await openPair();
    client.write(filled(100_000, 3));
    await sink.until(({ length }) => length > 0);
    client.resetAndDestroy();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.length).toBe(100_000);
    expect(sink.error).toMatchObject({ code: "ECONNRESET" });
  });

  test("reports a reset that comes while the channel is paused or has a queue", async () => {
    const { client, sink, channel } = await openPair();
    client.pause();
    fill(channel);
    channel.pause();
    client.resetAndDestroy();
    channel.resume();
    await sink.until((heard) => heard.heard("close"));
    await settle(50);
    expect(sink.calls.filter((call) => call === "close")).toHaveLength(1);
  });

  test("drops the connection and its queue on destroy, and says so once", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.pause();
    const sent = fill(channel);
    channel.destroy();
    channel.destroy();
    await sink.until((heard) => heard.heard("close"));
    client.resume();
    await eventually(() => clientSaw.closed || clientSaw.ended || clientSaw.error !== undefined);
    expect(lengthOf(received)).toBeLessThan(sent * 64 * 1024);
    await settle();
    expect(sink.calls).toEqual(["close"]);
    expect(channel.congested).toBe(false);
    client.destroy();
  });

  test("leaves to the kernel what it has taken, when it is dropped after its end", async () => {
    const { channel, client, sink, received, clientSaw } = await openPair();
    client.pause();
    const bytes = filled(64 * 1024, 7);
    channel.write(bytes);
    expect(channel.queuedBytes).toBe(0);
    channel.end();
    channel.destroy();
    await sink.until((heard) => heard.heard("close"));
    client.resume();
    await eventually(() => clientSaw.ended || clientSaw.error !== undefined);
    expect(clientSaw.error).toBeUndefined();
    expect(lengthOf(received)).toBe(bytes.length);
    client.destroy();
  });

  test("does not call the sink from inside destroy", async () => {
    const { channel, sink, client } = await openPair();
    channel.destroy();
    client.destroy();
    expect(sink.calls).toEqual([]);
  });

  test("tells a later sink on the next turn that the peer has ended, and that it is closed", async () => {
    const { channel, client, sink } = await openPair();
    client.end();
    await sink.until((heard) => heard.heard("end"));
    const later = new RecordingSink();
    channel.attach(later);
    expect(later.calls).toEqual([]);
    await later.until((heard) => heard.heard("end"));
    channel.end();
    await later.until((heard) => heard.heard("close"));
    const last = new RecordingSink();
    channel.attach(last);
    expect(last.calls).toEqual([]);
    await last.until((heard) => heard.heard("close"));
    expect(last.calls).toEqual(["end", "close"]);
    expect(sink.calls).toEqual(["end"]);
  });
});
