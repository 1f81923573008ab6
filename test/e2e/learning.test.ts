import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { resolve } from "node:path";
import { ask } from "../support/asking.ts";
import { PacedGate } from "../support/gate.ts";
import { Home, poll } from "../support/home.ts";
import { answerProbes } from "../support/probe-answers.ts";
import { DCS, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import type { Failure, RouteName } from "../support/route-failures.ts";
import { World } from "../support/world.ts";

const TEST_LIMIT_MS = 240_000; // those that wait for their turn, too
/** What two processors can do at the same time without missing a deadline. */
const gate = new PacedGate(6);
/** A probe comes a second after the client that makes it worth while. */
const PROBE_LIMIT_MS = 20_000;
/** What was learned is written down so often, and some more. */
const KEEP_LIMIT_MS = 30_000;
const ROUTES = ["direct-ws", "cf-worker", "direct-tcp"] as const;
const POSIX = process.platform !== "win32";

/** Runs beside the others, but not beside too many. */
function concurrently(name: string, test: () => Promise<void>): void {
  it.concurrent(name, () => gate.pass(test), TEST_LIMIT_MS);
}

/** Starts a proxy over `routes`, has `use` done with it, and stops it. */
async function withProxy(
  home: Home,
  args: readonly string[],
  use: (proxy: ProxyProcess) => Promise<void>,
): Promise<ProxyProcess> {
  await using proxy = await ProxyProcess.start({ home: home.path, args });
  try {
    await use(proxy);
    expect(await proxy.stop()).toBe(0);
  } catch (error) {
    throw new Error(`the log is:\n${proxy.stderr}`, { cause: error });
  }
  return proxy;
}

function attemptsOf(world: World): number[] {
  return ROUTES.map((route) => world.attempts(route));
}

/** A world whose first two routes fail, each in its way, so that the third one serves. */
async function startBroken(first: Failure, second: Failure): Promise<World> {
  const world = await World.start();
  world.break("direct-ws", first);
  world.break("cf-worker", second);
  return world;
}

describe("after the first routes failed and a later one served", () => {
  const cases: readonly (readonly [Failure, Failure])[] = [
    ["302", "403"],
    ["reset", "101-then-silence"],
    ["tls-alert", "101-then-close"],
    ["101-then-silence", "wrong-certificate"],
  ];
  for (const [first, second] of cases) {
    concurrently(
      `(${first}, ${second}) the next client goes there at once, also after a restart`,
      async () => {
        await using world = await startBroken(first, second);
        using home = new Home();
        const args = world.flags(ROUTES);
        await withProxy(home, args, async (proxy) => {
          await ask(proxy);
          expect(Math.min(...attemptsOf(world))).toBeGreaterThan(0);
          world.forget();
          await ask(proxy);
          expect(attemptsOf(world)).toEqual([0, 0, 1]);
        });
        world.forget();
        await withProxy(home, args, async (proxy) => {
          await ask(proxy);
          expect(attemptsOf(world)).toEqual([0, 0, 1]);
        });
      },
    );
  }

  concurrently("another data centre, and its media, still begin with the first route", async () => {
    await using world = await World.start();
    world.break("direct-ws", "101-then-silence");
    using home = new Home();
    const args = world.flags(["direct-ws", "direct-tcp"]);
    await withProxy(home, args, async (proxy) => {
      await ask(proxy);
      expect(world.peers("direct-tcp").length).toBe(1);
    });
    world.repair("direct-ws");
    world.forget();
    await withProxy(home, args, async (proxy) => {
      for (const dcId of [4, -4, -2]) await ask(proxy, { dcId });
      expect(world.peers("direct-ws").length).toBe(3);
      expect(world.attempts("direct-tcp")).toBe(0);
      await ask(proxy, { dcId: 2 });
      expect(world.peers("direct-ws").length).toBe(3);
      expect(world.attempts("direct-tcp")).toBe(1);
    });
  });
});

describe("routes.json", () => {
  concurrently("is for its owner only, is replaced as a whole, and leaves nothing beside it", async () => {
    await using world = await startBroken("reset", "403");
    using home = new Home();
    const args = world.flags(ROUTES);
    await withProxy(home, args, (proxy) => ask(proxy));
    const before = readFileSync(home.routesFile, "utf8");
    expect(home.kept()?.version).toBe(1);
    if (POSIX) {
      expect(statSync(home.routesFile).mode & 0o777).toBe(0o600);
      chmodSync(home.routesFile, 0o644);
    }
    // Whoever had opened the file before keeps all of the old one.
    const old = openSync(home.routesFile, "r");
    try {
      await withProxy(home, args, (proxy) => ask(proxy, { dcId: 4 }));
      expect(readFileSync(old, "utf8")).toBe(before);
      if (POSIX) expect(fstatSync(old).ino).not.toBe(statSync(home.routesFile).ino);
    } finally {
      closeSync(old);
    }
    expect(Object.keys(home.kept()?.targets ?? {}).sort()).toEqual(["DC 2", "DC 4"]);
    if (POSIX) expect(statSync(home.routesFile).mode & 0o777).toBe(0o600);
    expect(readdirSync(home.path).filter((name) => name.includes("routes.json"))).toEqual(["routes.json"]);
  });

  concurrently("is written while the proxy runs: a crash does not cost what was learned", async () => {
    await using world = await startBroken("reset", "403");
    using home = new Home();
    const args = world.flags(ROUTES);
    {
      await using proxy = await ProxyProcess.start({ home: home.path, args });
      await ask(proxy);
      await poll(() => home.kept(), "routes.json", KEEP_LIMIT_MS);
      proxy.signal("SIGKILL");
      await proxy.exited();
    }
    world.forget();
    await withProxy(home, args, (proxy) => ask(proxy));
    expect(attemptsOf(world)).toEqual([0, 0, 1]);
  });

  concurrently("holds no secret and no token", async () => {
    await using world = await World.start({ token: "c0rrect-horse" });
    world.break("direct-ws", "reset");
    using home = new Home();
    const proxy = await withProxy(home, world.flags(ROUTES), (running) => ask(running));
    const text = readFileSync(home.routesFile, "utf8");
    expect(text).not.toContain("c0rrect-horse");
    expect(text).not.toContain(proxy.secret.toHex());
  });
});

describe("a routes.json that is", () => {
  const until = Date.now() + 3_600_000;
  const failure = { code: "REDIRECT", until, strikes: 3, at: Date.now() };
  const hostile = {
    version: 1,
    endpoints: { a: { ...failure, until: 1e308 }, b: { ...failure, code: "EVIL" }, c: 7, d: null },
    groups: [1, 2, 3],
    targets: {
      constructor: { touchedAt: 1 },
      "DC 2": {
        "direct-ws x": { touchedAt: -1, failure: { code: [], until: {} } },
        y: { touchedAt: Number.MAX_VALUE },
      },
      "DC 4": "no",
    },
  };
  const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, at) => [`way ${at}`, failure]));
  const cases: readonly (readonly [string, string | Uint8Array])[] = [
    ["empty", ""],
    ["cut off", '{"version":1,"endpoints":{"direct-ws'],
    ["null", "null"],
    ["a list", "[1,2,3]"],
    ["of another version", JSON.stringify({ ...hostile, version: 99 })],
    ["binary", new Uint8Array(randomBytes(4_096))],
    ["nested 100,000 deep", "[".repeat(100_000)],
    ["larger than 1 MiB", JSON.stringify({ version: 1, padding: "x".repeat(2 * 1024 * 1024) })],
    ["full of nonsense", JSON.stringify(hostile)],
    ["written to reach the prototype", '{"version":1,"targets":{"__proto__":{"__proto__":{"touchedAt":1}}}}'],
    ["full of thousands of ways", JSON.stringify({ version: 1, endpoints: many, groups: many })],
  ];
  for (const [name, content] of cases) {
    concurrently(`${name} does not stop the start, and is replaced`, async () => {
      await using world = await World.start();
      using home = new Home();
      writeFileSync(home.routesFile, content);
      const proxy = await withProxy(home, world.flags(["direct-ws"]), (running) => ask(running));
      expect(proxy.stderr).not.toMatch(/a bug|^\s+at /m);
      const kept = home.kept();
      expect(kept?.version).toBe(1);
      const won = Object.values(kept?.targets["DC 2"] ?? {}).filter(({ wonAt }) => wonAt !== undefined);
      expect(won.length).toBe(1);
      expect(statSync(home.routesFile).size).toBeLessThan(128 * 1024);
    });
  }

  concurrently("a folder only costs a warning", async () => {
    await using world = await World.start();
    using home = new Home();
    mkdirSync(home.routesFile);
    const proxy = await withProxy(home, world.flags(["direct-ws"]), (running) => ask(running));
    expect(proxy.stderr).toMatch(/warn .*routes\.json/);
    expect(proxy.countLogged(/Cannot write .*routes\.json/g)).toBe(1);
  });
});

