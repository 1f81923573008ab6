import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { StartError } from "../../src/core/errors.ts";
import type { LogFormat, LogLevel } from "../../src/core/logger.ts";
import type { LogFileOptions } from "../../src/observe/file-sink.ts";
import { createLogger, createRecordLogger } from "../../src/observe/log.ts";
import type { LogRecord } from "../../src/observe/log-record.ts";

const SOURCE = resolve(import.meta.dir, "../../src/observe/log.ts");
const KIB = 1024;

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-log-"));
  path = join(folder, "tgws.log");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

interface Printed {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `body` with a `log` in a program of its own, whose standard error is a pipe. */
async function runWithLog(
  body: string,
  options: {
    readonly level?: LogLevel;
    readonly format?: LogFormat;
    readonly file?: LogFileOptions;
    /** Source of a function. */
    readonly redact?: string;
  } = {},
): Promise<Printed> {
  const { level = "info", format = "auto", file, redact = "undefined" } = options;
  const script = `
    import { createLogger } from ${JSON.stringify(SOURCE)};
    const log = await createLogger({ ...${JSON.stringify({ level, format, file })}, redact: ${redact} });
    ${body}
  `;
  const program = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "pipe" });
  const [code, stdout, stderr] = await Promise.all([
    program.exited,
    program.stdout.text(),
    program.stderr.text(),
  ]);
  return { code, stdout, stderr };
}

/** Writes 100 lines of about 1 KiB, so that the last one begins with `099`. */
const WRITE_100_KIB = `
  for (let line = 0; line < 100; line += 1) {
    log.info(String(line).padStart(3, "0").padEnd(${KIB - 40}, "."));
    await Bun.sleep(1);
  }
  await log.close();
`;

/** The numbers of the lines of {@link WRITE_100_KIB} in a file. */
function numbersIn(file: string): number[] {
  return [...readFileSync(file, "utf8").matchAll(/INFO {2}(\d{3})\./g)].map(([, digits]) => Number(digits));
}

const upTo = (least: number, most: number): number[] =>
  Array.from({ length: most - least + 1 }, (_, at) => least + at);

