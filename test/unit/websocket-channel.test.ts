import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from "bun:test";
import { release } from "../../src/core/bytes.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import { WebSocketChannel } from "../../src/net/websocket-channel.ts";
import { RecordingSink, settle } from "../support/memory-channel.ts";
import { concat } from "../support/packets.ts";
import { encodeFrame, OPCODE } from "../support/websocket-frames.ts";
import { eventually, type FrameConnection, FrameServer } from "./frame-server.ts";

const HIGH_WATER = 256 * 1024;
let server: FrameServer;

beforeAll(async () => {
  server = await FrameServer.start();
});
afterEach(() => {
  jest.useRealTimers();
  server.greeting = new Uint8Array(0);
});
afterAll(() => server[Symbol.dispose]());

async function openChannel(): Promise<{
  channel: WebSocketChannel;
  connection: FrameConnection;
  socket: WebSocket;
}> {
  const { socket, connection } = await server.open();
  return { channel: new WebSocketChannel(socket, new DrainPoller(), HIGH_WATER), connection, socket };
}

async function openAttached(): Promise<{
  channel: WebSocketChannel;
  connection: FrameConnection;
  sink: RecordingSink;
}> {
  const { channel, connection } = await openChannel();
  const sink = new RecordingSink();
  channel.attach(sink);
  return { channel, connection, sink };
}

/** Writes until the channel is congested; returns the number of messages. */
function fill(channel: WebSocketChannel): number {
  let sent = 0;
  while (!channel.congested) {
    channel.write(filled(64 * 1024, 1));
    sent += 1;
  }
  return sent;
}

const filled = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

describe("WebSocketChannel.write()", () => {
  test("sends one binary message per call, of any size", async () => {
    const { channel, connection } = await openAttached();
    const sizes = [1, 125, 126, 65_535, 65_536, 200_000];
    for (const size of sizes) channel.write(filled(size, size & 0xff));
    await eventually(() => connection.messages.length === sizes.length);
    expect(connection.messages.map(({ length }) => length)).toEqual(sizes);
    expect(
      connection.messages.every((message, at) => message.every((byte) => byte === ((sizes[at] ?? 0) & 0xff))),
    ).toBe(true);
    expect(connection.frames.every(({ fin }) => fin)).toBe(true);
  });

  test("only borrows the bytes, also when the kernel does not take them at once", async () => {
    const { channel, connection } = await openAttached();
    connection.stopReading();
    const scratch = new Uint8Array(64 * 1024);
    for (let sent = 0; sent < 100; sent += 1) channel.write(scratch.fill(sent));
    scratch.fill(0xff);
    expect(channel.congested).toBe(true);
    connection.startReading();
    await eventually(() => connection.messages.length === 100);
    for (const [at, message] of connection.messages.entries())
      expect(message.every((byte) => byte === at)).toBe(true);
  });

  test("sends nothing after end or when closed", async () => {
    const { channel, connection, sink } = await openAttached();
    channel.end();
    channel.write(filled(10, 1));
    channel.ping();
    channel.close();
    await sink.until(({ calls }) => calls.includes("close"));
    channel.write(filled(10, 1));
    channel.end();
    channel.close();
    channel.ping();
    channel.destroy();
    expect(connection.frames.map(({ opcode }) => opcode)).toEqual([OPCODE.close]);
    await settle();
    expect(sink.calls).toEqual(["close"]);
  });
});

