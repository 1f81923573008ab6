import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { parseConfig } from "../../src/config/config.ts";
import { addUser, changeUser, removeUser } from "../../src/config/edit-users.ts";
import { FIELD_NAMES, FIELDS } from "../../src/config/fields.ts";
import { loadConfig } from "../../src/config/load-config.ts";
import { variableOf } from "../../src/config/origin.ts";
import { readTgWsProxyConfig } from "../../src/config/tg-ws-proxy-config.ts";
import { scanStatements } from "../../src/config/toml-statements.ts";
import { USER_FIELD_NAMES } from "../../src/config/user-fields.ts";
import { ConfigError, StartError } from "../../src/core/errors.ts";

const RUNS = { seed: 20_275, numRuns: 3_000 };

let home: string;
let file: string;
beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "tgws-fuzz-"));
  file = join(home, "config.toml");
});
afterAll(() => rmSync(home, { recursive: true, force: true }));

const SECRET = "5ec2e7005ec2e7005ec2e7005ec2e700";
const word = fc.oneof(
  fc.string({ unit: "binary", maxLength: 12 }),
  fc.constantFrom(
    "true",
    "1",
    "x",
    "",
    "auto",
    "debug",
    "json",
    "192.0.2.0/24",
    "2:192.0.2.1",
    "example.com",
    SECRET,
  ),
);
const flag = fc.constantFrom(...FIELD_NAMES).map((name) => FIELDS[name].flag);

/** Values of TOML, right and wrong. */
const value = fc.oneof(
  fc.constantFrom(
    "true",
    "false",
    "[]",
    "{}",
    "2027-01-31",
    "12:00:00",
    "1e400",
    "nan",
    "0x10",
    "[[1]]",
    "[1, 'a']",
  ),
  fc.constantFrom(
    "2027-01-31T12:00:00Z",
    "1979-05-27 07:32:00",
    "'''\nx\n'''",
    '"""\n"""',
    "{ a = 1 }",
    `"${SECRET}"`,
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
  word.map((text) => JSON.stringify(text)),
  fc.array(word, { maxLength: 3 }).map((texts) => JSON.stringify(texts)),
);
const key = fc.oneof(
  { weight: 8, arbitrary: flag },
  { weight: 4, arbitrary: fc.constantFrom(...USER_FIELD_NAMES) },
  {
    weight: 1,
    arbitrary: fc.constantFrom("users", "users.a", "a.b", "'x y'", "__proto__", "constructor", '""'),
  },
);
const header = fc.constantFrom(
  "[users.a]",
  "[users.b]",
  '[users."c.d"]',
  "[users.a.b]",
  "[users]",
  "[[users]]",
  "[x]",
);
const line = fc.oneof(
  { weight: 6, arbitrary: fc.tuple(key, value).map(([left, right]) => `${left} = ${right} # c`) },
  { weight: 2, arbitrary: header },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 20 }) },
);
/** Lines that are right, and do not contradict each other. */
const rightLines = fc.subarray([
  "port = 8443",
  "host = '::1'",
  'fake-tls-domain = ["a.example", "b.example"]',
  "no-cfproxy = true # c",
  "force-test-dc = false",
  'allow = ["192.0.2.0/24",\n "friends.txt"]',
  "workers = 'auto'",
  "log-level = 'debug'",
  "handshake-seconds = 2.5",
  "status = 9090",
  `secret = ["x:${SECRET}"]`,
]);
const rightUser = fc
  .tuple(
    fc.integer({ min: 1, max: 255 }),
    fc.subarray(["enabled = false", "quota-gb = 0.5", "expires = 2027-01-31"]),
  )
  .map(([number, rest]) =>
    [`[users.u${number}]`, `secret = "${number.toString(16).padStart(32, "0")}"`, ...rest].join("\n"),
  );
const rightToml = fc
  .tuple(rightLines, fc.uniqueArray(rightUser, { maxLength: 3, selector: (text) => text.slice(0, 12) }))
  .map(([lines, users]) => [...lines, ...users].join("\n"));
const toml = fc.array(line, { maxLength: 8 }).map((lines) => lines.join("\n"));
const bytes = fc.oneof(
  { weight: 4, arbitrary: toml.map((text) => Buffer.from(text)) },
  { weight: 4, arbitrary: rightToml.map((text) => Buffer.from(text)) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 60 }) },
);
const environment = fc.dictionary(
  fc.oneof(
    fc.constantFrom(...FIELD_NAMES.filter((name) => name !== "config").map(variableOf)),
    fc.constantFrom("TGWS_X", "PATH"),
  ),
  word,
  { maxKeys: 2 },
);
const argv = fc
  .array(
    fc.oneof(
      flag.map((name) => `--${name}`),
      fc.tuple(flag, word).map(([name, text]) => `--${name}=${text}`),
      word,
    ),
    {
      maxLength: 3,
    },
  )
  .filter((words) => !words.some((text) => text.startsWith("--config")));