describe("createLogger()", () => {
  test("writes plain lines to standard error when it is a pipe, and none to standard output", async () => {
    const { code, stdout, stderr } = await runWithLog(`
      log.info("one", { session: 7 });
      log.warn("two");
      log.error("three");
      log.debug("four");
    `);
    expect(code).toBe(0);
    expect(stdout).toBe("");
    expect(stderr).toMatch(
      /^\d\d:\d\d:\d\dZ info {2}one session=7\n\d\d:\d\d:\d\dZ warn {2}two\n\d\d:\d\d:\d\dZ error three\n$/,
    );
  });

  test("writes debug lines when it is verbose", async () => {
    const { stderr } = await runWithLog(`log.debug("four", { dc: "DC 4" });`, { level: "debug" });
    expect(stderr).toMatch(/^\d\d:\d\d:\d\dZ debug four dc="DC 4"\n$/);
  });

  test("writes what is left when the program exits at once", async () => {
    const { stderr } = await runWithLog(`log.info("last words"); process.exit(3);`);
    expect(stderr).toEndWith(" last words\n");
  });

  test("writes the same lines to a file, with the date", async () => {
    const file = { path, maxBytes: 1024 * KIB, backups: 0 };
    const { stderr } = await runWithLog(
      `log.info("one", { session: 7 }); log.debug("two"); log.error("three"); await log.close();`,
      { file },
    );
    expect(readFileSync(path, "utf8")).toMatch(
      /^\d{4}-\d\d-\d\dT[\d:.]+Z INFO {2}one session=7\n\d{4}-\d\d-\d\dT[\d:.]+Z ERROR three\n$/,
    );
    expect(stderr.split("\n")).toHaveLength(3);
    if (process.platform !== "win32") expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("goes on in a file that is there already", async () => {
    writeFileSync(path, "before\n");
    const file = { path, maxBytes: 1024 * KIB, backups: 0 };
    await runWithLog(`log.info("after"); await log.close();`, { file });
    expect(readFileSync(path, "utf8")).toMatch(/^before\n.* INFO {2}after\n$/);
  });

  test("throws FILE when the file cannot be written", async () => {
    const blocked = join(folder, "file");
    writeFileSync(blocked, "");
    for (const bad of [join(blocked, "tgws.log"), folder]) {
      const made = createLogger({
        level: "info",
        format: "plain",
        file: { path: bad, maxBytes: KIB, backups: 0 },
      });
      const error: unknown = await made.catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(StartError);
      expect(error).toMatchObject({ code: "FILE", hint: "choose another file: --log-file" });
    }
  });
});

describe("createLogger(), formats", () => {
  const SAY = `log.info("one", { session: 7, user: "ann", up: 1536, down: 0 }); await log.close();`;

  test("writes one JSON object a line to standard error and to the file", async () => {
    const file = { path, maxBytes: 1024 * KIB, backups: 0 };
    const { stderr } = await runWithLog(SAY, { format: "json", file });
    const expected = { level: "info", message: "one", session: 7, user: "ann", up: 1_536, down: 0 };
    for (const text of [stderr, readFileSync(path, "utf8")]) {
      expect(JSON.parse(text)).toEqual({ time: expect.stringMatching(/^\d{4}-.*\.\d{3}Z$/), ...expected });
      expect(text).toEndWith("}\n");
    }
  });

  test("writes plain lines when asked to", async () => {
    const { stderr } = await runWithLog(SAY, { format: "plain" });
    expect(stderr).toMatch(/^\d\d:\d\d:\d\dZ info {2}one session=7 user=ann up=1.5KB down=0B\n$/);
  });

  test("writes for a person when asked to, and the file as always", async () => {
    const file = { path, maxBytes: 1024 * KIB, backups: 0 };
    const { stderr } = await runWithLog(SAY, { format: "pretty", file });
    expect(stderr).toContain("one session=7 user=ann up=1.5KB down=0B");
    expect(stderr).not.toMatch(/^\d\d:\d\d:\d\dZ info /);
    expect(readFileSync(path, "utf8")).toMatch(/Z INFO {2}one session=7 user=ann up=1.5KB down=0B\n$/);
  });
});

describe("createLogger(), levels", () => {
  test.each([
    ["error", ["error"]],
    ["warn", ["warn", "error"]],
    ["info", ["info", "warn", "error"]],
    ["debug", ["debug", "info", "warn", "error"]],
  ] as const)("writes at %s what matters as much or more", async (level, written) => {
    const { stderr } = await runWithLog(
      `for (const one of ["debug", "info", "warn", "error"]) log[one]("said", { enabled: log.enabled(one) });`,
      { level },
    );
    const lines = stderr.trimEnd().split("\n");
    expect(lines.map((line) => line.split(/ +/)[1])).toEqual([...written]);
    expect(lines.every((line) => line.endsWith("enabled=true"))).toBe(true);
  });

  test("changes at run time", async () => {
    const { stderr } = await runWithLog(`
      log.debug("one");
      log.setLevel("debug");
      log.debug("two");
      log.setLevel("error");
      log.warn("three");
      if (log.level !== "error" || log.enabled("warn")) process.exit(1);
    `);
    expect(stderr).toMatch(/^\S+ debug two\n$/);
  });
});

describe("createLogger(), records of other processes", () => {
  test("writes them as they are: a worker has folded them already", async () => {
    const { stderr } = await runWithLog(`
      const fields = { session: 1, worker: 2 };
      for (let at = 0; at < 9; at += 1)
        log.write({ time: 1_700_000_000_000, level: "debug", message: "from afar", fields });
      log.write({ time: 1_700_000_000_000, level: "warn", message: "x", fields: undefined, repeated: { times: 7, seconds: 60 } });
      if (log.counts.written !== 0) process.exit(1);
    `);
    const line = "22:13:20Z debug from afar session=1 worker=2\n";
    expect(stderr).toBe(`${line.repeat(9)}22:13:20Z warn  x ×7 in 60 s\n`);
  });

  test("come as JSON values from createRecordLogger(), folded and within the level", () => {
    const records: LogRecord[] = [];
    const log = createRecordLogger({ level: "info", write: (record) => void records.push(record) });
    for (let at = 0; at < 9; at += 1) log.info("again", { session: at });
    log.debug("no");
    expect(records).toHaveLength(5);
    expect(JSON.parse(JSON.stringify(records[4]))).toEqual({
      time: expect.any(Number),
      level: "info",
      message: "again",
      fields: { session: 4 },
    });
    expect(log.counts).toEqual({ written: 5, folded: 4, dropped: 0 });
  });
});

describe("createLogger(), secrets", () => {
  const KEY = "0123456789abcdef0123456789abcdef";
  const BASE64 = Buffer.from(KEY, "hex").toString("base64");
  const GUARD = resolve(import.meta.dir, "../../src/observe/log-guard.ts");
  const FORMS = [KEY, KEY.toUpperCase(), `dd${KEY}`, `ee${KEY}6578616d706c65`, BASE64];
  /** Every path by which a text can get into the log. */
  const SAY = `
    for (const secret of ${JSON.stringify(FORMS)}) {
      for (const level of ["debug", "info", "warn", "error"]) {
        log[level](\`Cannot use \${secret}: no\`);
        log[level]("field", { detail: secret, why: secret, reason: \`a \${secret}\` });
        for (let at = 0; at < 9; at += 1) log[level](\`again tg://proxy?server=x&secret=\${secret}\`, { code: secret });
      }
    }
    await log.close();
  `;

  test.each(["plain", "pretty", "json"] as const)("are never written: %s", async (format) => {
    const file = { path, maxBytes: 1024 * KIB, backups: 0 };
    const redact = `(await import(${JSON.stringify(GUARD)})).hideKnownKeys(
      () => [new Uint8Array(Buffer.from(${JSON.stringify(KEY)}, "hex"))])`;
    const { code, stderr } = await runWithLog(SAY, { level: "debug", format, file, redact });
    expect(code).toBe(0);
    for (const text of [stderr, readFileSync(path, "utf8")]) {
      expect(text).toContain("(a secret)");
      for (const form of FORMS) expect(text.toLowerCase()).not.toContain(form.toLowerCase());
    }
  });

  test("are not handed to another process either", () => {
    const records: LogRecord[] = [];
    const log = createRecordLogger({ level: "debug", write: (record) => void records.push(record) });
    log.info(`Cannot use dd${KEY}`, { detail: KEY });
    expect(JSON.stringify(records)).not.toContain(KEY);
  });
});

describe("createLogger(), a flood", () => {
  test("of strangers leaves a few lines, and says how many there were", async () => {
    const { stderr } = await runWithLog(
      `
        for (let at = 0; at < 100_000; at += 1) {
          log.debug("connected", { session: at, client: "192.0.2.1" });
          log.debug("not a client: dropped", { session: at, reason: "stranger" });
        }
        await log.close();
      `,
      { level: "debug" },
    );
    const lines = stderr.trimEnd().split("\n");
    expect(lines).toHaveLength(102);
    expect(lines.slice(-2)).toEqual([
      expect.stringMatching(/debug connected ×100000 in \d+ s$/),
      expect.stringMatching(/debug not a client: dropped ×100000 in \d+ s reason=stranger$/),
    ]);
  });
});

describe("createLogger(), a file that gets too big", () => {
  test("keeps as many old files as it was told, the newest as .1, and loses no line of those", async () => {
    await runWithLog(WRITE_100_KIB, { file: { path, maxBytes: 20 * KIB, backups: 2 } });
    expect(readdirSync(folder).sort()).toEqual(["tgws.log", "tgws.log.1", "tgws.log.2"]);
    const kept = [`${path}.2`, `${path}.1`, path].flatMap(numbersIn);
    expect(kept).toEqual(upTo(100 - kept.length, 99));
    expect(kept.length).toBeGreaterThanOrEqual(40);
    for (const old of [`${path}.1`, `${path}.2`]) {
      expect(statSync(old).size).toBeGreaterThan(18 * KIB);
      expect(statSync(old).size).toBeLessThan(24 * KIB);
    }
    expect(statSync(path).size).toBeLessThan(24 * KIB);
  });

  test("keeps every line while there are files left for them", async () => {
    await runWithLog(WRITE_100_KIB, { file: { path, maxBytes: 30 * KIB, backups: 10 } });
    const olds = upTo(1, 10)
      .map((number) => `${path}.${number}`)
      .filter((old) => existsSync(old));
    expect(olds.length).toBe(3);
    expect([...olds.reverse(), path].flatMap(numbersIn)).toEqual(upTo(0, 99));
  });

  test("keeps no old file with 0 backups, and goes on in a new one", async () => {
    await runWithLog(WRITE_100_KIB, { file: { path, maxBytes: 20 * KIB, backups: 0 } });
    expect(readdirSync(folder)).toEqual(["tgws.log"]);
    const kept = numbersIn(path);
    expect(kept).toEqual(upTo(100 - kept.length, 99));
    expect(statSync(path).size).toBeLessThan(24 * KIB);
  });

  test("starts a new file at once when the old one of a former start is too big", async () => {
    writeFileSync(path, "x".repeat(50 * KIB));
    await runWithLog(`log.info("hello"); await log.close();`, {
      file: { path, maxBytes: 20 * KIB, backups: 1 },
    });
    expect(statSync(`${path}.1`).size).toBeGreaterThanOrEqual(50 * KIB);
    expect(statSync(path).size).toBeLessThan(KIB);
  });

  test("does not stop the program when the folder disappears", async () => {
    const { code, stderr } = await runWithLog(
      `
        const { rmSync } = await import("node:fs");
        for (let line = 0; line < 40; line += 1) {
          log.info("x".repeat(1000));
          if (line === 5) rmSync(${JSON.stringify(folder)}, { recursive: true });
          await Bun.sleep(1);
        }
        await Bun.sleep(20);
        log.info("still here");
        await log.close();
        process.exit(7);
      `,
      { file: { path, maxBytes: 10 * KIB, backups: 1 } },
    );
    expect(code).toBe(7);
    expect(stderr).toContain("still here");
  });
});
