import { describe, expect, test } from "bun:test";
import { NoRouteError, RouteError } from "../../src/core/errors.ts";
import type { EndReason, SessionView } from "../../src/core/events.ts";
import type { LogFields, Logger } from "../../src/core/logger.ts";
import { SessionLog } from "../../src/observe/session-log.ts";

interface Line {
  readonly level: keyof Logger;
  readonly message: string;
  readonly fields: LogFields | undefined;
}

/** A logger that keeps its lines. */
class Lines implements Logger {
  readonly all: Line[] = [];

  of(...levels: readonly Line["level"][]): string[] {
    return this.all.filter(({ level }) => levels.includes(level)).map(({ message }) => message);
  }

  readonly debug = (message: string, fields?: LogFields): void => this.#keep("debug", message, fields);
  readonly info = (message: string, fields?: LogFields): void => this.#keep("info", message, fields);
  readonly warn = (message: string, fields?: LogFields): void => this.#keep("warn", message, fields);
  readonly error = (message: string, fields?: LogFields): void => this.#keep("error", message, fields);

  #keep(level: Line["level"], message: string, fields: LogFields | undefined): void {
    this.all.push({ level, message, fields });
  }
}

interface Setup {
  readonly lines: Lines;
  readonly log: SessionLog;
  pass(ms: number): void;
}

function setUp(verbose = false): Setup {
  const lines = new Lines();
  let now = 500_000;
  const log = new SessionLog(lines, { verbose, now: () => now });
  return {
    lines,
    log,
    pass: (ms) => {
      now += ms;
    },
  };
}

const session = (changes: Partial<SessionView> = {}): SessionView => ({
  id: 7,
  client: "192.0.2.1",
  secret: "family",
  target: "DC 4 media",
  route: "direct-ws",
  counts: { up: 1_536, down: 5 },
  startedAt: performance.now() - 2_500,
  ...changes,
});

const ATTEMPT = {
  route: "direct-ws",
  endpoint: "kws4",
  error: new RouteError("REFUSED", "connection refused"),
};

function end({ log }: Setup, reason: EndReason, error?: Error, of: SessionView = session()): void {
  log.observe({ type: "ended", session: of, reason, error });
}

function endWithoutRoute(setup: Setup, target = "DC 4 media", text = "connection refused"): void {
  const error = new NoRouteError(target, [{ ...ATTEMPT, error: new RouteError("REFUSED", text) }]);
  end(setup, "no-route", error, session({ target, route: undefined }));
}

describe("SessionLog", () => {
  test("tells the steps of a session as debug", () => {
    const { log, lines } = setUp();
    const started = session({ secret: undefined, target: undefined, route: undefined });
    log.observe({ type: "started", session: started });
    log.observe({ type: "identified", session: session({ route: undefined }) });
    log.observe({ type: "route-failed", session: session({ route: undefined }), attempt: ATTEMPT });
    log.observe({ type: "connected", session: session(), warm: true });
    expect(lines.all).toEqual([
      { level: "debug", message: "connected", fields: { session: 7, client: "192.0.2.1" } },
      { level: "debug", message: "client", fields: { session: 7, secret: "family", dc: "DC 4 media" } },
      {
        level: "debug",
        message: "kws4: connection refused",
        fields: { session: 7, route: "direct-ws", code: "REFUSED" },
      },
      {
        level: "debug",
        message: "route open",
        fields: { session: 7, secret: "family", dc: "DC 4 media", route: "direct-ws", warm: true },
      },
    ]);
  });

  test("writes one line when a session that reached a data centre ends", () => {
    const setup = setUp();
    end(setup, "client-closed");
    expect(setup.lines.all).toMatchObject([
      {
        level: "info",
        message: "session ended",
        fields: { session: 7, reason: "client-closed", up: "1.5KB", down: "5B", error: undefined },
      },
    ]);
    expect(setup.lines.all[0]?.fields?.["seconds"]).toBeCloseTo(2.5, 0);
  });

  test("says in it what broke", () => {
    const setup = setUp();
    end(setup, "upstream-error", new Error("connection reset"));
    expect(setup.lines.all).toMatchObject([{ level: "info", fields: { error: "connection reset" } }]);
  });

  test.each(["stranger", "left-early", "shutdown"] as const)(
    "writes no line for one that ends as %s before that, except for details",
    (reason) => {
      const setup = setUp();
      end(setup, reason, undefined, session({ route: undefined }));
      expect(setup.lines.all).toMatchObject([{ level: "debug", fields: { client: "192.0.2.1", reason } }]);
    },
  );

  test("calls a bug an error, with its stack only for those who asked for details", () => {
    const [quiet, verbose] = [setUp(false), setUp(true)];
    const bug = new TypeError("x is undefined");
    for (const setup of [quiet, verbose]) end(setup, "internal-error", bug);
    expect(quiet.lines.of("error")).toEqual(["session ended by a bug: x is undefined"]);
    expect(verbose.lines.of("error")[0]).toContain(bug.stack ?? "unreachable");
  });
});

describe("SessionLog, no route", () => {
  test("says why once, then once a minute with the number of times", () => {
    const setup = setUp();
    const message = "Cannot reach DC 4 media: direct-ws kws4: connection refused";
    for (let seconds = 0; seconds < 60; seconds += 1) {
      endWithoutRoute(setup);
      setup.pass(1_000);
    }
    expect(setup.lines.of("warn")).toEqual([message]);
    endWithoutRoute(setup);
    expect(setup.lines.of("warn")).toEqual([message, `${message} (and 59 more since this was last said)`]);
    setup.pass(59_999);
    endWithoutRoute(setup);
    expect(setup.lines.of("warn")).toHaveLength(2);
    setup.pass(1);
    endWithoutRoute(setup);
    expect(setup.lines.of("warn").at(-1)).toBe(`${message} (and 1 more since this was last said)`);
    setup.pass(60_000);
    endWithoutRoute(setup);
    expect(setup.lines.of("warn").at(-1)).toBe(message);
  });

  test("keeps every ending as debug", () => {
    const setup = setUp();
    for (let times = 0; times < 3; times += 1) endWithoutRoute(setup);
    expect(setup.lines.of("debug")).toEqual(["session ended", "session ended", "session ended"]);
    expect(setup.lines.of("info", "error")).toEqual([]);
  });

  test("tells data centres apart", () => {
    const setup = setUp();
    endWithoutRoute(setup, "DC 2");
    endWithoutRoute(setup, "DC 4");
    endWithoutRoute(setup, "DC 2");
    expect(setup.lines.of("warn")).toHaveLength(2);
  });

  test("does so also when the reason changes every time", () => {
    const setup = setUp();
    for (let times = 0; times < 10; times += 1) endWithoutRoute(setup, "DC 2", `HTTP 30${times}`);
    expect(setup.lines.of("warn")).toEqual(["Cannot reach DC 2: direct-ws kws4: HTTP 300"]);
    setup.pass(60_000);
    endWithoutRoute(setup, "DC 2", "HTTP 502");
    expect(setup.lines.of("warn").at(-1)).toBe(
      "Cannot reach DC 2: direct-ws kws4: HTTP 502 (and 9 more since this was last said)",
    );
  });

  test("does not call what was an hour ago the last minute", () => {
    const setup = setUp();
    for (let times = 0; times < 10; times += 1) endWithoutRoute(setup);
    setup.pass(3_600_000);
    endWithoutRoute(setup);
    expect(setup.lines.of("warn").at(-1)).not.toContain("in the last minute");
  });
});
