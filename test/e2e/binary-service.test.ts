import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { testCertificates } from "../support/certificates.ts";
import { ConfigHome } from "../support/config-home.ts";
import { BUILD_LIMIT_MS, buildNative, type Command } from "../support/executable.ts";
import { childrenOf, isAlive } from "../support/process-tree.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { ending, eventually, isServed, openSession, ping } from "../support/sessions.ts";
import { StatusClient } from "../support/status.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Traffic } from "../support/traffic.ts";
import { keptUsage } from "../support/usage.ts";

const LIMIT_MS = 60_000;
/** The smallest quota that there is, 0.001 GB, in bytes. */
const QUOTA = Math.round(0.001 * 1024 ** 3);
/** Of the user and group `nobody` on every Linux. */
const NOBODY_ID = 65_534;
const ANN = new Uint8Array(randomBytes(16));
const BOB = new Uint8Array(randomBytes(16));
const linux = process.platform === "linux";
const root = process.getuid?.() === 0;
if (!root) console.warn("that the executable gives up privileges is not tested: it takes root");

let stub: StubDc;
let executable: Command;

beforeAll(async () => {
  [stub, executable] = await Promise.all([StubDc.start(), buildNative()]);
}, BUILD_LIMIT_MS);

beforeEach(() => {
  stub.reset();
  stub.keepMessages = false;
  stub.onPacket = ({ payload }) => [payload];
});

afterAll(() => stub[Symbol.asyncDispose]());

function table(name: string, secret: Uint8Array, ...lines: readonly string[]): string {
  return [`[users.${name}]`, `secret = "${secret.toHex()}"`, ...lines, ""].join("\n");
}

function start(
  home: ConfigHome,
  workers: number,
  args: readonly string[] = [],
  command: Command = executable,
): Promise<ProxyProcess> {
  return ProxyProcess.start({
    stub,
    secrets: [],
    command,
    home: home.path,
    args: ["--workers", String(workers), "--status", "0", ...args],
  });
}

for (const workers of linux ? [1, 2] : [1]) {
  describe(workers === 1 ? "the executable" : `the executable with ${workers} workers`, () => {
    it(
      "reloads, counts and logs",
      async () => {
        using home = new ConfigHome(table("ann", ANN));
        const log = join(home.path, "log");
        await using proxy = await start(home, workers, ["--log-format", "json", "--log-file", log]);
        expect(childrenOf(proxy.pid)).toHaveLength(workers === 1 ? 0 : workers);
        const { port } = proxy;
        const status = await StatusClient.of(proxy);
        using ofAnn = await openSession({ port, secret: ANN });
        home.write(table("bob", BOB));
        proxy.signal("SIGHUP");
        await proxy.logged(/configuration reloaded: new users bob; removed users ann/);
        await ending(ofAnn);
        using ofBob = await openSession({ port, secret: BOB });
        home.write("[users.bob\n");
        proxy.signal("SIGHUP");
        await proxy.logged(/the configuration stays as it was: \S+config\.toml:1/);
        await ping(ofBob);
        renameSync(log, `${log}.old`);
        proxy.signal("SIGUSR1");
        await proxy.logged(/the log file has been opened again/);
        const scrape = await status.scrape();
        expect(scrape.sum("tgws_user_sessions_total", { user: "bob" })).toBe(1);
        expect(scrape.sum("tgws_connections_ended_total", { reason: "revoked" })).toBe(1);
        expect(scrape.sum("tgws_config_error")).toBe(1);
        ofBob[Symbol.dispose]();
        expect(await proxy.stop()).toBe(0);
        const kept = readFileSync(`${log}.old`, "utf8") + readFileSync(log, "utf8");
        expect(kept).toBe(proxy.stderr);
        for (const line of kept.trim().split("\n")) expect(JSON.parse(line)).toHaveProperty("message");
      },
      LIMIT_MS,
    );

    it(
      "keeps a quota through a kill -9",
      async () => {
        using home = new ConfigHome(table("ann", ANN, "quota-gb = 0.001") + table("bob", BOB));
        {
          await using proxy = await start(home, workers);
          const { port } = proxy;
          using client = await openSession({ port, secret: ANN });
          const traffic = new Traffic([client]);
          await ending(client);
          await traffic.stop();
          expect(await isServed({ port, secret: ANN })).toBe(false);
          expect(await isServed({ port, secret: BOB })).toBe(true);
          const written = (): boolean => keptUsage(home, "ann").up + keptUsage(home, "ann").down >= QUOTA;
          await eventually(written, "what was moved in the database");
          const children = childrenOf(proxy.pid);
          proxy.signal("SIGKILL");
          await proxy.exited();
          await eventually(() => !children.some(isAlive), "the end of the workers");
        }
        await using again = await start(home, workers);
        expect(await isServed({ port: again.port, secret: ANN })).toBe(false);
        expect(await isServed({ port: again.port, secret: BOB })).toBe(true);
      },
      LIMIT_MS,
    );
  });
}

