import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { connect, createServer, type Socket } from "node:net";
import { testCertificates } from "../support/certificates.ts";
import { CoverSite } from "../support/cover-site.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { buildHello } from "../support/fake-tls-hello.ts";
import { poll } from "../support/home.ts";
import {
  COVER_DOMAIN,
  describeLook,
  differences,
  isSigned,
  look,
  Pair,
  type Visit,
  Visitor,
} from "../support/look.ts";
import { PROBES, strangersHello } from "../support/probes.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { freePort } from "../support/real-proxies.ts";
import { StubDc } from "../support/stub-dc.ts";
import { portOf } from "../support/upgrade-server.ts";

if (CoverSite.missing !== undefined) console.warn(`a site's limits are not tested: ${CoverSite.missing}`);

const TEST_LIMIT_MS = 60_000;
const PATIENCE_MS = 4_000;
const HTTP = "GET / HTTP/1.1\r\nHost: cover.example\r\n\r\n";

/** Has a packet of a client echoed. */
async function expectServed(proxy: ProxyProcess, stub: StubDc): Promise<void> {
  const { port, secret } = proxy;
  const hello = { shape: "tdlib", serverName: COVER_DOMAIN } as const;
  using client = await FakeTlsClient.open({ port, secret, hello });
  const payload = new Uint8Array(randomBytes(40));
  client.sendPacket(payload);
  const connection = await stub.next();
  await connection.until(() => connection.packets.length === 1, "the packet arrives");
  connection.sendPacket(payload);
  expect((await client.readPacket()).payload.subarray(0, 40).toHex()).toBe(payload.toHex());
}

describe.skipIf(CoverSite.missing !== undefined)("with --mask-max 5", () => {
  it(
    "a sixth stranger sees the site, and the one who has been quiet for longest goes",
    async () => {
      await using pair = await Pair.start({ proxy: { args: ["--mask-max", "5"] } });
      const target = { secret: pair.proxy.secret, serverName: COVER_DOMAIN };
      const visitors: Visitor[] = [];
      try {
        for (let count = 0; count < 12; count += 1) {
          const visitor = await Visitor.connect(pair.proxy.port);
          visitors.push(visitor);
          visitor.write(strangersHello(target, { shape: "tdlib" }).bytes);
          await visitor.until(() => visitor.received > 500, "the site's flight");
          expect(visitor.over).toBe(false);
        }
        const open = (): Visitor[] => visitors.filter(({ over }) => !over);
        await poll(() => (open().length <= 5 ? true : undefined), "the end of all but five");
        expect(visitors.slice(-1)[0]?.over).toBe(false);
      } finally {
        for (const visitor of visitors) visitor[Symbol.dispose]();
      }
    },
    TEST_LIMIT_MS,
  );
});

describe("with a site that is down", () => {
  it(
    "strangers see the end, clients are served, and the log warns once",
    async () => {
      await using stub = await StubDc.start();
      const mask = ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${await freePort()}`];
      await using proxy = await ProxyProcess.start({ stub, args: mask });
      await proxy.logged(/cannot be reached/);
      const target = { secret: proxy.secret, serverName: COVER_DOMAIN };
      for (const bytes of [HTTP, strangersHello(target).bytes, new Uint8Array(300).fill(0x5a)]) {
        for (let times = 0; times < 3; times += 1) {
          const seen = await look(proxy.port, (visitor) => visitor.write(bytes), PATIENCE_MS);
          expect(describeLook(seen)).toMatch(/^nothing, (fin|reset)$/);
        }
      }
      await expectServed(proxy, stub);
      expect(proxy.countLogged(/cover\.example cannot be reached \(/g)).toBe(1);
      expect(proxy.countLogged(/the cover site cannot be reached/g)).toBe(1);
      expect(proxy.stderr).not.toMatch(/\berror\b/i);
      expect(proxy.running).toBe(true);
    },
    TEST_LIMIT_MS,
  );

  it.skipIf(CoverSite.missing !== undefined)(
    "and comes up, strangers see it without a restart",
    async () => {
      // A relay stands for the site's port, so that it can be down first.
      await using site = await CoverSite.start({ names: [COVER_DOMAIN] });
      let up = false;
      const relay = createServer((socket) => {
        if (up) join(socket, site.port);
        else socket.resetAndDestroy();
      });
      await listening(relay);
      const mask = ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${portOf(relay)}`];
      await using proxy = await ProxyProcess.start({ args: mask });
      await proxy.logged(/did not answer with a ServerHello|cannot be reached/); // as soon as the reset comes
      up = true;
      const target = { secret: proxy.secret, serverName: COVER_DOMAIN };
      const { bytes } = strangersHello(target);
      const [ofSite, ofTgws] = await Promise.all([
        look(site.port, (visitor) => visitor.write(bytes), PATIENCE_MS),
        look(proxy.port, (visitor) => visitor.write(bytes), PATIENCE_MS),
      ]);
      expect(differences(ofSite, ofTgws)).toEqual([]);
      relay.close();
    },
    TEST_LIMIT_MS,
  );
});

