import { describe, expect, test } from "bun:test";
import { RefusedError } from "../../src/core/errors.ts";
import { type UserPolicy, unlimitedUser } from "../../src/core/users.ts";
import { addressKey } from "../../src/proxy/address-key.ts";
import { AddressTable } from "../../src/proxy/address-table.ts";
import type { Visit } from "../../src/proxy/gate.ts";
import { type GateLimits, LocalGate, NO_LIMITS } from "../../src/proxy/local-gate.ts";
import { ManualClock } from "../support/manual-clock.ts";

const KEY = new Uint8Array(16).fill(1);
const HERE = "198.51.100.1";

function user(name: string, policy: Partial<UserPolicy> = {}): UserPolicy {
  return { ...unlimitedUser(name, KEY), ...policy };
}

interface Setup {
  readonly gate: LocalGate;
  readonly clock: ManualClock;
  readonly revoked: string[][];
  readonly rated: [user: string, rate: number | undefined][];
}

function setUp(users: readonly UserPolicy[], limits: Partial<GateLimits> = {}): Setup {
  const clock = new ManualClock();
  const revoked: string[][] = [];
  const rated: Setup["rated"] = [];
  const gate = new LocalGate({
    onRevoked: (names) => revoked.push([...names]),
    onRate: (name, rate) => rated.push([name, rate]),
    now: clock.now,
    clock,
  });
  gate.configure({ users, limits: { ...NO_LIMITS, ...limits } });
  return { gate, clock, revoked, rated };
}

/** The code of the refusal, or `undefined`. */
function refusalOf(attempt: () => unknown): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (error) {
    if (error instanceof RefusedError) return error.code;
    throw error;
  }
}

function enter(gate: LocalGate, name: string, address = HERE): Visit {
  const visit = gate.arrive(address);
  visit.enter(name);
  return visit;
}

describe("addressKey()", () => {
  test.each([
    ["192.0.2.7", "192.0.2.7"],
    ["::ffff:192.0.2.7", "192.0.2.7"],
    ["::ffff:c000:207", "192.0.2.7"],
    ["2001:db8:1:2:3:4:5:6", "20010db800010002/64"],
    ["2001:db8:1:2::9", "20010db800010002/64"],
    ["2001:db8:1:3::9", "20010db800010003/64"],
    ["fe80::1%eth0", "fe80000000000000/64"],
    ["::1", "::1"],
    ["unix", "unix"],
  ])("of %s is %s", (address, key) => {
    expect(addressKey(address)).toBe(key);
  });
});

describe("LocalGate.arrive()", () => {
  test("refuses what is over the limit of all connections, until one has left", () => {
    const { gate } = setUp([], { maxConnections: 2 });
    const first = gate.arrive(HERE);
    gate.arrive("127.0.0.1");
    expect(refusalOf(() => gate.arrive(HERE))).toBe("connections");
    expect(gate.connections).toBe(2);
    first.leave();
    first.leave();
    expect(gate.connections).toBe(1);
    gate.arrive(HERE);
  });

  test("refuses what is over the limit of its address, IPv6 by its /64, and this machine never", () => {
    const { gate } = setUp([], { maxPerAddress: 2 });
    const one = gate.arrive("2001:db8::1");
    gate.arrive("2001:db8::2");
    expect(refusalOf(() => gate.arrive("2001:db8::3"))).toBe("address-connections");
    gate.arrive("2001:db8:0:1::3");
    one.leave();
    gate.arrive("2001:db8::3");
    gate.arrive("::ffff:192.0.2.1");
    gate.arrive("192.0.2.1");
    expect(refusalOf(() => gate.arrive("192.0.2.1"))).toBe("address-connections");
    for (const own of ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]) {
      for (let count = 0; count < 5; count += 1) gate.arrive(own);
    }
  });

  test("refuses an address that makes connections too fast, whether or not they stay", () => {
    const { gate, clock } = setUp([], { addressRate: 3 });
    for (let count = 0; count < 3; count += 1) gate.arrive(HERE).leave();
    expect(refusalOf(() => gate.arrive(HERE))).toBe("address-rate");
    gate.arrive("198.51.100.2");
    clock.pass(334);
    gate.arrive(HERE);
    expect(refusalOf(() => gate.arrive(HERE))).toBe("address-rate");
    clock.pass(60_000);
    for (let count = 0; count < 3; count += 1) gate.arrive(HERE);
    expect(refusalOf(() => gate.arrive(HERE))).toBe("address-rate");
    expect(gate.connections).toBe(5);
  });

  test("lets one in every two seconds at half a connection a second", () => {
    const { gate, clock } = setUp([], { addressRate: 0.5 });
    gate.arrive(HERE);
    clock.pass(1_900);
    expect(refusalOf(() => gate.arrive(HERE))).toBe("address-rate");
    clock.pass(200);
    gate.arrive(HERE);
  });
});

