import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { encodePacket } from "../support/packets.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import type { StubConnection } from "../support/stub-connection.ts";
import { StubDc } from "../support/stub-dc.ts";

const MIB = 1024 * 1024;
const BULK = 256 * MIB;
const CHUNK = 64 * 1024;
/** What a stalled connection may cost. */
const GROWTH_LIMIT = 8 * MIB;
const BULK_LIMIT_MS = 60_000;

let stub: StubDc;
let proxy: ProxyProcess;

beforeAll(async () => {
  stub = await StubDc.start();
  proxy = await ProxyProcess.start({ stub });
  await warmUp();
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

beforeEach(() => {
  stub.reset();
  stub.keepMessages = false;
});

async function open(): Promise<{ client: RawClient; connection: StubConnection }> {
  const client = await RawClient.open({ port: proxy.port, secret: proxy.secret, discard: true });
  return { client, connection: await stub.next() };
}

/** Where bytes go that are made without end. */
interface Sender {
  readonly send: (chunk: Uint8Array) => boolean;
  readonly drained: (limitMs: number) => Promise<void>;
}

function down(connection: StubConnection): Sender {
  return {
    send: (chunk) => connection.send(chunk),
    drained: (limitMs) => connection.drained(limitMs),
  };
}

function up(client: RawClient): Sender {
  return {
    send: (chunk) => client.write(client.encrypt(chunk)),
    drained: (limitMs) => client.drained(limitMs),
  };
}

/** Sends `total` bytes in packets, as fast as they are taken. */
class Push {
  sent = 0;
  /** When the last chunk was taken, `performance.now()`. */
  movedAt = performance.now();
  readonly done: Promise<string>;

  constructor(sender: Sender, total: number) {
    this.done = this.#run(sender, total);
  }

  /** Waits until nothing has been taken for `quietMs`: the way is full from end to end. */
  async stalled(quietMs = 500): Promise<void> {
    while (performance.now() - this.movedAt < quietMs) await Bun.sleep(50);
  }

  /** @returns The SHA-256 of what was sent. */
  async #run(sender: Sender, total: number): Promise<string> {
    const hash = createHash("sha256");
    const packet = encodePacket("intermediate", new Uint8Array(randomBytes(CHUNK - 4)));
    while (this.sent < total) {
      hash.update(packet);
      this.sent += packet.length;
      this.movedAt = performance.now();
      if (!sender.send(packet)) await sender.drained(BULK_LIMIT_MS);
    }
    return hash.digest("hex");
  }
}

/** Moves some bytes both ways, so that what the process needs once is not counted as growth. */
async function warmUp(): Promise<void> {
  stub.keepMessages = false;
  const { client, connection } = await open();
  using _ = client;
  await Promise.all([new Push(down(connection), 64 * MIB).done, new Push(up(client), 64 * MIB).done]);
  await client.until(() => client.received >= 64 * MIB, "the warm-up comes down", BULK_LIMIT_MS);
  await connection.until(() => connection.received >= 64 * MIB, "the warm-up goes up", BULK_LIMIT_MS);
}

/** Checks what the process has grown by, where that can be seen. */
function expectBounded(before: number | undefined): void {
  const now = proxy.residentBytes;
  if (before === undefined || now === undefined) {
    console.warn("memory is not checked: there is no /proc here");
    return;
  }
  expect((now - before) / MIB).toBeLessThan(GROWTH_LIMIT / MIB);
}

describe("a client that stops reading", () => {
  it(
    "costs bounded memory and gets every byte when it goes on",
    async () => {
      const { client, connection } = await open();
      using _ = client;
      client.stopReading();
      const before = proxy.residentBytes;
      const push = new Push(down(connection), BULK);
      await push.stalled();
      expectBounded(before);
      expect(push.sent).toBeLessThan(BULK);
      client.startReading();
      const digest = await push.done;
      await client.until(() => client.received >= BULK, "all bytes at the client", BULK_LIMIT_MS);
      expect(client.received).toBe(BULK);
      expect(client.digest).toBe(digest);
    },
    BULK_LIMIT_MS,
  );

  it("does not hold up others", async () => {
    const { client: slow, connection } = await open();
    using _ = slow;
    slow.stopReading();
    const push = new Push(down(connection), BULK);
    push.done.catch(() => {}); // it never ends
    await push.stalled(200);
    const { client, connection: other } = await open();
    using __ = client;
    const { done } = new Push(down(other), 8 * MIB);
    await done;
    await client.until(() => client.received === 8 * MIB, "another client's bytes");
  });
});

describe("a data centre that stops reading", () => {
  it(
    "costs bounded memory and gets every byte when it goes on",
    async () => {
      const { client, connection } = await open();
      using _ = client;
      connection.stopReading();
      const before = proxy.residentBytes;
      const push = new Push(up(client), BULK);
      await push.stalled();
      expectBounded(before);
      expect(push.sent).toBeLessThan(BULK);
      connection.startReading();
      const digest = await push.done;
      await connection.until(
        () => connection.received >= BULK,
        "all bytes at the data centre",
        BULK_LIMIT_MS,
      );
      expect(connection.received).toBe(BULK);
      expect(connection.digest).toBe(digest);
      expect(connection.violations).toEqual([]);
    },
    BULK_LIMIT_MS,
  );
});

describe("an end", () => {
  it("of the client's sending reaches the data centre behind all bytes", async () => {
    const { client, connection } = await open();
    using _ = client;
    const push = new Push(up(client), 8 * MIB);
    const digest = await push.done;
    client.end();
    await connection.until(() => connection.closeCode !== undefined, "a close frame");
    expect(connection.closeCode).toBe(1000);
    expect(connection.received).toBe(8 * MIB);
    expect(connection.digest).toBe(digest);
  });

  it("of the client's sending does not stop what is on its way to it", async () => {
    const { client, connection } = await open();
    using _ = client;
    client.sendPacket(Uint8Array.of(1, 2, 3, 4));
    client.end();
    await connection.until(() => connection.received === 8, "the last packet");
    const digest = await new Push(down(connection), 8 * MIB).done;
    await connection.until(() => connection.closeCode !== undefined, "a close frame");
    await client.until(() => client.ended, "the end");
    expect(client.received).toBe(8 * MIB);
    expect(client.digest).toBe(digest);
    expect(client.error).toBeUndefined();
  });

  it("by the data centre's close frame reaches the client behind all bytes", async () => {
    const { client, connection } = await open();
    using _ = client;
    const digest = await new Push(down(connection), 8 * MIB).done;
    connection.close();
    await client.until(() => client.ended, "the end");
    expect(client.received).toBe(8 * MIB);
    expect(client.digest).toBe(digest);
    expect(client.error).toBeUndefined();
    client.end();
    await connection.until(() => connection.closed, "the end at the data centre");
  });

  it("by the data centre's connection reaches the client behind all bytes", async () => {
    const { client, connection } = await open();
    using _ = client;
    const digest = await new Push(down(connection), 8 * MIB).done;
    connection.end();
    await client.until(() => client.ended, "the end");
    expect(client.received).toBe(8 * MIB);
    expect(client.digest).toBe(digest);
    expect(client.error).toBeUndefined();
  });

  it("of the whole client closes the data centre's connection", async () => {
    const { client, connection } = await open();
    client[Symbol.dispose]();
    await connection.until(() => connection.closed, "the end at the data centre");
  });

  it("by the client's reset closes the data centre's connection", async () => {
    const { client, connection } = await open();
    client.reset();
    await connection.until(() => connection.closed, "the end at the data centre");
  });

  it("by the client's reset while it is stalled closes the data centre's connection", async () => {
    const { client, connection } = await open();
    client.stopReading();
    const push = new Push(down(connection), BULK);
    push.done.catch(() => {});
    await push.stalled(200);
    client.reset();
    await connection.until(() => connection.closed, "the end at the data centre");
  });

  it("by the data centre's reset closes the client's connection", async () => {
    const { client, connection } = await open();
    using _ = client;
    await new Push(down(connection), MIB).done; // a way that breaks before it says something is replaced
    await client.until(() => client.received >= MIB, "the first bytes");
    connection.reset();
    await client.until(() => client.ended || client.closed, "the end at the client");
    expect(proxy.running).toBe(true);
  });
});
