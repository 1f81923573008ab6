import { describe, expect, test } from "bun:test";
import { NoRouteError, ProxyHeaderError, RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import type { EndReason, MaskReason, SessionView } from "../../src/core/events.ts";
import type { LogFields, Logger, LogLevel } from "../../src/core/logger.ts";
import type { LevelLogger } from "../../src/observe/log.ts";
import { SessionLog } from "../../src/observe/session-log.ts";

interface Line {
  readonly level: keyof Logger;
  readonly message: string;
  readonly fields: LogFields | undefined;
}

/** A logger that keeps its lines. */
class Lines implements LevelLogger {
  readonly all: Line[] = [];
  readonly #verbose: boolean;

  constructor(verbose: boolean) {
    this.#verbose = verbose;
  }

  readonly enabled = (level: LogLevel): boolean => this.#verbose || level !== "debug";

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
  const lines = new Lines(verbose);
  let now = 500_000;
  const log = new SessionLog(lines, () => now);
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
  dc: 4,
  route: "direct-ws",
  endpoint: "kws4-1",
  counts: { up: 1_536, down: 5 },
  startedAt: performance.now() - 2_500,
  ...changes,
});

const ATTEMPT = {
  route: "direct-ws",
  endpoint: "kws4",
  error: new RouteError("REFUSED", "connection refused"),
};

const DOCTOR_HINT = "tgws doctor, with the same flags, tries every route and says what to do";

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
    const unconnected = session({ route: undefined, endpoint: undefined });
    log.observe({ type: "attempt", session: unconnected, route: "direct-ws", endpoint: "kws4" });
    log.observe({ type: "route-failed", session: unconnected, attempt: ATTEMPT });
    log.observe({ type: "connected", session: session(), warm: true, openMs: 12.6 });
    log.observe({
      type: "rerouted",
      session: session({ route: "cf-worker", endpoint: "w.example.org" }),
      from: "direct-ws",
      warm: false,
      openMs: 12.6,
    });
    expect(lines.all).toEqual([
      { level: "debug", message: "connected", fields: { session: 7, client: "192.0.2.1" } },
      {
        level: "debug",
        message: "client",
        fields: { session: 7, client: "192.0.2.1", user: "family", dc: "DC 4 media" },
      },
      { level: "debug", message: "opening kws4", fields: { session: 7, user: "family", route: "direct-ws" } },
      {
        level: "debug",
        message: "kws4: connection refused",
        fields: { session: 7, user: "family", route: "direct-ws", code: "REFUSED" },
      },
      {
        level: "debug",
        message: "route open",
        fields: {
          session: 7,
          user: "family",
          dc: "DC 4 media",
          route: "direct-ws",
          endpoint: "kws4-1",
          warm: true,
          ms: 13,
        },
      },
      {
        level: "debug",
        message: "served by another route than direct-ws",
        fields: {
          session: 7,
          user: "family",
          dc: "DC 4 media",
          route: "cf-worker",
          endpoint: "w.example.org",
        },
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
        fields: { session: 7, reason: "client-closed", up: 1_536, down: 5, error: undefined },
      },
    ]);
    expect(setup.lines.all[0]?.fields?.["seconds"]).toBeCloseTo(2.5, 0);
  });

  test.each(["idle", "stalled", "network-changed", "left-early", "shutdown", "upstream-closed"] as const)(
    "writes it for one that had a route and ends as %s",
    (reason) => {
      const setup = setUp();
      end(setup, reason);
      expect(setup.lines.all).toMatchObject([
        { level: "info", message: "session ended", fields: { reason } },
      ]);
    },
  );

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