/** Root may write everywhere, unless it gives that up. */
const ENTRY = resolve(import.meta.dir, "../../src/main.ts");
const AS_OWNER: readonly string[] | undefined =
  process.getuid?.() === 0
    ? Bun.which("setpriv") === null
      ? undefined
      : ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override"]
    : [];

describe("a folder that cannot be written to", () => {
  if (!POSIX || AS_OWNER === undefined || !canGiveUpRights()) {
    it.skip("only costs a warning (skipped: root writes everywhere, and setpriv is not there to stop it)", () => {});
    return;
  }
  concurrently("only costs a warning", async () => {
    await using world = await startBroken("reset", "403");
    using home = new Home();
    chmodSync(home.path, 0o500);
    try {
      const [program = process.execPath, ...more] = [...AS_OWNER, process.execPath, "run", ENTRY];
      const args = world.flags(ROUTES);
      await using proxy = await ProxyProcess.start({ home: home.path, args, command: [program, ...more] });
      for (const dcId of [2, 4, 2]) await ask(proxy, { dcId });
      expect(await proxy.stop()).toBe(0);
      expect(proxy.countLogged(/warn .*Cannot write .*routes\.json: EACCES/g)).toBe(1);
      expect(existsSync(home.routesFile)).toBe(false);
    } finally {
      chmodSync(home.path, 0o700);
    }
  });
});

