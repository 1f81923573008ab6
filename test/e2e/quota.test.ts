import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { testAuthority } from "../support/certificates.ts";
import { ConfigHome } from "../support/config-home.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { LostTime } from "../support/lost-time.ts";
import { childrenOf, isAlive } from "../support/process-tree.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { ending, eventually, isCut, isServed, openOnEach, openSession, ping } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Traffic } from "../support/traffic.ts";
import { keptUsage } from "../support/usage.ts";

const LIMIT_MS = 60_000;
/** The smallest quota that there is, 0.001 GB, in bytes. */
const QUOTA = Math.round(0.001 * 1024 ** 3);
/** It is counted every second, and written down every two, give or take the last, on a machine that keeps up. */
const TALLY_MS = 1_000;
const WRITE_MS = 2_000;
const SLACK_MS = 700;
const ANN = new Uint8Array(randomBytes(16));
const BOB = new Uint8Array(randomBytes(16));

let stub: StubDc;

beforeAll(async () => {
  stub = await StubDc.start();
});

beforeEach(() => {
  stub.reset();
  stub.keepMessages = false;
  stub.onPacket = ({ payload }) => [payload];
});

afterAll(() => stub[Symbol.asyncDispose]());

/** A configuration with two users, of whom `ann` has limits. */
function annWith(...lines: readonly string[]): string {
  const ann = ["[users.ann]", `secret = "${ANN.toHex()}"`, ...lines];
  return [...ann, "[users.bob]", `secret = "${BOB.toHex()}"`, ""].join("\n");
}

function start(home: ConfigHome, workers: number, args: readonly string[] = []): Promise<ProxyProcess> {
  return ProxyProcess.start({
    stub,
    secrets: [],
    home: home.path,
    args: ["--workers", String(workers), ...args],
  });
}

/** Opens `count` sessions of ann that keep what they get for nobody. */
function openSessions(proxy: ProxyProcess, count: number): Promise<RawClient[]> {
  const one = () => openSession({ port: proxy.port, secret: ANN });
  return Promise.all(Array.from({ length: count }, one));
}

