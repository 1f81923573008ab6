import { afterAll, afterEach, beforeAll, describe, expect, it } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { childrenOf, isAlive } from "../support/process-tree.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { eventually, isCut, isServed, openSession, ping } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";

const LIMIT_MS = 60_000;
/** Less than the 5 s that sessions are given to end. */
const AT_ONCE_MS = 4_500;
const PING = Uint8Array.of(1, 2, 3, 4);
const linux = process.platform === "linux";

if (!linux) console.log("Workers share a port on Linux only: their tests are skipped");

let stub: StubDc;
const folders: string[] = [];

beforeAll(async () => {
  stub = await StubDc.start();
});

afterEach(() => {
  stub.reset();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

afterAll(() => stub[Symbol.asyncDispose]());

/** Starts a supervisor and `count` workers. */
function startWorkers(count: number, args: readonly string[] = [], home?: string): Promise<ProxyProcess> {
  stub.onPacket = ({ payload }) => [payload];
  return ProxyProcess.start({
    stub,
    args: ["--workers", String(count), ...args],
    ...(home === undefined ? {} : { home }),
  });
}

function openSessions({ port, secret }: ProxyProcess, count: number): Promise<RawClient[]> {
  return Promise.all(Array.from({ length: count }, () => openSession({ port, secret })));
}

function close(clients: readonly RawClient[]): void {
  for (const client of clients) client[Symbol.dispose]();
}

/** Whether another program can listen there. */
function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!linux)("workers", () => {
  it(
    "share the port, and end with their supervisor when it is told to",
    async () => {
      await using proxy = await startWorkers(2);
      const workers = childrenOf(proxy.pid);
      expect(workers).toHaveLength(2);
      const clients = await openSessions(proxy, 24);
      close(clients);
      expect(await proxy.stop()).toBe(0);
      expect(proxy.stderr).toMatch(/stats: total=24 active=0 ws=24 /);
      expect(workers.filter(isAlive)).toEqual([]);
    },
    LIMIT_MS,
  );

  it(
    "are started again when they are killed, and nobody is refused meanwhile",
    async () => {
      await using proxy = await startWorkers(2);
      const [victim = 0, other = 0] = childrenOf(proxy.pid);
      const clients = await openSessions(proxy, 16);
      process.kill(victim, "SIGKILL");
      const during = await openSessions(proxy, 16); // some of them wait in the socket of the dead one
      await proxy.logged(/worker \d \(\d+\) was killed by SIGKILL: another one starts/);
      await eventually(() => childrenOf(proxy.pid).length === 2, "another worker");
      expect(childrenOf(proxy.pid)).toContain(other);
      expect(childrenOf(proxy.pid)).not.toContain(victim);
      const cut = clients.filter(isCut).length;
      expect(cut).toBeGreaterThan(0);
      expect(cut).toBeLessThan(clients.length); // the other worker's sessions did not notice
      for (const client of clients) if (!isCut(client)) await ping(client);
      close([...clients, ...during]);
      expect(await proxy.stop()).toBe(0);
      expect(proxy.stderr).toMatch(/stats: total=\d+ active=0 /);
    },
    LIMIT_MS,
  );

  it(
    "leave the port at once when the program ends, and let sessions go on for some seconds",
    async () => {
      await using proxy = await startWorkers(2);
      const [client] = await openSessions(proxy, 1);
      if (client === undefined) throw new Error("there is none");
      proxy.signal("SIGTERM");
      await eventually(() => isFree(proxy.port), "a free port");
      expect(proxy.running).toBe(true);
      await ping(client);
      close([client]);
      expect(await proxy.exited()).toBe(0);
    },
    LIMIT_MS,
  );

  it(
    "take the clients of one that hangs, which goes on when it comes back",
    async () => {
      await using proxy = await startWorkers(2);
      const before = childrenOf(proxy.pid);
      const [hanging = 0] = before;
      const sessions = await openSessions(proxy, 8);
      process.kill(hanging, "SIGSTOP");
      try {
        // Those who came meanwhile wait for somebody to accept them.
        const late = await Promise.all(
          Array.from({ length: 16 }, () => RawClient.open({ port: proxy.port, secret: proxy.secret })),
        );
        for (const client of late) client.sendPacket(PING);
        const served = late.map((client) => client.until(() => client.received > 0, "an answer", 45_000));
        await Promise.all(served);
        close(late);
        expect(childrenOf(proxy.pid)).toEqual(before);
      } finally {
        process.kill(hanging, "SIGCONT");
      }
      for (const client of sessions) await ping(client);
      close(sessions);
      expect(await proxy.stop()).toBe(0);
    },
    LIMIT_MS,
  );

  it(
    "start with the address list that is in force while its file is broken",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "tgws-list-"));
      folders.push(folder);
      const list = join(folder, "deny.txt");
      writeFileSync(list, "192.0.2.0/24\n");
      await using proxy = await startWorkers(2, ["--deny", list]);
      writeFileSync(list, "192.0.2.0/24\nnot a network\n");
      await proxy.logged(/the configuration stays as it was: .*line 2/);
      expect(proxy.stderr).not.toMatch(/goes on as it was/); // no worker was told
      const before = childrenOf(proxy.pid);
      for (const pid of before) process.kill(pid, "SIGKILL");
      close(await openSessions(proxy, 8));
      expect(childrenOf(proxy.pid).filter((pid) => before.includes(pid))).toEqual([]);
      proxy.signal("SIGUSR2");
      await proxy.logged(/all workers have been replaced/);
      writeFileSync(list, "127.0.0.0/8\n");
      await proxy.logged(/configuration reloaded/);
      expect(await isServed({ port: proxy.port, secret: proxy.secret })).toBe(false);
      expect(await proxy.stop()).toBe(0);
    },
    LIMIT_MS,
  );

  it(
    "are replaced on SIGUSR2 without refusing or dropping anybody",
    async () => {
      await using proxy = await startWorkers(2, ["--drain-seconds", "30"]);
      const before = childrenOf(proxy.pid);
      const sessions = await openSessions(proxy, 12);
      let refused = 0;
      let served = 0;
      let running = true;
      const load = Array.from({ length: 4 }, async () => {
        while (running) {
          try {
            using client = await openSession({ port: proxy.port, secret: proxy.secret });
            served += client.received > 0 ? 1 : 0;
          } catch {
            refused += 1;
          }
        }
      });
      proxy.signal("SIGUSR2");
      await proxy.logged(/all workers have been replaced/);
      const servedAtOnce = served;
      await eventually(() => served > servedAtOnce + 20, "more sessions");
      running = false;
      await Promise.all(load);
      expect(refused).toBe(0);
      for (const client of sessions) await ping(client); // still in the old workers
      close(sessions);
      await eventually(() => before.every((pid) => !isAlive(pid)), "the end of the old workers");
      expect(childrenOf(proxy.pid)).toHaveLength(2);
      expect(await proxy.stop()).toBe(0);
      expect(proxy.stderr).not.toMatch(/reason=shutdown/);
    },
    LIMIT_MS,
  );

  it(
    "drop sessions that are still there when the time to drain is over",
    async () => {
      await using proxy = await startWorkers(2, ["--drain-seconds", "1"]);
      const before = childrenOf(proxy.pid);
      const clients = await openSessions(proxy, 4);
      proxy.signal("SIGUSR2");
      await eventually(() => before.every((pid) => !isAlive(pid)), "the end of the old workers");
      for (const client of clients) await client.until(() => isCut(client), "the end of a session");
      await openSessions(proxy, 4).then(close);
    },
    LIMIT_MS,
  );

  it(
    "end when their supervisor is killed, and leave the port to the next one",
    async () => {
      await using proxy = await startWorkers(2);
      const workers = childrenOf(proxy.pid);
      const clients = await openSessions(proxy, 8);
      proxy.signal("SIGKILL");
      await eventually(() => isFree(proxy.port), "a free port", AT_ONCE_MS);
      for (const client of clients) await ping(client); // their sessions have some seconds still
      await proxy.exited().catch(() => {});
      await eventually(() => workers.every((pid) => !isAlive(pid)), "the end of the workers");
      for (const client of clients) await client.until(() => isCut(client), "the end of a session");
    },
    LIMIT_MS,
  );

  it(
    "end at once, with their sessions, when their supervisor is told so twice",
    async () => {
      await using proxy = await startWorkers(2);
      const workers = childrenOf(proxy.pid);
      const clients = await openSessions(proxy, 8);
      proxy.signal("SIGTERM");
      await proxy.logged(/once more to stop at once/);
      const from = performance.now();
      proxy.signal("SIGTERM");
      expect(await proxy.exited()).toBe(130);
      await eventually(() => workers.every((pid) => !isAlive(pid)), "the end of the workers");
      expect(performance.now() - from).toBeLessThan(AT_ONCE_MS);
      close(clients);
    },
    LIMIT_MS,
  );

  it(
    "are replaced one by one when somebody ends them",
    async () => {
      await using proxy = await startWorkers(2, ["--drain-seconds", "30"]);
      const [first = 0] = childrenOf(proxy.pid);
      process.kill(first, "SIGTERM");
      await proxy.logged(/was told to end: another one takes its place/);
      await eventually(() => !isAlive(first), "its end");
      await eventually(() => childrenOf(proxy.pid).length === 2, "another worker");
      await openSessions(proxy, 8).then(close);
    },
    LIMIT_MS,
  );

  it(
    "stand in for one that keeps dying, so that nobody waits for it",
    async () => {
      await using proxy = await startWorkers(2);
      const [, keeper = 0] = childrenOf(proxy.pid);
      for (let death = 0; death < 4; death++) {
        await eventually(() => childrenOf(proxy.pid).some((pid) => pid !== keeper), "a worker to kill");
        const victims = childrenOf(proxy.pid).filter((pid) => pid !== keeper);
        for (const pid of victims) process.kill(pid, "SIGKILL");
        await eventually(() => !victims.some(isAlive), "its end");
      }
      await proxy.logged(/another one starts in 2 s/);
      let next: number | undefined;
      const stopping = eventually(() => {
        next = childrenOf(proxy.pid).find((pid) => pid !== keeper);
        if (next !== undefined) process.kill(next, "SIGSTOP"); // so that it cannot be the one that serves
        return next !== undefined;
      }, "another worker");
      const clients = await openSessions(proxy, 16); // half of them at the socket that has no worker
      await stopping;
      process.kill(next ?? 0, "SIGCONT");
      close(clients);
      await openSessions(proxy, 16).then(close);
    },
    LIMIT_MS,
  );

  it(
    "keep one limit of a user's connections between them",
    async () => {
      const home = makeHome();
      writeConfig(home, '[users.ann]\nsecret = "00112233445566778899aabbccddeeff"\nmax-connections = 3\n');
      await using proxy = await startWorkers(2, [], home);
      const secret = Uint8Array.fromHex("00112233445566778899aabbccddeeff");
      const clients = await Promise.all([1, 2, 3].map(() => openSession({ port: proxy.port, secret })));
      for (let more = 0; more < 6; more++) {
        using client = await RawClient.open({ port: proxy.port, secret });
        client.sendPacket(PING);
        await client.until(() => isCut(client), "a refusal");
        expect(client.received).toBe(0);
      }
      clients.pop()?.[Symbol.dispose]();
      let again: RawClient | undefined;
      await eventually(async () => {
        const client = await RawClient.open({ port: proxy.port, secret });
        again = client;
        client.sendPacket(PING);
        await client.until(() => isCut(client) || client.received > 0, "an answer, or a refusal");
        return client.received > 0;
      }, "a place for another connection");
      close([...clients, ...(again === undefined ? [] : [again])]);
      await proxy.stop();
      expect(proxy.stderr).toMatch(/refused user-connections=\d+/);
    },
    LIMIT_MS,
  );
});

function makeHome(): string {
  const folder = mkdtempSync(join(tmpdir(), "tgws-workers-"));
  folders.push(folder);
  return folder;
}

function writeConfig(home: string, text: string): void {
  const path = join(home, "config.toml");
  writeFileSync(path, text);
  chmodSync(path, 0o600);
}
