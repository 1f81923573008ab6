import { describe, expect, test } from "bun:test";
import { Splice, type SpliceParts } from "../../src/channel/splice.ts";
import type { Transform } from "../../src/channel/transform.ts";
import {
  type MemoryChannel,
  memoryChannelPair,
  plainLink,
  RecordingSink,
  settle,
  unchanged,
} from "../support/memory-channel.ts";

const shift = (by: number): Transform => ({
  push: (chunk, output) => output.write(chunk.map((byte) => byte + by)),
});
const HIGH_WATER = 10_000;

/** A splice between two connections in memory, with somebody at the far end of each. */
interface Setup {
  readonly splice: Splice;
  readonly counts: { up: number; down: number };
  readonly app: MemoryChannel;
  readonly appHears: RecordingSink;
  readonly clientSide: MemoryChannel;
  readonly telegram: MemoryChannel;
  readonly telegramHears: RecordingSink;
  readonly upstreamSide: MemoryChannel;
}

function setUp(parts: Partial<Pick<SpliceParts, "link" | "passResets">> = {}): Setup {
  const [app, clientSide] = memoryChannelPair(HIGH_WATER);
  const [telegram, upstreamSide] = memoryChannelPair(HIGH_WATER);
  const appHears = new RecordingSink();
  const telegramHears = new RecordingSink();
  app.attach(appHears);
  telegram.attach(telegramHears);
  const counts = { up: 0, down: 0 };
  const splice = new Splice({
    client: clientSide,
    upstream: upstreamSide,
    link: plainLink,
    counts,
    ...parts,
  });
  return { splice, counts, app, appHears, clientSide, telegram, telegramHears, upstreamSide };
}

describe("Splice", () => {
  test("carries bytes both ways, in order, each through its transform", async () => {
    const { app, appHears, telegram, telegramHears } = setUp({ link: { up: shift(1), down: shift(100) } });
    for (let sent = 0; sent < 50; sent += 1) {
      app.write(Uint8Array.of(sent, sent));
      telegram.write(Uint8Array.of(sent));
    }
    await telegramHears.until(({ length }) => length === 100);
    await appHears.until(({ length }) => length === 50);
    expect([...telegramHears.bytes]).toEqual(Array.from({ length: 100 }, (_, at) => (at >> 1) + 1));
    expect([...appHears.bytes]).toEqual(Array.from({ length: 50 }, (_, at) => at + 100));
  });

  test("counts bytes as they arrive, before any transform", async () => {
    const double: Transform = {
      push(chunk, output) {
        output.write(chunk);
        output.write(chunk);
      },
    };
    const { app, appHears, telegram, telegramHears, counts } = setUp({ link: { up: double, down: double } });
    app.write(new Uint8Array(300));
    telegram.write(new Uint8Array(5_000));
    await telegramHears.until(({ length }) => length === 600);
    await appHears.until(({ length }) => length === 10_000);
    expect(counts).toEqual({ up: 300, down: 5_000 });
  });

  test("gives back the memory of a chunk when it has been passed on", async () => {
    const chunks: Uint8Array[] = [];
    const keep: Transform = {
      push(chunk, output) {
        chunks.push(chunk);
        output.write(chunk);
      },
    };
    const { app, telegramHears } = setUp({ link: { up: keep, down: unchanged } });
    app.write(new Uint8Array(9_000).fill(7));
    await telegramHears.until(({ length }) => length === 9_000);
    expect(telegramHears.bytes.every((byte) => byte === 7)).toBe(true);
    expect(chunks.map(({ length }) => length)).toEqual([0]);
  });
});

describe("Splice under congestion", () => {
  test("pauses the client while the upstream is congested, and bounds what is queued", async () => {
    const { app, clientSide, telegram, telegramHears, upstreamSide } = setUp();
    telegram.pause();
    for (let sent = 0; sent < 100; sent += 1) app.write(new Uint8Array(1_000).fill(sent));
    await settle(300);
    expect(clientSide.paused).toBe(true);
    expect(upstreamSide.undelivered).toBe(HIGH_WATER);
    expect(app.undelivered).toBe(90_000);

    telegram.resume();
    await telegramHears.until(({ length }) => length === 100_000);
    expect(clientSide.paused).toBe(false);
    const firsts = telegramHears.chunks.map(([first]) => first);
    expect(firsts).toEqual(Array.from({ length: 100 }, (_, at) => at));
  });

  test("pauses the upstream while the client is congested, and bounds what is queued", async () => {
    const { app, appHears, clientSide, telegram, upstreamSide } = setUp();
    app.pause();
    for (let sent = 0; sent < 100; sent += 1) telegram.write(new Uint8Array(1_000));
    await settle(300);
    expect(upstreamSide.paused).toBe(true);
    expect(clientSide.undelivered).toBe(HIGH_WATER);
    app.resume();
    await appHears.until(({ length }) => length === 100_000);
    expect(upstreamSide.paused).toBe(false);
  });

  test("keeps the other direction flowing", async () => {
    const { app, appHears, telegram, upstreamSide } = setUp();
    telegram.pause();
    for (let sent = 0; sent < 100; sent += 1) app.write(new Uint8Array(1_000));
    await settle(300);
    telegram.write(Uint8Array.of(1, 2, 3));
    await appHears.until(({ length }) => length === 3);
    expect(upstreamSide.paused).toBe(false);
  });

  test("goes on reading a client that somebody has paused before", async () => {
    const [app, clientSide] = memoryChannelPair(1024 * 1024);
    const [telegram, upstreamSide] = memoryChannelPair(1024 * 1024);
    const telegramHears = new RecordingSink();
    telegram.attach(telegramHears);
    clientSide.pause();
    for (let sent = 0; sent < 100; sent += 1) app.write(new Uint8Array(1024).fill(sent));
    await settle(200);
    new Splice({
      client: clientSide,
      upstream: upstreamSide,
      link: plainLink,
      counts: { up: 0, down: 0 },
    });
    await settle(400);
    expect(telegramHears.length).toBe(100 * 1024);
  });
});

