import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { routesOpened } from "../support/asking.ts";
import { PacedGate } from "../support/gate.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { FAILURES_OF, type Failure, ROUTES, type RouteName } from "../support/route-failures.ts";
import { World } from "../support/world.ts";

/** The clients of Telegram give up after 5 s at the earliest. */
const FIRST_ANSWER_MS = 4_500;
/** A session that stalls is noticed after 5 s, and ended: otherwise it would stay for 15 min. */
const STALL_LIMIT_MS = 30_000;
/** What two processors can do at the same time without missing a deadline. */
const gate = new PacedGate(6);
const TEST_LIMIT_MS = 240_000; // those that wait for their turn, too
const KIB = 1024;

/** Everything that can be wrong, but for what only shows after the first answers. */
const FAILURES = [...new Set(ROUTES.flatMap((route) => FAILURES_OF[route]))].filter(
  (failure) => failure !== "stall-16k",
);

function breakable(failure: Failure): (route: RouteName) => boolean {
  return (route) => FAILURES_OF[route].includes(failure);
}

/** Makes a client's first packet and waits for its answer. */
async function ask(proxy: ProxyProcess, size = 40): Promise<void> {
  using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
  const payload = new Uint8Array(randomBytes(size));
  client.sendPacket(payload);
  const answer = await client.readPacket(FIRST_ANSWER_MS);
  expect(Buffer.compare(answer.payload, payload)).toBe(0);
}

/** Asks as the second client, and expects that `working` was the first to be opened for it. */
async function askNext(proxy: ProxyProcess, working: RouteName, size?: number): Promise<void> {
  await ask(proxy, size);
  const [first] = await routesOpened(proxy, 2);
  expect(first).toBe(working);
}

/** A refusal with 429 is followed by the question for how long. Waits until each name has been asked. */
async function settled(world: World, broken: readonly RouteName[], failure: Failure): Promise<void> {
  if (failure !== "429") return;
  const asked = (): boolean =>
    broken.every((route) => {
      const names = new Set(world.requests(route).map(({ host }) => host));
      return world.attempts(route) >= 2 * names.size;
    });
  await world.until(asked, "a question for Retry-After each");
}

/** Tries `broken` before `working`: both the first client and the second one are served. */
async function expectService(
  broken: readonly RouteName[],
  failure: Failure,
  working: RouteName,
): Promise<void> {
  await using world = await World.start();
  for (const route of broken) world.break(route, failure);
  await using proxy = await ProxyProcess.start({ args: [...world.flags([...broken, working]), "-v"] });
  try {
    await ask(proxy);
    await settled(world, broken, failure);
    const attempts = broken.map((route) => world.attempts(route));
    if (failure !== "nxdomain") expect(Math.max(...attempts)).toBeGreaterThan(0);
    await askNext(proxy, working);
    expect(world.strangers).toEqual([]);
    expect(proxy.running).toBe(true);
  } catch (error) {
    throw new Error(`not served; the log is:\n${proxy.stderr}`, { cause: error });
  }
}

describe.each(ROUTES)(
  "with all other routes before it broken, %s serves the first client in time",
  (working) => {
    for (const failure of FAILURES) {
      const broken = ROUTES.filter((route) => route !== working).filter(breakable(failure));
      if (broken.length === 0) continue;
      it.concurrent(
        `${failure}: ${broken.join(", ")}`,
        () => gate.pass(() => expectService(broken, failure, working)),
        TEST_LIMIT_MS,
      );
    }
  },
);

describe.each(ROUTES)("%s, broken", (route) => {
  const later = ROUTES.slice(ROUTES.indexOf(route) + 1);
  for (const working of later.length === 0 ? [ROUTES[0]] : later) {
    for (const failure of FAILURES.filter((each) => breakable(each)(route))) {
      it.concurrent(
        `by ${failure}, makes way for ${working}`,
        () => gate.pass(() => expectService([route], failure, working)),
        TEST_LIMIT_MS,
      );
    }
  }
});

describe("a route that stalls after 16 KiB makes way for the next", () => {
  for (const route of ROUTES) {
    const working = ROUTES[(ROUTES.indexOf(route) + 1) % ROUTES.length] ?? "direct-ws";
    it.concurrent(
      `${route} for ${working}`,
      () => gate.pass(() => expectStallNoticed(route, working)),
      TEST_LIMIT_MS,
    );
  }
});

async function expectStallNoticed(route: RouteName, working: RouteName): Promise<void> {
  await using world = await World.start();
  world.break(route, "stall-16k");
  await using proxy = await ProxyProcess.start({ args: [...world.flags([route, working]), "-v"] });
  try {
    using first = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    first.sendPacket(new Uint8Array(randomBytes(40 * KIB)));
    await first.until(() => first.received > 0, "the beginning of an answer", FIRST_ANSWER_MS);
    await first.until(() => first.ended || first.closed, "the end of what has stalled", STALL_LIMIT_MS);
    await askNext(proxy, working, 40 * KIB);
  } catch (error) {
    const names = world.requests(route).map(({ host }) => host);
    throw new Error(`not served after ${names}; the log is:\n${proxy.stderr}`, { cause: error });
  }
}

describe("a route that works again", () => {
  for (const failure of ["reset", "101-then-silence"] as const) {
    it.concurrent(
      `serves when the one that took its place breaks, after ${failure}`,
      () =>
        gate.pass(async () => {
          await using world = await World.start();
          world.break("direct-ws", failure);
          await using proxy = await ProxyProcess.start({ args: world.flags(["direct-ws", "direct-tcp"]) });
          await ask(proxy);
          world.repair("direct-ws");
          world.break("direct-tcp", failure === "reset" ? "reset" : "accept-and-hang");
          await ask(proxy);
          await ask(proxy);
          expect(world.peers("direct-ws").length).toBeGreaterThanOrEqual(2);
        }),
      TEST_LIMIT_MS,
    );
  }
});
