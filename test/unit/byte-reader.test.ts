import { describe, expect, test } from "bun:test";
import { ByteReader } from "../../src/channel/byte-reader.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";

const never = new AbortController().signal;

function startReader(): { peer: MemoryChannel; channel: MemoryChannel; reader: ByteReader } {
  const [peer, channel] = memoryChannelPair();
  return { peer, channel, reader: new ByteReader(channel) };
}

const numbered = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at);

/** How `promise` has settled after the event loop has had many turns. */
async function outcomeOf(promise: Promise<unknown>): Promise<unknown> {
  const settled = promise.then(
    () => "resolved",
    (error: unknown) => error,
  );
  return Promise.race([settled, settle().then(() => "pending")]);
}

describe("ByteReader.read()", () => {
  test("takes exactly as many bytes as asked for, from a larger chunk", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(100));
    expect(await reader.read(64, never)).toEqual(numbered(64));
    expect(await reader.read(6, never)).toEqual(numbered(70).subarray(64));
    expect(reader.rest()).toEqual(numbered(100).subarray(70));
  });

  test("puts bytes together that come one by one", async () => {
    const { peer, reader } = startReader();
    const read = reader.read(64, never);
    for (const byte of numbered(66)) peer.write(Uint8Array.of(byte));
    expect(await read).toEqual(numbered(64));
    await settle();
    expect(reader.rest()).toEqual(Uint8Array.of(64, 65));
  });

  test("waits for the last byte", async () => {
    const { peer, reader } = startReader();
    const read = reader.read(64, never);
    peer.write(numbered(63));
    expect(await outcomeOf(read)).toBe("pending");
    peer.write(Uint8Array.of(63));
    expect(await read).toEqual(numbered(64));
  });

  test("takes what came before it was asked for", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(10));
    peer.write(numbered(10));
    await settle();
    expect(await reader.read(12, never)).toEqual(Uint8Array.of(...numbered(10), 0, 1));
  });

  test("reads one thing after the other", async () => {
    const { peer, reader } = startReader();
    const read = async (): Promise<number[]> => [
      ...(await reader.read(3, never)),
      ...(await reader.read(5, never)),
    ];
    const both = read();
    peer.write(numbered(4));
    peer.write(numbered(4));
    expect(await both).toEqual([0, 1, 2, 3, 0, 1, 2, 3]);
    expect(reader.rest()).toEqual(new Uint8Array(0));
  });

  test("returns a view of bytes that came in one piece", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(100));
    const first = await reader.read(64, never);
    expect(first.buffer).toBe(reader.rest().buffer);
  });

  test("throws CLOSED when the peer ends first", async () => {
    const { peer, reader } = startReader();
    const read = reader.read(64, never);
    peer.write(numbered(63));
    peer.end();
    await expect(read).rejects.toMatchObject({ name: "HandshakeError", code: "CLOSED" });
  });

  test("throws CLOSED when the connection drops first", async () => {
    const { peer, reader } = startReader();
    const read = reader.read(64, never);
    peer.destroy();
    await expect(read).rejects.toMatchObject({ code: "CLOSED" });
  });

  test("throws CLOSED when the peer has ended before it is asked", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(10));
    peer.end();
    await settle();
    await expect(reader.read(11, never)).rejects.toMatchObject({ code: "CLOSED" });
  });

  test("still takes what an ended peer has sent", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(64));
    peer.end();
    await settle();
    expect(await reader.read(64, never)).toEqual(numbered(64));
  });

  test("throws TIMEOUT when the signal aborts first, and keeps what has come", async () => {
    const { peer, reader } = startReader();
    const deadline = new AbortController();
    const read = reader.read(64, deadline.signal);
    peer.write(numbered(63));
    await settle();
    deadline.abort();
    await expect(read).rejects.toMatchObject({ name: "HandshakeError", code: "TIMEOUT" });
    expect(reader.rest()).toEqual(numbered(63));
  });

  test("does not mind an abort after it has read", async () => {
    const { peer, reader } = startReader();
    const deadline = new AbortController();
    peer.write(numbered(10));
    expect(await reader.read(4, deadline.signal)).toEqual(numbered(4));
    deadline.abort();
    expect(await reader.read(6, never)).toEqual(Uint8Array.of(4, 5, 6, 7, 8, 9));
  });

  test("throws TIMEOUT when the signal has aborted before", async () => {
    const { reader } = startReader();
    expect(await outcomeOf(reader.read(1, AbortSignal.abort()))).toMatchObject({ code: "TIMEOUT" });
  });
});

