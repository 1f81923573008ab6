import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { ROUTE_ERROR_CODES, RouteError } from "../../src/core/errors.ts";
import { type EndReason, REFUSAL_REASONS, type SessionView } from "../../src/core/events.ts";
import {
  addFigures,
  type Figures,
  forgetUsersBut,
  NO_FIGURES,
  retireFigures,
} from "../../src/observe/figures.ts";
import { BUCKET_ENDS_MS } from "../../src/observe/histogram.ts";
import { Stats } from "../../src/observe/stats.ts";
import { formatStatLines, formatSummary } from "../../src/observe/stats-text.ts";

const count = fc.nat(1_000_000);
const tallyOf = (...names: readonly string[]) =>
  fc.dictionary(fc.constantFrom(...names), count, { noNullPrototype: true });
const histogram = fc.record({
  counts: fc.array(count, { minLength: BUCKET_ENDS_MS.length + 1, maxLength: BUCKET_ENDS_MS.length + 1 }),
  sumMicros: count,
});
const pool = fc.record({ hits: count, misses: count });
const route = fc.record({
  route: fc.constantFrom("direct-ws", "cf-worker", "direct-tcp"),
  dc: fc.constantFrom(1, 2, 203),
  attempts: count,
  sessions: count,
  lost: count,
  failures: tallyOf(...ROUTE_ERROR_CODES),
  opening: histogram,
  bytesUp: count,
  bytesDown: count,
});
/** What a process may count. */
const figures: fc.Arbitrary<Figures> = fc.record({
  connections: fc.record({
    total: count,
    active: count,
    ended: tallyOf("idle", "stranger", "overload"),
    masked: tallyOf("digest", "replay"),
    refused: tallyOf(...REFUSAL_REASONS),
    badHeaders: tallyOf("missing", "untrusted"),
    shed: count,
  }),
  bytes: fc.record({ up: count, down: count, maskedUp: count, maskedDown: count }),
  routes: fc.uniqueArray(route, { selector: (one) => `${one.route} ${one.dc}`, maxLength: 6 }),
  setUp: histogram,
  users: fc.dictionary(
    fc.constantFrom("ann", "bob", "__proto__", "constructor"),
    fc.record({ active: count, sessions: count, bytesUp: count, bytesDown: count }),
    { noNullPrototype: true },
  ),
  pools: fc.record({ routes: pool, cf: pool }),
  queuedBytes: count,
  log: fc.record({ written: count, folded: count, dropped: count }),
});

/** The same with everything in one order: JSON that is equal is the same figures. */
const inOrder = (value: Figures): Figures => addFigures(value, NO_FIGURES);

describe("addFigures()", () => {
  test("does not depend on the order", () => {
    fc.assert(fc.property(figures, figures, (a, b) => expect(addFigures(a, b)).toEqual(addFigures(b, a))));
  });

  test("does not depend on which are added first", () => {
    fc.assert(
      fc.property(figures, figures, figures, (a, b, c) =>
        expect(addFigures(addFigures(a, b), c)).toEqual(addFigures(a, addFigures(b, c))),
      ),
    );
  });

  test("changes nothing when nothing is added", () => {
    fc.assert(
      fc.property(figures, (a) => {
        const sum = addFigures(a, NO_FIGURES);
        expect({ ...sum, routes: [] }).toEqual({ ...a, routes: [] });
        expect(new Set(sum.routes)).toEqual(new Set(a.routes));
      }),
    );
  });

  test("is the same after a way through JSON", () => {
    fc.assert(
      fc.property(figures, figures, (a, b) => {
        const sent: Figures = JSON.parse(JSON.stringify(a));
        expect(addFigures(sent, b)).toEqual(addFigures(a, b));
      }),
    );
  });

  test("leaves what it adds as it is", () => {
    fc.assert(
      fc.property(figures, figures, (a, b) => {
        const before = JSON.stringify([a, b]);
        addFigures(a, b);
        expect(JSON.stringify([a, b])).toBe(before);
      }),
    );
  });
});

describe("retireFigures()", () => {
  test("keeps every counter, and says that nothing is open", () => {
    fc.assert(
      fc.property(figures, figures, (dead, alive) => {
        const before = addFigures(alive, dead);
        const after = addFigures(alive, retireFigures(dead));
        expectNoStepBack(before, after);
        expect(after.connections.active).toBe(alive.connections.active);
        expect(after.queuedBytes).toBe(alive.queuedBytes);
      }),
    );
  });

  test("changes nothing the second time", () => {
    fc.assert(fc.property(figures, (a) => expect(retireFigures(retireFigures(a))).toEqual(retireFigures(a))));
  });
});

