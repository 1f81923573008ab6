import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { openTcp } from "../support/client-stream.ts";
import { ConfigHome } from "../support/config-home.ts";
import { LostTime } from "../support/lost-time.ts";
import { childrenOf } from "../support/process-tree.ts";
import { parseMetrics } from "../support/prometheus.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import type { RawClient } from "../support/raw-client.ts";
import { eventually, isCut, isServed, openOnEach, openSession, ping } from "../support/sessions.ts";
import { type Scrape, StatusClient } from "../support/status.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Traffic } from "../support/traffic.ts";
import { within } from "../support/waiting.ts";

const LIMIT_MS = 60_000;
/** What a wrong secret looks like for a while: the length of an init. */
const INIT_LENGTH = 64;
/** As intermediate transport has them, with their length. */
const [SENT, HEADER] = [20_000, 4];
const ANN = new Uint8Array(randomBytes(16));
const BOB = new Uint8Array(randomBytes(16));
const CONFIG = [
  "[users.ann]",
  `secret = "${ANN.toHex()}"`,
  "max-connections = 4",
  "[users.bob]",
  `secret = "${BOB.toHex()}"`,
  "",
].join("\n");

let stub: StubDc;
let home: ConfigHome;

beforeAll(async () => {
  stub = await StubDc.start();
  home = new ConfigHome(CONFIG);
});

beforeEach(() => {
  stub.reset();
  stub.keepMessages = false;
  stub.onPacket = ({ payload }) => [payload];
});

afterAll(async () => {
  await stub[Symbol.asyncDispose]();
  home[Symbol.dispose]();
});

function start(workers: number, args: readonly string[] = []): Promise<ProxyProcess> {
  return ProxyProcess.start({
    stub,
    secrets: [],
    home: home.path,
    args: ["--workers", String(workers), "--status", "0", ...args],
  });
}

function close(clients: readonly RawClient[]): void {
  for (const client of clients) client[Symbol.dispose]();
}

/** Scrapes until what was scraped is as it is to be: an answer may be a quarter of a second old. */
async function scrapeUntil(
  status: StatusClient,
  holds: (scrape: Scrape) => boolean,
  what: string,
): Promise<Scrape> {
  let last = await status.scrape();
  const look = async (): Promise<boolean> => {
    last = await status.scrape();
    return holds(last);
  };
  await eventually(look, what).catch((cause: unknown) => {
    throw new Error(`${what}:\n${last.text}`, { cause });
  });
  return last;
}

/** Opens a session, moves bytes both ways, and ends it. */
async function visit(port: number, secret: Uint8Array, dcId: number): Promise<void> {
  using client = await openSession({ port, secret, dcId });
  client.sendPacket(randomBytes(SENT));
  await client.readPacket();
}

