import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { editFile } from "../../src/config/edit-file.ts";
import { StartError } from "../../src/core/errors.ts";

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-edit-"));
  file = join(folder, "config.toml");
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const append =
  (more: string) =>
  (text: string | undefined): string =>
    `${text ?? ""}${more}`;

/** A process id that nobody has. */
function deadPid(): number {
  const { pid, exited } = Bun.spawn(["true"]);
  void exited;
  Bun.spawnSync(["sleep", "0.05"]);
  return pid;
}

describe("editFile()", () => {
  test("makes a file and its folder, for their owner only", async () => {
    const deep = join(folder, "a", "b", "config.toml");
    await editFile(deep, append("one"));
    expect(readFileSync(deep, "utf8")).toBe("one");
    expect(statSync(deep).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "a")).mode & 0o777).toBe(0o700);
  });

  test("keeps the rights and the owner, and leaves nothing else behind", async () => {
    writeFileSync(file, "one ");
    chmodSync(file, 0o640);
    const root = process.getuid?.() === 0;
    if (root) chownSync(file, 1234, 4321);
    await editFile(file, append("two"));
    expect(readFileSync(file, "utf8")).toBe("one two");
    const { mode, uid, gid } = statSync(file);
    expect(mode & 0o7777).toBe(0o640);
    if (root) expect([uid, gid]).toEqual([1234, 4321]);
    expect(readdirSync(folder)).toEqual(["config.toml"]);
  });

  test("replaces what a chain of links leads to, and keeps the links", async () => {
    mkdirSync(join(folder, "real"));
    writeFileSync(join(folder, "real", "it.toml"), "one ");
    symlinkSync(join("real", "it.toml"), join(folder, "middle"));
    symlinkSync("middle", file);
    await editFile(file, append("two"));
    expect(lstatSync(file).isSymbolicLink()).toBe(true);
    expect(lstatSync(join(folder, "middle")).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(folder, "real", "it.toml"), "utf8")).toBe("one two");
  });

  test("makes the file that a link leads to", async () => {
    symlinkSync(join(folder, "new.toml"), file);
    await editFile(file, append("one"));
    expect(lstatSync(file).isSymbolicLink()).toBe(true);
    expect(readFileSync(join(folder, "new.toml"), "utf8")).toBe("one");
  });

  test("refuses links that go round", async () => {
    symlinkSync("config.toml", file);
    await expect(editFile(file, append(""))).rejects.toThrow(/Cannot change .*: (?:ELOOP|too many links)/);
  });

  test("leaves everything as it was when the edit throws", async () => {
    writeFileSync(file, "one");
    const edit = (): string => {
      throw new RangeError("no");
    };
    await expect(editFile(file, edit)).rejects.toThrow(RangeError);
    expect(readFileSync(file, "utf8")).toBe("one");
    expect(readdirSync(folder)).toEqual(["config.toml"]);
  });

  test("does not touch a file that stays as it is", async () => {
    writeFileSync(file, "one");
    const { ino } = statSync(file);
    await editFile(file, (text = "") => text);
    expect(statSync(file).ino).toBe(ino);
  });

  test("lets edits that come at once follow each other", async () => {
    await Promise.all(Array.from({ length: 20 }, (_, at) => editFile(file, append(`${at},`))));
    const parts = readFileSync(file, "utf8").split(",").filter(Boolean);
    expect(parts.toSorted()).toEqual(Array.from({ length: 20 }, (_, at) => String(at)).toSorted());
  });

  test("edits again what an editor has changed meanwhile", async () => {
    writeFileSync(file, "one ");
    let calls = 0;
    await editFile(file, (text = "") => {
      calls += 1;
      if (calls === 1) writeFileSync(file, "other ");
      return `${text}two`;
    });
    expect(readFileSync(file, "utf8")).toBe("other two");
    expect(calls).toBe(2);
  });

  test("gives up where something keeps changing the file", async () => {
    let calls = 0;
    const edit = (): string => {
      calls += 1;
      writeFileSync(file, `${calls}`);
      return "mine";
    };
    await expect(editFile(file, edit)).rejects.toThrow(/another program keeps changing it/);
    expect(readFileSync(file, "utf8")).toBe(`${calls}`);
  });

  test("takes a lock over that a killed program has left", async () => {
    const lock = `${file}.lock`;
    writeFileSync(lock, `${deadPid()} abc\n`);
    const old = new Date(Date.now() - 5_000);
    utimesSync(lock, old, old);
    await editFile(file, append("one"));
    expect(readdirSync(folder)).toEqual(["config.toml"]);
  });

  test("takes a very old lock over, whoever has it", async () => {
    const lock = `${file}.lock`;
    writeFileSync(lock, `${process.pid} abc\n`);
    const old = new Date(Date.now() - 60_000);
    utimesSync(lock, old, old);
    await editFile(file, append("one"));
    expect(readFileSync(file, "utf8")).toBe("one");
  });

  test("refuses with a reason where it may not write", async () => {
    writeFileSync(join(folder, "file"), "");
    const attempt = editFile(join(folder, "file", "config.toml"), append("one"));
    const error: unknown = await attempt.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(StartError);
    expect(error).toMatchObject({ code: "FILE" });
  });
});
