import { describe, expect, it } from "bun:test";
import { resolve } from "node:path";
import { ask, echoOnce, openAnswered } from "../support/asking.ts";
import { poll } from "../support/home.ts";
import { canUnshareNetwork, changeNetwork, IN_OWN_NETWORK } from "../support/namespaces.ts";
import { answerProbes } from "../support/probe-answers.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { World } from "../support/world.ts";

/** More than 12 s, after which a stop is noticed for sure, whenever the proxy looked last. */
const SLEEP_MS = 13_000;
/** After waking, to notice it. */
const NOTICE_LIMIT_MS = 20_000;
const TEST_LIMIT_MS = 120_000;
const POOL_SIZE = 2;
const ENTRY = resolve(import.meta.dir, "../../src/main.ts");
const CHANGED = /info .*the network has changed \(slept for \d+ s/;

/** Stops the process for a while, as a lid that is closed does, and waits until it has noticed. */
async function sleepThrough(proxy: ProxyProcess): Promise<void> {
  proxy.signal("SIGSTOP");
  await Bun.sleep(SLEEP_MS);
  proxy.signal("SIGCONT");
  await proxy.logged(CHANGED, NOTICE_LIMIT_MS);
}

/** Shows what the proxy said when `use` fails. */
async function withProxy(
  options: Parameters<typeof ProxyProcess.start>[0],
  use: (proxy: ProxyProcess) => Promise<void>,
): Promise<void> {
  await using proxy = await ProxyProcess.start(options);
  try {
    await use(proxy);
    expect(proxy.stderr).not.toContain("a bug");
  } catch (error) {
    throw new Error(`the log is:\n${proxy.stderr}`, { cause: error });
  } finally {
    proxy.signal("SIGCONT");
  }
}

const CAN_STOP = process.platform !== "win32";
if (!CAN_STOP) console.warn("sleep is not tested: nothing stops a process here");

describe.skipIf(!CAN_STOP)("after sleep", () => {
  it.concurrent(
    "warm connections are dropped and opened anew, and new clients are served at once",
    async () => {
      await using world = await World.start();
      await withProxy({ args: world.flags(["direct-ws"]), poolSize: POOL_SIZE }, async (proxy) => {
        const warm = () => world.telegram.connections.filter(({ init, closed }) => !init && !closed);
        await ask(proxy);
        await world.telegram.until(() => warm().length === POOL_SIZE, "a full pool");
        const before = warm();
        await sleepThrough(proxy);
        await ask(proxy);
        await world.telegram.until(() => before.every(({ closed }) => closed), "the end of warm connections");
        expect(before.every(({ init }) => init === undefined)).toBe(true);
        await world.telegram.until(() => warm().length === POOL_SIZE, "a full pool again");
        expect(proxy.countLogged(/the network has changed/g)).toBe(1);
      });
    },
    TEST_LIMIT_MS,
  );

  it.concurrent(
    "a first route that had served before its failure serves again at once",
    async () => {
      await using world = await World.start();
      await withProxy({ args: world.flags(["direct-ws", "direct-tcp"]) }, async (proxy) => {
        await ask(proxy);
        world.break("direct-ws", "302"); // it would wait for ten minutes
        await ask(proxy);
        world.repair("direct-ws");
        world.forget();
        await ask(proxy);
        expect([world.attempts("direct-ws"), world.attempts("direct-tcp")]).toEqual([0, 1]);
        await sleepThrough(proxy);
        world.forget();
        await ask(proxy);
        expect([world.attempts("direct-ws"), world.attempts("direct-tcp")]).toEqual([1, 0]);
      });
    },
    TEST_LIMIT_MS,
  );

  it.concurrent(
    "a first route that has never served yet is probed at once, and serves then",
    async () => {
      await using world = await World.start();
      world.answer = answerProbes();
      world.break("direct-ws", "302");
      await withProxy({ args: world.flags(["direct-ws", "direct-tcp"]) }, async (proxy) => {
        await ask(proxy);
        world.repair("direct-ws");
        await sleepThrough(proxy);
        await ask(proxy);
        await proxy.logged(/works again/);
        world.forget();
        await ask(proxy);
        expect([world.attempts("direct-ws"), world.attempts("direct-tcp")]).toEqual([1, 0]);
      });
    },
    TEST_LIMIT_MS,
  );

  it.concurrent(
    "a session whose data centre has gone is ended, and a healthy one goes on",
    async () => {
      await using world = await World.start();
      await withProxy({ args: world.flags(["direct-ws"]) }, async (proxy) => {
        using lost = await openAnswered(proxy);
        const dead = await world.next("direct-ws");
        using healthy = await openAnswered(proxy);
        const living = await world.next("direct-ws");
        using silent = await openAnswered(proxy, { dcId: 4 });
        (await world.next("direct-ws")).stallAfter(0);
        dead.stallAfter(0); // it is there, but nothing comes from it any more, pongs included
        await echoOnce(healthy);
        await sleepThrough(proxy);
        await echoOnce(healthy);
        for (const client of [lost, silent]) {
          await client.until(() => client.ended || client.closed, "the end of a dead session");
        }
        await poll(
          () => (proxy.countLogged(/info .*reason=network-changed/g) === 2 ? true : undefined),
          "two reasons in the log",
        );
        await dead.until(() => dead.closed, "the end at the data centre");
        expect([healthy.ended, healthy.closed, living.closed]).toEqual([false, false, false]);
        await echoOnce(healthy);
        await ask(proxy);
      });
    },
    TEST_LIMIT_MS,
  );

  it.concurrent(
    "a quiet session over a WebSocket survives when its data centre answers pings",
    async () => {
      await using world = await World.start();
      const routes = ["direct-ws", "cf-worker"] as const;
      const args = (route: (typeof routes)[number]): string[] => world.flags([route]);
      await Promise.all(
        routes.map((route) =>
          withProxy({ args: args(route) }, async (proxy) => {
            using client = await openAnswered(proxy);
            await sleepThrough(proxy);
            await Bun.sleep(8_000); // it would be ended after 6 s
            expect([client.ended, client.closed]).toEqual([false, false]);
            await echoOnce(client);
          }),
        ),
      );
    },
    TEST_LIMIT_MS,
  );

  it.concurrent(
    "a session over plain TCP survives when something comes",
    async () => {
      await using world = await World.start();
      await withProxy({ args: world.flags(["direct-tcp"]) }, async (proxy) => {
        using client = await openAnswered(proxy);
        await sleepThrough(proxy);
        await echoOnce(client);
        await Bun.sleep(8_000); // it would be ended after 6 s
        expect([client.ended, client.closed]).toEqual([false, false]);
        await echoOnce(client);
      });
    },
    TEST_LIMIT_MS,
  );
});

describe("a stop that is short", () => {
  it.skipIf(!CAN_STOP).concurrent(
    "changes nothing",
    async () => {
      await using world = await World.start();
      await withProxy({ args: world.flags(["direct-ws"]) }, async (proxy) => {
        using client = await openAnswered(proxy);
        proxy.signal("SIGSTOP");
        await Bun.sleep(3_000);
        proxy.signal("SIGCONT");
        await Bun.sleep(5_000); // the proxy looks every 4 s
        expect(proxy.stderr).not.toContain("the network has changed");
        await echoOnce(client);
      });
    },
    TEST_LIMIT_MS,
  );
});

const CAN_UNSHARE = canUnshareNetwork();
if (!CAN_UNSHARE) console.warn("other addresses are not tested: it takes root on Linux with unshare and ip");

describe.skipIf(!CAN_UNSHARE)("another address", () => {
  it.concurrent(
    "is noticed when it comes and when it goes, but not one of the machine to itself",
    async () => {
      const command = [...IN_OWN_NETWORK, process.execPath, "run", ENTRY] as const;
      await withProxy({ command }, async (proxy) => {
        const { pid } = proxy;
        changeNetwork(pid, "addr", "add", "127.0.0.99/8", "dev", "lo");
        changeNetwork(pid, "link", "add", "tgws0", "type", "veth", "peer", "name", "tgws1");
        changeNetwork(pid, "link", "set", "tgws1", "up");
        changeNetwork(pid, "addr", "add", "192.0.2.99/32", "dev", "tgws0");
        changeNetwork(pid, "link", "set", "tgws0", "up");
        await proxy.logged(/the network has changed \(new address 192\.0\.2\.99\)/, NOTICE_LIMIT_MS);
        changeNetwork(pid, "addr", "del", "127.0.0.99/8", "dev", "lo");
        changeNetwork(pid, "addr", "add", "198.51.100.7/32", "dev", "tgws0");
        changeNetwork(pid, "addr", "del", "192.0.2.99/32", "dev", "tgws0");
        // One line or two, as the proxy happens to look.
        await proxy.logged(/new address 198\.51\.100\.7/, NOTICE_LIMIT_MS);
        await proxy.logged(/lost address 192\.0\.2\.99/, NOTICE_LIMIT_MS);
        expect(proxy.countLogged(/the network has changed/g)).toBeLessThanOrEqual(3);
        expect(proxy.stderr).not.toContain("127.0.0.99");
        expect(await proxy.stop()).toBe(0);
      });
    },
    TEST_LIMIT_MS,
  );
});