describe("WebSocketChannel.congested", () => {
  test("is false while the peer reads", async () => {
    const { channel, connection, sink } = await openAttached();
    for (let sent = 0; sent < 20; sent += 1) channel.write(filled(1_000, 1));
    expect(channel.congested).toBe(false);
    await eventually(() => connection.messages.length === 20);
    expect(sink.calls).toEqual([]);
  });

  test("becomes true when the peer does not, and onDrain follows once when it reads again", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.stopReading();
    const sent = fill(channel);
    await settle(50);
    expect(sink.calls).toEqual([]);
    connection.startReading();
    await sink.until((heard) => heard.heard("drain"));
    expect(channel.congested).toBe(false);
    await eventually(() => connection.messages.length === sent);
    expect(sink.calls).toEqual(["drain"]);
  });

  test("announces every congestion anew", async () => {
    const { channel, connection, sink } = await openAttached();
    for (const round of [1, 2, 3]) {
      connection.stopReading();
      fill(channel);
      connection.startReading();
      await sink.until(({ calls }) => calls.length === round);
    }
    expect(sink.calls).toEqual(["drain", "drain", "drain"]);
  });

  test("announces a congestion that begins inside onDrain", async () => {
    const { channel, connection } = await openChannel();
    let drains = 0;
    channel.attach({
      onChunk() {},
      onEnd() {},
      onClose() {},
      onDrain() {
        drains += 1;
        if (drains === 1) fill(channel);
      },
    });
    connection.stopReading();
    fill(channel);
    connection.startReading();
    await eventually(() => drains === 1);
    const before = Date.now();
    await eventually(() => drains === 2 || Date.now() - before > 300);
    channel.destroy();
    expect(drains).toBe(2);
  });
});

describe("WebSocketChannel, receiving", () => {
  test("gives every message as a chunk", async () => {
    const { connection, sink } = await openAttached();
    for (const size of [1, 126, 70_000]) connection.send(filled(size, size & 0xff));
    await sink.until(({ chunks }) => chunks.length === 3);
    expect(sink.chunks.map(({ length }) => length)).toEqual([1, 126, 70_000]);
  });

  test("gives a message that came in fragments as one, pings between them or not", async () => {
    const { connection, sink } = await openAttached();
    connection.write(
      concat(
        encodeFrame(OPCODE.binary, Uint8Array.of(1, 2), { fin: false }),
        encodeFrame(OPCODE.ping, Uint8Array.of(7)),
        encodeFrame(OPCODE.continuation, Uint8Array.of(3), { fin: false }),
        encodeFrame(OPCODE.continuation, Uint8Array.of(4, 5)),
      ),
    );
    await sink.until(({ length }) => length === 5);
    expect([...sink.bytes]).toEqual([1, 2, 3, 4, 5]);
    await eventually(() => connection.count("pong") === 1);
  });

  test("ignores text", async () => {
    const { connection, sink } = await openAttached();
    connection.write(encodeFrame(OPCODE.text, Buffer.from("hello")));
    connection.send(Uint8Array.of(1));
    await sink.until(({ chunks }) => chunks.length === 1);
    expect([...sink.bytes]).toEqual([1]);
  });

  test("gives chunks that their owner may release", async () => {
    const { connection, sink } = await openAttached();
    connection.send(filled(20_000, 1));
    connection.send(filled(20_000, 2));
    await sink.until(({ chunks }) => chunks.length === 2);
    const [first, second] = sink.chunks;
    if (first !== undefined) release(first);
    expect(second?.every((byte) => byte === 2)).toBe(true);
  });

  test("stops the source while paused, and loses nothing", async () => {
    const { channel, connection, sink } = await openAttached();
    channel.pause();
    for (let sent = 0; sent < 400; sent += 1) connection.send(filled(64 * 1024, sent & 0xff));
    await settle(200);
    expect(sink.length).toBeLessThan(4 * 1024 * 1024);
    expect(connection.queued).toBeGreaterThan(0);
    channel.resume();
    await sink.until(({ length }) => length === 400 * 64 * 1024);
    expect(sink.chunks.every((chunk, at) => chunk[0] === (at & 0xff))).toBe(true);
  });
});

