import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { RefusedError } from "../../src/core/errors.ts";
import { unlimitedUser } from "../../src/core/users.ts";
import { LocalGate, type LocalVisit } from "../../src/proxy/local-gate.ts";
import { ManualClock } from "../support/manual-clock.ts";

const NAMES = ["a", "b", "c"] as const;
const ADDRESSES = [
  "192.0.2.1",
  "192.0.2.2",
  "2001:db8::1",
  "2001:db8::2",
  "2001:db8:0:1::1",
  "127.0.0.1",
] as const;

const limit = fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined });
const policy = fc.record({
  name: fc.constantFrom(...NAMES),
  enabled: fc.boolean(),
  maxConnections: limit,
  maxAddresses: limit,
  quotaBytes: fc.option(fc.integer({ min: 1, max: 1_000 }), { nil: undefined }),
  expiresAt: fc.option(fc.integer({ min: 0, max: 20_000 }), { nil: undefined }),
});
const step = fc.oneof(
  fc.record({ kind: fc.constant("arrive" as const), address: fc.constantFrom(...ADDRESSES) }),
  fc.record({ kind: fc.constant("enter" as const), at: fc.nat(), name: fc.constantFrom(...NAMES) }),
  fc.record({ kind: fc.constant("leave" as const), at: fc.nat() }),
  fc.record({ kind: fc.constant("pass" as const), ms: fc.integer({ min: 0, max: 3_000 }) }),
  fc.record({ kind: fc.constant("used" as const), name: fc.constantFrom(...NAMES), bytes: fc.nat(500) }),
  fc.record({
    kind: fc.constant("configure" as const),
    policies: fc.uniqueArray(policy, { selector: ({ name }) => name, maxLength: 3 }),
    maxConnections: limit,
    maxPerAddress: limit,
    addressRate: limit,
  }),
);

/** Does something that may be refused, and nothing else. */
function attempt(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
  }
}

describe("LocalGate", () => {
  test("counts whoever is there, and nobody else, whatever happens in which order", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const clock = new ManualClock();
        const gate = new LocalGate({ onRevoked: () => {}, now: clock.now, clock });
        const here: { readonly visit: LocalVisit; entered: boolean }[] = [];
        for (const one of steps) {
          const some = "at" in one ? here[one.at % Math.max(1, here.length)] : undefined;
          switch (one.kind) {
            case "arrive":
              attempt(() => here.push({ visit: gate.arrive(one.address), entered: false }));
              break;
            case "enter":
              attempt(() => {
                if (some === undefined || some.entered) return;
                some.visit.enter(one.name);
                some.entered = true;
              });
              break;
            case "leave":
              if (some !== undefined) here.splice(here.indexOf(some), 1);
              some?.visit.leave();
              break;
            case "pass":
              clock.pass(one.ms);
              gate.look();
              break;
            case "used":
              gate.used(new Map([[one.name, { up: one.bytes, down: 0 }]]));
              break;
            case "configure": {
              const users = one.policies.map((given) => ({
                ...unlimitedUser(given.name, new Uint8Array(16)),
                ...given,
              }));
              gate.configure({ users, limits: one });
              break;
            }
          }
          expect(gate.connections).toBe(here.length);
          for (const { connections, addresses } of gate.users()) {
            expect(addresses).toBeLessThanOrEqual(connections);
            expect(connections).toBeLessThanOrEqual(here.length);
          }
        }
        for (const { visit } of here) visit.leave();
        expect(gate.connections).toBe(0);
        for (const { connections, addresses } of gate.users())
          expect([connections, addresses]).toEqual([0, 0]);
      }),
      { numRuns: 300 },
    );
  });
});