describe("ByteReader.peek()", () => {
  test("returns everything that is there, and takes nothing", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(100));
    expect(await reader.peek(64, never)).toEqual(numbered(100));
    expect(await reader.peek(100, never)).toEqual(numbered(100));
    expect(reader.heldBytes).toBe(100);
    expect(await reader.read(100, never)).toEqual(numbered(100));
  });

  test("waits for the last byte, and joins what comes one by one", async () => {
    const { peer, reader } = startReader();
    const peek = reader.peek(64, never);
    for (const byte of numbered(63)) peer.write(Uint8Array.of(byte));
    await settle(80);
    expect(await outcomeOf(peek)).toBe("pending");
    peer.write(Uint8Array.of(63));
    expect(await peek).toEqual(numbered(64));
    expect(reader.rest()).toEqual(numbered(64));
  });

  test("sees a growing start when it asks for one byte more each time", async () => {
    const { peer, reader } = startReader();
    for (const byte of numbered(20)) peer.write(Uint8Array.of(byte));
    for (let needed = 1; needed <= 20; needed += 1) {
      const bytes = await reader.peek(needed, never);
      expect(bytes.length).toBeGreaterThanOrEqual(needed);
      expect(bytes).toEqual(numbered(bytes.length));
    }
    expect(reader.take(20)).toEqual(numbered(20));
  });

  test("leaves what it returned as it was when more comes", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(10));
    const first = await reader.peek(10, never);
    peer.write(Uint8Array.of(99));
    const second = await reader.peek(11, never);
    expect(first).toEqual(numbered(10));
    expect(second).toEqual(Uint8Array.of(...numbered(10), 99));
  });

  test("returns nothing at once when nothing is asked for", async () => {
    const { reader } = startReader();
    expect(await reader.peek(0, never)).toEqual(new Uint8Array(0));
  });

  test("keeps what has come when it fails", async () => {
    const { peer, reader } = startReader();
    const deadline = new AbortController();
    const late = reader.peek(64, deadline.signal);
    peer.write(numbered(10));
    await settle();
    deadline.abort();
    await expect(late).rejects.toMatchObject({ code: "TIMEOUT" });
    const ended = reader.peek(64, never);
    peer.write(numbered(5));
    peer.end();
    await expect(ended).rejects.toMatchObject({ code: "CLOSED" });
    expect(reader.heldBytes).toBe(15);
    expect(reader.rest()).toEqual(Uint8Array.of(...numbered(10), ...numbered(5)));
  });

  test("can be asked again by another signal after the first has aborted", async () => {
    const { peer, reader } = startReader();
    const first = new AbortController();
    const late = reader.peek(10, first.signal);
    first.abort();
    await expect(late).rejects.toMatchObject({ code: "TIMEOUT" });
    const again = reader.peek(10, never);
    peer.write(numbered(10));
    expect(await again).toEqual(numbered(10));
  });
});

describe("ByteReader.take()", () => {
  test("takes the first bytes, and leaves the others", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(4));
    peer.write(Uint8Array.of(4, 5, 6));
    await settle();
    expect(reader.take(5)).toEqual(numbered(5));
    expect(reader.heldBytes).toBe(2);
    expect(reader.take(0)).toEqual(new Uint8Array(0));
    expect(reader.rest()).toEqual(Uint8Array.of(5, 6));
    expect(reader.heldBytes).toBe(0);
  });

  test("takes what there is, when that is less", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(4));
    await settle();
    expect(reader.take(5)).toEqual(numbered(4));
    expect(reader.take(5)).toEqual(new Uint8Array(0));
    expect(reader.heldBytes).toBe(0);
  });
});

