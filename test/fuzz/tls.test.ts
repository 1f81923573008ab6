import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HandshakeError } from "../../src/core/errors.ts";
import { type ClientHello, GROUP, isGrease, parseClientHello } from "../../src/protocol/tls/client-hello.ts";
import {
  type HelloProgress,
  measureClientHello,
  zeroRandom,
} from "../../src/protocol/tls/client-hello-records.ts";
import { encodeClientHello, type HelloPlan } from "../../src/protocol/tls/client-hello-writer.ts";
import { parseServerFlight } from "../../src/protocol/tls/server-flight.ts";
import {
  encodeFirstFlight,
  type FlightPlan,
  SERVER_RANDOM_OFFSET,
} from "../../src/protocol/tls/server-hello.ts";

const RUNS = { seed: 20_251, numRuns: 2_000 };
const FEW = { ...RUNS, numRuns: 300 };
const bytes = (minLength: number, maxLength = minLength): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength, maxLength, size: "max" });
const u16 = (value: number): readonly number[] => [value >> 8, value & 0xff];
const list16 = (content: readonly number[]): readonly number[] => [...u16(content.length), ...content];

/** What `parse` returns, or `undefined` when it throws as it may; any other error is thrown on. */
function outcomeOf<T>(code: string, parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof HandshakeError) || error.code !== code) throw error;
    return undefined;
  }
}

/** Extensions of any type and content, besides those that are looked into; no type twice. */
const otherExtensions = fc.uniqueArray(
  fc.tuple(
    fc.integer({ min: 0, max: 0xffff }).filter((type) => ![0, 10, 16, 43, 51].includes(type)),
    bytes(0, 40),
  ),
  { maxLength: 20, selector: ([type]) => type },
);

/** A whole handshake message, and where it may be damaged to good effect. */
const clientHello = fc
  .record({
    random: bytes(32),
    sessionId: bytes(0, 32),
    suites: fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 1, maxLength: 20 }),
    name: fc.domain(),
    key: bytes(32),
    others: otherExtensions,
  })
  .map(({ random, sessionId, suites, name, key, others }) => {
    const host = [...name].map((character) => character.charCodeAt(0));
    const known: readonly (readonly [number, readonly number[]])[] = [
      [0, list16([0, ...list16(host)])],
      [10, list16([0, 0x1d, 0, 0x17])],
      [51, list16([0, 0x1d, ...list16([...key])])],
      [43, [4, 3, 4, 3, 3]],
      [16, list16([2, 0x68, 0x32])],
    ];
    const block = [...others, ...known].flatMap(([type, data]) => [...u16(type), ...list16([...data])]);
    const ciphers = list16(suites.flatMap(u16));
    const body = [3, 3, ...random, sessionId.length, ...sessionId, ...ciphers, 1, 0, ...list16(block)];
    const message = Uint8Array.of(1, 0, ...u16(body.length), ...body);
    return { message, random, sessionId, suites, name, key, others };
  });

/** Cuts `message` into records at `cuts`, which are shares of its length. */
function intoRecords(message: Uint8Array, cuts: readonly number[]): Uint8Array {
  const places = [...new Set(cuts.map((cut) => 1 + Math.floor(cut * (message.length - 1))))];
  const ends = [
    ...places.filter((place) => place < message.length).toSorted((a, b) => a - b),
    message.length,
  ];
  const out: number[] = [];
  let at = 0;
  for (const end of ends) {
    out.push(0x16, 3, 1, ...list16([...message.subarray(at, end)]));
    at = end;
  }
  return Uint8Array.from(out);
}

const share = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const cuts = fc.oneof(fc.constant([]), fc.array(share, { maxLength: 63, size: "max" }));
const records = fc
  .tuple(clientHello, cuts)
  .map(([hello, cuts]) => ({ ...hello, wire: intoRecords(hello.message, cuts) }));

