import { describe, expect, test } from "bun:test";
import { RouteError } from "../../src/core/errors.ts";
import type { EndReason, SessionView } from "../../src/core/events.ts";
import { Stats } from "../../src/observe/stats.ts";

type GrowingSession = SessionView & { counts: { up: number; down: number } };

function makeSession(id: number): GrowingSession {
  return {
    id,
    client: "127.0.0.1",
    secret: undefined,
    target: undefined,
    route: undefined,
    counts: { up: 0, down: 0 },
    startedAt: 0,
  };
}

function startSession(stats: Stats, id: number): GrowingSession {
  const session = makeSession(id);
  stats.observe({ type: "started", session });
  return session;
}

const end = (stats: Stats, session: SessionView, reason: EndReason): void =>
  stats.observe({ type: "ended", session, reason, error: undefined });

const ATTEMPT = { route: "direct-ws", endpoint: "kws2", error: new RouteError("REDIRECT", "HTTP 302") };

describe("Stats", () => {
  test("starts at zero", () => {
    expect(new Stats({ hits: 0, misses: 0 }).snapshot()).toEqual({
      connections_total: 0,
      connections_active: 0,
      connections_ws: 0,
      connections_bad: 0,
      ws_errors: 0,
      bytes_up: 0,
      bytes_down: 0,
      pool_hits: 0,
      pool_misses: 0,
    });
  });

  test("counts a session as active from start to end, and in the total for ever", () => {
    const stats = new Stats({ hits: 0, misses: 0 });
    const first = startSession(stats, 1);
    const second = startSession(stats, 2);
    expect(stats.snapshot()).toMatchObject({ connections_total: 2, connections_active: 2 });
    end(stats, first, "client-closed");
    expect(stats.snapshot()).toMatchObject({ connections_total: 2, connections_active: 1 });
    end(stats, second, "idle");
    expect(stats.snapshot()).toMatchObject({ connections_total: 2, connections_active: 0 });
  });

  test("counts connections and failed attempts, and nothing else, as WebSocket figures", () => {
    const stats = new Stats({ hits: 0, misses: 0 });
    const session = startSession(stats, 1);
    stats.observe({ type: "identified", session });
    expect(stats.snapshot()).toMatchObject({ connections_ws: 0, ws_errors: 0 });
    stats.observe({ type: "route-failed", session, attempt: ATTEMPT });
    stats.observe({ type: "route-failed", session, attempt: ATTEMPT });
    stats.observe({ type: "connected", session, warm: false });
    expect(stats.snapshot()).toMatchObject({ connections_ws: 1, ws_errors: 2 });
    end(stats, session, "upstream-closed");
    expect(stats.snapshot()).toMatchObject({ connections_ws: 1, ws_errors: 2 });
  });

  test("counts strangers as bad, and no other ending", () => {
    const stats = new Stats({ hits: 0, misses: 0 });
    const reasons: EndReason[] = [
      "client-closed",
      "upstream-closed",
      "client-error",
      "upstream-error",
      "idle",
      "left-early",
      "no-route",
      "shutdown",
      "internal-error",
    ];
    for (const reason of reasons) end(stats, startSession(stats, 1), reason);
    expect(stats.snapshot().connections_bad).toBe(0);
    end(stats, startSession(stats, 2), "stranger");
    end(stats, startSession(stats, 3), "stranger");
    expect(stats.snapshot().connections_bad).toBe(2);
  });

  test("reads the bytes of live sessions when asked, and keeps those of ended ones once", () => {
    const stats = new Stats({ hits: 0, misses: 0 });
    const one = startSession(stats, 1);
    const two = startSession(stats, 2);
    one.counts.up += 100;
    two.counts.down += 7;
    expect(stats.snapshot()).toMatchObject({ bytes_up: 100, bytes_down: 7 });
    one.counts.up += 50;
    expect(stats.snapshot()).toMatchObject({ bytes_up: 150, bytes_down: 7 });
    end(stats, one, "client-closed");
    expect(stats.snapshot()).toMatchObject({ bytes_up: 150, bytes_down: 7 });
    two.counts.up += 1;
    end(stats, two, "client-closed");
    expect(stats.snapshot()).toMatchObject({ bytes_up: 151, bytes_down: 7 });
  });

  test("reads the pool's figures when asked", () => {
    const pool = { hits: 1, misses: 2 };
    const stats = new Stats(pool);
    pool.hits = 5;
    expect(stats.snapshot()).toMatchObject({ pool_hits: 5, pool_misses: 2 });
  });
});

describe("Stats.summary()", () => {
  test("is one line in the order that people know", () => {
    const stats = new Stats({ hits: 3, misses: 1 });
    const session = startSession(stats, 1);
    stats.observe({ type: "route-failed", session, attempt: ATTEMPT });
    stats.observe({ type: "connected", session, warm: true });
    session.counts.up = 1_536;
    session.counts.down = 327_889_715;
    end(stats, startSession(stats, 2), "stranger");
    expect(stats.summary()).toBe("total=2 active=1 ws=1 bad=1 err=1 pool=3/4 up=1.5 KB down=312.7 MB");
  });

  test("says n/a for a pool that nobody has asked", () => {
    expect(new Stats({ hits: 0, misses: 0 }).summary()).toBe(
      "total=0 active=0 ws=0 bad=0 err=0 pool=n/a up=0 B down=0 B",
    );
  });

  test("shows a pool that has only missed", () => {
    expect(new Stats({ hits: 0, misses: 2 }).summary()).toContain("pool=0/2");
  });
});
