import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { testAuthority } from "../support/certificates.ts";
import { CoverSite } from "../support/cover-site.ts";
import {
  FakeTlsClient,
  type FakeTlsClientOptions,
  MAX_RECORD_SIZE,
  TDLIB_RECORD_SIZE,
} from "../support/fake-tls-client.ts";
import { GROUPS, HELLO_SHAPES } from "../support/fake-tls-hello.ts";
import { MtprotoServer, STUB_ERROR } from "../support/mtproto-server.ts";
import { TRANSPORTS } from "../support/packets.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { formatSecret, REAL_CLIENTS } from "../support/real-clients.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Tdlib } from "../support/tdlib.ts";

/** Repeated once: of 256 keys one begins with a zero, which these clients drop. */
const TEST_OPTIONS = { timeout: 60_000, retry: 1 } as const;
const TRANSFER_LIMIT_MS = 20_000;
const DOMAIN = "cover.example";
const MIB = 1024 * 1024;

if (CoverSite.missing !== undefined) console.warn(`Fake TLS is not tested: ${CoverSite.missing}`);
if (Tdlib.missing !== undefined) console.warn(`TDLib is not tested: ${Tdlib.missing}`);

describe.skipIf(CoverSite.missing !== undefined)("fake TLS", () => {
  let stub: StubDc;
  let site: CoverSite;
  let proxy: ProxyProcess;

  beforeAll(async () => {
    stub = await StubDc.start();
    site = await CoverSite.start({ names: [DOMAIN] });
    proxy = await startProxy(site.port);
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await site?.[Symbol.asyncDispose]();
    await stub?.[Symbol.asyncDispose]();
  });

  beforeEach(() => {
    stub.reset();
    stub.onPacket = ({ payload }) => [payload];
  });

  describe("real clients", () => {
    let server: MtprotoServer;

    beforeEach(() => {
      server = new MtprotoServer();
      stub.onPacket = server.onPacket;
    });

    for (const client of REAL_CLIENTS) {
      for (const form of client.forms) {
        it(
          `${client.name} agrees on a key and makes a call through a ${form} secret`,
          async () => {
            const secret = formatSecret(form, proxy.secret, DOMAIN);
            const called = client.call({ port: proxy.port, secret });
            const outcome = await called.catch((error: unknown) => error);
            // With the log, since it has to be found out from afar why a client of others gives up.
            if (!String(outcome).includes(STUB_ERROR))
              throw new Error(`${outcome}; the log is:\n${proxy.stderr}`);
            expect(server.progress.keys).toBeGreaterThan(0);
            expectTransport(client.transport(form));
          },
          TEST_OPTIONS,
        );
      }
    }

    for (const form of ["plain", "dd", "ee"] as const) {
      it.skipIf(Tdlib.missing !== undefined)(
        `TDLib pings a data centre through a ${form} secret`,
        async () => {
          await using tdlib = await Tdlib.start();
          const secret = formatSecret(form, proxy.secret, DOMAIN);
          // Its hellos differ in size and order from one connection to the next.
          for (let ping = 1; ping <= 5; ping += 1) {
            expect(await tdlib.ping({ port: proxy.port, secret })).toBeGreaterThan(0);
            expect(server.progress.started).toBeGreaterThanOrEqual(ping);
          }
          expectTransport(form === "plain" ? "intermediate" : "padded");
        },
        TEST_OPTIONS,
      );
    }
  });

  describe("a handshake", () => {
    for (const shape of HELLO_SHAPES) {
      it(`of the shape ${shape} is answered as a site would, and serves`, async () => {
        using client = await open({ hello: { shape, serverName: DOMAIN } });
        await expectEcho(client, 1000);
        expect(client.flight?.group).toBeOneOf(client.hello.groups);
        expect(client.flight?.extensions.toSorted()).toEqual([0x2b, 0x33]);
      });
    }

    it("without a name gets the site: every client names the one of its secret", async () => {
      await site.forget();
      const { port, secret } = proxy;
      using client = await FakeTlsClient.connect({ port, secret, hello: { shape: "tdlib" } });
      await client.sendHello();
      await expect(client.readFlight()).rejects.toThrow("follow the first flight"); // as of real TLS 1.3
      expect(await site.accepted()).toBe(1);
    });

    it("with a session id of any length is answered with the same", async () => {
      for (const length of [0, 1, 31]) {
        const hello = { serverName: DOMAIN, sessionId: new Uint8Array(randomBytes(length)) };
        using client = await open({ hello });
        await expectEcho(client, 100);
      }
    });

    it("with one suite alone gets that suite", async () => {
      for (const suite of [0x1301, 0x1302, 0x1303]) {
        using client = await open({ hello: { serverName: DOMAIN, cipherSuites: [suite] } });
        expect(client.flight?.cipherSuite).toBe(suite);
        await expectEcho(client, 100);
      }
    });

    it("byte by byte serves", async () => {
      for (const shape of HELLO_SHAPES) {
        using client = await open({ hello: { shape, serverName: DOMAIN }, segments: [1] });
        await expectEcho(client, 1000);
      }
    });

    it("in segments that end within headers serves", async () => {
      for (const first of [3, 5, 6, 11, 43]) {
        using client = await open({ hello: hello("tdlib"), segments: [first, 500] });
        await expectEcho(client, 100);
      }
    });

    for (const records of [2, 3, 60]) {
      it(`in ${records} records serves`, async () => {
        for (const shape of HELLO_SHAPES) {
          using client = await open({ hello: { shape, serverName: DOMAIN, records } });
          await expectEcho(client, 1000);
        }
      });
    }

    it("has other bytes in its record of data each time", async () => {
      const flights: string[] = [];
      for (let count = 0; count < 4; count += 1) {
        using client = await open({ hello: hello("tdlib") });
        flights.push(client.flight?.bytes.toHex().slice(-200) ?? "");
      }
      expect(new Set(flights).size).toBe(4);
    });

    it("chooses the group that the site would choose", async () => {
      using client = await open({ hello: hello("tdlib") });
      expect(client.flight?.group).toBe(GROUPS.x25519); // Debian's nginx has no ML-KEM
      expect(client.flight?.extensions).toEqual([0x2b, 0x33]);
    });

    it("chooses ML-KEM, with a ciphertext that the client can open, where the site does", async () => {
      const { certificate: cert, key } = await (await testAuthority()).issue([DOMAIN]);
      const fetch = (): Response => new Response("a page");
      const modern = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: { cert, key }, fetch });
      try {
        await using other = await startProxy(modern.port);
        const { port, secret } = other;
        using client = await open({ port, secret, hello: hello("tdlib") });
        expect(client.flight?.group).toBe(GROUPS.x25519MlKem768);
        expect(client.flight?.extensions).toEqual([0x33, 0x2b]);
        await expectEcho(client, 1000);
        using older = await open({ port, secret, hello: hello("desktop-517") });
        expect(older.flight?.group).toBe(GROUPS.x25519);
      } finally {
        await modern.stop(true);
      }
    });
  });

  describe("a stream", () => {
    for (const changeCipherSpec of ["alone", "joined"] as const) {
      it(`begins with a ChangeCipherSpec that is ${changeCipherSpec}`, async () => {
        using client = await open({ changeCipherSpec });
        await expectEcho(client, 1000);
      });

      it(`begins with a first packet in the record of its init, ${changeCipherSpec}`, async () => {
        using client = await FakeTlsClient.connect({
          port: proxy.port,
          secret: proxy.secret,
          hello: hello("tdlib"),
          changeCipherSpec,
        });
        await client.sendHello();
        await client.readFlight();
        const payload = new Uint8Array(randomBytes(400));
        await client.begin(payload);
        const { payload: echo } = await client.readPacket();
        expect(echo.subarray(0, payload.length).toHex()).toBe(payload.toHex());
      });
    }

    for (const recordSize of [1, 7, 63, 64, 65, TDLIB_RECORD_SIZE, 16_384, MAX_RECORD_SIZE]) {
      it(`goes in records of ${recordSize} bytes`, async () => {
        using client = await open({ recordSize });
        await expectEcho(client, 40);
        await expectEcho(client, Math.min(3 * recordSize + 8, 64 * 1024) & ~3);
      });
    }

    it("goes byte by byte", async () => {
      using client = await FakeTlsClient.connect({
        port: proxy.port,
        secret: proxy.secret,
        hello: hello("desktop-517"),
      });
      await client.sendHello();
      await client.readFlight();
      const begin = Uint8Array.of(0x14, 3, 3, 0, 1, 1);
      const packet = client.encrypt(Uint8Array.of(4, 0, 0, 0, 1, 2, 3, 4));
      const records = [client.encodeRecords(client.init, 40), client.encodeRecords(packet, 3)];
      await client.writeSegments(new Uint8Array(Buffer.concat([begin, ...records])), 1);
      expect((await client.readPacket()).payload.subarray(0, 4).toHex()).toBe("01020304");
    });

    for (const transport of TRANSPORTS) {
      it(`may be ${transport} inside`, async () => {
        using client = await open({ transport });
        await expectEcho(client, 1000);
        expectTransport(transport);
      });
    }

    it("carries 1 MiB both ways, in records that TLS allows", async () => {
      using client = await open({});
      await expectEcho(client, MIB - 1024);
      expect(client.recordSizes.length).toBeGreaterThan(MIB / MAX_RECORD_SIZE);
      expect(Math.max(...client.recordSizes)).toBeLessThanOrEqual(MAX_RECORD_SIZE);
    });

    it("ends when the client ends", async () => {
      using client = await open({});
      await expectEcho(client, 100);
      client.end();
      await client.until(() => client.closed || client.ended, "the end of the stream");
      expect(client.error).toBeUndefined();
    });
  });

  it("leaves the site alone while clients know the secret", async () => {
    await site.forget();
    for (const shape of HELLO_SHAPES) {
      using client = await open({ hello: { shape, serverName: DOMAIN } });
      await expectEcho(client, 100);
    }
    expect(await site.accepted()).toBe(0);
  });

  /** Starts a proxy, and waits until it knows how its site answers. */
  async function startProxy(sitePort: number | undefined): Promise<ProxyProcess> {
    const cover = ["--fake-tls-domain", DOMAIN, "--mask-host", `127.0.0.1:${sitePort}`];
    const started = await ProxyProcess.start({ stub, args: [...cover, "--accept", "plain,dd,ee", "-v"] });
    await started.logged(/is measured/);
    return started;
  }

  function hello(shape: (typeof HELLO_SHAPES)[number]): NonNullable<FakeTlsClientOptions["hello"]> {
    return { shape, serverName: DOMAIN };
  }

  function open(options: Partial<FakeTlsClientOptions>): Promise<FakeTlsClient> {
    return FakeTlsClient.open({
      port: proxy.port,
      secret: proxy.secret,
      hello: { serverName: DOMAIN },
      ...options,
    });
  }

  /** Has one packet go both ways. */
  async function expectEcho(client: FakeTlsClient, length: number): Promise<void> {
    const payload = new Uint8Array(randomBytes(length));
    client.sendPacket(payload);
    const { payload: echo } = await client.readPacket(TRANSFER_LIMIT_MS);
    expect(Buffer.compare(echo.subarray(0, length), payload)).toBe(0);
  }

  function expectTransport(transport: string): void {
    expect(stub.connections.length).toBeGreaterThan(0);
    for (const connection of stub.connections) {
      expect(connection.init?.transport ?? transport).toBe(transport);
      expect(connection.violations).toEqual([]);
    }
  }
});