describe("with a site that is the proxy itself", () => {
  it(
    "there is no loop: strangers see the end, clients are served, the log says so",
    async () => {
      await using stub = await StubDc.start();
      const { caFile } = await testCertificates();
      const own = await freePort();
      const secret = new Uint8Array(randomBytes(16));
      await using proxy = new ProxyProcess({
        args: [
          ...["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${own}`, "--port", String(own)],
          ...["--secret", secret.toHex(), "--route", "direct-ws", "--pool-size", "0", "--tls-ca", caFile],
          ...["--dc-ip", `2:127.0.0.1:${stub.port}`],
        ],
      });
      proxy.port = own;
      proxy.secret = secret;
      await proxy.logged(/leads back to this proxy/);
      const target = { secret, serverName: COVER_DOMAIN };
      for (const bytes of [HTTP, strangersHello(target).bytes]) {
        const seen = await look(proxy.port, (visitor) => visitor.write(bytes), PATIENCE_MS);
        expect(describeLook(seen)).toMatch(/^nothing, (fin|reset)$/);
      }
      await expectServed(proxy, stub);
    },
    TEST_LIMIT_MS,
  );

  it(
    "by a way around, the loop is found and ends, however strangers knock",
    async () => {
      await using stub = await StubDc.start();
      let accepted = 0;
      const back = Promise.withResolvers<number>();
      const relay = createServer((socket) => {
        accepted += 1;
        socket.on("error", () => {});
        void back.promise.then((port) => join(socket, port));
      });
      await listening(relay);
      const mask = ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${portOf(relay)}`];
      await using proxy = await ProxyProcess.start({ stub, args: [...mask, "--mask-max", "64"] });
      back.resolve(proxy.port);
      await proxy.logged(/leads back to this proxy/);
      const found = accepted;
      expect(found).toBeLessThan(200);
      const target = { secret: proxy.secret, serverName: COVER_DOMAIN };
      for (const bytes of [HTTP, strangersHello(target).bytes, new Uint8Array(300).fill(0x5a)]) {
        const seen = await look(proxy.port, (visitor) => visitor.write(bytes), PATIENCE_MS);
        expect(isSigned(seen.received, new Uint8Array(32), proxy.secret)).toBe(false);
        expect(seen.end).not.toBe("open");
      }
      expect(accepted - found).toBeLessThan(20);
      await expectServed(proxy, stub);
      relay.close();
    },
    TEST_LIMIT_MS,
  );
});

/** Where inits without fake TLS are served, too, what is no TLS may be the start of one. */
describe.skipIf(CoverSite.missing !== undefined).concurrent("with --accept plain,dd,ee", () => {
  /** A probe that could still become an init is answered when it has not, after 2 s. */
  const SLACK_MS = 2_500;

  it(
    "every probe still sees what the site shows",
    async () => {
      await using stub = await StubDc.start();
      await using pair = await Pair.start({
        site: { clientHeaderTimeoutMs: 5_000, keepaliveTimeoutMs: 5_000 },
        proxy: { stub, args: ["--accept", "plain,dd,ee"] },
      });
      const { site, proxy } = pair;
      const target = { secret: proxy.secret, serverName: COVER_DOMAIN };
      // An init is served here; what lasts as long as the site lets it is for the other suite.
      const probes = PROBES.filter(({ name }) => !/MTProto|byte a second|silence|half a second/.test(name));
      const failures: string[] = [];
      await Promise.all(
        probes.map(async ({ name, prepare }) => {
          const { visit } = prepare(target);
          const [ofSite, ofTgws] = await Promise.all(
            [site.port, proxy.port].map((port) => look(port, visit, { patienceMs: 9_000, aftermathMs: 0 })),
          );
          if (ofSite === undefined || ofTgws === undefined) return;
          const found = differences(ofSite, ofTgws, SLACK_MS);
          if (found.length > 0) failures.push(`${name}: ${found.join("; ")}`);
        }),
      );
      expect(failures).toEqual([]);
      await expectServed(proxy, stub);
    },
    TEST_LIMIT_MS,
  );

  // The starts that no client's init has tell at once that nothing else comes.
  for (const request of ["GET / HTTP/1.0\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.0\r\n\r\n"]) {
    it(
      `a short HTTP request is answered as fast as by the site: ${request.trim()}`,
      async () => {
        await using pair = await Pair.start({ proxy: { args: ["--accept", "plain,dd,ee"] } });
        const [ofSite, ofTgws] = await Promise.all(
          [pair.site.port, pair.proxy.port].map((port) =>
            look(port, (visitor) => visitor.write(request), PATIENCE_MS),
          ),
        );
        if (ofSite === undefined || ofTgws === undefined) throw new Error("unreachable");
        expect(differences(ofSite, ofTgws)).toEqual([]);
      },
      TEST_LIMIT_MS,
    );
  }
});

/** A site, as far as TCP is concerned. */
type Behaviour = (socket: Socket) => void;

describe.concurrent("a site that behaves oddly", () => {
  const behaviours: readonly (readonly [string, Behaviour])[] = [
    ["that resets everybody after half a second", (socket) => later(500, () => socket.resetAndDestroy())],
    ["that resets whoever says something", (socket) => socket.once("data", () => socket.resetAndDestroy())],
    ["that speaks first", (socket) => later(300, () => socket.end("220 mail.example ESMTP\r\n"))],
    [
      "that ends, and says more to whoever has ended",
      (socket) => {
        socket.on("end", () => socket.end("bye"));
        socket.resume();
      },
    ],
    [
      "that says something, and breaks off",
      (socket) =>
        socket.once("data", () => {
          socket.write("x".repeat(5_000));
          later(200, () => socket.resetAndDestroy());
        }),
    ],
    ["that ends at once", (socket) => void socket.end()],
    ["that never says anything", (socket) => void socket.resume()],
  ];
  const visits: readonly (readonly [string, Visit])[] = [
    ["to garbage", (visitor) => visitor.write(new Uint8Array(100).fill(0x5a))],
    ["to silence", () => {}],
    ["to half a hello", (visitor) => visitor.write(Uint8Array.of(0x16, 3, 1, 2, 0, 1))],
    [
      "to garbage and a FIN",
      (visitor) => {
        visitor.write(new Uint8Array(100).fill(0x5a));
        visitor.finish();
      },
    ],
  ];
  for (const [name, behave] of behaviours) {
    it(
      `${name} does so through tgws`,
      async () => {
        const site = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
          socket.on("error", () => {});
          behave(socket);
        });
        await listening(site);
        const mask = ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${portOf(site)}`];
        await using proxy = await ProxyProcess.start({ args: mask });
        const found = await Promise.all(
          visits.map(async ([what, visit]) => {
            // No TLS server says anything to half a hello, so that it need not see it.
            if (what === "to half a hello" && name.includes("says something")) return [];
            const [ofSite, ofTgws] = await Promise.all(
              [portOf(site), proxy.port].map((port) => look(port, visit, 2_500)),
            );
            if (ofSite === undefined || ofTgws === undefined) throw new Error("unreachable");
            return differences(ofSite, ofTgws).map((difference) => `${what}: ${difference}`);
          }),
        );
        expect(found.flat()).toEqual([]);
        site.close();
      },
      TEST_LIMIT_MS,
    );
  }
});

