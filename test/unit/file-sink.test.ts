import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileSink } from "../../src/observe/file-sink.ts";
import type { LogRecord } from "../../src/observe/log-record.ts";
import { readProcessFigures } from "../../src/observe/process-figures.ts";
import { Condition } from "../support/waiting.ts";

let folder: string;
let path: string;
const open: FileSink[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-file-sink-"));
  path = join(folder, "logs", "tgws.log");
  mkdirSync(join(folder, "logs"));
});
afterEach(async () => {
  for (const sink of open.splice(0)) await sink.close();
  rmSync(folder, { recursive: true, force: true });
});

const record = (message: string): LogRecord => ({ time: 0, level: "info", message, fields: undefined });

/** A sink with one number a line, and what it says about itself. */
async function start(options: { readonly maxBytes?: number; readonly backups?: number } = {}): Promise<{
  readonly sink: FileSink;
  readonly said: string[];
  readonly condition: Condition;
}> {
  const { maxBytes = 1024 * 1024, backups = 3 } = options;
  const said: string[] = [];
  const condition = new Condition();
  const say = ({ message }: LogRecord): void => {
    said.push(message);
    condition.changed();
  };
  const sink = await FileSink.open(
    { path, maxBytes, backups },
    { format: ({ message }) => message, say, retryMs: 20 },
  );
  open.push(sink);
  return { sink, said, condition };
}

const linesOf = (file: string): string[] =>
  existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(0, -1) : [];

describe("FileSink.reopen()", () => {
  test("goes on in a new file when the old one was moved away, and loses nothing", async () => {
    const { sink } = await start();
    for (let at = 0; at < 100; at += 1) sink.write(record(String(at)));
    renameSync(path, `${path}.old`);
    for (let at = 100; at < 200; at += 1) sink.write(record(String(at)));
    const reopened = sink.reopen();
    for (let at = 200; at < 300; at += 1) sink.write(record(String(at)));
    await reopened;
    for (let at = 300; at < 400; at += 1) sink.write(record(String(at)));
    await sink.close();
    const [old, now] = [linesOf(`${path}.old`), linesOf(path)];
    expect([...old, ...now]).toEqual(Array.from({ length: 400 }, (_, at) => String(at)));
    expect(now.length).toBeGreaterThanOrEqual(100);
    expect(sink.lost).toBe(0);
  });

  test("does so again and again, in the middle of a flood", async () => {
    const { sink } = await start();
    let at = 0;
    for (let round = 0; round < 10; round += 1) {
      for (let line = 0; line < 50; line += 1) sink.write(record(String(at++)));
      renameSync(path, `${path}.old${round}`);
      const reopened = sink.reopen();
      for (let line = 0; line < 50; line += 1) sink.write(record(String(at++)));
      await reopened;
    }
    await sink.close();
    const files = [...Array.from({ length: 10 }, (_, round) => `${path}.old${round}`), path];
    expect(files.flatMap(linesOf)).toEqual(Array.from({ length: at }, (_, line) => String(line)));
  });

  test("goes on in the same file when nobody has moved it", async () => {
    const { sink } = await start();
    sink.write(record("one"));
    await sink.reopen();
    sink.write(record("two"));
    await sink.close();
    expect(linesOf(path)).toEqual(["one", "two"]);
  });

  test("two at once are as good as one", async () => {
    const { sink } = await start();
    sink.write(record("one"));
    await Promise.all([sink.reopen(), sink.reopen()]);
    sink.write(record("two"));
    await sink.close();
    expect(linesOf(path)).toEqual(["one", "two"]);
  });

  test("does not leave a file open when the sink is closed meanwhile", async () => {
    const { sink } = await start();
    const before = readProcessFigures().openFds ?? 0;
    for (let round = 0; round < 3; round += 1) {
      const { sink: other } = await start();
      void other.reopen();
      void other.reopen();
      other.write(record("x"));
      await other.close();
    }
    expect(readProcessFigures().openFds ?? 0).toBe(before);
    await sink.close();
  });

  test("does nothing once the sink is closed", async () => {
    const { sink } = await start();
    await sink.close();
    rmSync(path);
    await sink.reopen();
    expect(existsSync(path)).toBe(false);
  });
});

