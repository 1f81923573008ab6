import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { CoverSite } from "../support/cover-site.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { buildHello, type HelloOptions } from "../support/fake-tls-hello.ts";
import { COVER_DOMAIN, describeLook, differences, isSigned, type Look, look, Pair } from "../support/look.ts";
import { concat, encodePacket } from "../support/packets.ts";
import { childrenOf } from "../support/process-tree.ts";
import { StubDc } from "../support/stub-dc.ts";

if (CoverSite.missing !== undefined) console.warn(`replays are not tested: ${CoverSite.missing}`);

const TEST_LIMIT_MS = 60_000;
const SITE_PATIENCE_MS = 2_000;
const PATIENCE_MS = 5_000;
const COPIES = 50;
const CHANGE_CIPHER_SPEC = Uint8Array.of(0x14, 3, 3, 0, 1, 1);

let stub: StubDc;
let pair: Pair;

beforeAll(async () => {
  if (CoverSite.missing !== undefined) return;
  stub = await StubDc.start();
  pair = await Pair.start({
    site: { clientHeaderTimeoutMs: SITE_PATIENCE_MS, keepaliveTimeoutMs: SITE_PATIENCE_MS },
    proxy: { stub },
  });
}, TEST_LIMIT_MS);

afterAll(async () => {
  await pair?.[Symbol.asyncDispose]();
  await stub?.[Symbol.asyncDispose]();
});

function makeHello(options: Omit<HelloOptions, "secret"> = {}) {
  return buildHello({ shape: "tdlib", serverName: COVER_DOMAIN, ...options, secret: pair.proxy.secret });
}

/** Sends the same bytes to both. */
async function show(bytes: Uint8Array): Promise<{ readonly ofSite: Look; readonly ofTgws: Look }> {
  const [ofSite, ofTgws] = await Promise.all(
    [pair.site.port, pair.proxy.port].map((port) =>
      look(port, (visitor) => visitor.write(bytes), PATIENCE_MS),
    ),
  );
  if (ofSite === undefined || ofTgws === undefined) throw new Error("unreachable");
  return { ofSite, ofTgws };
}

/** Whether a hello is answered by the proxy itself. */
async function isServed(hello: ReturnType<typeof buildHello>): Promise<boolean> {
  const { received } = await look(
    pair.proxy.port,
    async (visitor) => {
      visitor.write(hello.bytes);
      await visitor.until(() => visitor.received > 0 || visitor.over, "an answer");
      visitor.finish();
    },
    PATIENCE_MS,
  );
  return isSigned(received, hello.random, pair.proxy.secret);
}

/** A client that is served, with all that it has sent. */
async function record(): Promise<{ readonly hello: FakeTlsClient["hello"]; readonly bytes: Uint8Array }> {
  const { port, secret } = pair.proxy;
  using client = await FakeTlsClient.open({
    port,
    secret,
    hello: { shape: "tdlib", serverName: COVER_DOMAIN },
  });
  const payload = new Uint8Array(randomBytes(40));
  const packet = client.encodeRecords(client.encrypt(encodePacket(client.transport, payload)));
  client.write(packet);
  const connection = await stub.next();
  await connection.until(() => connection.packets.length === 1, "the packet arrives");
  connection.sendPacket(payload);
  expect((await client.readPacket()).payload.subarray(0, 40).toHex()).toBe(payload.toHex());
  const { hello, init } = client;
  return { hello, bytes: concat(hello.bytes, CHANGE_CIPHER_SPEC, client.encodeRecords(init), packet) };
}