/** Overwrites, removes or puts in a few bytes. */
const damage = fc.array(fc.tuple(share, fc.constantFrom("set", "drop", "add"), fc.nat({ max: 255 })), {
  minLength: 1,
  maxLength: 4,
});

function damaged(whole: Uint8Array, changes: readonly (readonly [number, string, number])[]): Uint8Array {
  const out = [...whole];
  for (const [place, kind, value] of changes) {
    const at = Math.floor(place * out.length);
    if (kind === "set") out[at] = value;
    else out.splice(at, kind === "drop" ? 1 : 0, ...(kind === "drop" ? [] : [value]));
  }
  return Uint8Array.from(out);
}

/** What a parsed hello says must be what the message says. */
function expectSound(message: Uint8Array, hello: ClientHello): void {
  expect(hello.random.length).toBe(32);
  expect(hello.sessionId.length).toBeLessThanOrEqual(32);
  expect(hello.cipherSuites.length).toBeGreaterThan(0);
  expect(hello.serverName ?? "a").toMatch(/^[\x21-\x7e]+$/);
  expect(new Set(hello.extensions.map(({ type }) => type)).size).toBe(hello.extensions.length);
  const lengths = hello.extensions.map(({ data }) => 4 + data.length).reduce((sum, one) => sum + one, 0);
  const fixed = 4 + 2 + 32 + 1 + hello.sessionId.length + 2 + hello.cipherSuites.length * 2;
  const rest = message.length - fixed - 1 - hello.compressionMethods.length;
  expect(lengths).toBe(rest === 0 ? 0 : rest - 2);
}

describe("parseClientHello()", () => {
  test("gives a hello or BAD_CLIENT_HELLO for any bytes", () => {
    const headed = bytes(0, 200).map((body) => Uint8Array.of(1, 0, ...list16([...body])));
    fc.assert(
      fc.property(fc.oneof(bytes(0, 200), headed), (message) => {
        const hello = outcomeOf("BAD_CLIENT_HELLO", () => parseClientHello(message));
        if (hello !== undefined) expectSound(message, hello);
      }),
      RUNS,
    );
  });

  test("reads whatever a client may say", () => {
    fc.assert(
      fc.property(clientHello, ({ message, random, sessionId, suites, name, key, others }) => {
        const hello = parseClientHello(message);
        expect(hello).toMatchObject({
          ...{ random, sessionId, cipherSuites: suites, serverName: name, alpn: ["h2"] },
          ...{ supportedVersions: [0x0304, 0x0303], supportedGroups: [0x1d, 0x17] },
        });
        expect(hello.keyShares).toEqual([{ group: GROUP.x25519, key }]);
        const found = hello.extensions.slice(0, others.length).map(({ type, data }) => [type, data]);
        expect(found).toEqual(others);
        expectSound(message, hello);
      }),
      FEW,
    );
  });

  test("gives a hello or BAD_CLIENT_HELLO for a damaged one", () => {
    fc.assert(
      fc.property(clientHello, damage, ({ message }, changes) => {
        const broken = damaged(message, changes);
        // With the outer length put right, the damage reaches the fields.
        for (const candidate of [broken, Uint8Array.of(1, 0, ...list16([...broken.subarray(4)]))]) {
          const hello = outcomeOf("BAD_CLIENT_HELLO", () => parseClientHello(candidate));
          if (hello !== undefined) expectSound(candidate, hello);
        }
      }),
      RUNS,
    );
  });
});

/** Looks at every prefix of `wire`; the first outcome that is final must stay. */
function expectMonotone(wire: Uint8Array): void {
  let final: HelloProgress | "refused" | undefined;
  let needed = 1;
  for (let length = 0; length <= wire.length; length += 1) {
    const progress =
      outcomeOf("BAD_CLIENT_HELLO", () => measureClientHello(wire.subarray(0, length))) ?? "refused";
    if (final !== undefined) {
      expect(progress).toEqual(final);
    } else if (progress === "refused" || progress.kind === "whole") {
      if (progress !== "refused") expect([progress.length, needed]).toEqual([length, length]);
      final = progress;
    } else {
      expect(progress.needed).toBeGreaterThan(length);
      // What was needed before is needed still, until it is there.
      if (length < needed) expect(progress.needed).toBe(needed);
      needed = progress.needed;
    }
  }
}