describe("WebSocketChannel before attach()", () => {
  test("keeps what comes, in order", async () => {
    server.greeting = encodeFrame(OPCODE.binary, Uint8Array.of(1, 2));
    const { channel, connection } = await openChannel();
    connection.send(Uint8Array.of(3));
    await settle(50);
    const sink = new RecordingSink();
    channel.attach(sink);
    expect(sink.chunks).toEqual([]);
    connection.send(Uint8Array.of(4));
    await sink.until(({ length }) => length === 4);
    expect([...sink.bytes]).toEqual([1, 2, 3, 4]);
  });

  test("pauses the source when much comes, and goes on after attach", async () => {
    const { channel, connection } = await openChannel();
    for (let sent = 0; sent < 400; sent += 1) connection.send(filled(64 * 1024, sent & 0xff));
    await settle(300);
    expect(connection.queued).toBeGreaterThan(0);
    const sink = new RecordingSink();
    channel.attach(sink);
    await sink.until(({ length }) => length === 400 * 64 * 1024);
    expect(sink.chunks.every((chunk, at) => chunk[0] === (at & 0xff))).toBe(true);
  });

  test("leaves the source paused for a sink that pauses it for the first chunk", async () => {
    const { channel, connection, socket } = await openChannel();
    connection.send(Uint8Array.of(1));
    await settle(50);
    const sink = new RecordingSink();
    channel.attach({
      onChunk: (chunk) => {
        channel.pause();
        sink.onChunk(chunk);
      },
      onEnd() {},
      onDrain() {},
      onClose() {},
    });
    await sink.until(({ chunks }) => chunks.length === 1);
    await settle();
    expect("isPaused" in socket && socket.isPaused).toBe(true);
  });

  test("tells a later sink that it is closed, on the next turn", async () => {
    const { channel, connection } = await openChannel();
    connection.send(Uint8Array.of(5));
    connection.close(1000);
    await eventually(() => !channel.open && connection.closed);
    await settle();
    const sink = new RecordingSink();
    channel.attach(sink);
    expect(sink.calls).toEqual([]);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.calls).toEqual(["chunk", "close"]);
  });

  test("gives everything to the sink that was attached last", async () => {
    const { channel, connection, sink } = await openAttached();
    const second = new RecordingSink();
    channel.attach(second);
    connection.send(Uint8Array.of(1));
    await second.until(({ length }) => length === 1);
    expect(sink.calls).toEqual([]);
  });
});