for (const workers of process.platform === "linux" ? [1, 2] : [1]) {
  describe(workers === 1 ? "the status server" : `the status server of ${workers} workers`, () => {
    it(
      "counts what clients have done, by user, route, data centre and reason",
      async () => {
        await using proxy = await start(workers);
        const { port } = proxy;
        const status = await StatusClient.of(proxy);
        for (let count = 0; count < 4; count++) await visit(port, ANN, 2);
        for (let count = 0; count < 3; count++) await visit(port, BOB, -4);
        await scrapeUntil(status, (one) => one.sum("tgws_connections_active") === 0, "their end");
        const open = await Promise.all([1, 2, 3, 4].map(() => openSession({ port, secret: ANN })));
        for (let count = 0; count < 2; count++) expect(await isServed({ port, secret: ANN })).toBe(false);
        const stranger = await openTcp(port);
        stranger.write(randomBytes(INIT_LENGTH));
        stranger.end();
        stranger.resume();

        const all = (scrape: Scrape): boolean => scrape.sum("tgws_connections_ended_total") === 10;
        const scrape = await scrapeUntil(status, all, "the end of ten connections");
        const each = 2 * HEADER + 4 + SENT;
        const bytes = 7 * each + 4 * (HEADER + 4);
        expect({
          made: scrape.sum("tgws_connections_total"),
          active: scrape.sum("tgws_connections_active"),
          left: scrape.sum("tgws_connections_ended_total", { reason: "client-closed" }),
          refused: scrape.sum("tgws_connections_ended_total", { reason: "refused" }),
          overLimit: scrape.sum("tgws_connections_refused_total", { reason: "user-connections" }),
          strangers: scrape.sum("tgws_connections_ended_total", { reason: "stranger" }),
          up: scrape.sum("tgws_bytes_total", { direction: "up" }),
          down: scrape.sum("tgws_bytes_total", { direction: "down" }),
          dc2: scrape.sum("tgws_route_sessions_total", { route: "direct-ws", dc: "2" }),
          dc4: scrape.sum("tgws_route_sessions_total", { route: "direct-ws", dc: "4" }),
          dc4Up: scrape.sum("tgws_route_bytes_total", { route: "direct-ws", dc: "4", direction: "up" }),
          ann: scrape.sum("tgws_user_sessions_total", { user: "ann" }),
          annNow: scrape.sum("tgws_user_connections", { user: "ann" }),
          annRefused: scrape.sum("tgws_user_refused_total", { user: "ann", reason: "user-connections" }),
          bob: scrape.sum("tgws_user_sessions_total", { user: "bob" }),
          bobUp: scrape.sum("tgws_user_bytes_total", { user: "bob", direction: "up" }),
          workers: scrape.sum("tgws_workers", { state: "running" }),
        }).toEqual({
          made: 14,
          active: 4,
          left: 7,
          refused: 2,
          overLimit: 2,
          strangers: 1,
          up: bytes,
          down: bytes,
          dc2: 8,
          dc4: 3,
          dc4Up: 3 * each,
          ann: 8,
          annNow: 4,
          annRefused: 2,
          bob: 3,
          bobUp: 3 * each,
          workers,
        });
        const page = await status.text("/stats");
        expect(page).toMatch(/^ext_connections_created\t11$/m);
        expect(page).toMatch(/^total_special_connections\t4$/m);
        expect(page).toMatch(/^tgws_refused_user_connections\t2$/m);
        const report = JSON.parse(await status.text("/api/status")) as {
          figures: { connections: { total: number } };
          users: { name: string; connections: number }[];
          config: { file: string };
        };
        expect(report.figures.connections.total).toBe(14);
        expect(report.users.map(({ name, connections }) => [name, connections])).toEqual([
          ["ann", 4],
          ["bob", 0],
        ]);
        expect(report.config.file).toBe(home.file);
        expect(await status.text("/healthz")).toBe("ok\n");
        expect(await status.text("/readyz")).toMatch(/accept/);
        checkWithPromtool(scrape.text);
        close(open);
      },
      LIMIT_MS,
    );

    it(
      "is not ready any more while the program ends, and ends with it",
      async () => {
        await using proxy = await start(workers);
        const status = await StatusClient.of(proxy);
        using client = await openSession({ port: proxy.port, secret: BOB });
        proxy.signal("SIGTERM");
        await eventually(async () => (await status.get("/readyz")).status === 503, "not ready");
        expect(await (await status.get("/readyz")).text()).toBe("stopping\n");
        expect((await status.get("/healthz")).status).toBe(200);
        await ping(client);
        client[Symbol.dispose]();
        expect(await proxy.exited()).toBe(0);
        await expect(status.get("/healthz")).rejects.toThrow();
      },
      LIMIT_MS,
    );

    it(
      "answers while much is moved, and stalls no session",
      async () => {
        await using proxy = await start(workers);
        const { port } = proxy;
        const status = await StatusClient.of(proxy);
        const clients = await Promise.all(
          Array.from({ length: 6 }, () => openSession({ port, secret: BOB })),
        );
        const [probe, ...busy] = clients;
        if (probe === undefined) throw new Error("unreachable");
        const traffic = new Traffic(busy);
        const until = performance.now() + 2_000;
        let [scrapes, slowest] = [0, 0];
        using lost = new LostTime();
        const going = (): boolean => performance.now() < until || scrapes <= 20;
        const scraping = (async () => {
          while (going()) {
            await status.text(["/metrics", "/stats", "/api/status"][scrapes % 3] ?? "/");
            scrapes += 1;
          }
        })();
        while (going()) {
          const [before, lostBefore] = [performance.now(), lost.ms];
          await ping(probe);
          slowest = Math.max(slowest, performance.now() - before - 2 * (lost.ms - lostBefore));
        }
        await scraping;
        await traffic.stop();
        close(clients);
        expect(slowest).toBeLessThan(500);
      },
      LIMIT_MS,
    );

    it(
      "cannot be worn down by garbage and by those who never finish",
      async () => {
        await using proxy = await start(workers);
        const status = await StatusClient.of(proxy);
        using client = await openSession({ port: proxy.port, secret: BOB });
        const words = [
          randomBytes(3_000),
          "GET / HTTP/1.1\r\n",
          "",
          "POST /metrics HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n",
          `GET /${"x".repeat(60_000)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`,
        ];
        const sockets = await Promise.all(
          Array.from({ length: 100 }, async (_, index): Promise<Socket | undefined> => {
            const socket = await openTcp(status.port).catch(() => undefined); // closed already, for the next one
            socket?.on("error", () => {});
            socket?.resume();
            socket?.write(words[index % words.length] ?? "");
            return socket;
          }),
        );
        for (let count = 0; count < 5; count++) {
          expect((await status.scrape()).sum("tgws_connections_active")).toBe(1);
          await ping(client);
        }
        for (const socket of sockets) socket?.destroy();
        expect(await status.text("/healthz")).toBe("ok\n");
        expect(proxy.stderr).not.toMatch(/error|a bug/);
      },
      LIMIT_MS,
    );

    it(
      "ends the program with a hint when its port is in use, and leaves nothing behind",
      async () => {
        using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
        const args = ["--port", "0", "--workers", String(workers), "--status", String(taken.port)];
        await using program = new Program({ args, home: home.path });
        expect(await program.exited()).toBe(1);
        expect(program.stderr).toMatch(/Cannot listen on 127\.0\.0\.1:\d+ for --status: the port is in use/);
        expect(program.stderr).toMatch(/hint: .*--status 127\.0\.0\.1:\d+/);
      },
      LIMIT_MS,
    );
  });
}