describe("measureClientHello()", () => {
  test("gives progress or BAD_CLIENT_HELLO for any bytes", () => {
    const headed = bytes(0, 120).map((rest) => Uint8Array.of(0x16, 3, 1, 0, 40, 1, 0, 0, ...rest));
    fc.assert(
      fc.property(fc.oneof(bytes(0, 120), headed), (wire) => {
        const progress = outcomeOf("BAD_CLIENT_HELLO", () => measureClientHello(wire));
        if (progress?.kind === "partial") expect(progress.needed).toBeGreaterThan(wire.length);
        if (progress?.kind === "whole") expect(progress.length).toBeLessThanOrEqual(wire.length);
      }),
      RUNS,
    );
  });

  test("says the same of every prefix until it knows, then for ever", () => {
    fc.assert(
      fc.property(records, bytes(0, 20), ({ wire }, after) =>
        expectMonotone(Uint8Array.of(...wire, ...after)),
      ),
      { ...RUNS, numRuns: 100 },
    );
  });

  test("says the same of every prefix of damaged records", () => {
    fc.assert(
      fc.property(records, damage, ({ wire }, changes) => expectMonotone(damaged(wire, changes))),
      { ...RUNS, numRuns: 100 },
    );
  });

  test("finds the message and the random, however it is cut", () => {
    fc.assert(
      fc.property(records, bytes(0, 20), ({ wire, message, random }, after) => {
        const progress = measureClientHello(Uint8Array.of(...wire, ...after));
        if (progress.kind !== "whole") throw new Error("it is not whole");
        expect(progress).toMatchObject({ length: wire.length, message });
        const parts = progress.randomParts.flatMap(({ offset, length }) => [
          ...wire.subarray(offset, offset + length),
        ]);
        expect(parts).toEqual([...random]);

        const zeroed = measureClientHello(zeroRandom(wire, progress.randomParts));
        if (zeroed.kind !== "whole") throw new Error("it is not whole any more");
        const expected = message.slice();
        expected.fill(0, 6, 38);
        expect(zeroed.message).toEqual(expected);
      }),
      FEW,
    );
  });
});

describe("encodeClientHello()", () => {
  const plan: fc.Arbitrary<HelloPlan> = fc.record({
    serverName: fc.domain(),
    random: bytes(32),
    sessionId: bytes(32),
    cipherSuites: fc.shuffledSubarray([0x1301, 0x1302, 0x1303], { minLength: 1 }),
    keyShares: fc
      .tuple(bytes(1_216), bytes(32), bytes(65), fc.shuffledSubarray([0, 1, 2]))
      .map(([hybrid, x25519, p256, order]) => {
        const all = [
          { group: GROUP.x25519MlKem768, key: hybrid },
          { group: GROUP.x25519, key: x25519 },
          { group: GROUP.secp256r1, key: p256 },
        ];
        return order.flatMap((at) => all[at] ?? []);
      }),
    alpn: fc.subarray(["h2", "http/1.1"]),
    grease: bytes(6, 20),
    ech: fc.option(fc.record({ configId: fc.nat(255), enc: bytes(32, 32), payload: bytes(144, 240) }), {
      nil: undefined,
    }),
  });

  test("writes what parseClientHello reads", () => {
    fc.assert(
      fc.property(plan, (plan) => {
        const wire = encodeClientHello(plan);
        const progress = measureClientHello(wire);
        if (progress.kind !== "whole") throw new Error("it is not whole");
        expect(progress.length).toBe(wire.length);
        const hello = parseClientHello(progress.message);
        const { serverName, random, sessionId, alpn } = plan;
        expect(hello).toMatchObject({ serverName, random, sessionId, alpn });
        expect(hello.keyShares.filter(({ group }) => !isGrease(group))).toEqual([...plan.keyShares]);
        const known = hello.cipherSuites.filter((suite) => !isGrease(suite));
        expect(known.slice(0, plan.cipherSuites.length)).toEqual([...plan.cipherSuites]);
        const greases = [hello.cipherSuites, hello.supportedGroups, hello.supportedVersions];
        for (const [first] of greases) expect(isGrease(first ?? 0)).toBe(true);
        for (const { group } of hello.keyShares) expect(hello.supportedGroups).toContain(group);
      }),
      FEW,
    );
  });
});