describe.skipIf(!linux)("the executable's workers", () => {
  it(
    "are started again when they are killed, and replaced on SIGUSR2",
    async () => {
      using home = new ConfigHome(table("ann", ANN));
      await using proxy = await start(home, 2);
      const { port } = proxy;
      const before = childrenOf(proxy.pid);
      process.kill(before[0] ?? 0, "SIGKILL");
      await proxy.logged(/was killed by SIGKILL: another one starts/);
      const open = await Promise.all(Array.from({ length: 10 }, () => openSession({ port, secret: ANN })));
      proxy.signal("SIGUSR2");
      await proxy.logged(/all workers have been replaced/);
      for (const client of open) await ping(client);
      for (const client of open) client[Symbol.dispose]();
      await eventually(() => !before.some(isAlive), "the end of the old workers");
      await eventually(() => childrenOf(proxy.pid).length === 2, "two workers");
      expect(await isServed({ port, secret: ANN })).toBe(true);
      expect(await proxy.stop()).toBe(0);
    },
    LIMIT_MS,
  );

  it(
    "are waited for while the executable is not there",
    async () => {
      const own = mkdtempSync(join(tmpdir(), "tgws-moved-"));
      try {
        const path = join(own, "tgws");
        copyFileSync(executable[0], path);
        using home = new ConfigHome(table("ann", ANN));
        await using proxy = await start(home, 2, [], [path]);
        const { port } = proxy;
        const [victim = 0] = childrenOf(proxy.pid);
        renameSync(path, `${path}.old`);
        process.kill(victim, "SIGKILL");
        await proxy.logged(/worker \d cannot be started: ENOENT.*: another one starts/);
        const clients = await Promise.all(
          Array.from({ length: 8 }, () => openSession({ port, secret: ANN })),
        );
        renameSync(`${path}.old`, path);
        await eventually(() => childrenOf(proxy.pid).length === 2, "another worker");
        for (const client of clients) await ping(client);
        for (const client of clients) client[Symbol.dispose]();
        expect(await proxy.stop()).toBe(0);
        expect(proxy.stderr).not.toMatch(/a bug/);
      } finally {
        rmSync(own, { recursive: true, force: true });
      }
    },
    LIMIT_MS,
  );

  it.skipIf(!root)(
    "cannot be started by a user to whom the executable is closed",
    async () => {
      const closed = mkdtempSync(join(tmpdir(), "tgws-closed-"));
      try {
        const path = join(closed, "tgws");
        copyFileSync(executable[0], path);
        const args = ["--port", "0", "--workers", "2", "--user", String(NOBODY_ID)];
        await using program = new Program({ command: [path], args });
        expect(await program.exited()).toBe(1);
        expect(program.stderr).toMatch(
          /^tgws: Cannot start worker 0: EACCES.*\nhint: .*must be able to execute it$/m,
        );
      } finally {
        rmSync(closed, { recursive: true, force: true });
      }
    },
    LIMIT_MS,
  );

  it.skipIf(!root)(
    "are nobody with --user nobody, and so is whoever takes their place",
    async () => {
      chmodSync(dirname((await testCertificates()).caFile), 0o755);
      chmodSync(dirname(executable[0]), 0o755);
      using home = new ConfigHome(table("ann", ANN, "quota-gb = 1"));
      chownSync(home.file, 0, NOBODY_ID);
      chmodSync(home.file, 0o640);
      await using proxy = await start(home, 2, ["--user", String(NOBODY_ID)]);
      const before = childrenOf(proxy.pid);
      process.kill(before[0] ?? 0, "SIGKILL");
      await proxy.logged(/was killed by SIGKILL: another one starts/);
      await eventually(() => childrenOf(proxy.pid).length === 2, "another worker");
      for (const pid of [proxy.pid, ...childrenOf(proxy.pid)]) {
        const text = readFileSync(`/proc/${pid}/status`, "utf8");
        expect(text).toMatch(/^Uid:\t65534\t65534\t65534\t65534$/m);
        expect(text).toMatch(/^CapEff:\t0+$/m);
      }
      expect(await isServed({ port: proxy.port, secret: ANN })).toBe(true);
      expect(proxy.stderr).not.toMatch(/Cannot/);
    },
    LIMIT_MS,
  );
});