describe("Splice, at the end", () => {
  test("passes a half-close of the client on, and keeps the way down open", async () => {
    const { splice, app, appHears, telegram, telegramHears } = setUp();
    app.write(Uint8Array.of(1));
    app.end();
    await telegramHears.until((sink) => sink.heard("end"));
    expect([...telegramHears.bytes]).toEqual([1]);
    expect(splice.closing).toBe(true);
    telegram.write(Uint8Array.of(2, 3));
    await appHears.until(({ length }) => length === 2);
    telegram.end();
    expect(await splice.ended).not.toHaveProperty("error");
    expect(appHears.calls.at(-1)).toBe("close");
    expect(telegramHears.calls.at(-1)).toBe("close");
  });

  test("passes a half-close of the upstream on, and keeps the way up open", async () => {
    const { splice, app, appHears, telegram, telegramHears } = setUp();
    telegram.end();
    await appHears.until((sink) => sink.heard("end"));
    expect(splice.closing).toBe(true);
    app.write(Uint8Array.of(9));
    await telegramHears.until(({ length }) => length === 1);
    app.end();
    expect(await splice.ended).not.toHaveProperty("error");
  });

  test("says that the client closed first when it was the first to end", async () => {
    const { splice, app, telegram, telegramHears } = setUp();
    app.end();
    await telegramHears.until((sink) => sink.heard("end"));
    telegram.end();
    expect(await splice.ended).toEqual({ endedBy: "client" });
  });

  test("says that the upstream closed first when it was the first to end", async () => {
    const { splice, app, appHears, telegram } = setUp();
    telegram.end();
    await appHears.until((sink) => sink.heard("end"));
    app.end();
    expect(await splice.ended).toEqual({ endedBy: "upstream" });
  });

  test("is not closing while both sides are open", async () => {
    const { splice, app } = setUp();
    app.write(Uint8Array.of(1));
    await settle();
    expect(splice.closing).toBe(false);
  });

  test("delivers what the client sent before it ended, through congestion", async () => {
    const { app, telegram, telegramHears } = setUp();
    telegram.pause();
    for (let sent = 0; sent < 50; sent += 1) app.write(new Uint8Array(1_000));
    app.end();
    await settle(200);
    telegram.resume();
    await telegramHears.until((sink) => sink.heard("end"));
    expect(telegramHears.length).toBe(50_000);
  });

  test("delivers what was sent before the upstream's connection dropped, then closes the client", async () => {
    const { splice, app, appHears, telegram, upstreamSide } = setUp();
    app.pause();
    for (let sent = 0; sent < 8; sent += 1) telegram.write(new Uint8Array(1_000));
    await settle(100);
    telegram.destroy();
    await settle();
    expect(upstreamSide.closed).toBe(true);
    app.resume();
    expect(splice.closing).toBe(true);
    await appHears.until((sink) => sink.heard("close"));
    expect(appHears.length).toBe(8_000);
    expect(appHears.error).toBeUndefined();
    expect(await splice.ended).toMatchObject({
      endedBy: "upstream",
      error: { message: "connection reset by peer" },
    });
  });

  test("delivers what the client sent before its connection dropped, then closes the upstream", async () => {
    const { splice, app, clientSide, telegram, telegramHears } = setUp();
    telegram.pause();
    for (let sent = 0; sent < 8; sent += 1) app.write(new Uint8Array(1_000));
    await settle(100);
    app.destroy();
    await settle();
    expect(clientSide.closed).toBe(true);
    telegram.resume();
    await telegramHears.until((sink) => sink.heard("close"));
    expect(telegramHears.length).toBe(8_000);
    expect(await splice.ended).toMatchObject({ endedBy: "client", error: expect.any(Error) });
  });

  test("closes the upstream of a client that is gone, also while it is paused and still sending", async () => {
    const { splice, app, telegram, telegramHears, upstreamSide } = setUp();
    app.pause();
    for (let sent = 0; sent < 100; sent += 1) telegram.write(new Uint8Array(1_000));
    await settle(300);
    expect(upstreamSide.paused).toBe(true);
    app.destroy();
    await telegramHears.until((sink) => sink.heard("close"));
    expect(await splice.ended).toMatchObject({ endedBy: "client", error: expect.any(Error) });
  });

  test("ends with channels that were closed before it began", async () => {
    const [, clientSide] = memoryChannelPair();
    const [telegram, upstreamSide] = memoryChannelPair();
    telegram.attach(new RecordingSink());
    clientSide.destroy();
    await settle();
    const counts = { up: 0, down: 0 };
    const splice = new Splice({
      client: clientSide,
      upstream: upstreamSide,
      link: plainLink,
      counts,
    });
    expect(await splice.ended).toEqual({ endedBy: "client" });
  });

  test("keeps the error of a side that ended first and broke later", async () => {
    const { splice, app, telegramHears } = setUp();
    app.end();
    await telegramHears.until((sink) => sink.heard("end"));
    app.destroy();
    expect(await splice.ended).toMatchObject({ endedBy: "client", error: expect.any(Error) });
  });

  test("does not blame the side that ended first for the other one that broke later", async () => {
    const { splice, app, telegram, telegramHears } = setUp();
    app.end();
    await telegramHears.until((sink) => sink.heard("end"));
    telegram.destroy();
    expect(await splice.ended).toEqual({ endedBy: "client" });
  });

  test("drops both sides on destroy", async () => {
    const { splice, appHears, telegramHears } = setUp();
    splice.destroy();
    await splice.ended;
    await appHears.until((sink) => sink.heard("close"));
    await telegramHears.until((sink) => sink.heard("close"));
  });
});