describe("FileSink, a file that fails", () => {
  test("says so once, tries again, and says how many lines are missing when it works again", async () => {
    const { sink, said, condition } = await start();
    sink.write(record("one"));
    await sink.reopen();
    rmSync(join(folder, "logs"), { recursive: true });
    writeFileSync(join(folder, "logs"), ""); // a file where the folder was: the log cannot be opened
    await sink.reopen();
    expect(said).toEqual([expect.stringMatching(/^Cannot write the log file, which is tried again every/)]);
    for (let at = 0; at < 3; at += 1) sink.write(record(String(at)));
    await Bun.sleep(70); // several tries
    expect(said).toHaveLength(1);
    rmSync(join(folder, "logs"));
    mkdirSync(join(folder, "logs"));
    await condition.until(() => said.length > 1, "the file is written again");
    expect(said[1]).toBe("the log file is written again; 3 lines are not in it");
    sink.write(record("two"));
    await sink.close();
    expect(linesOf(path)).toEqual(["the log file is written again; 3 lines are not in it", "two"]);
    expect(sink.lost).toBe(3);
  });

  test("is closed without waiting for another try", async () => {
    const { sink } = await start();
    rmSync(join(folder, "logs"), { recursive: true });
    writeFileSync(join(folder, "logs"), "");
    await sink.reopen();
    await sink.close();
    rmSync(join(folder, "logs"));
    mkdirSync(join(folder, "logs"));
    await Bun.sleep(60);
    expect(existsSync(path)).toBe(false);
  });

  test("starts all the same when the old file cannot be moved away, and goes on once it can", async () => {
    writeFileSync(path, "x".repeat(3_000));
    mkdirSync(join(`${path}.1`, "in the way"), { recursive: true });
    const { sink, said, condition } = await start({ maxBytes: 2_000, backups: 1 });
    expect(said).toEqual([expect.stringMatching(/^Cannot write the log file, .* rename /)]);
    sink.write(record("one"));
    expect(sink.lost).toBe(1);
    rmSync(`${path}.1`, { recursive: true });
    await condition.until(() => said.length > 1, "the file is written again");
    sink.write(record("two"));
    await sink.close();
    expect(linesOf(path)).toEqual(["the log file is written again; 1 lines are not in it", "two"]);
    expect(readFileSync(`${path}.1`, "utf8")).toHaveLength(3_000);
  });

  test("begins a new line behind one that was written in part", async () => {
    writeFileSync(path, "whole\nin pa");
    const { sink } = await start();
    sink.write(record("one"));
    await sink.close();
    const { sink: next } = await start();
    next.write(record("two"));
    await next.close();
    expect(linesOf(path)).toEqual(["whole", "in pa", "one", "two"]);
  });

  test.if(process.platform === "linux")(
    "says once that a disk is full, however often it is tried",
    async () => {
      const script = `
      const { truncateSync, readFileSync } = await import("node:fs");
      const { FileSink } = await import(${JSON.stringify(join(import.meta.dir, "../../src/observe/file-sink.ts"))});
      const said = [];
      const sink = await FileSink.open(
        { path: ${JSON.stringify(path)}, maxBytes: 1e9, backups: 1 },
        { format: (one) => one.message, say: (one) => said.push(one.message), retryMs: 10 },
      );
      const write = () => sink.write({ time: 0, level: "info", message: "x".repeat(999), fields: undefined });
      for (let at = 0; at < 100; at += 1) {
        write();
        await Bun.sleep(2);
      }
      truncateSync(${JSON.stringify(path)});
      while (said.length < 2) await Bun.sleep(5);
      await sink.close();
      const first = readFileSync(${JSON.stringify(path)}, "utf8").split("\\n").find((line) => line !== "");
      console.log(JSON.stringify({ said, lost: sink.lost, first }));
    `;
      const program = Bun.spawn(
        ["sh", "-c", `trap "" XFSZ; ulimit -f 64; exec "$0" -e "$1"`, process.execPath, script],
        { stdout: "pipe" },
      );
      const { said, lost, first } = await program.stdout.json();
      expect(said).toEqual([
        expect.stringContaining("Cannot write the log file"),
        `the log file is written again; ${lost} lines are not in it`,
      ]);
      expect(first).toBe(said[1]);
    },
  );

  test.if(process.platform === "linux")("survives a full disk", async () => {
    const script = `
      const { FileSink } = await import(${JSON.stringify(join(import.meta.dir, "../../src/observe/file-sink.ts"))});
      const said = [];
      const sink = await FileSink.open(
        { path: ${JSON.stringify(path)}, maxBytes: 1e9, backups: 1 },
        { format: (one) => one.message, say: (one) => said.push(one.message), retryMs: 60_000 },
      );
      for (let at = 0; at < 200; at += 1) {
        sink.write({ time: 0, level: "info", message: "x".repeat(1_000), fields: undefined });
        await new Promise((resolve) => setImmediate(resolve));
      }
      while (said.length === 0) await Bun.sleep(5);
      await sink.close();
      console.log(JSON.stringify({ said, lost: sink.lost }));
    `;
    // A limit on the size of files is the nearest to a full disk that needs no disk: EFBIG, with its signal ignored.
    const program = Bun.spawn(
      ["sh", "-c", `trap "" XFSZ; ulimit -f 64; exec "$0" -e "$1"`, process.execPath, script],
      {
        stdout: "pipe",
        stderr: "pipe",
      },
    );
    const said = await program.stdout.text();
    expect(await program.exited).toBe(0);
    const { said: lines, lost } = JSON.parse(said);
    expect(lines).toEqual([expect.stringContaining("Cannot write the log file")]);
    expect(lost).toBeGreaterThan(50);
  });
});