describe("ByteReader, nobody reading", () => {
  test("pauses the channel at 64 KiB and loses nothing", async () => {
    const [peer, channel] = memoryChannelPair(1024 * 1024);
    const reader = new ByteReader(channel);
    for (let sent = 0; sent < 100; sent += 1) peer.write(new Uint8Array(1024).fill(sent));
    await settle(200);
    expect(channel.paused).toBe(true);
    expect(peer.undelivered).toBe(36 * 1024);
    const held = reader.rest();
    expect(held.length).toBe(64 * 1024);
    expect(held.at(-1)).toBe(63);
  });

  test("does not pause below that", async () => {
    const { peer, channel } = startReader();
    peer.write(new Uint8Array(64 * 1024 - 1));
    await settle();
    expect(channel.paused).toBe(false);
  });
});

describe("ByteReader.rest()", () => {
  test("takes everything that is held, in order, once", async () => {
    const { peer, reader } = startReader();
    for (let sent = 0; sent < 5; sent += 1) peer.write(Uint8Array.of(sent, sent));
    await reader.read(3, never);
    await settle();
    expect(reader.rest()).toEqual(Uint8Array.of(1, 2, 2, 3, 3, 4, 4));
    expect(reader.rest()).toEqual(new Uint8Array(0));
  });

  test("leaves what comes after it to the next sink", async () => {
    const { peer, channel, reader } = startReader();
    peer.write(numbered(5));
    await reader.read(2, never);
    const rest = reader.rest();
    const next = new RecordingSink();
    channel.attach(next);
    peer.write(Uint8Array.of(5, 6));
    await next.until(({ length }) => length === 2);
    expect(rest).toEqual(Uint8Array.of(2, 3, 4));
    expect(next.bytes).toEqual(Buffer.of(5, 6));
  });
});

describe("ByteReader.abandoned", () => {
  test("is false while a client is there, and true when it has gone", async () => {
    const { peer, reader } = startReader();
    expect(reader.abandoned).toBe(false);
    peer.destroy();
    await settle();
    expect(reader.abandoned).toBe(true);
  });

  test("is true when the peer has ended and nothing of it is held", async () => {
    const { peer, reader } = startReader();
    peer.end();
    await settle();
    expect(reader.abandoned).toBe(true);
  });

  test("is false when the peer has ended, but has something to be passed on", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(3));
    peer.end();
    await settle();
    expect(reader.abandoned).toBe(false);
  });

  test("is true when the peer has gone, whatever is held", async () => {
    const { peer, reader } = startReader();
    peer.write(numbered(3));
    await settle();
    peer.destroy();
    await settle();
    expect(reader.abandoned).toBe(true);
  });

  test("is announced through onEnded", async () => {
    const { peer, reader } = startReader();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    reader.onEnded = () => reader.abandoned && resolve(true);
    peer.write(numbered(3));
    peer.end();
    await settle();
    peer.destroy();
    expect(await promise).toBe(true);
  });
});

describe("ByteReader.discard()", () => {
  test("goes on until the peer ends", async () => {
    const { peer, reader } = startReader();
    const done = reader.discard(never);
    peer.write(numbered(100));
    expect(await outcomeOf(done)).toBe("pending");
    peer.end();
    await done;
    expect(reader.rest()).toEqual(new Uint8Array(0));
  });

  test("goes on until the connection drops", async () => {
    const { peer, reader } = startReader();
    const done = reader.discard(never);
    peer.destroy();
    await done;
  });

  test("goes on until the signal aborts", async () => {
    const { reader } = startReader();
    const deadline = new AbortController();
    const done = reader.discard(deadline.signal);
    expect(await outcomeOf(done)).toBe("pending");
    deadline.abort();
    await done;
  });

  test("is over at once when the peer has ended, or the signal has aborted", async () => {
    const ended = startReader();
    ended.peer.end();
    await settle();
    await ended.reader.discard(never);
    await startReader().reader.discard(AbortSignal.abort());
  });

  test("reads on where holding had paused the channel", async () => {
    const { peer, channel, reader } = startReader();
    for (let sent = 0; sent < 100; sent += 1) peer.write(new Uint8Array(1024));
    await settle(200);
    expect(channel.paused).toBe(true);
    void reader.discard(never);
    await settle(200);
    expect(peer.undelivered).toBe(0);
  });

  test("stops reading after 256 KiB", async () => {
    const { peer, channel, reader } = startReader();
    void reader.discard(never);
    for (let sent = 0; sent < 300; sent += 1) peer.write(new Uint8Array(1024));
    await settle(600);
    expect(channel.paused).toBe(true);
    expect(peer.undelivered).toBe(44 * 1024);
  });
});
