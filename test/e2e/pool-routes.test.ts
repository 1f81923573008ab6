import { describe, expect, it } from "bun:test";
import { ask, openAnswered } from "../support/asking.ts";
import { PacedGate } from "../support/gate.ts";
import { poll } from "../support/home.ts";
import { ProxyProcess } from "../support/proxy.ts";
import type { RouteName } from "../support/route-failures.ts";
import { CF_DOMAIN, World, type WorldOptions } from "../support/world.ts";

const POOL_SIZE = 2;
const TEST_LIMIT_MS = 120_000; // those that wait for their turn, too
/** A refill that fails comes again after 5 s at the earliest, and later each time. */
const BACK_OFF_WATCH_MS = 9_000;
const gate = new PacedGate(6);

/** Runs beside the others, but not beside too many. */
function concurrently(name: string, test: () => Promise<void>): void {
  it.concurrent(name, () => gate.pass(test), TEST_LIMIT_MS);
}

async function withPool(
  routes: readonly RouteName[],
  use: (world: World, proxy: ProxyProcess) => Promise<void>,
  options: WorldOptions = {},
): Promise<void> {
  await using world = await World.start(options);
  await using proxy = await ProxyProcess.start({ args: world.flags(routes), poolSize: POOL_SIZE });
  try {
    await use(world, proxy);
    expect(proxy.stderr).not.toContain("a bug");
  } catch (error) {
    throw new Error(`the log is:\n${proxy.stderr}`, { cause: error });
  }
}

/** Warm connections of a kind of route: open, and nobody has said anything over them. */
function warm(
  world: World,
  route: RouteName,
): { readonly closed: boolean; stallAfter(bytes: number): void }[] {
  if (route === "cf-worker") {
    return world.worker.relays.filter(({ received, closed }) => received === 0 && !closed);
  }
  const stub = route === "cf-domain" ? world.cloudflare : world.telegram;
  return stub.connections.filter(({ init, closed }) => init === undefined && !closed);
}

async function untilFull(world: World, route: RouteName): Promise<void> {
  await poll(() => (warm(world, route).length === POOL_SIZE ? true : undefined), "a full pool");
}

describe("the pool", () => {
  for (const route of ["direct-ws", "fronted-ws", "cf-worker"] as const) {
    concurrently(`keeps ${route} ready, and hands a connection out`, () =>
      withPool([route], async (world, proxy) => {
        await ask(proxy);
        await untilFull(world, route);
        const attempts = world.attempts(route);
        const ready = warm(world, route);
        using client = await openAnswered(proxy);
        expect(warm(world, route).filter((one) => ready.includes(one)).length).toBe(POOL_SIZE - 1);
        await untilFull(world, route);
        expect(world.attempts(route)).toBe(attempts + 1);
        client[Symbol.dispose](); // nobody is waited for
        expect(await proxy.stop()).toBe(0);
        const name = route === "cf-worker" ? " cf_pool" : " pool";
        expect(proxy.stderr).toMatch(new RegExp(`${name}=1/2 `));
      }),
    );
  }

  concurrently("shows a Worker its token also ahead of time", () =>
    withPool(
      ["cf-worker"],
      async (world, proxy) => {
        await ask(proxy);
        await untilFull(world, "cf-worker");
        const tokens = world.requests("cf-worker").map(({ authorization }) => authorization);
        expect(new Set(tokens)).toEqual(new Set(["Bearer c0rrect-horse"]));
      },
      { token: "c0rrect-horse" },
    ),
  );

  for (const route of ["cf-domain", "direct-tcp"] as const) {
    concurrently(`opens nothing ahead of time for ${route}`, () =>
      withPool([route], async (world, proxy) => {
        for (const dcId of [2, 2, -4]) await ask(proxy, { dcId });
        await Bun.sleep(1_500); // what must not happen in this time
        expect(world.attempts(route)).toBe(3);
        expect(world.strangers).toEqual([]);
      }),
    );
  }

  concurrently("keeps only the route ready that serves", () =>
    withPool(["direct-ws", "cf-worker"], async (world, proxy) => {
      await ask(proxy);
      await untilFull(world, "direct-ws");
      expect(world.attempts("cf-worker")).toBe(0);
    }),
  );

  for (const route of ["direct-ws", "cf-worker"] as const) {
    concurrently(`of ${route} that has gone silent does not keep its client waiting`, () =>
      withPool([route, "direct-tcp"], async (world, proxy) => {
        await ask(proxy);
        await untilFull(world, route);
        for (const connection of warm(world, route)) connection.stallAfter(0);
        await ask(proxy);
      }),
    );
  }

  concurrently("does not storm a route that refuses", () =>
    withPool(["direct-ws", "direct-tcp"], async (world, proxy) => {
      await ask(proxy);
      await untilFull(world, "direct-ws");
      world.break("direct-ws", "403");
      world.telegram.dropAll();
      world.forget();
      for (let number = 0; number < 5; number += 1) await ask(proxy);
      await Bun.sleep(BACK_OFF_WATCH_MS); // what must not happen in this time
      // Both names once for a client, and a refill for each with its repetition.
      expect(world.attempts("direct-ws")).toBeLessThanOrEqual(8);
      expect(world.peers("direct-tcp").length).toBe(5);
    }),
  );

  concurrently("of size 0 is no pool, for every kind of route", async () => {
    await using world = await World.start();
    for (const route of ["direct-ws", "fronted-ws", "cf-worker", "cf-domain"] as const) {
      await using proxy = await ProxyProcess.start({ args: world.flags([route]) });
      world.forget();
      await ask(proxy);
      await ask(proxy);
      expect(world.attempts(route)).toBe(2);
    }
    expect(world.requests("cf-domain").map(({ serverName }) => serverName)).toEqual([
      `kws2.${CF_DOMAIN}`,
      `kws2.${CF_DOMAIN}`,
    ]);
  });
});