function canGiveUpRights(): boolean {
  const [program, ...args] = AS_OWNER ?? [];
  return program === undefined || Bun.spawnSync([program, ...args, "true"]).exitCode === 0;
}

describe("a better route that works again", () => {
  for (const failure of ["302", "reset", "101-then-silence", "stall-16k"] as const) {
    concurrently(`after ${failure} is brought back by a probe, and no client pays for it`, async () => {
      await using world = await World.start();
      world.answer = answerProbes();
      using home = new Home();
      const args = world.flags(["direct-ws", "direct-tcp"]);
      await learnFailure(world, home, args, failure);
      world.repair("direct-ws");
      world.forget();
      await withProxy(home, args, async (proxy) => {
        await ask(proxy);
        expect(attemptsOf(world)).toEqual([0, 0, 1]);
        await proxy.logged(/info .*kws2\S* .*works again .*dc=.?DC 2/, PROBE_LIMIT_MS);
        world.forget();
        await ask(proxy);
        expect(attemptsOf(world)).toEqual([1, 0, 0]);
      });
      const [first] = (await home.learned(args)).find(({ target }) => target === "DC 2")?.ways ?? [];
      expect(first).toMatchObject({ route: "direct-ws", state: "good", reason: null });
    });
  }

  concurrently("stays behind when it carries a little, but not much", async () => {
    await using world = await World.start();
    world.answer = answerProbes();
    using home = new Home();
    const args = world.flags(["direct-ws", "direct-tcp"]);
    await learnFailure(world, home, args, "101-then-silence");
    world.break("direct-ws", "stall-16k");
    await withProxy(home, [...args, "-v"], async (proxy) => {
      await ask(proxy);
      await proxy.logged(/still fails: STALLED/, 2 * PROBE_LIMIT_MS);
      world.forget();
      await ask(proxy);
      expect(attemptsOf(world)).toEqual([0, 0, 1]);
    });
  });

  concurrently("is not probed while its wait lasts", async () => {
    await using world = await World.start();
    world.answer = answerProbes();
    world.break("direct-ws", "302");
    using home = new Home();
    await withProxy(home, world.flags(["direct-ws", "direct-tcp"]), async (proxy) => {
      await ask(proxy);
      world.repair("direct-ws");
      world.forget();
      await ask(proxy);
      await Bun.sleep(2_500); // a probe would have come after 1 s
      expect(attemptsOf(world)).toEqual([0, 0, 1]);
    });
  });

  /** Teaches a proxy that `failure` makes the first route useless, and lets the wait for it end. */
  async function learnFailure(
    world: World,
    home: Home,
    args: readonly string[],
    failure: Failure,
  ): Promise<void> {
    world.break("direct-ws", failure);
    await withProxy(home, args, async (proxy) => {
      if (failure === "stall-16k") await stall(proxy);
      await ask(proxy);
      expect(world.peers("direct-tcp").length).toBe(1);
    });
    home.endWaits();
  }

  /** A client that waits for the rest of its answer until it is let go. */
  async function stall({ port, secret }: ProxyProcess): Promise<void> {
    using client = await RawClient.open({ port, secret });
    client.sendPacket(new Uint8Array(randomBytes(40 * 1024)));
    await client.until(() => client.ended || client.closed, "the end of what stalls");
  }
});

