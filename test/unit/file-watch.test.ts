import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { chmodSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FileWatch, lookAt } from "../../src/cli/file-watch.ts";

const onPosix = test.skipIf(process.platform === "win32");

let folder: string;
let path: string;
let changes: number;
let watch: FileWatch;

beforeEach(() => {
  jest.useFakeTimers();
  folder = mkdtempSync(join(tmpdir(), "tgws-watch-"));
  path = join(folder, "config.toml");
  writeFileSync(path, "one");
  changes = 0;
  watch = new FileWatch(() => {
    changes += 1;
  });
  watch.watch(lookAt([path]));
});
afterEach(() => {
  watch.stop();
  jest.useRealTimers();
  rmSync(folder, { recursive: true, force: true });
});

function pass(seconds: number): void {
  for (let second = 0; second < seconds; second++) jest.advanceTimersByTime(1_000);
}

describe("FileWatch", () => {
  test("says nothing while nothing changes", () => {
    pass(10);
    expect(changes).toBe(0);
  });

  test("notices a change once, when it has lasted for a second", () => {
    writeFileSync(path, "another");
    pass(1);
    expect(changes).toBe(0);
    pass(1);
    expect(changes).toBe(1);
    pass(10);
    expect(changes).toBe(1);
  });

  test("waits while a file is being written", () => {
    for (let part = 1; part <= 5; part++) {
      writeFileSync(path, "x".repeat(10 * part));
      pass(1);
    }
    expect(changes).toBe(0);
    pass(1);
    expect(changes).toBe(1);
  });

  test("notices a file that was put in the place of another, of the same length", () => {
    writeFileSync(`${path}.new`, "two");
    renameSync(`${path}.new`, path);
    pass(2);
    expect(changes).toBe(1);
  });

  test("does not wait for ever while a file is replaced again and again", () => {
    for (let edit = 1; edit <= 10; edit++) {
      writeFileSync(`${path}.new`, `edit ${edit}`);
      renameSync(`${path}.new`, path);
      pass(1);
    }
    expect(changes).toBeGreaterThanOrEqual(2);
    const before = changes;
    pass(3);
    expect(changes).toBeLessThanOrEqual(before + 1);
    pass(10);
    expect(changes).toBeLessThanOrEqual(before + 1);
  });

  onPosix("notices that the rights of a file have changed: it may be possible to read it now", () => {
    chmodSync(path, 0o640);
    pass(2);
    expect(changes).toBe(1);
  });

  test("gives an editor time to put a new file where it has removed the old one", () => {
    rmSync(path);
    pass(2);
    writeFileSync(path, "another");
    pass(1);
    expect(changes).toBe(0);
    pass(1);
    expect(changes).toBe(1);
  });

  test("notices that a file is gone, and that it is back", () => {
    rmSync(path);
    pass(5);
    expect(changes).toBe(1);
    writeFileSync(path, "again");
    pass(2);
    expect(changes).toBe(2);
  });

  test("follows a link whose target is another one", () => {
    const link = join(folder, "link");
    writeFileSync(join(folder, "other"), "other text");
    symlinkSync(path, link);
    watch.watch(lookAt([link]));
    rmSync(link);
    symlinkSync(join(folder, "other"), link);
    pass(2);
    expect(changes).toBe(1);
  });

  test("forgets files that it does not watch any more", () => {
    const other = join(folder, "other");
    writeFileSync(other, "text");
    watch.watch(lookAt([other]));
    writeFileSync(path, "changed");
    pass(3);
    expect(changes).toBe(0);
    writeFileSync(other, "changed");
    pass(3);
    expect(changes).toBe(1);
  });

  test("looks no more after a stop", () => {
    watch.stop();
    writeFileSync(path, "changed");
    pass(5);
    expect(changes).toBe(0);
  });
});
