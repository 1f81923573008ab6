import { afterEach, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import type { Channel, GatherChannel } from "../../src/channel/channel.ts";
import { Splice } from "../../src/channel/splice.ts";
import { type Listener, listenTcp } from "../../src/net/tcp-listen.ts";
import { FakeTlsChannel } from "../../src/proxy/fake-tls-channel.ts";
import { ThrottledChannel } from "../../src/proxy/throttled-channel.ts";
import { TokenBucket } from "../../src/proxy/token-bucket.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { memoryChannelPair, plainLink, RecordingSink, settle } from "../support/memory-channel.ts";
import { eventually } from "./frame-server.ts";

const KB = 1_024;
const listeners: Listener[] = [];
const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const listener of listeners.splice(0)) listener.stop();
});

/** Both ends of a new TCP connection. */
async function connectPair(): Promise<{ readonly socket: Socket; readonly channel: GatherChannel }> {
  const { promise, resolve } = Promise.withResolvers<GatherChannel>();
  const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater: 64 * KB }, ({ channel }) => {
    resolve(channel);
  });
  listeners.push(listener);
  const socket = connect({ host: "127.0.0.1", port: listener.port, allowHalfOpen: true });
  socket.on("error", () => {}); // looked at as `close`
  sockets.push(socket);
  return { socket, channel: await promise };
}

/** A splice whose client gets a rate, of so many bytes per second, when there is something under way. */
function setUpSplice(bytesPerSecond: number) {
  const clock = new ManualClock();
  const [app, client] = memoryChannelPair(10 * KB);
  const [telegram, upstream] = memoryChannelPair(10 * KB);
  const [appHears, telegramHears] = [new RecordingSink(), new RecordingSink()];
  app.attach(appHears);
  telegram.attach(telegramHears);
  const counts = { up: 0, down: 0 };
  const splice = new Splice({ client, upstream, link: plainLink, counts });
  const throttle = (): boolean =>
    splice.replaceClient(new ThrottledChannel(client, new TokenBucket(bytesPerSecond, clock)));
  return { clock, app, appHears, client, telegram, telegramHears, upstream, splice, throttle };
}

/** What the records of a TLS connection hold, as far as they are whole. */
function withoutRecords(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at + 5 <= bytes.length; ) {
    const end = at + 5 + bytes.readUInt16BE(at + 3);
    if (end <= bytes.length) parts.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return Buffer.concat(parts);
}

/** A source that has always more, and stops as the channel says. */
function flood(channel: Channel, chunk: Uint8Array): void {
  const pour = (): void => {
    while (!channel.congested) channel.write(chunk);
  };
  channel.attach({ onChunk: () => {}, onEnd: () => {}, onDrain: pour, onClose: () => {} });
  pour();
}

function setUp(bytesPerSecond: number) {
  const clock = new ManualClock();
  const bucket = new TokenBucket(bytesPerSecond, clock);
  const [peer, inner] = memoryChannelPair();
  const peerHears = new RecordingSink();
  peer.attach(peerHears);
  const channel = new ThrottledChannel(inner, bucket);
  const sink = new RecordingSink();
  channel.attach(sink);
  return { clock, bucket, peer, peerHears, inner, channel, sink };
}