describe("tgws routes", () => {
  concurrently("prints what was learned, in the order of trying", async () => {
    await using world = await startBroken("302", "101-then-silence");
    using home = new Home();
    const args = world.flags(ROUTES);
    expect(await home.print(["routes", ...args])).toContain("Nothing is learned yet");
    await withProxy(home, args, (proxy) => ask(proxy));

    const learned = await home.learned(args);
    expect(learned.map(({ target }) => target)).toEqual(DCS.flatMap((dc) => [`DC ${dc}`, `DC ${dc} media`]));
    const ways = learned.find(({ target }) => target === "DC 2")?.ways ?? [];
    const routes: RouteName[] = ["direct-tcp", "cf-worker", "direct-ws", "direct-ws"];
    expect(ways.map(({ route }) => route) as RouteName[]).toEqual(routes);
    const [tcp, worker, direct] = ways;
    expect(tcp).toMatchObject({ state: "good", reason: null, againMs: null });
    expect(Date.now() - Date.parse(tcp?.wonAt ?? "")).toBeLessThan(TEST_LIMIT_MS);
    expect(tcp?.openMs).toBeGreaterThanOrEqual(0);
    expect(worker).toMatchObject({ state: "failed", reason: "SILENT", wonAt: null });
    expect(direct).toMatchObject({ state: "failed", reason: "REDIRECT", wonAt: null });
    expect(worker?.againMs).toBeWithin(20_000, 60_001);
    expect(direct?.againMs).toBeWithin(9 * 60_000, 10 * 60_000 + 1);
    const untouched = learned.find(({ target }) => target === "DC 5")?.ways ?? [];
    expect(untouched.every(({ state }) => state === "untried")).toBe(true);

    const text = await home.print(["routes", ...args]);
    expect(text).toMatch(/^DC 2$/m);
    expect(text).toMatch(/^ +1\. direct-tcp +127\.0\.0\.1:\d+ +good, opens in /m);
    expect(text).toMatch(/^ +2\. cf-worker +\S+ +failed: SILENT, goes last for another /m);
    expect(text).toMatch(/^ +3\. direct-ws +.* failed: REDIRECT, goes last for another /m);
    expect(text).not.toMatch(/^DC 5$/m);
    expect(text).toContain("Nothing is learned yet of DC 1");
  });

  concurrently("refuses what it does not know", async () => {
    using home = new Home();
    await expect(home.print(["routes", "--deep"])).rejects.toThrow(/ended with 2/);
  });
});

describe("a 429", () => {
  /** By data centre: what its Retry-After says, and how long it has to wait, in seconds. */
  const WAITS: Readonly<Record<number, readonly [header: string | undefined, seconds: number]>> = {
    1: ["45", 45],
    2: ["600", 600],
    3: [undefined, 60],
    4: ["99999999", 3_600],
    5: ["soon", 60],
  };

  concurrently("makes a route wait for as long as it says, shorter and longer than usual", async () => {
    await using world = await World.start();
    const usual = world.telegram.upgrade;
    world.telegram.upgrade = (request) => {
      usual(request);
      const dc = Number(/^kws(\d)/.exec(request.serverName ?? "")?.[1]);
      const [header] = WAITS[dc] ?? [];
      const headers = header === undefined ? {} : { "Retry-After": header };
      return { kind: "status", status: "429 Too Many Requests", headers };
    };
    using home = new Home();
    const args = world.flags(["direct-ws", "direct-tcp"]);
    await withProxy(home, args, async (proxy) => {
      const dcs = Object.keys(WAITS).map(Number);
      await Promise.all(dcs.map((dcId) => ask(proxy, { dcId })));
      // At first it is the usual one: how long it has to wait is a question of its own.
      const right = (): number => waitsOf(home).filter(isRight).length;
      await poll(() => (right() >= 2 * dcs.length ? true : undefined), "all waits", KEEP_LIMIT_MS);
    });
    const waits = waitsOf(home);
    expect(waits.length).toBe(10);
    expect(waits.filter((wait) => !isRight(wait))).toEqual([]);
    for (const { target, ways } of await home.learned(args)) {
      const dc = Number(/^DC (\d)$/.exec(target)?.[1]);
      const [, seconds] = WAITS[dc] ?? [];
      if (seconds === undefined) continue;
      for (const way of ways.filter(({ route }) => route === "direct-ws")) {
        expect(way.reason).toBe("STATUS");
        expect(way.againMs).toBeWithin(Math.max(0, seconds - 60) * 1_000, seconds * 1_000 + 1);
      }
    }
  });

  interface Wait {
    readonly dc: number;
    /** From the refusal on. */
    readonly seconds: number;
  }

  /** The question for it comes after the refusal, so that the wait begins a little later. */
  function isRight({ dc, seconds }: Wait): boolean {
    const [, least = 0] = WAITS[dc] ?? [];
    return seconds > least - 0.001 && seconds < least + 10;
  }

  /** The kept waits of all endpoints that refused. */
  function waitsOf(home: Home): Wait[] {
    return Object.entries(home.kept()?.endpoints ?? {}).map(([key, { until, at }]) => ({
      dc: Number(/kws(\d)/.exec(key)?.[1]),
      seconds: (until - at) / 1_000,
    }));
  }
});
