import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAX_STATE_BYTES, StateFile, StateFileError } from "../../src/config/state-file.ts";

const onPosix = test.skipIf(process.platform === "win32");
const modeOf = (path: string): number => statSync(path).mode & 0o777;

let folder: string;
let path: string;
let failures: StateFileError[];
let file: StateFile;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-state-"));
  path = join(folder, "list");
  failures = [];
  file = new StateFile(path, (error) => failures.push(error));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("StateFile", () => {
  test("reads nothing where nothing was written, which is no failure", () => {
    expect(file.read()).toBeUndefined();
    expect(new StateFile(join(folder, "a", "b")).read()).toBeUndefined();
    expect(failures).toEqual([]);
  });

  test.each(["", "a\nb\r\n", "пример", "\0"])("gives back %j", (text) => {
    file.write("before");
    file.write(text);
    expect(new StateFile(path).read()).toBe(text);
    expect(failures).toEqual([]);
  });

  test("leaves nothing but the file behind", () => {
    file.write("one");
    file.write("two");
    expect(readdirSync(folder)).toEqual(["list"]);
  });

  onPosix("makes the folders that are missing, and lets only the owner in", () => {
    const nested = join(folder, "a", "b");
    new StateFile(join(nested, "list")).write("text");
    expect(modeOf(nested)).toBe(0o700);
    expect(modeOf(join(nested, "list"))).toBe(0o600);
  });

  onPosix("shuts a file that others could read", () => {
    writeFileSync(path, "text");
    chmodSync(path, 0o644);
    expect(file.read()).toBe("text");
    expect(modeOf(path)).toBe(0o600);
    chmodSync(path, 0o666);
    file.write("more");
    expect(modeOf(path)).toBe(0o600);
  });

  onPosix("replaces a link instead of what it points at", () => {
    const other = join(folder, "other");
    writeFileSync(other, "kept");
    symlinkSync(other, path);
    file.write("new");
    expect(readFileSync(other, "utf8")).toBe("kept");
    expect(file.read()).toBe("new");
  });

  test("reads up to 1 MiB, and says so about more", () => {
    writeFileSync(path, "x".repeat(MAX_STATE_BYTES));
    expect(file.read()).toHaveLength(MAX_STATE_BYTES);
    writeFileSync(path, "x".repeat(MAX_STATE_BYTES + 1));
    expect(file.read()).toBeUndefined();
    expect(failures).toMatchObject([{ code: "READ", message: `Cannot read ${path}: more than 1 MiB` }]);
  });

  test("does not write what it would not read", () => {
    file.write("small");
    file.write("й".repeat(MAX_STATE_BYTES / 2 + 1));
    expect(file.read()).toBe("small");
    expect(failures).toMatchObject([{ code: "WRITE", message: `Cannot write ${path}: more than 1 MiB` }]);
  });

  test("fails without a throw where the folder is a file", () => {
    writeFileSync(path, "");
    const below = new StateFile(join(path, "list"), (error) => failures.push(error));
    below.write("text");
    expect(below.read()).toBeUndefined();
    expect(failures.map(({ code }) => code)).toContain("WRITE");
    expect(failures.every((error) => error instanceof StateFileError && error.cause instanceof Error)).toBe(
      true,
    );
    expect(() => new StateFile(join(path, "list")).write("text")).not.toThrow();
  });

  onPosix("fails without a throw in a folder that is read-only", () => {
    if (process.getuid?.() === 0) return; // root may
    chmodSync(folder, 0o500);
    file.write("text");
    expect(failures).toMatchObject([{ code: "WRITE", message: `Cannot write ${path}: EACCES` }]);
    chmodSync(folder, 0o700);
  });

  test("does not read a folder", () => {
    mkdirSync(path);
    expect(file.read()).toBeUndefined();
    file.write("text");
    expect(failures.map(({ code }) => code)).toEqual(["READ", "WRITE"]);
    expect(failures[0]?.message).toBe(`Cannot read ${path}: not a file`);
    expect(readdirSync(folder)).toEqual(["list"]);
  });

  test("says once that it fails, and again after it has worked", () => {
    mkdirSync(path);
    for (let time = 0; time < 3; time += 1) file.read();
    expect(failures).toHaveLength(1);
    rmSync(path, { recursive: true });
    file.read();
    mkdirSync(path);
    file.read();
    expect(failures).toHaveLength(2);
  });
});