describe("AddressTable", () => {
  const limits = { maxPerAddress: 5, addressRate: 5 };

  test("forgets who has left and may come as a stranger may", () => {
    const table = new AddressTable();
    table.limits = limits;
    const stays = table.arrive("192.0.2.1", 0);
    table.leave(table.arrive("192.0.2.2", 0), 0);
    expect(table.size).toBe(2);
    table.sweep(100);
    expect(table.size).toBe(2);
    table.sweep(1_000);
    expect(table.size).toBe(1);
    table.leave(stays, 5_000);
    expect(table.size).toBe(0);
  });

  test("does not grow beyond its bound: who does not fit is let in uncounted", () => {
    const table = new AddressTable(100);
    table.limits = limits;
    for (let at = 0; at < 1_000; at += 1) table.arrive(`10.0.${at >> 8}.${at & 255}`, 0);
    expect(table.size).toBe(100);
    expect(table.arrive("203.0.113.9", 0)).toBeUndefined();
  });

  test("makes room of those that have gone without walking all of it", () => {
    const table = new AddressTable(100);
    table.limits = limits;
    for (let at = 0; at < 50; at += 1) table.arrive(`10.0.0.${at}`, 0);
    for (let at = 50; at < 100; at += 1) table.leave(table.arrive(`10.0.0.${at}`, 0), 0);
    let counted = 0;
    for (let at = 0; at < 50; at += 1) if (table.arrive(`10.0.1.${at}`, 2_000) !== undefined) counted += 1;
    expect(counted).toBeGreaterThan(40);
    expect(table.size).toBeLessThanOrEqual(100);
  });

  test("counts nothing without limits", () => {
    const table = new AddressTable();
    expect(table.arrive("192.0.2.1", 0)).toBeUndefined();
    expect(table.size).toBe(0);
  });
});

