import { afterAll, afterEach, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ask, echoOnce, openAnswered } from "../support/asking.ts";
import { CoverSite } from "../support/cover-site.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { Home, poll } from "../support/home.ts";
import { COVER_DOMAIN, Pair } from "../support/look.ts";
import { readFigures } from "../support/process-figures.ts";
import { childrenOf } from "../support/process-tree.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { StubDc } from "../support/stub-dc.ts";

const LINUX = process.platform === "linux";
if (!LINUX) console.warn("limits of file descriptors are not tested: there is no /proc here");
const PRLIMIT = Bun.which("prlimit");
const STRACE = Bun.which("strace");
if (PRLIMIT === null) console.warn("that descriptors are taken away is not tested: prlimit is missing");
if (STRACE === null) console.warn("a kernel without memory is not tested: strace is missing");
if (CoverSite.missing !== undefined)
  console.warn(`limits with fake TLS are not tested: ${CoverSite.missing}`);
const MIB = 1024 * 1024;
/** Accepting is paused for 10 s at most. */
const RECOVERY_MS = 40_000;
const TEST_LIMIT_MS = 120_000;
const ENTRY = join(import.meta.dir, "../../src/main.ts");

let stub: StubDc;
beforeAll(async () => {
  stub = await StubDc.start();
});
afterAll(() => stub[Symbol.asyncDispose]());
afterEach(() => stub.reset());

/** Answers every packet with itself. */
function echo(): void {
  stub.onPacket = ({ payload }) => [payload];
}

/** The processor time that a process has used, in milliseconds. */
function processorMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10; // ticks of 10 ms
}

/** The part of a processor that a process uses over a second. */
async function load(pid: number): Promise<number> {
  const before = processorMs(pid);
  await Bun.sleep(1_000);
  return (processorMs(pid) - before) / 1_000;
}