describe("the status server with a token", () => {
  it(
    "tells only those who show it, but says to everybody whether the program runs",
    async () => {
      const token = randomBytes(12).toHex();
      await using proxy = await start(1, ["--status-token", token]);
      const status = await StatusClient.of(proxy, token);
      const ask = async (path: string, headers: Record<string, string> = {}): Promise<number> =>
        (await status.get(path, { headers })).status;
      for (const path of ["/metrics", "/stats", "/api/status", "/"]) {
        expect(await ask(path)).toBe(401);
        expect(await ask(path, { Authorization: `Bearer ${token}x` })).toBe(401);
        expect(await ask(path, { Authorization: `Bearer ${token}` })).toBe(200);
      }
      expect(await ask("/healthz")).toBe(200);
      expect(await ask("/readyz")).toBe(200);
      expect((await status.scrape()).text).not.toContain(token);
    },
    LIMIT_MS,
  );

  it(
    "takes secrets and a token from the environment, and tells nobody",
    async () => {
      const environment = {
        TGWS_SECRET: `ann:${ANN.toHex()}`,
        TGWS_STATUS: "0",
        TGWS_STATUS_TOKEN: randomBytes(12).toHex(),
        TGWS_LOG_LEVEL: "debug",
      };
      await using proxy = await ProxyProcess.start({ stub, secrets: [], environment });
      const status = await StatusClient.of(proxy, environment.TGWS_STATUS_TOKEN);
      await visit(proxy.port, ANN, 2);
      const scrape = await scrapeUntil(
        status,
        (one) => one.sum("tgws_connections_ended_total") === 1,
        "its end",
      );
      expect(scrape.sum("tgws_user_sessions_total", { user: "ann" })).toBe(1);
      await proxy.logged(/route open .*user=ann/);
    },
    LIMIT_MS,
  );

  it(
    "tells neither a secret nor the token",
    async () => {
      await using proxy = await start(1);
      const status = await StatusClient.of(proxy);
      await visit(proxy.port, ANN, 2);
      for (const path of ["/metrics", "/stats", "/api/status"]) {
        const text = await status.text(path);
        for (const key of [ANN, BOB]) {
          expect(text).not.toContain(key.toHex());
          expect(text).not.toContain(key.toBase64({ omitPadding: true }));
        }
      }
    },
    LIMIT_MS,
  );
});

