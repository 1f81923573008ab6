import { describe, expect, test } from "bun:test";
import { RefusedError } from "../../src/core/errors.ts";
import { type UserPolicy, unlimitedUser } from "../../src/core/users.ts";
import { LocalGate, NO_LIMITS } from "../../src/proxy/local-gate.ts";
import { type Clock, SYSTEM_CLOCK } from "../../src/proxy/token-bucket.ts";
import { GateServer } from "../../src/workers/gate-server.ts";
import type { FromWorker, ToWorker } from "../../src/workers/messages.ts";
import { RemoteGate } from "../../src/workers/remote-gate.ts";
import { RemoteHellos } from "../../src/workers/remote-hellos.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { settle } from "../support/memory-channel.ts";
import { within } from "../support/waiting.ts";

const KEY = new Uint8Array(16);
const ADDRESS = "192.0.2.1";

function user(limits: Partial<UserPolicy> = {}): UserPolicy {
  return { ...unlimitedUser("ann", KEY), ...limits };
}

/** A gate with a worker at each of its two sides; every message becomes JSON in between. */
function join(
  policy: UserPolicy,
  { maxConnections, clock = SYSTEM_CLOCK }: { readonly maxConnections?: number; readonly clock?: Clock } = {},
) {
  const tellRate = (name: string, rate: number | undefined): void => {
    for (const { answer } of [first, second])
      queueMicrotask(() => answer({ type: "rate", user: name, ...(rate === undefined ? {} : { rate }) }));
  };
  const gate = new LocalGate({ onRevoked: () => {}, onRate: tellRate, clock });
  gate.configure({
    users: [policy],
    limits: { maxConnections, maxPerAddress: undefined, addressRate: undefined },
  });
  const asked: FromWorker[] = [];
  const revoked: string[] = [];
  const connect = () => {
    const server = new GateServer(gate, (message) => queueMicrotask(() => answer(message)));
    const post = (message: FromWorker): void => {
      asked.push(message);
      queueMicrotask(() => ask(message));
    };
    const remote = new RemoteGate({ post, postLater: post });
    const ask = (message: FromWorker): void => {
      const said = JSON.parse(JSON.stringify(message)) as FromWorker;
      if (said.type === "arrive") server.arrive(said);
      if (said.type === "enter") server.enter(said);
      if (said.type === "came") server.came(said);
      if (said.type === "leave") server.leave(said);
      if (said.type === "lease") server.lease(said);
    };
    const answer = (message: ToWorker): void => {
      const said = JSON.parse(JSON.stringify(message)) as ToWorker;
      if (said.type === "arrived") remote.onArrived(said.visit, said.refused);
      if (said.type === "entered") remote.onEntered(said.visit, said);
      if (said.type === "leased") remote.onLeased(said.user, said.bytes);
      if (said.type === "rate") remote.onRate(said.user, said.rate);
      if (said.type === "revoke") revoked.push(...said.users);
    };
    return { server, remote, answer };
  };
  const [first, second] = [connect(), connect()];
  return { gate, asked, revoked, first, second };
}

/** Lets `ms` pass in steps after each of which all messages arrive. */
async function pass(clock: ManualClock, ms: number): Promise<void> {
  const end = clock.nowMs + ms;
  while (clock.nowMs < end) {
    clock.pass(5);
    await settle(2);
  }
}

async function refusalOf(attempt: unknown): Promise<string> {
  const error = await Promise.resolve(attempt).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return error instanceof RefusedError ? error.code : String(error);
}

