import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { ask } from "../support/asking.ts";
import { Gate } from "../support/gate.ts";
import { poll } from "../support/home.ts";
import { type ProcessFigures, readFigures } from "../support/process-figures.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { FAILURES_OF, type Failure, ROUTES } from "../support/route-failures.ts";
import { World } from "../support/world.ts";

const LINUX = process.platform === "linux";
if (!LINUX) console.warn("leaks are not tested: there is no /proc here");

const WARM_UP = 500;
const CLIENTS = 2_000;
const AT_ONCE = 20;
/** Clients after which every route gets its next failure. */
const CLIENTS_PER_MIX = 25;
/** What is given up in the middle is over by then: a side that does not end by itself is dropped after 15 s. */
const CALM_LIMIT_MS = 45_000;
/** Pipes and the like that the runtime opens when it first needs them. */
const SPARE_DESCRIPTORS = 4;
const MIB = 1024 * 1024;
/** What may be left after four times the warm-up: the collector and the allocator keep some of their memory. */
const GROWTH_LIMIT_BYTES = 24 * MIB;
const TEST_LIMIT_MS = 240_000;

/** Names are chosen when flags are made, so that one cannot come and go. */
const FAILURES: readonly (readonly Failure[])[] = ROUTES.map((route) =>
  FAILURES_OF[route].filter((failure) => failure !== "nxdomain"),
);

/** When a client leaves, and how. */
type Leaving = (client: RawClient) => Promise<void>;

const LEAVINGS: readonly Leaving[] = [
  // Before it has said anything.
  () => Promise.resolve(),
  // In the middle of its init.
  async (client) => void client.write(client.init.subarray(0, 20)),
  // At once after its init, by a reset.
  async (client) => {
    client.write(client.init);
    client.reset();
  },
  // After its init, while routes are being opened.
  async (client) => {
    client.write(client.init);
    await left(client, 30);
  },
  // After its first packet.
  async (client) => {
    client.write(client.init);
    client.sendPacket(random(40));
    await left(client, 60);
  },
  // With a FIN, and goes on reading.
  async (client) => {
    client.write(client.init);
    client.sendPacket(random(40));
    client.end();
    await left(client, 150);
  },
  // In the middle of a large packet.
  async (client) => {
    client.write(client.init);
    client.write(client.encrypt(random(100_000)));
    await left(client, 100);
    client.reset();
  },
  // When other routes are tried for lack of an answer.
  async (client) => {
    client.write(client.init);
    client.sendPacket(random(40));
    await left(client, 1_000);
  },
];

/** Waits until the proxy lets the client go, or the client has had enough. */
async function left(client: RawClient, patienceMs: number): Promise<void> {
  await client.until(() => client.ended || client.closed, "the end", patienceMs).catch(() => {});
}

function random(length: number): Uint8Array {
  return new Uint8Array(randomBytes(length));
}

/** Lets so many clients come and leave, while all routes fail in all ways. */
async function torment(world: World, proxy: ProxyProcess, clients: number): Promise<void> {
  const gate = new Gate(AT_ONCE);
  const visits = Array.from({ length: clients }, (_, number) =>
    gate.pass(async () => {
      if (number % CLIENTS_PER_MIX === 0) breakAll(world, number / CLIENTS_PER_MIX);
      // Another pace than the failures', so that each meets each.
      const leave = LEAVINGS[(number + Math.floor(number / 7)) % LEAVINGS.length];
      const dcId = [2, 4, -4, 1, 5, 203][number % 6] ?? 2;
      using client = await RawClient.connect({ port: proxy.port, secret: proxy.secret, dcId });
      await leave?.(client);
    }),
  );
  await Promise.all(visits);
}

function breakAll(world: World, mix: number): void {
  for (const [at, route] of ROUTES.entries()) {
    const failures = FAILURES[at] ?? [];
    const failure = failures[(mix + 2 * at) % failures.length];
    if (failure !== undefined) world.break(route, failure);
  }
}

/**
 * Waits until no connection is left, and no more than `sockets` are, and returns what the process holds then.
 *
 * A socket that the kernel is done with is no connection any more, but still open in the process for a moment.
 */
async function calm(proxy: ProxyProcess, sockets: number): Promise<ProcessFigures> {
  let last: ProcessFigures | undefined;
  const look = (): ProcessFigures | undefined => {
    last = readFigures(proxy.pid);
    return Object.keys(last.connections).length === 0 && last.sockets <= sockets ? last : undefined;
  };
  return poll(look, "the end of all connections", CALM_LIMIT_MS).catch((cause: unknown) => {
    throw new Error(`more than ${sockets} sockets are left: ${JSON.stringify(last)}`, { cause });
  });
}

describe.skipIf(!LINUX)(`after ${CLIENTS} clients that nobody could serve`, () => {
  it(
    "no descriptor, no connection and no memory is left",
    async () => {
      await using world = await World.start();
      for (const stub of [world.telegram, world.cloudflare, world.tcp, world.workerDc])
        stub.keepMessages = false;
      await using proxy = await ProxyProcess.start({ args: world.flags(ROUTES) });
      const { sockets } = readFigures(proxy.pid);
      for (let number = 0; number < AT_ONCE; number += 1) await ask(proxy);
      const fresh = await calm(proxy, sockets);
      await torment(world, proxy, WARM_UP);
      const { residentBytes } = readFigures(proxy.pid);
      world.forget();
      await torment(world, proxy, CLIENTS);
      const after = await calm(proxy, sockets);
      // How many had a route opened before they left depends on the machine, but no route is spared.
      expect(Math.min(...ROUTES.map((route) => world.attempts(route)))).toBeGreaterThan(20);
      expect(after.descriptors).toBeLessThanOrEqual(fresh.descriptors + SPARE_DESCRIPTORS);
      expect((after.residentBytes - residentBytes) / MIB).toBeLessThan(GROWTH_LIMIT_BYTES / MIB);
      for (const route of ROUTES) world.repair(route);
      await ask(proxy);
      expect(proxy.stderr).not.toContain("a bug");
      expect(await proxy.stop()).toBe(0);
    },
    TEST_LIMIT_MS,
  );
});
