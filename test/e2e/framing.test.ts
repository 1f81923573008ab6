import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { concat, encodeLength, encodePacket, type TestTransport, TRANSPORTS } from "../support/packets.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import type { StubConnection } from "../support/stub-connection.ts";
import { StubDc } from "../support/stub-dc.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** Around the sizes at which a length field grows, up to more than Telegram allows. */
const SIZES = [
  4,
  40,
  200,
  0x7e * 4,
  0x7f * 4,
  0x80 * 4,
  16 * KIB,
  64 * KIB - 4,
  64 * KIB,
  MIB,
  2 * MIB + 8,
  3 * MIB,
];

let stub: StubDc;
let proxy: ProxyProcess;

beforeAll(async () => {
  stub = await StubDc.start();
  proxy = await ProxyProcess.start({ stub });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

beforeEach(() => stub.reset());

async function open(transport: TestTransport): Promise<{ client: RawClient; connection: StubConnection }> {
  const client = await RawClient.open({ port: proxy.port, secret: proxy.secret, transport });
  return { client, connection: await stub.next() };
}

function random(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length));
}

function sha256(...parts: readonly Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

async function arrived(connection: StubConnection, bytes: number): Promise<void> {
  await connection.until(() => connection.received >= bytes, `${bytes} bytes at the data centre`);
  expect(connection.received).toBe(bytes);
}

describe.each(TRANSPORTS)("packets to the data centre over %s", (transport) => {
  it("arrive one in each message, whatever their size", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    let total = 0;
    for (const size of SIZES) {
      const packet = encodePacket(transport, random(size));
      client.write(client.encrypt(packet));
      total += packet.length;
      await arrived(connection, total);
      expect(connection.sizes.at(-1)).toBe(packet.length);
      expect(sha256(connection.messages.at(-1) ?? new Uint8Array())).toBe(sha256(packet));
    }
    expect(connection.sizes.length).toBe(SIZES.length + 1);
    expect(connection.violations).toEqual([]);
  });

  it("arrive one in each message when many come in one segment", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const packets = Array.from({ length: 1_000 }, (_, index) => {
      return encodePacket(transport, random(4 + 4 * (index % 40)));
    });
    const all = concat(...packets);
    client.write(client.encrypt(all));
    await arrived(connection, all.length);
    expect(connection.sizes.slice(1)).toEqual(packets.map(({ length }) => length));
    expect(connection.digest).toBe(sha256(all));
  });

  it("arrive whole when they come in many segments", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const packets = [300, 40, 4 * KIB, 508].map((size) => encodePacket(transport, random(size)));
    const all = concat(...packets);
    await client.writeSegments(client.encrypt(all), 1, 2, 3, 300, 1, 7);
    await arrived(connection, all.length);
    expect(connection.sizes.slice(1)).toEqual(packets.map(({ length }) => length));
    expect(connection.digest).toBe(sha256(all));
  });

  it("arrive whole when their length field is cut", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const packet = encodePacket(transport, random(0x80 * 4));
    for (const cut of [1, 2, 3, 4, 5]) await client.writeSegments(client.encrypt(packet), cut, packet.length);
    await arrived(connection, 5 * packet.length);
    expect(connection.sizes.slice(1)).toEqual(Array<number>(5).fill(packet.length));
  });

  it("keep the quick-ack bit and are split by their length without it", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const payloads = [random(40), random(0x80 * 4), random(8)];
    for (const payload of payloads) client.sendPacket(payload, { quickAck: true });
    client.sendPacket(random(12));
    await connection.until(() => connection.packets.length === 4, "four packets");
    expect(connection.packets.map(({ quickAck }) => quickAck)).toEqual([true, true, true, false]);
    expect(connection.packets.map(({ payload }) => payload.length)).toEqual([40, 512, 8, 12]);
    expect(connection.violations).toEqual([]);
  });

  it("go on unsplit and byte-exact after a malformed length", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const good = encodePacket(transport, random(40));
    const broken = concat(encodeLength(transport, 0), random(5_000));
    client.write(client.encrypt(concat(good, broken)));
    await arrived(connection, good.length + broken.length);
    const more = random(70_001);
    client.write(client.encrypt(more));
    await arrived(connection, good.length + broken.length + more.length);
    expect(connection.sizes[1]).toBe(good.length);
    expect(connection.digest).toBe(sha256(good, broken, more));
    connection.send(random(100));
    expect((await client.read(100)).length).toBe(100);
  });

  it("arrive byte-exact in bulk", async () => {
    stub.keepMessages = false;
    const { client, connection } = await open(transport);
    using _ = client;
    const expected = createHash("sha256");
    let total = 0;
    while (total < 32 * MIB) {
      const packet = encodePacket(transport, random(4 * (1 + ((total * 7) % 60_000))));
      expected.update(packet);
      total += packet.length;
      if (!client.write(client.encrypt(packet))) await client.drained();
    }
    await arrived(connection, total);
    expect(connection.digest).toBe(expected.digest("hex"));
    expect(connection.violations).toEqual([]);
  });
});