describe.skipIf(CoverSite.missing !== undefined)("who sends again what a client has sent", () => {
  it(
    "sees the site: all of it, its hello alone, and that twice",
    async () => {
      const { hello, bytes } = await record();
      const before = stub.connections.length;
      const pieces = [bytes, hello.bytes, concat(hello.bytes, hello.bytes)];
      for (const piece of pieces) {
        const { ofSite, ofTgws } = await show(piece);
        expect(differences(ofSite, ofTgws)).toEqual([]);
        expect(isSigned(ofTgws.received, hello.random, pair.proxy.secret)).toBe(false);
      }
      expect(stub.connections.length).toBe(before);
    },
    TEST_LIMIT_MS,
  );

  it(
    "sees the site when only the wrapping is another: other records, the same random",
    async () => {
      const { hello } = await record();
      const message = hello.bytes.subarray(5);
      const header = (length: number): Uint8Array => Uint8Array.of(0x16, 3, 1, length >> 8, length & 0xff);
      const split = concat(
        header(100),
        message.subarray(0, 100),
        header(message.length - 100),
        message.subarray(100),
      );
      const version = hello.bytes.slice();
      version[2] = 3;
      for (const bytes of [split, version]) {
        const { ofSite, ofTgws } = await show(bytes);
        expect(differences(ofSite, ofTgws)).toEqual([]);
        expect(isSigned(ofTgws.received, hello.random, pair.proxy.secret)).toBe(false);
      }
    },
    TEST_LIMIT_MS,
  );

  it(
    `is served once of ${COPIES} times at once`,
    async () => {
      const hello = makeHello();
      const { site, proxy } = pair;
      const ofSite = await look(site.port, (visitor) => visitor.write(hello.bytes), PATIENCE_MS);
      await site.forget();
      const looks = await Promise.all(
        Array.from({ length: COPIES }, () =>
          look(proxy.port, (visitor) => visitor.write(hello.bytes), SITE_PATIENCE_MS + 1_000),
        ),
      );
      const served = looks.filter(({ received }) => isSigned(received, hello.random, proxy.secret));
      const masked = looks.filter((each) => !served.includes(each));
      expect(served.length).toBe(1);
      for (const each of masked) expect(differences(ofSite, each)).toEqual([]);
      expect(await site.accepted()).toBeGreaterThanOrEqual(COPIES - 1);
    },
    TEST_LIMIT_MS,
  );

  it(
    "is served once when copies come byte by byte, and the last byte of all at once",
    async () => {
      const hello = makeHello({ shape: "desktop-517" });
      const looks = await Promise.all(
        Array.from({ length: 20 }, () =>
          look(pair.proxy.port, (visitor) => visitor.drip(hello.bytes, 1, 0), SITE_PATIENCE_MS + 1_000),
        ),
      );
      const served = looks.filter(({ received }) => isSigned(received, hello.random, pair.proxy.secret));
      expect(served.length).toBe(1);
      for (const { received, end } of looks)
        expect(describeLook({ received, end })).toMatch(/^handshake\(2, 122\)/);
    },
    TEST_LIMIT_MS,
  );
});

describe.skipIf(CoverSite.missing !== undefined || process.platform !== "linux")(
  "with several workers",
  () => {
    it(
      `a hello is served once of ${COPIES} times at once, and not by those who come after them`,
      async () => {
        await using many = await Pair.start({ proxy: { stub, args: ["--workers", "3"] } });
        const { proxy } = many;
        const hello = buildHello({ shape: "tdlib", serverName: COVER_DOMAIN, secret: proxy.secret });
        const countServed = async (): Promise<number> => {
          const looks = await Promise.all(
            Array.from({ length: COPIES }, () =>
              look(proxy.port, (visitor) => visitor.write(hello.bytes), SITE_PATIENCE_MS),
            ),
          );
          expect(looks.filter(({ received }) => received.length === 0)).toEqual([]); // the others saw the site
          return looks.filter(({ received }) => isSigned(received, hello.random, proxy.secret)).length;
        };
        expect(await countServed()).toBe(1);
        for (const pid of childrenOf(proxy.pid)) process.kill(pid, "SIGKILL");
        expect(await countServed()).toBe(0);
        proxy.signal("SIGUSR2");
        await proxy.logged(/all workers have been replaced/, TEST_LIMIT_MS);
        expect(await countServed()).toBe(0);
      },
      TEST_LIMIT_MS,
    );
  },
);

/** 120 s are allowed, and some seconds may pass before a hello is read. */
describe.skipIf(CoverSite.missing !== undefined).concurrent("a client's clock", () => {
  for (const skew of [-110, 0, 119]) {
    it(`may be off by ${skew} s`, async () => {
      expect(await isServed(makeHello({ timestamp: Math.floor(Date.now() / 1000) + skew }))).toBe(true);
    });
  }

  for (const skew of [-100_000, -121, 130, 100_000]) {
    it(
      `must not be off by ${skew} s`,
      async () => {
        const hello = makeHello({ timestamp: Math.floor(Date.now() / 1000) + skew });
        const { ofSite, ofTgws } = await show(hello.bytes);
        expect(differences(ofSite, ofTgws)).toEqual([]);
        expect(isSigned(ofTgws.received, hello.random, pair.proxy.secret)).toBe(false);
      },
      TEST_LIMIT_MS,
    );
  }

  it("that was wrong does not use up a hello", async () => {
    const bad = makeHello({ timestamp: 0 });
    expect(await isServed(bad)).toBe(false);
    expect(await isServed(makeHello())).toBe(true);
  });
});