describe("Splice that passes resets", () => {
  test("breaks the upstream when the client breaks", async () => {
    const { splice, app, telegramHears } = setUp({ passResets: true });
    app.destroy();
    await telegramHears.until((sink) => sink.heard("close"));
    expect(telegramHears.error).toBeInstanceOf(Error);
    expect(await splice.ended).toMatchObject({ endedBy: "client", error: expect.any(Error) });
  });

  test("breaks the client when the upstream breaks", async () => {
    const { splice, appHears, telegram } = setUp({ passResets: true });
    telegram.destroy();
    await appHears.until((sink) => sink.heard("close"));
    expect(appHears.error).toBeInstanceOf(Error);
    expect(await splice.ended).toMatchObject({ endedBy: "upstream", error: expect.any(Error) });
  });

  test("breaks a side that has ended, when the other breaks after that", async () => {
    const { splice, app, appHears, telegram, telegramHears } = setUp({ passResets: true });
    app.end();
    await telegramHears.until((sink) => sink.heard("end"));
    telegram.destroy();
    await appHears.until((sink) => sink.heard("close"));
    expect(appHears.error).toBeInstanceOf(Error);
    expect(await splice.ended).toEqual({ endedBy: "client" });
  });

  test("breaks neither side when both end, or one closes", async () => {
    const ending = setUp({ passResets: true });
    ending.app.end();
    ending.telegram.end();
    expect(await ending.splice.ended).not.toHaveProperty("error");
    await ending.appHears.until((sink) => sink.heard("close"));
    expect([ending.appHears.error, ending.telegramHears.error]).toEqual([undefined, undefined]);
    const closing = setUp({ passResets: true });
    closing.telegram.close();
    expect(await closing.splice.ended).toEqual({ endedBy: "upstream" });
    await closing.appHears.until((sink) => sink.heard("close"));
    expect(closing.appHears.error).toBeUndefined();
  });

  test("does not, unless it is told to", async () => {
    const { splice, app, telegramHears } = setUp();
    expect(splice.passResets).toBe(false);
    app.destroy();
    await telegramHears.until((sink) => sink.heard("close"));
    expect(telegramHears.error).toBeUndefined();
  });
});

describe("Splice with a broken transform", () => {
  const broken: Transform = {
    push() {
      throw new RangeError("a bug");
    },
  };

  test.each(["up", "down"] as const)(
    "rejects with what it threw on the way %s, and drops both sides",
    async (way) => {
      const { splice, app, appHears, telegram, telegramHears } = setUp({
        link: { ...plainLink, [way]: broken },
      });
      (way === "up" ? app : telegram).write(Uint8Array.of(1));
      await expect(splice.ended).rejects.toThrow(new RangeError("a bug"));
      await appHears.until((sink) => sink.heard("close"));
      await telegramHears.until((sink) => sink.heard("close"));
    },
  );
});
