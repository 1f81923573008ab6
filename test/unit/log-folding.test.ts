import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { LogFields, LogLevel } from "../../src/core/logger.ts";
import { FoldingSink, LINE_BUDGETS } from "../../src/observe/log-folding.ts";
import { formatText, type LogRecord } from "../../src/observe/log-record.ts";

/** A sink that keeps its records, behind one that folds, with a clock of its own. */
class Setup {
  readonly records: LogRecord[] = [];
  readonly sink = new FoldingSink({ write: (record) => void this.records.push(record) });
  now = 1_700_000_000_000;

  say(message: string, fields?: LogFields, level: LogLevel = "info"): void {
    this.sink.write({ time: this.now, level, message, fields });
  }

  /** The minute is over. */
  endMinute(): void {
    this.now += 60_000;
    this.sink.tell(this.now);
  }

  get lines(): string[] {
    return this.records.map(formatText);
  }
}

const times = (count: number, work: (at: number) => void): void => {
  for (let at = 0; at < count; at += 1) work(at);
};

describe("FoldingSink, repeats", () => {
  test("passes five of the same, and tells at the end of the minute how many there were", () => {
    const setup = new Setup();
    times(312, (at) => setup.say("not a client: dropped", { session: at, client: `192.0.2.${at % 250}` }));
    expect(setup.lines).toHaveLength(5);
    setup.endMinute();
    expect(setup.lines.slice(5)).toEqual(["not a client: dropped ×312 in 60 s"]);
    expect(setup.sink.counts).toEqual({ written: 6, folded: 307, dropped: 0 });
  });

  test("tells nothing of what came five times", () => {
    const setup = new Setup();
    times(5, () => setup.say("x"));
    setup.endMinute();
    expect(setup.lines).toHaveLength(5);
  });

  test("passes fifty of the same at debug", () => {
    const setup = new Setup();
    times(100, () => setup.say("x", undefined, "debug"));
    setup.endMinute();
    expect(setup.lines).toHaveLength(51);
    expect(setup.lines.at(-1)).toBe("x ×100 in 60 s");
  });

  test("begins anew each minute", () => {
    const setup = new Setup();
    times(2, () => {
      times(8, () => setup.say("x"));
      setup.endMinute();
    });
    expect(setup.lines.filter((line) => line === "x ×8 in 60 s")).toHaveLength(2);
    expect(setup.lines).toHaveLength(12);
  });

  test.each(["reason", "why", "route", "code"])(
    "tells apart what differs in its %s, and says which",
    (key) => {
      const setup = new Setup();
      times(20, (at) => setup.say("x", { session: at, [key]: at % 2 === 0 ? "one" : "other" }));
      expect(setup.lines).toHaveLength(10);
      setup.endMinute();
      expect(setup.lines.slice(10)).toEqual([`x ×10 in 60 s ${key}=one`, `x ×10 in 60 s ${key}=other`]);
    },
  );

  test("tells apart levels and texts", () => {
    const setup = new Setup();
    times(6, () => {
      setup.say("x", undefined, "info");
      setup.say("x", undefined, "warn");
      setup.say("y", undefined, "warn");
    });
    expect(setup.lines).toHaveLength(15);
  });

  test("keeps the level of what was repeated", () => {
    const setup = new Setup();
    times(6, () => setup.say("x", undefined, "error"));
    setup.endMinute();
    expect(setup.records.at(-1)).toMatchObject({ level: "error", message: "x", repeated: { times: 6 } });
  });

  test("does not fold what is about a client that was let in", () => {
    const setup = new Setup();
    times(100, (at) => setup.say("session ended", { session: at, user: "ann", reason: "idle" }, "info"));
    expect(setup.lines).toHaveLength(100);
  });

  test("folds it when the client is over a limit", () => {
    const setup = new Setup();
    times(100, (at) => setup.say("over a limit: refused", { session: at, user: "ann", why: "user-quota" }));
    expect(setup.lines).toHaveLength(5);
  });

  test("remembers a thousand different lines, and no more", () => {
    const setup = new Setup();
    times(1_000, (at) => setup.say(`line ${at}`));
    times(50, () => setup.say("one more"));
    expect(setup.lines.length).toBeLessThanOrEqual(1_050);
    expect(setup.sink.counts.folded).toBe(0);
    setup.endMinute();
    times(50, () => setup.say("one more"));
    expect(setup.sink.counts.folded).toBe(45);
  });

  test("tells by itself what there is when it is closed", async () => {
    const setup = new Setup();
    times(7, () => setup.say("x"));
    await setup.sink.close();
    expect(setup.lines.at(-1)).toStartWith("x ×7 in ");
  });
});

