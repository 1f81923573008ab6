import { describe, expect, test } from "bun:test";
import { hideKeys, hideKnownKeys } from "../../src/observe/log-guard.ts";
import { formatJson, formatLine, formatText, type LogRecord } from "../../src/observe/log-record.ts";

const record = (changes: Partial<LogRecord> = {}): LogRecord => ({
  time: 1_700_000_000_123,
  level: "info",
  message: "session ended",
  fields: { session: 7, user: "ann", dc: "DC 4", up: 1_536, down: 5, error: undefined },
  ...changes,
});

describe("formatLine()", () => {
  test("puts the fields behind the message", () => {
    expect(formatLine("ended", { session: 7, warm: true, reason: "idle" })).toBe(
      "ended session=7 warm=true reason=idle",
    );
  });

  test("leaves out what is undefined", () => {
    expect(formatLine("ended", { error: undefined })).toBe("ended");
    expect(formatLine("ended")).toBe("ended");
  });

  test("quotes values with spaces, quotes, equals signs and line breaks", () => {
    expect(formatLine("x", { a: "DC 4", b: 'say "no"', c: "k=v", d: "1\n2", e: "" })).toBe(
      'x a="DC 4" b="say \\"no\\"" c="k=v" d="1\\n2" e=',
    );
  });

  // A message may quote what a server said; each line of the log is one event.
  test("makes spaces of the line breaks of a message", () => {
    expect(formatLine("first\nsecond\r\nthird")).toBe("first second third");
  });

  test("lets nothing through that steers a terminal", () => {
    const line = formatLine("a\x1b[31mred\x07", { detail: "b\x1b[2J\x9b", other: "c\x7f" });
    expect(line).not.toMatch(/\p{Cc}/u);
  });

  test("lets nothing through that turns or breaks a line for who reads it", () => {
    const line = formatLine("a\u202eb\u2028c", { detail: "d\u2066e", other: "f\u200bg\u2029" });
    expect(line).not.toMatch(/[\p{Cf}\p{Zl}\p{Zp}]/u);
  });

  test("says bytes as a person does", () => {
    expect(formatLine("x", { up: 1_536, down: 0, seconds: 1_536 })).toBe("x up=1.5KB down=0B seconds=1536");
  });

  test("cuts messages at 4,000 characters, and fields at 500", () => {
    const [message, detail] = ["m".repeat(5_000), "d".repeat(5_000)];
    expect(formatLine(message, { detail })).toBe(`${"m".repeat(4_000)}... detail=${"d".repeat(500)}...`);
    expect(formatJson(record({ message, fields: { detail } })).length).toBeLessThan(4_700);
  });
});

describe("formatText()", () => {
  test("says how often, within which time", () => {
    const line = record({ message: "dropped", fields: undefined, repeated: { times: 312, seconds: 60 } });
    expect(formatText(line)).toBe("dropped ×312 in 60 s");
  });
});

describe("formatJson()", () => {
  test("is one object: time, level, message, then the fields, bytes as numbers", () => {
    expect(formatJson(record())).toBe(
      '{"time":"2023-11-14T22:13:20.123Z","level":"info","message":"session ended",' +
        '"session":7,"user":"ann","dc":"DC 4","up":1536,"down":5}',
    );
  });

  test("keeps time, level and message whatever the fields are called", () => {
    const fields = { time: "x", level: "y", message: "z", a: 1 };
    expect(JSON.parse(formatJson(record({ fields })))).toEqual({
      time: "2023-11-14T22:13:20.123Z",
      level: "info",
      message: "session ended",
      a: 1,
    });
  });

  test("has repeats as numbers", () => {
    const line = record({ fields: { reason: "stranger" }, repeated: { times: 312, seconds: 60 } });
    expect(JSON.parse(formatJson(line))).toMatchObject({
      message: "session ended",
      times: 312,
      withinSeconds: 60,
      reason: "stranger",
    });
  });

  test("stays one line, and can be read again", () => {
    const message = 'a\nb\r"c"\u2028\x1b\x7f\x9b31m\u202ed\u{e0041}';
    const line = formatJson(record({ message, fields: { detail: message } }));
    expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    expect(JSON.parse(line)).toMatchObject({ message, detail: message });
  });
});

describe("hideKeys()", () => {
  const hex = "0123456789abcdef0123456789ABCDEF";

  test.each([hex, `dd${hex}`, `ee${hex}6578616d706c65`, `x?secret=dd${hex}&y`, `${hex}\n${hex}`])(
    "takes the key out of %j",
    (text) => {
      expect(hideKeys(text)).toContain("(a secret)");
      expect(hideKeys(text)).not.toMatch(/[0-9a-f]{32}/i);
    },
  );

  test.each(["", "session ended", hex.slice(1), "2001:db8::7", "/home/ann/.config/tgws/config.toml"])(
    "leaves %j as it is",
    (text) => {
      expect(hideKeys(text)).toBe(text);
    },
  );
});

describe("hideKnownKeys()", () => {
  const key = Uint8Array.from({ length: 16 }, (_, at) => at * 17 + 3);
  const hide = hideKnownKeys(() => [key]);
  const withForm = (...bytes: readonly number[]): Buffer =>
    Buffer.from([...bytes, ...key, ...Buffer.from("example.org")]);

  test.each([
    Buffer.from(key).toString("base64"),
    Buffer.from(key).toString("base64url"),
    withForm(0xdd).toString("base64"),
    withForm(0xee).toString("base64url"),
    `xyz${Buffer.from(key).toString("base64url")}`,
    encodeURIComponent(`/+${withForm(0xee).toString("base64")}`),
    `tg://proxy?server=a&secret=${withForm(0xee).toString("base64url")}&port=1`,
  ])("takes the key out of %j", (text) => {
    const hidden = hide(`Cannot use ${text}: no`);
    expect(hidden).toContain("(a secret)");
    expect(hidden).toEndWith(": no");
    expect(hidden).not.toContain(Buffer.from(key).toString("base64").slice(1, 12));
  });

  test.each([
    "",
    "/home/Ann1/.config/tgws/routes-and-more.json",
    Buffer.from(key.toReversed()).toString("base64"),
    "kws2-some-worker-of-mine9A.workers.dev",
  ])("leaves %j as it is", (text) => {
    expect(hide(text)).toBe(text);
  });

  test("follows keys that change", () => {
    let keys: readonly Uint8Array[] = [];
    const follow = hideKnownKeys(() => keys);
    const text = Buffer.from(key).toString("base64");
    expect(follow(text)).toBe(text);
    keys = [key];
    expect(follow(text)).not.toBe(text);
  });
});