describe("loadConfig()", () => {
  test("gives a configuration, or a ConfigError that quotes no secret, for any file, environment and command line", () => {
    let sound = 0;
    fc.assert(
      fc.property(bytes, environment, argv, (content, variables, words) => {
        writeFileSync(file, content, { mode: 0o600 });
        try {
          const { config, raw } = loadConfig(words, {
            environment: { ...variables, TGWS_HOME: home },
            platform: "linux",
          });
          const again = parseConfig(JSON.parse(JSON.stringify(raw)));
          expect({ ...again, warnings: [] }).toEqual({ ...config, warnings: [] });
          sound += 1;
        } catch (error) {
          if (!(error instanceof ConfigError)) throw error;
          expect(error.issues).not.toBeEmpty();
          for (const { path, message, hint } of error.issues) {
            expect([path, message, hint]).not.toContain("");
            expect(`${path} ${message} ${hint}`).not.toContain(SECRET);
          }
        }
      }),
      RUNS,
    );
    expect(sound).toBeGreaterThan(RUNS.numRuns / 20);
  });
});

describe("scanStatements()", () => {
  test("ends, and goes forward only, for any text", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          toml,
          fc.string({ unit: "binary" }),
          fc.string({ unit: fc.constantFrom("[", "]", '"', "'", "\\", "\n", "#", "=", "a", ".") }),
        ),
        (text) => {
          let end = 0;
          for (const statement of scanStatements(text)) {
            expect(statement.start).toBeGreaterThanOrEqual(end);
            expect(statement.end).toBeGreaterThan(statement.start);
            end = statement.end;
          }
          expect(end).toBeLessThanOrEqual(text.length);
        },
      ),
      RUNS,
    );
  });

  test("finds every key of a text that is TOML", () => {
    fc.assert(
      fc.property(toml, (text) => {
        let table: Record<string, unknown>;
        try {
          table = Bun.TOML.parse(text) as Record<string, unknown>;
        } catch {
          return;
        }
        const found = new Set(scanStatements(text).map(({ path }) => path[0]));
        expect([...found].toSorted()).toEqual(Object.keys(table).toSorted());
      }),
      RUNS,
    );
  });
});

describe("edits of users", () => {
  test("give what was meant or refuse, for any file", async () => {
    type Users = Record<string, Record<string, unknown>>;
    const usersOf = (text: string): Users =>
      ((Bun.TOML.parse(text) as { users?: Users }).users ?? {}) as Users;
    let done = 0;
    await fc.assert(
      fc.asyncProperty(fc.oneof(toml, rightToml), async (text) => {
        let before: Users;
        try {
          before = usersOf(text);
          if (typeof before !== "object" || Array.isArray(before) || Object.hasOwn(before, "new")) return;
        } catch {
          return;
        }
        try {
          const added = await addUser(text, "new", { secret: "s", "quota-gb": "1.5" });
          expect(JSON.stringify(usersOf(added)["new"])).toBe('{"secret":"s","quota-gb":1.5}');
          const changed = await changeUser(added, "new", { "quota-gb": undefined, enabled: "false" });
          expect(JSON.stringify(usersOf(changed)["new"])).toBe('{"secret":"s","enabled":false}');
          const removed = await removeUser(changed, "new");
          expect(Object.keys(usersOf(removed))).toEqual(Object.keys(before));
          done += 1;
        } catch (error) {
          if (!(error instanceof StartError)) throw error;
        }
      }),
      { ...RUNS, numRuns: 1_000 },
    );
    expect(done).toBeGreaterThan(100);
  });
});

describe("readTgWsProxyConfig()", () => {
  test("gives settings or issues for any JSON", () => {
    const keys = fc.constantFrom(
      "port",
      "secret",
      "dc_ip",
      "dc_redirects",
      "cfproxy",
      "buffer_size",
      "verbose",
      "x",
    );
    const json = fc.oneof(fc.jsonValue(), fc.dictionary(keys, fc.jsonValue({ maxDepth: 2 })));
    fc.assert(
      fc.property(json, (parsed) => {
        const { settings } = readTgWsProxyConfig("f", JSON.parse(JSON.stringify(parsed)));
        for (const texts of settings.values())
          expect(texts.every((text) => typeof text === "string")).toBe(true);
      }),
      RUNS,
    );
  });
});