describe.skipIf(process.platform !== "linux")("the counters of several workers", () => {
  it(
    "never go back, also when one of them is killed",
    async () => {
      await using proxy = await start(2);
      const { port } = proxy;
      const status = await StatusClient.of(proxy);
      for (let count = 0; count < 10; count++) await visit(port, BOB, 2);
      const workers = childrenOf(proxy.pid);
      const [victim = 0] = workers;
      const clients = await openOnEach(workers, 8, { port, secret: BOB });
      const all = (one: Scrape): boolean => one.sum("tgws_connections_active") === clients.length;
      let before = await scrapeUntil(status, all, "all sessions");
      process.kill(victim, "SIGKILL");
      await eventually(() => clients.some(isCut), "the end of its sessions");
      const grows = (after: Scrape): void => {
        for (const [series, value] of before.counters) {
          if (/^(?:tgws_worker_cpu|process_)/.test(series)) continue; // of one process, which is another now
          expect(`${series} ${(after.counters.get(series) ?? 0) >= value}`).toBe(`${series} true`);
        }
        before = after;
      };
      const running = (one: Scrape): boolean => {
        grows(one);
        const restarted = one.sum("tgws_worker_restarts_total") === 1;
        return restarted && one.sum("tgws_workers", { state: "running" }) === 2;
      };
      const after = await scrapeUntil(status, running, "another worker");
      const alive = clients.filter((client) => !isCut(client)).length;
      expect(after.sum("tgws_connections_active")).toBe(alive);
      expect(after.sum("tgws_user_connections", { user: "bob" })).toBe(alive);
      await visit(port, BOB, 2);
      await scrapeUntil(
        status,
        (one) => {
          grows(one);
          return one.sum("tgws_connections_total") === 10 + clients.length + 1;
        },
        "one more connection",
      );
      close(clients);
    },
    LIMIT_MS,
  );

  it(
    "come once each while the workers are being replaced",
    async () => {
      await using proxy = await start(2);
      const { port } = proxy;
      const status = await StatusClient.of(proxy);
      const clients = await Promise.all(Array.from({ length: 8 }, () => openSession({ port, secret: BOB })));
      const isOld = (one: Scrape): boolean => one.sum("tgws_workers", { state: "draining" }) > 0;
      proxy.signal("SIGUSR2");
      await proxy.logged(/all workers have been replaced/);
      const { text } = await scrapeUntil(status, isOld, "an old worker with its sessions");
      const { series = [] } = parseMetrics(text).get("tgws_worker_open_fds") ?? {};
      expect(series.map(({ labels }) => labels["worker"])).toEqual(["0", "1"]);
      close(clients);
    },
    LIMIT_MS,
  );

  it(
    "are not waited for when a worker does not answer",
    async () => {
      await using proxy = await start(2);
      const status = await StatusClient.of(proxy);
      const [stuck = 0] = childrenOf(proxy.pid);
      process.kill(stuck, "SIGSTOP");
      try {
        const scrape = await within(status.scrape(), "an answer without it");
        expect(scrape.sum("tgws_workers")).toBe(2);
      } finally {
        process.kill(stuck, "SIGCONT");
      }
    },
    LIMIT_MS,
  );
});

/** What Prometheus itself says of the page, where it is installed. */
function checkWithPromtool(text: string): void {
  if (Bun.which("promtool") === null) {
    console.log("promtool is missing (Debian: prometheus): the format is not checked with it");
    return;
  }
  const { stdout, stderr } = Bun.spawnSync(["promtool", "check", "metrics"], { stdin: Buffer.from(text) });
  expect(stdout.toString() + stderr.toString()).toBe("");
}