for (const workers of process.platform === "linux" ? [1, 2] : [1]) {
  describe(workers === 1 ? "a user's limits" : `a user's limits over ${workers} workers`, () => {
    it(
      "end the sessions of a user who has used up the quota, for good, and nobody else's",
      async () => {
        using home = new ConfigHome(annWith("quota-gb = 0.001"));
        {
          await using proxy = await start(home, workers);
          const { port } = proxy;
          const sessions = await openSessions(proxy, 3);
          using ofBob = await openSession({ port, secret: BOB });
          const traffic = new Traffic(sessions);
          await Promise.all(sessions.map((client) => ending(client)));
          await traffic.stop();
          const moved = sessions.reduce((sum, client) => sum + 2 * client.received, 0);
          expect(moved).toBeGreaterThan(QUOTA * 0.9);
          expect(await isServed({ port, secret: ANN })).toBe(false);
          await ping(ofBob);
          ofBob[Symbol.dispose]();
          await proxy.stop();
          expect(proxy.countLogged(/user=ann .*reason=revoked/g)).toBe(3);
          expect(proxy.stderr).toMatch(/refused user-quota=1/);
        }
        await using again = await start(home, workers);
        expect(await isServed({ port: again.port, secret: ANN })).toBe(false);
        home.write(annWith("quota-gb = 1"));
        again.signal("SIGHUP");
        await again.logged(/configuration reloaded: changed users ann/);
        expect(await isServed({ port: again.port, secret: ANN })).toBe(true);
      },
      LIMIT_MS,
    );

    it(
      "lose no more than three seconds of traffic to a kill -9",
      async () => {
        using home = new ConfigHome(annWith("quota-gb = 100"));
        await using proxy = await start(home, workers);
        const sessions = await openSessions(proxy, 2);
        using lost = new LostTime();
        const traffic = new Traffic(sessions);
        const mayBeLost = (): number => TALLY_MS + WRITE_MS + SLACK_MS + lost.ms;
        await Bun.sleep(mayBeLost() + 800);
        while (traffic.totalAt(performance.now() - mayBeLost()) === 0) await Bun.sleep(100);
        const killedAt = performance.now();
        const atLeast = traffic.totalAt(killedAt - mayBeLost());
        const children = workers === 1 ? [] : childrenOf(proxy.pid);
        proxy.signal("SIGKILL");
        await proxy.exited().catch(() => {});
        await traffic.stop();
        for (const client of sessions) client[Symbol.dispose]();
        await eventually(() => children.every((pid) => !isAlive(pid)), "the end of the workers");
        expect(atLeast).toBeGreaterThan(0);
        expect(keptUsage(home, "ann").down).toBeGreaterThanOrEqual(atLeast);

        await using next = await start(home, workers, ["--status", "0"]);
        const [, status] = await next.logged(/metrics and health: (\S+)/);
        const report = (await (await fetch(`${status}api/status`)).json()) as {
          users: { name: string; down: number }[];
        };
        expect(report.users.find(({ name }) => name === "ann")?.down).toBe(keptUsage(home, "ann").down);
      },
      LIMIT_MS,
    );

    it(
      "end sessions when the user's time is over",
      async () => {
        const home = new ConfigHome(annWith());
        await using proxy = await start(home, workers);
        const { port } = proxy;
        using ofAnn = await openSession({ port, secret: ANN });
        using ofBob = await openSession({ port, secret: BOB });
        home.write(annWith(`expires = "${new Date(Date.now() + 4_000).toISOString()}"`));
        proxy.signal("SIGHUP");
        await proxy.logged(/configuration reloaded: changed users ann/);
        await ping(ofAnn);
        await ending(ofAnn);
        expect(await isServed({ port, secret: ANN })).toBe(false);
        await ping(ofBob);
        ofBob[Symbol.dispose]();
        await proxy.stop();
        expect(proxy.stderr).toMatch(/user=ann .*reason=revoked/);
        expect(proxy.stderr).toMatch(/refused user-expired=1/);
        home[Symbol.dispose]();
      },
      LIMIT_MS,
    );

    it(
      "slow a user down, over all connections together",
      async () => {
        using home = new ConfigHome(annWith("rate-kb = 600"));
        await using proxy = await start(home, workers);
        const { port } = proxy;
        const piece = randomBytes(512 * 1024);
        stub.onPacket = (_, connection) => {
          for (let count = 0; count < 6; count++) connection.sendPacket(piece);
          return [];
        };
        const open = () => RawClient.open({ port, secret: ANN, discard: true });
        const clients = await Promise.all(Array.from({ length: 4 }, open));
        for (const client of clients) client.sendPacket(Uint8Array.of(1, 2, 3, 4));
        await Promise.all(clients.map((client) => client.until(() => client.received > 0, "bytes")));
        const measured = await rateOf(clients, 3_000);
        expectAbout(measured, 600);

        home.write(annWith("rate-kb = 1200"));
        proxy.signal("SIGHUP");
        await proxy.logged(/configuration reloaded: changed users ann/);
        const faster = await rateOf(clients, 1_500);
        for (const client of clients) client[Symbol.dispose]();
        expectAbout(faster, 1_200);
        await eventually(() => proxy.countLogged(/session ended/g) === 4, "the end of the sessions");
      },
      LIMIT_MS,
    );

    it(
      "slow a user down who is connected already",
      async () => {
        using home = new ConfigHome(annWith());
        await using proxy = await start(home, workers);
        const sessions = await openSessions(proxy, 4);
        using ofBob = await openSession({ port: proxy.port, secret: BOB });
        const traffic = new Traffic(sessions);
        home.write(annWith("rate-kb = 400"));
        proxy.signal("SIGHUP");
        await proxy.logged(/configuration reloaded: changed users ann/);
        const measured = 2 * (await rateOf(sessions, 3_000)); // each byte goes there and back
        expect(measured).toBeLessThan(400 * 1.2);
        expect(measured).toBeGreaterThan(400 * 0.5);
        await ping(ofBob);
        home.write(annWith());
        proxy.signal("SIGHUP");
        await traffic.stop();
        for (const client of sessions) client[Symbol.dispose]();
        ofBob[Symbol.dispose]();
        await eventually(() => proxy.countLogged(/session ended/g) === 5, "the end of the sessions");
      },
      LIMIT_MS,
    );

    it(
      "let a user come from so many addresses at a time",
      async () => {
        using home = new ConfigHome(annWith("max-addresses = 2"));
        await using proxy = await start(home, workers);
        const { port } = proxy;
        const from = (localAddress: string) => ({ port, secret: ANN, localAddress });
        using first = await openSession(from("127.0.0.1"));
        using second = await openSession(from("127.0.0.2"));
        expect(await isServed(from("127.0.0.3"))).toBe(false);
        expect(await isServed(from("127.0.0.2"))).toBe(true);
        expect(await isServed({ port, secret: BOB, localAddress: "127.0.0.3" })).toBe(true);
        second[Symbol.dispose]();
        await eventually(() => isServed(from("127.0.0.3")), "room for another address");
        await ping(first);
        first[Symbol.dispose]();
        await proxy.stop();
        expect(proxy.stderr).toMatch(/refused user-addresses=\d/);
      },
      LIMIT_MS,
    );

    it(
      "show the cover site to those who are over one, where there is fake TLS",
      async () => {
        const domain = "cover.example";
        const { certificate: cert, key } = await (await testAuthority()).issue([domain]);
        const fetch = () => new Response("the page of the site");
        const site = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: { cert, key }, fetch });
        try {
          using home = new ConfigHome(annWith("max-connections = 1"));
          const cover = ["--fake-tls-domain", domain, "--mask-host", `127.0.0.1:${site.port}`];
          await using proxy = await start(home, workers, [...cover, "-v"]);
          const { port } = proxy;
          const hello = { shape: "tdlib", serverName: domain } as const;
          using client = await FakeTlsClient.open({ port, secret: ANN, hello });
          client.sendPacket(randomBytes(40));
          await client.until(() => client.received > 0, "an answer");
          await expect(FakeTlsClient.open({ port, secret: ANN, hello })).rejects.toThrow();
          await proxy.logged(/shown the cover site .*why=refused/);
          using ofBob = await FakeTlsClient.open({ port, secret: BOB, hello });
          ofBob.sendPacket(randomBytes(40));
          await ofBob.until(() => ofBob.received > 0, "an answer");
          expect(isFree(client)).toBe(true);
        } finally {
          await site.stop(true);
        }
      },
      LIMIT_MS,
    );
  });
}