describe("ThrottledChannel", () => {
  test("passes on what is read as fast as may be, whole and in order", async () => {
    const { clock, peer, inner, sink } = setUp(100_000);
    const sent = randomBytes(50_000);
    peer.write(sent);
    await settle();
    expect(sink.length).toBeLessThan(10_000 + 4_096);
    expect(inner.paused).toBe(true);
    for (let step = 0; step < 50; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect(Buffer.from(sink.bytes).equals(sent)).toBe(true);
    expect(inner.paused).toBe(false);
  });

  test("queues what is written too early, and says when it has gone", async () => {
    const { clock, peerHears, channel, sink } = setUp(100_000);
    const sent = randomBytes(50_000);
    channel.write(sent);
    expect(channel.congested).toBe(true);
    await settle();
    expect(channel.queuedBytes).toBeGreaterThan(30_000);
    expect(sink.heard("drain")).toBe(false);
    for (let step = 0; step < 50; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect(Buffer.from(peerHears.bytes).equals(sent)).toBe(true);
    expect(sink.calls).toEqual(["drain"]);
    expect(channel.queuedBytes).toBe(0);
  });

  test("ends after what is queued, and hears the end after what is held", async () => {
    const { clock, peer, peerHears, channel, sink } = setUp(100_000);
    peer.write(randomBytes(30_000));
    peer.end();
    channel.write(randomBytes(30_000));
    channel.end();
    channel.write(randomBytes(10));
    await settle();
    expect([peerHears.heard("end"), sink.heard("end")]).toEqual([false, false]);
    for (let step = 0; step < 80; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect([peerHears.length, sink.length]).toEqual([30_000, 30_000]);
    expect([peerHears.calls.at(-1), sink.calls.at(-1)]).toEqual(["close", "close"]);
    expect([peerHears, sink].map(({ calls }) => calls.filter((call) => call === "end").length)).toEqual([
      1, 1,
    ]);
    expect(clock.pending).toBe(0);
  });

  test("delivers what a peer had sent before it closed", async () => {
    const { clock, peer, channel, sink } = setUp(100_000);
    peer.write(randomBytes(30_000));
    await settle();
    channel.end();
    peer.end();
    await settle(50);
    for (let step = 0; step < 50; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect(sink.length).toBe(30_000);
    expect(sink.calls.at(-1)).toBe("close");
    expect(sink.calls.filter((call) => call === "close")).toHaveLength(1);
  });

  test("drops everything when it is destroyed, or the connection breaks, and waits for nothing", async () => {
    const { clock, peer, channel, sink } = setUp(100_000);
    peer.write(randomBytes(30_000));
    channel.write(randomBytes(30_000));
    await settle();
    channel.destroy();
    await settle();
    expect(sink.calls.at(-1)).toBe("close");
    expect(clock.pending).toBe(0);
    const other = setUp(100_000);
    other.peer.write(randomBytes(30_000));
    other.channel.write(randomBytes(30_000));
    await settle();
    other.peer.destroy();
    await settle();
    expect(other.sink.error).toBeInstanceOf(Error);
    expect(other.clock.pending).toBe(0);
    expect(other.channel.queuedBytes).toBe(0);
  });

  test("passes nothing on while its sink has paused it, and goes on after that", async () => {
    const { clock, peer, channel, sink } = setUp(1_000_000);
    channel.pause();
    peer.write(randomBytes(20_000));
    await settle();
    clock.pass(1_000);
    expect(sink.length).toBe(0);
    channel.resume();
    for (let step = 0; step < 20; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect(sink.length).toBe(20_000);
  });

  test("gives what it holds to the next sink", async () => {
    const { clock, peer, channel, sink } = setUp(100_000);
    peer.write(randomBytes(20_000));
    await settle();
    const next = new RecordingSink();
    channel.attach(next);
    for (let step = 0; step < 30; step += 1) {
      clock.pass(10);
      await settle(2);
    }
    expect(sink.length + next.length).toBe(20_000);
    expect(next.length).toBeGreaterThan(0);
  });
});

describe("ThrottledChannel, put around a client in mid-stream,", () => {
  const all = Array.from({ length: 120 }, (_, at) => new Uint8Array(KB).fill(at));
  const sent = Buffer.concat(all);

  test.each(["down", "up"] as const)(
    "carries on what goes %s while the other side wants nothing, at its rate",
    async (way) => {
      const { clock, app, appHears, telegram, telegramHears, throttle } = setUpSplice(100 * KB);
      const [from, to, hears] =
        way === "down" ? ([telegram, app, appHears] as const) : ([app, telegram, telegramHears] as const);
      to.pause();
      for (const chunk of all) from.write(chunk);
      await settle(300);
      expect(hears.length).toBeLessThan(20 * KB);
      expect(throttle()).toBe(true);
      to.resume();
      await settle(300);
      expect(hears.length).toBeLessThan(60 * KB); // what had passed, and what may pass at once
      for (let step = 0; step < 20; step += 1) {
        clock.pass(100);
        await settle(50);
      }
      expect(Buffer.from(hears.bytes).equals(sent)).toBe(true);
    },
  );

  test("carries on in both directions, and to the end", async () => {
    const { clock, app, appHears, telegram, telegramHears, splice, throttle } = setUpSplice(50 * KB);
    for (const chunk of all.slice(0, 5)) for (const side of [app, telegram]) side.write(chunk);
    await settle(20);
    expect(throttle()).toBe(true);
    for (const chunk of all.slice(5)) for (const side of [app, telegram]) side.write(chunk);
    app.end();
    telegram.end();
    await settle(100);
    expect(appHears.length + telegramHears.length).toBeLessThan(40 * KB);
    for (let step = 0; step < 60; step += 1) {
      clock.pass(100);
      await settle(20);
    }
    expect([appHears, telegramHears].map(({ bytes }) => Buffer.from(bytes).equals(sent))).toEqual([
      true,
      true,
    ]);
    await splice.ended;
    expect(clock.pending).toBe(0);
  });

  test.each([false, true])("carries on over TCP (in records: %j), whole and in order", async (inRecords) => {
    const [client, upstream] = await Promise.all([connectPair(), connectPair()]);
    const clock = new ManualClock();
    const channel = inRecords ? new FakeTlsChannel(client.channel, new Uint8Array(0)) : client.channel;
    const counts = { up: 0, down: 0 };
    const splice = new Splice({ client: channel, upstream: upstream.channel, link: plainLink, counts });
    const heard: Buffer[] = [];
    const received = (): Buffer => (inRecords ? withoutRecords(Buffer.concat(heard)) : Buffer.concat(heard));
    client.socket.on("data", (chunk: Buffer) => heard.push(chunk));
    const [first, second] = [randomBytes(300 * KB), randomBytes(200 * KB)];
    upstream.socket.write(first);
    await eventually(() => received().length > 0);
    expect(splice.replaceClient(new ThrottledChannel(channel, new TokenBucket(200 * KB, clock)))).toBe(true);
    upstream.socket.write(second);
    await eventually(() => {
      clock.pass(20);
      return received().length === first.length + second.length;
    });
    expect(received().equals(Buffer.concat([first, second]))).toBe(true);
    client.socket.end();
    await eventually(() => splice.closing);
    upstream.socket.end();
    await splice.ended;
  });

  test("is not taken by a splice that has begun to end", async () => {
    const { app, telegram, telegramHears, splice, throttle } = setUpSplice(KB);
    app.end();
    await telegramHears.until(({ calls }) => calls.includes("end"));
    expect(throttle()).toBe(false);
    telegram.end();
    await splice.ended;
  });
});

/** A bucket that says how many stand in line. */
class WatchedBucket extends TokenBucket {
  waiting = 0;

  override whenReady(listener: () => void): () => void {
    this.waiting += 1;
    let left = false;
    const leave = (): void => {
      if (!left) this.waiting -= 1;
      left = true;
    };
    const takeBack = super.whenReady(() => {
      leave();
      listener();
    });
    return () => {
      leave();
      takeBack();
    };
  }
}

describe("ThrottledChannel over TCP", () => {
  /** What each of `sources` has read so far, in bytes. */
  function count(sources: readonly Socket[]): number[] {
    const read = sources.map(() => 0);
    for (const [index, socket] of sources.entries()) {
      socket.on("data", (chunk: Buffer) => {
        read[index] = (read[index] ?? 0) + chunk.length;
      });
    }
    return read;
  }

  /** Three seconds on the clock, which stands still while fewer than `users` stand in line, however slow the machine. */
  async function passThreeSeconds(clock: ManualClock, bucket: WatchedBucket, users: number): Promise<void> {
    while (clock.nowMs < 3_000) {
      await eventually(() => bucket.waiting === users);
      clock.pass(10);
    }
  }

  test.each([
    ["1 MB/s", 1_000_000, false],
    ["20 MB/s", 20_000_000, false],
    ["1 MB/s through records", 1_000_000, true],
  ] as const)(
    "is true to %s within a few percent over 3 s, down and through a splice",
    async (_, rate, inRecords) => {
      const client = await connectPair();
      const upstream = await connectPair();
      const clock = new ManualClock();
      const bucket = new WatchedBucket(rate, clock);
      const wrapped = inRecords ? new FakeTlsChannel(client.channel, new Uint8Array(0)) : client.channel;
      const throttled = new ThrottledChannel(wrapped, bucket);
      const counts = { up: 0, down: 0 };
      new Splice({ client: throttled, upstream: upstream.channel, link: plainLink, counts });
      const chunk = randomBytes(256 * KB);
      const pour = (): void => {
        while (upstream.socket.write(chunk));
      };
      upstream.socket.on("drain", pour);
      pour();
      const read = count([client.socket]);
      await passThreeSeconds(clock, bucket, 1);
      await eventually(() => (read[0] ?? 0) > 3 * rate * 0.94);
      await settle();
      expect(read[0]).toBeLessThan(3 * rate * 1.06);
      expect(throttled.queuedBytes).toBeLessThan(1_024 * KB);
    },
    10_000,
  );

  test("shares a rate fairly between connections that move large and small pieces, and both directions", async () => {
    const clock = new ManualClock();
    const bucket = new WatchedBucket(2_000_000, clock);
    const readers = await Promise.all([connectPair(), connectPair(), connectPair()]);
    for (const [index, { channel }] of readers.entries()) {
      flood(new ThrottledChannel(channel, bucket), randomBytes([512 * KB, 64 * KB, 1 * KB][index] ?? 0));
    }
    const writer = await connectPair();
    const sink = new RecordingSink();
    new ThrottledChannel(writer.channel, bucket).attach(sink);
    const pour = (): void => {
      while (writer.socket.write(randomBytes(64 * KB)));
    };
    writer.socket.on("drain", pour);
    pour();
    const read = count(readers.map(({ socket }) => socket));
    await passThreeSeconds(clock, bucket, 4);
    const shares = (): number[] => [...read, sink.length].map((bytes) => bytes / 3 / 500_000);
    await eventually(() => Math.min(...shares()) > 0.75);
    await settle();
    expect(Math.max(...shares())).toBeLessThan(1.25);
  }, 10_000);

  test("ends when the client does", async () => {
    const { socket, channel } = await connectPair();
    const sink = new RecordingSink();
    new ThrottledChannel(channel, new TokenBucket(100_000)).attach(sink);
    socket.end(randomBytes(20_000));
    await eventually(() => sink.heard("end"));
    expect(sink.length).toBe(20_000);
  });
});