describe("FoldingSink, budgets", () => {
  test.each(["error", "warn", "info", "debug"] as const)(
    "takes so many %s lines at once, then so many a second",
    (level) => {
      const { burst, perSecond } = LINE_BUDGETS[level];
      const setup = new Setup();
      const flood = (count: number): void =>
        times(count, (at) => setup.say("session ended", { session: at, user: "ann" }, level));
      flood(burst + 100);
      expect(setup.lines).toHaveLength(burst);
      setup.now += 1_000;
      flood(perSecond + 100);
      expect(setup.lines).toHaveLength(burst + perSecond);
      setup.now += 3_600_000;
      flood(burst + 100);
      expect(setup.lines).toHaveLength(2 * burst + perSecond);
      expect(setup.sink.counts.dropped).toBe(300);
    },
  );

  test("takes nothing from another level", () => {
    const setup = new Setup();
    times(5_000, (at) => setup.say("client", { session: at, user: "ann" }, "debug"));
    setup.say("disk full", undefined, "error");
    setup.say("session ended", { user: "ann" }, "info");
    expect(setup.lines.slice(-2)).toEqual(["disk full", "session ended user=ann"]);
  });

  test("tells at the end of the minute how many lines were left out, and once", () => {
    const setup = new Setup();
    const { burst } = LINE_BUDGETS.info;
    times(burst + 1_234, (at) => setup.say("session ended", { session: at, user: "ann" }, "info"));
    setup.endMinute();
    expect(setup.records.at(-1)).toMatchObject({
      level: "warn",
      message: "1,234 info lines left out: there were more than the log takes",
    });
    const before = setup.lines.length;
    setup.say("quiet", undefined, "info");
    setup.endMinute();
    expect(setup.lines).toHaveLength(before + 1);
  });

  test("holds when every line is different", () => {
    const setup = new Setup();
    times(60, (second) => {
      times(10_000, (at) => setup.say(`asked for ${second}-${at}.example`, { session: at }, "debug"));
      setup.now += 1_000;
    });
    const { burst, perSecond } = LINE_BUDGETS.debug;
    expect(setup.lines.length).toBeLessThanOrEqual(burst + 60 * perSecond);
  });

  test("survives a clock that goes back", () => {
    const setup = new Setup();
    times(10, (at) => {
      setup.now -= 3_600_000;
      setup.say("session ended", { session: at, user: "ann" }, "info");
    });
    expect(setup.lines).toHaveLength(10);
  });
});

describe("docs/LOGS.md", () => {
  test("states these budgets, and what they come to in a day", () => {
    const docs = readFileSync(new URL("../../docs/LOGS.md", import.meta.url), "utf8");
    for (const [level, { perSecond, burst }] of Object.entries(LINE_BUDGETS)) {
      const row = docs
        .split("\n")
        .find((line) => line.startsWith("| `") && line.includes(`\`${level}\``) && line.includes(" GB"));
      const [, , atOnce = "", forLong = "", aDay = ""] = row?.split("|") ?? [];
      expect(atOnce.trim()).toBe(burst.toLocaleString("en-US"));
      expect(forLong.trim()).toBe(String(perSecond));
      expect(Number.parseFloat(aDay)).toBeCloseTo((perSecond * 250 * 86_400) / 1e9, 1);
    }
  });
});