describe("SessionLog, a way that opens and does not carry", () => {
  function failToCarry(
    { log }: Setup,
    code: RouteErrorCode,
    { route = "direct-ws", endpoint = "kws4", target = "DC 4" } = {},
  ): void {
    const attempt = { route, endpoint, error: new RouteError(code, "open, but no answer for 5.0 s") };
    log.observe({ type: "route-failed", session: session({ target }), attempt });
  }

  test.each(["SILENT", "STALLED"] as const)("is a warning for everybody: %s", (code) => {
    const setup = setUp();
    failToCarry(setup, code);
    expect(setup.lines.all).toEqual([
      {
        level: "warn",
        message: "kws4: open, but no answer for 5.0 s; other routes go first now",
        fields: { dc: "DC 4", route: "direct-ws", code },
      },
    ]);
  });

  test.each(["CLOSED", "TIMEOUT", "TLS"] as const)("is none for %s", (code) => {
    const setup = setUp();
    failToCarry(setup, code);
    expect(setup.lines.of("warn", "info", "error")).toEqual([]);
    expect(setup.lines.of("debug")).toHaveLength(1);
  });

  test("is said again after a minute", () => {
    const setup = setUp();
    failToCarry(setup, "SILENT");
    setup.pass(59_999);
    failToCarry(setup, "SILENT");
    failToCarry(setup, "STALLED");
    expect(setup.lines.of("warn")).toHaveLength(1);
    setup.pass(1);
    failToCarry(setup, "SILENT");
    expect(setup.lines.of("warn")).toHaveLength(2);
    setup.pass(59_999);
    failToCarry(setup, "SILENT");
    expect(setup.lines.of("warn")).toHaveLength(2);
  });

  test("is told apart by route, endpoint and target", () => {
    const setup = setUp();
    for (let times = 0; times < 2; times += 1) {
      failToCarry(setup, "SILENT");
      failToCarry(setup, "SILENT", { route: "cf-domain" });
      failToCarry(setup, "SILENT", { endpoint: "kws4-1" });
      failToCarry(setup, "SILENT", { target: "DC 4 media" });
    }
    expect(setup.lines.of("warn")).toHaveLength(4);
  });

  test("is not held for ever: after a thousand, the old ones are forgotten", () => {
    const setup = setUp();
    for (let at = 0; at <= 1_000; at += 1) failToCarry(setup, "SILENT", { endpoint: `way ${at}` });
    expect(setup.lines.of("warn")).toHaveLength(1_001);
    failToCarry(setup, "SILENT", { endpoint: "way 1000" });
    expect(setup.lines.of("warn")).toHaveLength(1_001);
    failToCarry(setup, "SILENT", { endpoint: "way 0" });
    expect(setup.lines.of("warn")).toHaveLength(1_002);
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

  test("says it also of a session whose first way had opened", () => {
    const setup = setUp();
    end(setup, "no-route", new NoRouteError("DC 4", [ATTEMPT]));
    expect(setup.lines.of("warn")).toHaveLength(1);
    expect(setup.lines.of("info", "error")).toEqual([DOCTOR_HINT]);
  });

  test("says once what may help", () => {
    const setup = setUp();
    for (const target of ["DC 2", "DC 4", "DC 2"]) {
      endWithoutRoute(setup, target);
      setup.pass(60_000);
    }
    expect(setup.lines.of("warn")).toHaveLength(3);
    expect(setup.lines.of("info")).toEqual([DOCTOR_HINT]);
  });

  test("keeps every ending as debug", () => {
    const setup = setUp();
    for (let times = 0; times < 3; times += 1) endWithoutRoute(setup);
    expect(setup.lines.of("debug")).toEqual(["session ended", "session ended", "session ended"]);
    expect(setup.lines.of("info", "error")).toEqual([DOCTOR_HINT]);
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

describe("SessionLog, those who are not served", () => {
  const stranger = session({ secret: undefined, target: undefined, route: undefined });

  const mask = ({ log }: Setup, why: MaskReason, detail = "it was here before"): void =>
    log.observe({ type: "masked", session: stranger, why, detail });

  test("says as debug why somebody is shown the site, and when that is over", () => {
    const setup = setUp();
    mask(setup, "replay");
    end(setup, "masked", undefined, stranger);
    expect(setup.lines.all).toMatchObject([
      {
        level: "debug",
        message: "shown the cover site",
        fields: { session: 7, client: "192.0.2.1", why: "replay", detail: "it was here before" },
      },
      { level: "debug", message: "session ended", fields: { reason: "masked", client: "192.0.2.1" } },
    ]);
  });

  test.each(["not-tls", "bad-hello", "digest", "server-name", "replay", "unsupported", "silent"] as const)(
    "is no more than debug for %s",
    (why) => {
      const setup = setUp();
      mask(setup, why);
      expect(setup.lines.of("warn", "info", "error")).toEqual([]);
    },
  );

  test("warns of a hello whose clock is off, once a minute", () => {
    const setup = setUp();
    const text = "its clock is 300 s ahead of ours";
    for (let seconds = 0; seconds < 60; seconds += 1) {
      mask(setup, "skew", text);
      setup.pass(1_000);
    }
    expect(setup.lines.of("warn")).toEqual([expect.stringContaining(text)]);
    mask(setup, "skew", text);
    expect(setup.lines.of("warn")).toHaveLength(2);
  });

  test("warns that the site cannot be reached, once a minute, whatever the words are", () => {
    const setup = setUp();
    for (let seconds = 0; seconds < 60; seconds += 1) {
      end(setup, "masked", new RouteError("REFUSED", `refused ${seconds}`), stranger);
      setup.pass(1_000);
    }
    expect(setup.lines.of("warn")).toEqual(["the cover site cannot be reached: refused 0"]);
    expect(setup.lines.of("debug")).toHaveLength(60);
    end(setup, "masked", new RouteError("REFUSED", "refused again"), stranger);
    expect(setup.lines.of("warn")).toHaveLength(2);
  });

  test("warns of connections that no load balancer brings, once a minute, with the first one's address", () => {
    const setup = setUp();
    const error = new ProxyHeaderError("untrusted", "not from a load balancer that --trusted-proxy names");
    for (let seconds = 0; seconds < 60; seconds += 1) {
      end(setup, "bad-proxy-header", error, { ...stranger, client: `192.0.2.${seconds}` });
      setup.pass(1_000);
    }
    expect(setup.lines.of("warn")).toEqual([
      "refused 192.0.2.0: not from a load balancer that --trusted-proxy names",
    ]);
    expect(setup.lines.all.at(-1)).toMatchObject({
      level: "debug",
      fields: { client: "192.0.2.59", error: error.message, reason: "bad-proxy-header" },
    });
    end(setup, "bad-proxy-header", error, stranger);
    expect(setup.lines.of("warn")).toHaveLength(2);
  });

  test("says each of these for itself", () => {
    const setup = setUp();
    mask(setup, "skew", "its clock is off");
    end(setup, "masked", new RouteError("REFUSED", "refused"), stranger);
    end(setup, "bad-proxy-header", new ProxyHeaderError("missing", "missing"), stranger);
    expect(setup.lines.of("warn")).toHaveLength(3);
  });
});

describe("SessionLog, limits", () => {
  test("says as debug who is over which limit", () => {
    const setup = setUp();
    setup.log.observe({ type: "refused", session: session({ route: undefined }), why: "user-quota" });
    const stranger = session({ secret: undefined, target: undefined, route: undefined });
    setup.log.observe({ type: "refused", session: stranger, why: "address-rate" });
    const line = { level: "debug", message: "over a limit: refused" } as const;
    expect(setup.lines.all).toEqual([
      { ...line, fields: { session: 7, user: "family", client: "192.0.2.1", why: "user-quota" } },
      { ...line, fields: { session: 7, user: undefined, client: "192.0.2.1", why: "address-rate" } },
    ]);
    end(setup, "refused", undefined, stranger);
    expect(setup.lines.of("info", "warn", "error")).toEqual([]);
  });

  test.each(["revoked", "overload"] as const)("says for everybody that a session ended as %s", (reason) => {
    const setup = setUp();
    end(setup, reason);
    end(setup, reason, undefined, session({ route: undefined }));
    const line = { level: "info", message: "session ended", fields: { user: "family", reason } } as const;
    expect(setup.lines.all).toMatchObject([line, line]);
  });
});