describe("packets over padded", () => {
  it("arrive one in each message although they are not whole words", async () => {
    const { client, connection } = await open("padded");
    using _ = client;
    const sizes = [41, 55, 203, 511, 65_537];
    for (const size of sizes) client.sendPacket(random(size));
    await connection.until(() => connection.packets.length === sizes.length, "all packets");
    expect(connection.packets.map(({ payload }) => payload.length)).toEqual(sizes);
  });
});

describe("a length beyond all limits", () => {
  it("is not waited for", async () => {
    const { client, connection } = await open("intermediate");
    using _ = client;
    const bytes = concat(encodeLength("intermediate", 0x7fff_fff0), random(500));
    client.write(client.encrypt(bytes));
    await arrived(connection, bytes.length);
    expect(connection.digest).toBe(sha256(bytes));
  });
});

describe.each(TRANSPORTS)("messages from the data centre over %s", (transport) => {
  it("reach the client byte-exact, whatever their size", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    for (const size of SIZES) {
      const payload = random(size);
      connection.sendPacket(payload);
      expect(sha256((await client.readPacket()).payload)).toBe(sha256(payload));
    }
  });

  it("reach the client when they are fragmented around pings", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const payload = random(100_000);
    connection.sendPacket(payload, { fragments: [1, 0, 2_000, 70_000] });
    expect(sha256((await client.readPacket()).payload)).toBe(sha256(payload));
    await connection.until(() => connection.pongs === 4, "a pong for every ping");
  });

  it("may be shorter than a packet, as quick-ack tokens are", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const token = Uint8Array.of(0x11, 0x22, 0x33, 0x84);
    connection.send(token);
    expect((await client.read(4)).toHex()).toBe(token.toHex());
  });

  it("may be a transport error of four bytes", async () => {
    const { client, connection } = await open(transport);
    using _ = client;
    const error = new Uint8Array(Int32Array.of(-404).buffer);
    connection.sendPacket(error);
    expect((await client.readPacket()).payload.toHex()).toBe(error.toHex());
  });

  it("reach the client byte-exact in bulk", async () => {
    const client = await RawClient.open({
      port: proxy.port,
      secret: proxy.secret,
      transport,
      discard: true,
    });
    using _ = client;
    const connection = await stub.next();
    const expected = createHash("sha256");
    let total = 0;
    while (total < 32 * MIB) {
      const message = random(1 + ((total * 7) % 200_000));
      expected.update(message);
      total += message.length;
      if (!connection.send(message)) await connection.drained();
    }
    await client.until(() => client.received >= total, "all bytes at the client");
    expect(client.received).toBe(total);
    expect(client.digest).toBe(expected.digest("hex"));
  });
});