describe.skipIf(CoverSite.missing !== undefined)("a stranger who takes longer than a client may", () => {
  /** The proxy's handshake deadline is 10 s, this site's a minute. */
  const PAUSE_MS = 11_000;

  it(
    "sees the site all the same",
    async () => {
      await using pair = await Pair.start();
      const target = { secret: pair.proxy.secret, serverName: COVER_DOMAIN };
      const pausing = (bytes: Uint8Array, at: number): Visit => {
        return async (visitor) => {
          visitor.write(bytes.subarray(0, at));
          await Bun.sleep(PAUSE_MS);
          visitor.write(bytes.subarray(at));
          await visitor.until(() => visitor.received > 0, "the answer");
        };
      };
      const right = buildHello({ ...target, shape: "tdlib" });
      const visits = [
        pausing(strangersHello(target).bytes, 0),
        pausing(strangersHello(target).bytes, 80),
        pausing(right.bytes, 80),
        pausing(right.bytes, 0),
      ];
      const looks = await Promise.all(
        visits.map((visit) =>
          Promise.all([pair.site.port, pair.proxy.port].map((port) => look(port, visit, PAUSE_MS + 2_000))),
        ),
      );
      for (const [ofSite, ofTgws] of looks) {
        if (ofSite === undefined || ofTgws === undefined) throw new Error("unreachable");
        expect(differences(ofSite, ofTgws)).toEqual([]);
      }
    },
    TEST_LIMIT_MS,
  );
});

function later(ms: number, work: () => void): void {
  setTimeout(work, ms);
}

/** Joins a connection to a port of 127.0.0.1. */
function join(socket: Socket, port: number): void {
  const other = connect({ host: "127.0.0.1", port });
  for (const [from, to] of [
    [socket, other],
    [other, socket],
  ] as const) {
    from.on("error", () => to.destroy());
    from.on("close", () => to.destroy());
    from.pipe(to);
  }
}

async function listening(server: ReturnType<typeof createServer>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
}
