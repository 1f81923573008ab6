import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAX_FILE_BYTES, parseToml, readFileText } from "../../src/config/toml-file.ts";
import { scanStatements } from "../../src/config/toml-statements.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";

function issueOf(work: () => unknown): ConfigIssue | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof ConfigError) return error.issues[0];
    throw error;
  }
  throw new Error("no complaint");
}

describe("scanStatements()", () => {
  test("finds keys and tables with their lines", () => {
    const text = `# one
port = 1 # two ] " '

[users.alice] # four
"secret" = 'a#b'
[users."b.c"]
a . b = 2
`;
    expect(scanStatements(text).map(({ line, path }) => [line, path.join("/")])).toEqual([
      [2, "port"],
      [4, "users/alice"],
      [5, "users/alice/secret"],
      [6, "users/b.c"],
      [7, "users/b.c/a/b"],
    ]);
  });

  test.each([
    ["an array over lines", "a = [\n  1, # ]\n  2,\n]\nb = 2\n", 5],
    ["a text over lines", 'a = """\nb = 1\n\\""" c\n"""\nb = 2\n', 5],
    ["a text that ends with quotes", 'a = """x"""""\nb = 2\n', 2],
    ["a literal text over lines", "a = '''\nb = 1\n'''\nb = 2\n", 4],
    ["an inline table", "a = { b = 'x]', c = [1] }\nb = 2\n", 2],
    ["lines of Windows", "a = 1\r\n\r\nb = 2\r\n", 3],
    ["a byte order mark", "\ufeffa = 1\nb = 2", 2],
    ["an escape", 'a = "\\"\\n]"\nb = 2', 2],
  ])("goes on after %s", (_what, text, line) => {
    expect(Bun.TOML.parse(text)).toHaveProperty("b", 2);
    expect(scanStatements(text).at(-1)).toMatchObject({ line, path: ["b"] });
  });

  test.each(["", "\n", "=", "[", "[[", '"', "a", "a = ", "a = '", "\0", "]]]\n}"])(
    "ends for %j, which is no TOML",
    (text) => {
      expect(scanStatements(text).length).toBeLessThanOrEqual(3);
    },
  );
});

describe("parseToml()", () => {
  test.each([
    ["a = 1\nb = 2\na = 2\n", 3, "Cannot redefine key 'a'"],
    ["x = 1\n\ny = \nz = 1\n", 3, "Missing value after '='"],
    ["x = [1,\n 2 3]\n", 1, "Expected ',' or ']' in an array but found '3'"],
    ["a = [\n1,\n]\nb = [1,\n", 4, "Unterminated array; expected ']'"],
    ["a = 1\n# c\nb = 'x\ny = 1\n", 3, "Unterminated string"],
    ["[u]\na = 1\n\n[u]\nb = 2\n", 4, "Cannot redefine table 'u'"],
    ["nonsense", 1, "Expected '=' after a key but found end of file"],
    ["\0", 1, "Expected a key but found (0x00)"],
  ])("names the line of what is wrong in %j", (text, line, reason) => {
    const issue = issueOf(() => parseToml("tgws.toml", text));
    expect(issue?.path).toBe(`tgws.toml:${line}`);
    expect(issue?.message).toStartWith(`not TOML: ${reason}`);
  });

  test("says that a text is nested too deep, whatever that costs the parser", () => {
    const issue = issueOf(() => parseToml("tgws.toml", `a = ${"[".repeat(200_000)}`));
    expect(issue).toEqual({ path: "tgws.toml:1", message: "not TOML: nested too deep" });
  });

  test("does not repeat what may be a secret", () => {
    const secret = "00112233445566778899aabbccddeeff";
    expect(issueOf(() => parseToml("f", `${secret} = 1\n${secret} = 2`))?.message).not.toContain(secret);
  });

  test("knows the line of a key, and that of the table it is in", () => {
    const { lineOf } = parseToml("f", "a = 1\n[users.x]\nb = 1\n[users]\ny = { c = 1 }\n");
    expect(lineOf(["users"])).toBe(2);
    expect(lineOf(["users", "x", "b"])).toBe(3);
    expect(lineOf(["users", "y", "c"])).toBe(5);
    expect(lineOf(["z"])).toBeUndefined();
  });

  test("finds a mistake at the end of a large file in no time", () => {
    const user = (at: number): string =>
      `[users.u${at}]\nsecret = "a text"\n${"#\n".repeat(5)}quota-gb = 5\n`;
    const text = `${Array.from({ length: 1_000 }, (_, at) => user(at)).join("")}= 1\n`;
    const start = performance.now();
    expect(issueOf(() => parseToml("f", text))?.path).toBe("f:8001");
    expect(performance.now() - start).toBeLessThan(2_000);
  });

  test("refuses what would keep the parser busy for minutes", () => {
    const text = Array.from({ length: 100_000 }, (_, at) => `k${at}=1`).join("\n");
    expect(issueOf(() => parseToml("f", text))?.message).toBe("more than 16000 lines with settings");
  });
});

describe("readFileText()", () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tgws-toml-"));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test("returns text and rights, also through a link", () => {
    const path = join(folder, "a.toml");
    writeFileSync(path, "port = 1");
    chmodSync(path, 0o640);
    symlinkSync("a.toml", join(folder, "link"));
    expect(readFileText(join(folder, "link"))).toEqual({ text: "port = 1", mode: 0o640 });
  });

  test("returns undefined where there is no file", () => {
    expect(readFileText(join(folder, "none"))).toBeUndefined();
    writeFileSync(join(folder, "file"), "");
    expect(readFileText(join(folder, "file", "none"))).toBeUndefined();
  });

  test("says what to do when the file is somebody else's", () => {
    const path = join(folder, "a.toml");
    writeFileSync(path, "port = 1", { mode: 0o600 });
    chmodSync(path, 0);
    const asNobody = process.geteuid?.() === 0;
    if (asNobody) process.seteuid?.(65_534);
    try {
      expect(issueOf(() => readFileText(path))).toEqual({
        path,
        message: "cannot be read: EACCES",
        hint: "the user that tgws runs as has to be able to read it: chgrp and chmod 640; TGWS_HOME or --config names another",
      });
    } finally {
      if (asNobody) process.seteuid?.(0);
    }
  });

  test("refuses a folder, a pipe, what is too big, and what is no UTF-8", () => {
    const pipe = join(folder, "pipe");
    expect(Bun.spawnSync(["mkfifo", pipe]).success).toBe(true);
    mkdirSync(join(folder, "folder"));
    writeFileSync(join(folder, "big"), "#".repeat(MAX_FILE_BYTES + 1));
    writeFileSync(join(folder, "whole"), "#".repeat(MAX_FILE_BYTES));
    writeFileSync(join(folder, "bytes"), Uint8Array.of(0xff, 0xfe));
    const say = (name: string): unknown => issueOf(() => readFileText(join(folder, name)))?.message;
    expect(say("pipe")).toBe("not a file");
    expect(say("folder")).toBe("not a file");
    expect(say("big")).toBe("larger than 1 MiB");
    expect(say("bytes")).toBe("not UTF-8 text");
    expect(readFileText(join(folder, "whole"))?.text).toHaveLength(MAX_FILE_BYTES);
  });
});