describe("RemoteGate", () => {
  test("counts the connections of all workers together", async () => {
    const { gate, first, second } = join(user({ maxConnections: 2 }));
    const one = await first.remote.arrive(ADDRESS);
    const two = await second.remote.arrive(ADDRESS);
    const three = await second.remote.arrive(ADDRESS);
    await one.enter("ann");
    await two.enter("ann");
    expect(await refusalOf(Promise.resolve(three.enter("ann")))).toBe("user-connections");
    one.leave();
    await Bun.sleep(0);
    await three.enter("ann");
    for (const visit of [two, three]) visit.leave();
    await Bun.sleep(0);
    expect(gate.connections).toBe(0);
  });

  test("refuses who is over the limit of the whole server", async () => {
    const { first, second } = join(user(), { maxConnections: 1 });
    await first.remote.arrive(ADDRESS);
    expect(await refusalOf(second.remote.arrive(ADDRESS))).toBe("connections");
  });

  test("gives back what a worker had when it dies", async () => {
    const { gate, first } = join(user());
    for (let count = 0; count < 5; count++) await (await first.remote.arrive(ADDRESS)).enter("ann");
    expect(gate.connections).toBe(5);
    first.server.close();
    expect(gate.connections).toBe(0);
    expect(gate.users()[0]?.connections).toBe(0);
  });

  test("only tells where there is nothing to limit, and at once lets in", async () => {
    const { gate, asked, first } = join(user());
    first.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    const visit = first.remote.arrive(ADDRESS);
    if (visit instanceof Promise) throw new Error("it asks");
    expect(visit.enter("ann")).toEqual({ rate: undefined });
    await Bun.sleep(0);
    expect(gate.users()[0]).toMatchObject({ connections: 1, addresses: 1 });
    visit.leave();
    await Bun.sleep(0);
    expect(gate.connections).toBe(0);
    expect(asked.map(({ type }) => type)).toEqual(["came", "leave"]);
  });

  test("says nothing of those who leave before they have shown whose they are", async () => {
    const { asked, first } = join(user());
    first.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    (await first.remote.arrive(ADDRESS)).leave();
    expect(asked).toEqual([]);
  });

  test("asks for users with limits where addresses have none", async () => {
    const { gate, asked, first, second } = join(user({ maxConnections: 1 }));
    for (const { remote } of [first, second])
      remote.configure({ limitsAddresses: false, limitedUsers: new Set(["ann"]) });
    const one = await first.remote.arrive(ADDRESS);
    await one.enter("ann");
    const two = await second.remote.arrive(ADDRESS);
    expect(await refusalOf(Promise.resolve(two.enter("ann")))).toBe("user-connections");
    two.leave();
    one.leave();
    await Bun.sleep(0);
    expect(gate.connections).toBe(0);
    expect(asked.map(({ type }) => type)).toEqual(["enter", "enter", "leave", "leave"]);
  });

  test("has those end who came in as a user that was removed meanwhile", async () => {
    const { gate, revoked, first } = join(user());
    first.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    const early = await first.remote.arrive(ADDRESS); // it knows ann's secret still
    gate.configure({ users: [], limits: NO_LIMITS });
    early.enter("ann");
    await Bun.sleep(0);
    expect(revoked).toEqual(["ann"]);
    early.leave();
    await Bun.sleep(0);
    expect(gate.connections).toBe(0);
  });

  test("keeps those who are there for whom a new limit has no room", async () => {
    const { gate, revoked, first } = join(user());
    first.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    const early = await first.remote.arrive(ADDRESS);
    gate.configure({ users: [user({ maxConnections: 0 })], limits: NO_LIMITS });
    early.enter("ann");
    await Bun.sleep(0);
    expect(revoked).toEqual([]);
  });

  test("goes on giving those their bytes who had a rate that was lifted", async () => {
    const { gate, first } = join(user({ rateBytes: 100_000 }));
    const { rate: bucket } = await (await first.remote.arrive(ADDRESS)).enter("ann");
    if (bucket === undefined) throw new Error("it has no rate");
    gate.configure({ users: [user()], limits: NO_LIMITS });
    expect(await (await first.remote.arrive(ADDRESS)).enter("ann")).toEqual({ rate: undefined });
    for (let turn = 0; turn < 10; turn++) {
      bucket.spend(1_000_000);
      await within(new Promise<void>((resolve) => bucket.whenReady(resolve)), "more bytes");
    }
  });

  test("gives a rate to those who came before it, asked for or not, and to those who are just coming", async () => {
    const { gate, first, second } = join(user());
    second.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    const asked = await (await first.remote.arrive(ADDRESS)).enter("ann");
    const told = await (await second.remote.arrive(ADDRESS)).enter("ann");
    const coming = (await first.remote.arrive(ADDRESS)).enter("ann");
    await Promise.resolve(); // the answer is under way
    gate.configure({ users: [user({ rateBytes: 100_000 })], limits: NO_LIMITS });
    const late = await coming;
    await Bun.sleep(0);
    for (const { rate } of [asked, told, late]) {
      expect(rate).toBeDefined();
      rate?.spend(50_000);
      await within(new Promise<void>((resolve) => rate?.whenReady(resolve)), "more bytes");
    }
    gate.configure({ users: [user()], limits: NO_LIMITS });
    await Bun.sleep(0);
    expect([asked, told, late].map(({ rate }) => rate)).toEqual([undefined, undefined, undefined]);
  });

  test("gives a rate to the first of a user who comes before the worker knows that there is one", async () => {
    const { gate, first } = join(user());
    first.remote.configure({ limitsAddresses: false, limitedUsers: new Set() });
    gate.configure({ users: [user({ rateBytes: 100_000 })], limits: NO_LIMITS });
    await Bun.sleep(0);
    const grant = await (await first.remote.arrive(ADDRESS)).enter("ann");
    await Bun.sleep(0);
    expect(grant.rate).toBeDefined();
  });

  test("lets nobody in, and keeps nobody waiting, without a supervisor", async () => {
    const { first } = join(user());
    const waiting = first.remote.arrive(ADDRESS);
    first.remote.close();
    expect(await refusalOf(waiting)).toBe("connections");
    expect(() => first.remote.arrive(ADDRESS)).toThrow(RefusedError);
  });

  test("shares one rate between the workers", async () => {
    const rate = 1_000_000;
    const clock = new ManualClock();
    const { first, second } = join(user({ rateBytes: rate }), { clock });
    const buckets = await Promise.all(
      [first, second].map(async ({ remote }) => (await (await remote.arrive(ADDRESS)).enter("ann")).rate),
    );
    const moved = [0, 0];
    const run = (index: number): void => {
      const bucket = buckets[index];
      if (bucket === undefined) return;
      while (!bucket.empty) {
        bucket.spend(4_096);
        moved[index] = (moved[index] ?? 0) + 4_096;
      }
      bucket.whenReady(() => run(index));
    };
    run(0);
    run(1);
    await pass(clock, 1_500);
    const total = (moved[0] ?? 0) + (moved[1] ?? 0);
    expect(total).toBeGreaterThan(rate * 1.5 * 0.85);
    expect(total).toBeLessThan(rate * 1.5 * 1.25); // and what may pass at once at the beginning
    expect(Math.min(...moved)).toBeGreaterThan(total * 0.3);
  });

  test("lets one worker alone have all of a rate", async () => {
    const rate = 1_000_000;
    const clock = new ManualClock();
    const { first, second } = join(user({ rateBytes: rate }), { clock });
    await (await second.remote.arrive(ADDRESS)).enter("ann"); // it is there, and moves nothing
    const { rate: bucket } = await (await first.remote.arrive(ADDRESS)).enter("ann");
    let moved = 0;
    const run = (): void => {
      if (bucket === undefined) return;
      while (!bucket.empty) {
        bucket.spend(4_096);
        moved += 4_096;
      }
      bucket.whenReady(run);
    };
    run();
    await pass(clock, 1_500);
    expect(moved).toBeGreaterThan(rate * 1.5 * 0.85);
  });

  test("does not ask for each byte that comes in while answers are on their way", async () => {
    const rate = 1_000_000;
    const { asked, first } = join(user({ rateBytes: rate }));
    const { rate: bucket } = await (await first.remote.arrive(ADDRESS)).enter("ann");
    const startedAt = performance.now();
    const { promise, resolve } = Promise.withResolvers<void>();
    let moved = 0;
    const run = (): void => {
      if (bucket === undefined || moved > 400_000) {
        resolve();
        return;
      }
      while (!bucket.empty) {
        bucket.spend(4_096);
        moved += 4_096;
      }
      bucket.whenReady(run);
    };
    run();
    await within(promise, "what takes 0.3 s at that rate");
    const most = (rate / 1_000) * (performance.now() - startedAt + 100); // what may pass at once, too
    const questions = asked.filter(({ type }) => type === "lease").length;
    expect(questions).toBeLessThan(most / 20_000 + 10); // at least a turn's bytes each
  });
});

describe("RemoteHellos", () => {
  test("passes on what the supervisor says", async () => {
    const asked: FromWorker[] = [];
    const hellos = new RemoteHellos((message) => asked.push(message));
    const first = hellos.claim(new Uint8Array(32).fill(1));
    const second = hellos.claim(new Uint8Array(32).fill(2));
    expect(asked).toMatchObject([
      { type: "claim", id: 1, random: "01".repeat(32) },
      { type: "claim", id: 2, random: "02".repeat(32) },
    ]);
    hellos.onClaimed(2, false);
    hellos.onClaimed(1, true);
    expect(await first).toBeTrue();
    expect(await second).toBeFalse();
  });

  test("takes a hello for known when nobody can tell", async () => {
    const hellos = new RemoteHellos(() => {});
    const waiting = hellos.claim(new Uint8Array(32));
    hellos.close();
    expect(await waiting).toBeFalse();
    expect(await hellos.claim(new Uint8Array(32))).toBeFalse();
  });
});