describe("Visit.enter()", () => {
  test("refuses users who are unknown, disabled, expired or over quota", () => {
    const { gate, clock } = setUp([
      user("off", { enabled: false }),
      user("old", { expiresAt: 1_000 }),
      user("full", { quotaBytes: 100 }),
    ]);
    gate.load(new Map([["full", { up: 40, down: 60 }]]));
    clock.pass(999);
    enter(gate, "old");
    clock.pass(1);
    const attempts = ["nobody", "off", "old", "full"].map((name) => refusalOf(() => enter(gate, name)));
    expect(attempts).toEqual(["user-disabled", "user-disabled", "user-expired", "user-quota"]);
    expect(gate.users().map(({ refused }) => refused)).toEqual([
      { "user-disabled": 1 },
      { "user-expired": 1 },
      { "user-quota": 1 },
    ]);
  });

  test("refuses what is over a user's connections and addresses; the visit goes on without a user", () => {
    const { gate } = setUp([user("family", { maxConnections: 3, maxAddresses: 2 }), user("other")]);
    const first = enter(gate, "family", "192.0.2.1");
    enter(gate, "family", "192.0.2.1");
    const third = enter(gate, "family", "2001:db8::1");
    const refused = gate.arrive("192.0.2.1");
    expect(refusalOf(() => refused.enter("family"))).toBe("user-connections");
    first.leave();
    expect(refusalOf(() => enter(gate, "family", "192.0.2.9"))).toBe("user-addresses");
    enter(gate, "family", "2001:db8::2");
    third.leave();
    expect(gate.users()[0]).toMatchObject({ connections: 2, addresses: 2 });
    enter(gate, "other", "192.0.2.9");
    refused.leave();
  });

  test("is at zero when everybody has left", () => {
    const { gate } = setUp([user("family", { maxConnections: 5 })], { maxPerAddress: 3, maxConnections: 9 });
    const visits: Visit[] = [];
    for (let count = 0; count < 2_000; count += 1) {
      try {
        const visit = gate.arrive(`192.0.2.${count % 7}`);
        visits.push(visit);
        if (count % 2 === 0) visit.enter("family");
      } catch (error) {
        if (!(error instanceof RefusedError)) throw error;
      }
      if (count % 3 === 0) visits.shift()?.leave();
    }
    for (const visit of visits) visit.leave();
    expect(gate.connections).toBe(0);
    expect(gate.users()[0]).toMatchObject({ connections: 0, addresses: 0 });
  });
});

describe("LocalGate.configure()", () => {
  test("keeps counting who is connected, under other limits", () => {
    const { gate, revoked } = setUp([user("family", { maxConnections: 3 })]);
    const visits = [enter(gate, "family"), enter(gate, "family")];
    gate.configure({ users: [user("family", { maxConnections: 2 })], limits: NO_LIMITS });
    expect(refusalOf(() => enter(gate, "family"))).toBe("user-connections");
    visits[0]?.leave();
    enter(gate, "family");
    expect(revoked).toEqual([]);
  });

  test("revokes users who were removed, disabled, given another key, or are over other limits", () => {
    const names = ["stays", "removed", "disabled", "changed", "expired", "used", "absent"];
    const { gate, clock, revoked } = setUp(names.map((name) => user(name)));
    clock.pass(1_000);
    const visits = names.slice(0, -1).map((name) => enter(gate, name));
    gate.used(new Map([["used", { up: 60, down: 60 }]]));
    gate.configure({
      users: [
        user("stays"),
        user("disabled", { enabled: false }),
        user("changed", { key: new Uint8Array(16).fill(2) }),
        user("expired", { expiresAt: 1_000 }),
        user("used", { quotaBytes: 120 }),
      ],
      limits: NO_LIMITS,
    });
    expect(revoked.flat().toSorted()).toEqual([
      "absent", // nobody is connected, but somebody may be about to show the secret
      "changed",
      "disabled",
      "expired",
      "removed",
      "used",
    ]);
    for (const visit of visits) visit.leave();
    expect(gate.connections).toBe(0);
    expect(gate.users().map(({ name, connections }) => [name, connections])).toEqual([
      ["stays", 0],
      ["disabled", 0],
      ["changed", 0],
      ["expired", 0],
      ["used", 0],
    ]);
  });

  test("gives a user who comes back after having been removed a fresh start", () => {
    const { gate } = setUp([user("family", { maxConnections: 1 })]);
    const before = enter(gate, "family");
    gate.configure({ users: [], limits: NO_LIMITS });
    gate.configure({ users: [user("family", { maxConnections: 1 })], limits: NO_LIMITS });
    const after = enter(gate, "family");
    before.leave();
    expect(gate.users()[0]?.connections).toBe(1);
    after.leave();
    expect(gate.users()[0]?.connections).toBe(0);
  });
});