/** Waits until `holds`, which takes its own time. */
async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + RECOVERY_MS;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${RECOVERY_MS} ms`);
    await Bun.sleep(100);
  }
}

/** Waits for a second in which the process had little to do: spinning takes all of a processor that there is. */
function calm(proxy: ProxyProcess): Promise<void> {
  return until(async () => (await load(proxy.pid)) < 0.1, "a calm second");
}

/** Waits until a new client is served. */
function served(proxy: ProxyProcess): Promise<void> {
  const asks = (): Promise<boolean> =>
    ask(proxy, { limitMs: 2_000 }).then(
      () => true,
      () => false,
    );
  return until(asks, "a client that is served");
}

/** Clients that come at once; some may be turned away. */
async function crowd(proxy: ProxyProcess, count: number): Promise<RawClient[]> {
  const { port, secret } = proxy;
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = await RawClient.open({ port, secret });
      client.sendPacket(randomBytes(40));
      return client;
    }),
  );
}

function release(clients: readonly RawClient[]): void {
  for (const client of clients) client[Symbol.dispose]();
}

describe.skipIf(!LINUX)("with few file descriptors", () => {
  it(
    "it starts with 64, serves some, refuses the rest cleanly, and recovers",
    async () => {
      echo();
      const command = [
        "/bin/sh",
        "-c",
        'ulimit -n 64; exec "$0" "$@"',
        process.execPath,
        "run",
        ENTRY,
      ] as const;
      await using proxy = await ProxyProcess.start({ stub, command: [...command], args: ["-v"] });
      await proxy.logged(/room for \d+ connections only, with 64 open files/);
      const clients = await crowd(proxy, 60);
      const settled = (client: RawClient): boolean => client.received > 0 || client.closed || client.ended;
      await poll(() => (clients.every(settled) ? true : undefined), "an answer or an end for everybody");
      const lucky = clients.filter(({ received }) => received > 0);
      expect(lucky.length).toBeGreaterThanOrEqual(8);
      await calm(proxy);
      for (const client of lucky.filter(({ ended, closed }) => !ended && !closed)) {
        await client.readPacket();
        await echoOnce(client);
      }
      release(clients);
      await served(proxy);
      expect(proxy.stderr).not.toContain("a bug");
      expect(await proxy.stop()).toBe(0);
    },
    TEST_LIMIT_MS,
  );

  it.skipIf(PRLIMIT === null)(
    "it goes on when they are taken away while it runs, and blames no route",
    async () => {
      echo();
      await using proxy = await ProxyProcess.start({ stub, poolSize: 4, args: ["-v"] });
      const clients: RawClient[] = [];
      for (let count = 0; count < 20; count += 1) clients.push(await openAnswered(proxy));
      const { descriptors } = readFigures(proxy.pid);
      const limit = (soft: number): void => {
        Bun.spawnSync(["prlimit", `--nofile=${soft}:`, "--pid", String(proxy.pid)]);
      };
      limit(descriptors);
      const late = await crowd(proxy, 10);
      await proxy.logged(/reason=overload/);
      await calm(proxy);
      const left = clients.filter(({ closed, ended }) => !closed && !ended);
      expect(left.length).toBeGreaterThanOrEqual(12);
      for (const client of left) await echoOnce(client);
      limit(10_000);
      release([...late, ...clients]);
      await served(proxy);
      expect(proxy.stderr).not.toMatch(/code=(?:REFUSED|UNKNOWN|DNS)/);
      expect(await proxy.stop()).toBe(0);
    },
    TEST_LIMIT_MS,
  );
});

describe.skipIf(!LINUX || PRLIMIT === null)("when no descriptor is left, and none can be freed", () => {
  it.each([1, 2])(
    "it does not spin, and serves again when there are some (--workers %d)",
    async (workers) => {
      echo();
      await using proxy = await ProxyProcess.start({ stub, args: ["--workers", String(workers)] });
      const { port } = proxy;
      const serving = workers === 1 ? [proxy.pid] : childrenOf(proxy.pid);
      const limit = (soft: number): void => {
        for (const pid of serving) Bun.spawnSync(["prlimit", `--nofile=${soft}:`, "--pid", String(pid)]);
      };
      limit(5);
      const knock = (): Promise<Bun.Socket | undefined> =>
        Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } }).catch(() => undefined);
      const early = await Promise.all(Array.from({ length: 16 }, knock));
      const calm = async (pid: number): Promise<boolean> => (await load(pid)) < 0.1;
      await until(async () => (await Promise.all(serving.map(calm))).every(Boolean), "a calm second");
      limit(1_024);
      for (const socket of early) socket?.terminate();
      await served(proxy);
      const again = await Promise.all(Array.from({ length: 8 }, () => openAnswered(proxy)));
      release(again);
      expect(proxy.stderr).not.toContain("a bug");
      expect(workers === 1 ? [proxy.pid] : childrenOf(proxy.pid)).toEqual(serving);
      expect(await proxy.stop()).toBe(0);
    },
    TEST_LIMIT_MS,
  );
});

describe.skipIf(!LINUX || STRACE === null)("when the kernel has no memory for those who come", () => {
  it(
    "sessions go on, the processor is not busy, and it recovers",
    async () => {
      echo();
      await using proxy = await ProxyProcess.start({ stub });
      using client = await openAnswered(proxy);
      const inject = ["-e", "trace=accept4", "-e", "inject=accept4:error=ENOMEM"];
      const attach = ["strace", "-f", "-qq", "-o", "/dev/null", ...inject, "-p", String(proxy.pid)];
      const strace = Bun.spawn(attach, { stderr: "ignore" });
      const traced = (): true | undefined =>
        /^TracerPid:\s+[1-9]/m.test(readFileSync(`/proc/${proxy.pid}/status`, "utf8")) || undefined;
      try {
        await poll(traced, "the tracer");
        const late = await crowd(proxy, 3);
        await calm(proxy);
        await echoOnce(client);
        expect(late.map(({ received, ended }) => [received, ended])).toEqual(late.map(() => [0, false]));
        release(late);
      } finally {
        strace.kill("SIGINT");
        await strace.exited;
      }
      await served(proxy);
      await echoOnce(client);
    },
    TEST_LIMIT_MS,
  );
});

describe("--max-connections", () => {
  it("closes more at once", async () => {
    echo();
    await using proxy = await ProxyProcess.start({ stub, args: ["--max-connections", "2"] });
    using first = await openAnswered(proxy);
    using second = await openAnswered(proxy);
    using third = await RawClient.open(proxy);
    await third.until(() => third.ended || third.closed, "the end");
    expect(third.received).toBe(0);
    await echoOnce(first);
    await echoOnce(second);
  });
});

describe("--buffer-mb", () => {
  it(
    "bounds what waits for slow readers, who are dropped, and leaves the others alone",
    async () => {
      const payload = randomBytes(512 * 1024);
      stub.onPacket = ({ payload: asked }) => (asked.length === 8 ? Array(16).fill(payload) : [asked]);
      stub.keepMessages = false;
      const args = ["--buffer-mb", "16", "--buf-kb", "4096", "-v"];
      await using proxy = await ProxyProcess.start({ stub, args });
      using healthy = await openAnswered(proxy);
      const before = readFigures(proxy.pid).residentBytes;
      const slow: RawClient[] = [];
      for (let count = 0; count < 120; count += 1) {
        const client = await openAnswered(proxy);
        client.stopReading();
        client.sendPacket(new Uint8Array(8));
        slow.push(client);
      }
      await proxy.logged(/reason=overload/);
      await Bun.sleep(1_000);
      await echoOnce(healthy);
      const grown = readFigures(proxy.pid).residentBytes - before;
      expect(grown / MIB).toBeLessThan(300); // without the bound it is 590
      await poll(() => proxy.countLogged(/reason=overload/g) > 5 || undefined, "the end of some");
      release(slow);
      await ask(proxy);
    },
    TEST_LIMIT_MS,
  );
});

describe("--allow and --deny", () => {
  it("turn away whom they name, and whom they do not", async () => {
    echo();
    for (const args of [
      ["--deny", "127.0.0.0/8"],
      ["--allow", "192.0.2.0/24"],
      ["--allow", "127.0.0.0/8", "--deny", "127.0.0.1"],
    ]) {
      await using proxy = await ProxyProcess.start({ stub, args: [...args, "-v"] });
      using client = await RawClient.open(proxy);
      await client.until(() => client.ended || client.closed, "the end");
      await proxy.logged(/reason=refused/);
    }
    await using proxy = await ProxyProcess.start({
      stub,
      args: ["--allow", "127.0.0.0/8", "--deny", "127.0.0.2"],
    });
    await ask(proxy);
  });

  it("say which lines of a file cannot be read", async () => {
    using home = new Home();
    const path = join(home.path, "list.txt");
    writeFileSync(path, "# mine\n10.0.0.0/8\nexample.org\n10.0.0.1/8\n");
    await using program = new Program({ args: ["--port", "0", "--deny", path], home: home.path });
    expect(await program.exited()).toBe(2);
    expect(program.stderr).toContain("line 3");
    expect(program.stderr).toContain("line 4");
  });
});

describe("limits of an address", () => {
  const header = (address: string): Uint8Array =>
    Buffer.from(`PROXY TCP4 ${address} 198.51.100.1 4711 443\r\n`);

  async function openFrom(proxy: ProxyProcess, address: string): Promise<RawClient> {
    const client = await RawClient.connect(proxy);
    client.write(header(address));
    client.write(client.init);
    return client;
  }

  it("hold for the client behind a load balancer: connections, and new ones per second", async () => {
    echo();
    const args = [
      ...["--proxy-protocol", "--max-per-address", "2", "--address-rate", "50"],
      ...["--handshake-seconds", "60"], // which would end them, too
    ];
    await using proxy = await ProxyProcess.start({ stub, args });
    using first = await openFrom(proxy, "203.0.113.1");
    using second = await openFrom(proxy, "203.0.113.1");
    await echoOnce(first);
    await echoOnce(second);
    using third = await openFrom(proxy, "203.0.113.1");
    await third.until(() => third.ended || third.closed, "the end");
    using other = await openFrom(proxy, "203.0.113.2");
    await echoOnce(other);
    const flood = await Promise.all(
      Array.from({ length: 70 }, async () => {
        const client = await RawClient.connect(proxy);
        client.write(header("203.0.113.3"));
        return client;
      }),
    );
    await poll(
      () => (flood.filter(({ ended, closed }) => ended || closed).length >= 68 ? true : undefined),
      "the end of most",
    );
    release(flood);
  });
});

describe("users of the file", () => {
  /** Writes a configuration file; returns its name. */
  function configure(home: string, text: string): string {
    const path = join(home, "users.toml");
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  it(
    "have their connections, their quota and their rate, and do not disturb each other",
    async () => {
      echo();
      const [small, large] = [randomBytes(16).toHex(), randomBytes(16).toHex()];
      using home = new Home();
      const config = configure(
        home.path,
        `[users.small]\nsecret = "${small}"\nmax-connections = 2\nquota-gb = 0.001\nrate-kb = 400\n` +
          `[users.large]\nsecret = "${large}"\n`,
      );
      await using proxy = await ProxyProcess.start({
        stub,
        secrets: [],
        home: home.path,
        args: ["--config", config, "-v"],
      });
      const { port } = proxy;
      const [smallUser, largeUser] = [small, large].map((secret) => ({
        port,
        secret: Uint8Array.fromHex(secret),
      }));
      if (smallUser === undefined || largeUser === undefined) throw new Error("unreachable");
      using other = await openAnswered(largeUser);
      using client = await openAnswered(smallUser);
      using second = await openAnswered(smallUser);
      using third = await RawClient.open(smallUser);
      await third.until(() => third.ended || third.closed, "the end");
      second[Symbol.dispose]();
      const startedAt = performance.now();
      await echoOnce(client, 100 * 1024); // 200 KB in all, at 400 KB/s
      expect(performance.now() - startedAt).toBeGreaterThan(350);
      const gone = (): boolean => client.ended || client.closed;
      for (let count = 0; count < 20 && !gone(); count += 1) {
        const before = client.received;
        client.sendPacket(randomBytes(100 * 1024));
        await client.until(() => gone() || client.received - before >= 100 * 1024, "an echo, or the end");
      }
      await proxy.logged(/reason=revoked/);
      await echoOnce(other);
      using again = await RawClient.open(smallUser);
      await again.until(() => again.ended || again.closed, "the end");
      await echoOnce(other, 1024 * 1024);
    },
    TEST_LIMIT_MS,
  );

  it.skipIf(CoverSite.missing !== undefined)(
    "are shown the site of fake TLS when they are over a limit",
    async () => {
      echo();
      const key = randomBytes(16);
      using home = new Home();
      const secret = `ee${key.toHex()}${Buffer.from(COVER_DOMAIN).toHex()}`;
      const config = configure(home.path, `[users.family]\nsecret = "${secret}"\nmax-connections = 1\n`);
      await using pair = await Pair.start({
        proxy: { stub, secrets: [], home: home.path, args: ["--config", config] },
      });
      const { port } = pair.proxy;
      const hello = { shape: "tdlib", serverName: COVER_DOMAIN } as const;
      using first = await FakeTlsClient.open({ port, secret: key, hello });
      first.sendPacket(randomBytes(40));
      await first.readPacket();
      await pair.site.forget();
      await expect(FakeTlsClient.open({ port, secret: key, hello })).rejects.toThrow();
      expect(await pair.site.accepted()).toBe(1);
      await pair.proxy.logged(/why=refused|refused/);
      first.sendPacket(randomBytes(40));
      await first.readPacket();
    },
    TEST_LIMIT_MS,
  );
});