const flightPlan: fc.Arbitrary<FlightPlan> = fc.record({
  sessionId: bytes(0, 32),
  cipherSuite: fc.constantFrom(0x1301, 0x1302, 0x1303),
  extensionOrder: fc.constantFrom([43, 51], [51, 43]),
  keyShare: fc.oneof(
    bytes(32).map((key) => ({ group: GROUP.x25519, key })),
    bytes(1_120).map((key) => ({ group: GROUP.x25519MlKem768, key })),
  ),
  encrypted: fc.oneof(
    bytes(1, 3_000),
    fc.integer({ min: 1, max: 16_640 }).map((length) => new Uint8Array(length)),
  ),
});

describe("parseServerFlight()", () => {
  test("reads what encodeFirstFlight wrote, and every prefix of it", () => {
    fc.assert(
      fc.property(flightPlan, share, (plan, place) => {
        const flight = encodeFirstFlight(plan);
        expect(
          flight.subarray(SERVER_RANDOM_OFFSET, SERVER_RANDOM_OFFSET + 32).every((byte) => byte === 0),
        ).toBe(true);
        const hello = {
          ...{ version: 0x0304, helloRetry: false, cipherSuite: plan.cipherSuite },
          ...{ extensionOrder: plan.extensionOrder, group: plan.keyShare.group },
        };
        expect(parseServerFlight(flight)).toEqual({
          ...hello,
          ...{ encryptedRecords: [plan.encrypted.length], changeCipherSpec: true, rest: 0 },
        });
        const prefix = parseServerFlight(flight.subarray(0, Math.floor(place * flight.length)));
        if (prefix !== undefined) expect(prefix).toMatchObject({ ...hello, encryptedRecords: [] });
      }),
      FEW,
    );
  });

  test("gives a flight, nothing yet or BAD_SERVER_HELLO for any bytes", () => {
    const headed = bytes(0, 120).map((rest) => Uint8Array.of(0x16, 3, 3, 0, 60, 2, 0, 0, 56, 3, 3, ...rest));
    fc.assert(
      fc.property(fc.oneof(bytes(0, 120), headed), (wire) => {
        const flight = outcomeOf("BAD_SERVER_HELLO", () => parseServerFlight(wire));
        if (flight !== undefined) expect(flight.rest).toBeLessThan(wire.length);
      }),
      RUNS,
    );
  });

  test("gives a flight, nothing yet or BAD_SERVER_HELLO for a damaged one", () => {
    const small = flightPlan.map((plan) => ({ ...plan, encrypted: plan.encrypted.subarray(0, 50) }));
    fc.assert(
      fc.property(small, damage, (plan, changes) => {
        const wire = damaged(encodeFirstFlight(plan), changes);
        for (let length = 0; length <= wire.length; length += 7) {
          outcomeOf("BAD_SERVER_HELLO", () => parseServerFlight(wire.subarray(0, length)));
        }
        outcomeOf("BAD_SERVER_HELLO", () => parseServerFlight(wire));
      }),
      RUNS,
    );
  });
});