/** Every number but those that say how it is now is the same or greater. */
function expectNoStepBack(before: Figures, after: Figures): void {
  const [old, now] = [numbersIn(inOrder(before)), numbersIn(inOrder(after))];
  for (const [path, value] of old) {
    if (/(\.active|\.queuedBytes)$/.test(path)) continue;
    const next = now.get(path) ?? -1;
    if (next < value) throw new Error(`${path} went from ${value} to ${next}`);
  }
}

function numbersIn(value: unknown, path = ""): Map<string, number> {
  const numbers = new Map<string, number>();
  if (typeof value === "number") return numbers.set(path, value);
  if (typeof value !== "object" || value === null) return numbers;
  for (const [key, inner] of Object.entries(value)) {
    const one = inner as { readonly route?: string; readonly dc?: number } | undefined;
    const name = one?.route === undefined ? key : `${one.route} ${one.dc}`;
    for (const [rest, number] of numbersIn(inner, `${path}.${name}`)) numbers.set(rest, number);
  }
  return numbers;
}

/** A session of the tests below, which may be in any state. */
interface GrowingSession extends SessionView {
  secret: string | undefined;
  route: string | undefined;
  dc: number;
  counts: { up: number; down: number };
}

const ROUTES = ["direct-ws", "cf-domain", "direct-tcp"] as const;
const step = fc.record({
  session: fc.nat(5),
  what: fc.constantFrom(
    "identified",
    "masked",
    "refused",
    "attempt",
    "failed",
    "connected",
    "rerouted",
    "bytes",
    "ended",
  ),
  choice: fc.nat(2),
});
const ENDS: readonly EndReason[] = ["no-route", "client-closed", "revoked"];

describe("Stats.figures()", () => {
  test("never goes back, whatever happens in whatever order", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const stats = new Stats({ pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } });
        const sessions = new Map<number, GrowingSession>();
        let before = stats.figures();
        for (const { session: id, what, choice } of steps) {
          const session = sessions.get(id) ?? newSession(id);
          if (!sessions.has(id)) {
            sessions.set(id, session);
            stats.observe({ type: "started", session });
          }
          const route = ROUTES[choice] ?? "direct-ws";
          if (what === "bytes") session.counts = { up: session.counts.up + 5, down: session.counts.down + 1 };
          else if (what === "identified") {
            session.secret = `user${choice}`;
            session.dc = choice + 1;
            stats.observe({ type: "identified", session });
          } else if (what === "masked") stats.observe({ type: "masked", session, why: "digest", detail: "" });
          else if (what === "refused") stats.observe({ type: "refused", session, why: "user-quota" });
          else if (what === "attempt") stats.observe({ type: "attempt", session, route, endpoint: "x" });
          else if (what === "failed") {
            const attempt = { route, endpoint: "x", error: new RouteError("TLS", "bad") };
            stats.observe({ type: "route-failed", session, attempt });
          } else if (what === "ended") {
            const reason = ENDS[choice] ?? "idle";
            stats.observe({ type: "ended", session, reason, error: undefined });
            sessions.delete(id);
          } else {
            const from = session.route;
            session.route = route;
            const opened = { session, warm: choice === 0, openMs: choice * 100 };
            if (what === "connected" || from === undefined) stats.observe({ type: "connected", ...opened });
            else stats.observe({ type: "rerouted", from, ...opened });
          }
          const after = stats.figures();
          // What a session moved before it was shown the site is not counted twice, but changes sides.
          if (what !== "masked") expectNoStepBack(before, after);
          before = after;
        }
        expect(before.connections.active).toBe(sessions.size);
        expect(formatSummary(before)).toContain(`active=${sessions.size} `);
        expect(formatStatLines(before).length).toBeLessThanOrEqual(before.routes.length + 2);
      }),
    );
  });
});

function newSession(id: number): GrowingSession {
  return {
    id,
    client: "127.0.0.1",
    secret: undefined,
    target: undefined,
    dc: 0,
    route: undefined,
    endpoint: undefined,
    counts: { up: 0, down: 0 },
    startedAt: performance.now(),
  };
}

describe("forgetUsersBut()", () => {
  test("leaves those who are named, and everything else", () => {
    fc.assert(
      fc.property(figures, (a) => {
        expect(forgetUsersBut(a, new Set(Object.keys(a.users)))).toEqual(a);
        const [kept] = Object.keys(a.users);
        const after = forgetUsersBut(a, new Set(kept === undefined ? [] : [kept]));
        expect(Object.keys(after.users)).toEqual(kept === undefined ? [] : [kept]);
        expect({ ...after, users: a.users }).toEqual(a);
      }),
    );
  });
});