describe("WebSocketChannel.end()", () => {
  const QUIET_MS = 1_000;

  test("goes on hearing the server, and closes when it has been quiet for a second", async () => {
    const { channel, connection, sink } = await openAttached();
    jest.useFakeTimers();
    channel.end();
    for (const round of [1, 2, 3]) {
      connection.send(Uint8Array.of(round));
      await sink.until(({ length }) => length === round);
      jest.advanceTimersByTime(QUIET_MS);
    }
    jest.advanceTimersByTime(QUIET_MS - 1);
    await settle(50);
    expect(connection.count("close")).toBe(0);
    jest.advanceTimersByTime(1);
    await sink.until((heard) => heard.heard("close"));
    expect(connection.count("close")).toBe(1);
    expect([...sink.bytes]).toEqual([1, 2, 3]);
    expect(sink.error).toBeUndefined();
    expect(jest.getTimerCount()).toBe(0);
  });

  test("does not close while it is paused, since the server may have said something", async () => {
    const { channel, connection, sink } = await openAttached();
    jest.useFakeTimers();
    channel.pause();
    connection.send(Uint8Array.of(1));
    channel.end();
    jest.advanceTimersByTime(10 * QUIET_MS);
    await settle(50);
    expect(connection.count("close")).toBe(0);
    channel.resume();
    await sink.until(({ length }) => length === 1);
    jest.advanceTimersByTime(2 * QUIET_MS);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.calls).toEqual(["chunk", "close"]);
  });

  test("does not close before the server has taken what is queued", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.stopReading();
    jest.useFakeTimers();
    const sent = fill(channel);
    channel.end();
    jest.advanceTimersByTime(10 * QUIET_MS);
    await settle(50);
    connection.startReading();
    await eventually(() => connection.messages.length === sent);
    expect(connection.count("close")).toBe(0);
    jest.advanceTimersByTime(2 * QUIET_MS);
    await sink.until((heard) => heard.heard("close"));
  });

  test("looks no longer when the server closes first, or when it is destroyed", async () => {
    const [one, two] = [await openAttached(), await openAttached()];
    jest.useFakeTimers();
    one.channel.end();
    two.channel.end();
    one.connection.close(1000);
    await one.sink.until((heard) => heard.heard("close"));
    two.channel.destroy();
    await two.sink.until((heard) => heard.heard("close"));
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe("WebSocketChannel.close()", () => {
  test("cuts an end short", async () => {
    const { channel, connection, sink } = await openAttached();
    jest.useFakeTimers();
    channel.end();
    channel.close();
    await sink.until((heard) => heard.heard("close"));
    expect(connection.count("close")).toBe(1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("can be followed by destroy when the server does not answer", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.answerClose = false;
    channel.close();
    await eventually(() => connection.count("close") === 1);
    expect(sink.calls).toEqual([]);
    channel.destroy();
    await eventually(() => connection.closed && sink.heard("close"));
    expect(sink.error).toBeUndefined();
  });

  test("sends what is queued before the close frame", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.answerClose = false;
    connection.stopReading();
    for (let sent = 0; sent < 100; sent += 1) channel.write(filled(64 * 1024, sent));
    channel.close();
    connection.startReading();
    await eventually(() => connection.count("close") === 1);
    expect(connection.messages.length).toBe(100);
    connection.close(1000);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
  });

  test("cannot be used again", async () => {
    const { channel } = await openAttached();
    channel.close();
    expect(channel.open).toBe(false);
  });
});

describe("WebSocketChannel, closing", () => {
  test.each([1000, 1001])("is clean when the peer closes with %d", async (code) => {
    const { connection, sink, channel } = await openAttached();
    connection.close(code);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
    expect(channel.open).toBe(false);
  });

  test("is clean when the peer closes without a code", async () => {
    const { connection, sink } = await openAttached();
    connection.write(encodeFrame(OPCODE.close, new Uint8Array(0)));
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
  });

  test.each([1002, 1011, 3000])("is an error when the peer closes with %d", async (code) => {
    const { connection, sink } = await openAttached();
    connection.close(code);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toMatchObject({ name: "RouteError", code: "CLOSED" });
    expect(sink.error?.message).toContain(String(code));
  });

  test("is an error when the connection drops", async () => {
    const { connection, sink } = await openAttached();
    connection.destroy();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toMatchObject({ code: "CLOSED" });
    expect(sink.calls).toEqual(["close"]);
  });

  test("is clean when the connection drops after our close", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.answerClose = false;
    channel.close();
    await eventually(() => connection.count("close") === 1);
    connection.destroy();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
  });

  test("drops the connection on destroy, and says so once", async () => {
    const { channel, connection, sink } = await openAttached();
    channel.destroy();
    channel.destroy();
    await eventually(() => connection.closed && sink.heard("close"));
    await settle();
    expect(sink.calls).toEqual(["close"]);
    expect(channel.open).toBe(false);
  });

  test("does not call the sink from inside destroy", async () => {
    const { channel, sink } = await openAttached();
    channel.destroy();
    expect(sink.calls).toEqual([]);
    await sink.until((heard) => heard.heard("close"));
  });

  test("drops the connection on destroy although a queue is stuck", async () => {
    const { channel, connection, sink } = await openAttached();
    connection.stopReading();
    fill(channel);
    channel.destroy();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.heard("drain")).toBe(false);
  });
});

describe("WebSocketChannel.ping()", () => {
  test("sends a ping, and no other before its answer", async () => {
    const { channel, connection } = await openAttached();
    connection.answerPings = false;
    channel.ping();
    channel.ping();
    await eventually(() => connection.count("ping") > 0);
    await settle(50);
    expect(connection.count("ping")).toBe(1);
    connection.write(encodeFrame(OPCODE.pong, new Uint8Array(0)));
    await eventually(() => {
      channel.ping();
      return connection.count("ping") === 2;
    });
  });

  test("drops a peer that has answered before, but not within 5 seconds", async () => {
    jest.useFakeTimers();
    const { channel, connection, socket } = await openChannel();
    const sink = new RecordingSink();
    channel.attach(sink);
    let pongs = 0;
    socket.addEventListener("pong", () => {
      pongs += 1;
    });
    channel.ping();
    await eventually(() => pongs === 1);
    jest.setSystemTime(Date.now() + 60_000);
    expect(channel.open).toBe(true);

    connection.answerPings = false;
    channel.ping();
    await eventually(() => connection.count("ping") === 2);
    jest.setSystemTime(Date.now() + 5_000);
    channel.ping();
    expect(channel.pongMissing).toBe(false);
    jest.setSystemTime(Date.now() + 1);
    expect(channel.pongMissing).toBe(true);
    channel.ping();
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toMatchObject({ name: "RouteError", code: "TIMEOUT" });
    await eventually(() => connection.closed);
    await settle();
    expect(sink.calls).toEqual(["close"]);
  });

  test("is patient while it is paused, which holds every answer up", async () => {
    jest.useFakeTimers();
    const { channel, connection, socket } = await openChannel();
    const sink = new RecordingSink();
    channel.attach(sink);
    let pongs = 0;
    socket.addEventListener("pong", () => {
      pongs += 1;
    });
    channel.ping();
    await eventually(() => pongs === 1);
    channel.ping();
    channel.pause();
    for (let minutes = 0; minutes < 5; minutes += 1) {
      jest.setSystemTime(Date.now() + 60_000);
      channel.ping();
    }
    expect(channel.open).toBe(true);
    expect(sink.calls).toEqual([]);
    channel.resume();
    await settle();
    expect(connection.closed).toBe(false);
  });

  test("bears with a peer that never answers", async () => {
    jest.useFakeTimers();
    const { channel, connection } = await openAttached();
    connection.answerPings = false;
    channel.ping();
    await eventually(() => connection.count("ping") === 1);
    jest.setSystemTime(Date.now() + 3_600_000);
    channel.ping();
    expect(channel.open).toBe(true);
    await settle();
    expect(connection.closed).toBe(false);
  });
});

describe("WebSocketChannel.unanswered", () => {
  test("is true from a ping to its pong", async () => {
    const { channel, connection } = await openAttached();
    connection.answerPings = false;
    expect(channel.unanswered).toBe(false);
    expect(channel.pongSeen).toBe(false);
    channel.ping();
    expect(channel.unanswered).toBe(true);
    await eventually(() => connection.count("ping") === 1);
    await settle();
    expect(channel.unanswered).toBe(true);
    connection.write(encodeFrame(OPCODE.pong, new Uint8Array(0)));
    await eventually(() => !channel.unanswered);
    expect(channel.pongSeen).toBe(true);
  });

  test("is false while a stall on either side would hold the pong up, and no ping is sent then", async () => {
    const { channel, connection } = await openAttached();
    connection.answerPings = false;
    channel.ping();
    await eventually(() => connection.count("ping") === 1);
    channel.pause();
    channel.ping();
    expect(channel.unanswered).toBe(false);
    channel.resume();
    connection.stopReading();
    fill(channel);
    channel.ping();
    expect(channel.unanswered).toBe(false);
    connection.startReading();
    await eventually(() => channel.queuedBytes === 0);
    await settle();
    expect(connection.count("ping")).toBe(1);
  });
});

describe("WebSocketChannel.queuedBytes", () => {
  test("is what the kernel has not taken, and nothing once it is closed", async () => {
    const { channel, connection, sink } = await openAttached();
    expect(channel.queuedBytes).toBe(0);
    connection.stopReading();
    fill(channel);
    const before = channel.queuedBytes;
    expect(before).toBeGreaterThan(HIGH_WATER);
    channel.write(filled(10_000, 1));
    expect(channel.queuedBytes).toBeGreaterThanOrEqual(before + 10_000);
    channel.destroy();
    await sink.until((heard) => heard.heard("close"));
    expect(channel.queuedBytes).toBe(0);
  });
});