describe("LocalGate.used() and look()", () => {
  test("revoke who has reached the quota while connected", () => {
    const { gate, revoked } = setUp([user("family", { quotaBytes: 100 }), user("other")]);
    const visit = enter(gate, "family");
    enter(gate, "other");
    gate.used(new Map([["family", { up: 10, down: 89 }]]));
    expect(revoked).toEqual([]);
    gate.used(
      new Map([
        ["family", { up: 1, down: 0 }],
        ["nobody", { up: 1, down: 1 }],
      ]),
    );
    expect(revoked).toEqual([["family"]]);
    visit.leave();
    gate.used(new Map([["family", { up: 1, down: 0 }]]));
    expect(revoked).toHaveLength(1);
    expect(gate.users()[0]).toMatchObject({ up: 12, down: 89 });
    gate.load(new Map([["family", { up: 0, down: 0 }]]));
    enter(gate, "family");
  });

  test("revoke whose time is over, when it is", () => {
    const { gate, clock, revoked } = setUp([user("family", { expiresAt: 5_000 })]);
    enter(gate, "family");
    gate.look();
    expect(revoked).toEqual([]);
    clock.pass(5_000);
    gate.look();
    expect(revoked).toEqual([["family"]]);
  });
});

describe("LocalGate's rates", () => {
  test("are shared by all connections of a user, and lent to whoever moves the bytes", () => {
    const { gate, clock } = setUp([user("slow", { rateBytes: 100_000 }), user("fast")]);
    const one = gate.arrive(HERE).enter("slow");
    const other = gate.arrive("192.0.2.2").enter("slow");
    expect(one.rate).toBe(other.rate);
    expect(gate.arrive(HERE).enter("fast").rate).toBeUndefined();
    expect(gate.lease("slow", 6_000)).toBe(6_000);
    expect(gate.lease("slow", 6_000)).toBe(4_000);
    expect(gate.lease("slow", 6_000)).toBe(0);
    expect(gate.lease("fast", 1_000_000)).toBe(1_000_000);
    let lent = 0;
    gate.whenLendable("slow", () => {
      lent += gate.lease("slow", 6_000);
    });
    clock.pass(19);
    expect(lent).toBe(0);
    clock.pass(2);
    expect(lent).toBeGreaterThanOrEqual(2_000);
  });

  test("come to those who are connected, and whoever has to slow them down hears of it", () => {
    const { gate, rated } = setUp([user("fast"), user("other", { rateBytes: 5 })]);
    const grant = gate.arrive(HERE).enter("fast");
    const limited = [user("fast", { rateBytes: 1_000 }), user("other", { rateBytes: 5 })];
    gate.configure({ users: limited, limits: NO_LIMITS });
    const bucket = grant.rate;
    expect(bucket).toMatchObject({ rate: 1_000 });
    gate.configure({ users: limited, limits: NO_LIMITS });
    gate.configure({ users: [user("fast"), user("new", { rateBytes: 1 })], limits: NO_LIMITS });
    expect(grant.rate).toBeUndefined();
    gate.configure({ users: [user("fast", { rateBytes: 7 })], limits: NO_LIMITS });
    expect(grant.rate).toBe(bucket);
    expect(rated).toEqual([
      ["fast", 1_000],
      ["fast", undefined],
      ["fast", 7],
    ]);
  });

  test("change, and go, for those who are connected", () => {
    const { gate, clock } = setUp([user("slow", { rateBytes: 1_000 })]);
    const { rate } = gate.arrive(HERE).enter("slow");
    rate?.spend(1_000_000);
    gate.configure({ users: [user("slow", { rateBytes: 10_000_000 })], limits: NO_LIMITS });
    clock.pass(200);
    expect(rate?.empty).toBe(false);
    rate?.spend(1_000_000_000);
    gate.configure({ users: [user("slow")], limits: NO_LIMITS });
    clock.pass(1);
    expect(rate?.empty).toBe(false);
    expect(gate.users()[0]?.rateBytes).toBeUndefined();
  });
});