/** How much some clients get, in KB a second, once what they may have at once is spent. */
async function rateOf(clients: readonly RawClient[], ms: number): Promise<number> {
  const received = () => clients.reduce((sum, client) => sum + client.received, 0);
  await Bun.sleep(700);
  const [from, before] = [performance.now(), received()];
  await Bun.sleep(ms);
  return (received() - before) / 1024 / ((performance.now() - from) / 1000);
}

/** Each connection or worker by itself would have a multiple of `rate`; so much a busy machine may be off. */
function expectAbout(measured: number, rate: number): void {
  expect(measured).toBeWithin(0.6 * rate, 1.4 * rate);
}

/** Nobody has ended it. */
function isFree(client: FakeTlsClient): boolean {
  return !client.closed && !client.ended;
}

describe.skipIf(process.platform !== "linux")("a worker that is killed", () => {
  it(
    "takes no more than a second of what users have moved with it",
    async () => {
      using home = new ConfigHome(annWith("quota-gb = 100"));
      await using proxy = await start(home, 2);
      const workers = childrenOf(proxy.pid);
      const [victim = 0] = workers;
      const sessions = await openOnEach(workers, 6, { port: proxy.port, secret: ANN });
      using lost = new LostTime();
      const traffic = new Traffic(sessions);
      await Bun.sleep(TALLY_MS + SLACK_MS + 1_300);
      while (traffic.totalAt(performance.now() - TALLY_MS - SLACK_MS - lost.ms) === 0) await Bun.sleep(100);
      const killedAt = performance.now();
      process.kill(victim, "SIGKILL");
      await eventually(() => sessions.some(isCut), "the end of its sessions");
      await traffic.stop();
      const cut = sessions.filter(isCut);
      const kept = sessions.filter((client) => !isCut(client));
      const moment = killedAt - TALLY_MS - SLACK_MS - lost.ms;
      const atLeast =
        cut.reduce((sum, client) => sum + traffic.receivedAt(client, moment), 0) +
        kept.reduce((sum, client) => sum + client.received, 0);
      expect(cut.length).toBeGreaterThan(0);
      await eventually(() => keptUsage(home, "ann").down >= atLeast, `${atLeast} bytes in the database`);
      for (const client of sessions) client[Symbol.dispose]();
    },
    LIMIT_MS,
  );
});
