import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AppendFile } from "../../src/config/append-file.ts";

let folder: string;
let path: string;
let failures: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-append-"));
  path = join(folder, "new", "hellos");
  failures = [];
});

afterEach(() => {
  chmodSync(folder, 0o700);
  rmSync(folder, { recursive: true, force: true });
});

const open = (at = path): AppendFile => new AppendFile(at, (error) => failures.push(error.message));

describe("AppendFile", () => {
  test("is empty where there is none, and makes file and folder with the first bytes, for its owner alone", () => {
    const file = open();
    expect(file.read()).toHaveLength(0);
    file.append(Uint8Array.of(1, 2));
    file.append(Uint8Array.of(3));
    file.close();
    expect([...open().read()]).toEqual([1, 2, 3]);
    expect([statSync(path).mode & 0o777, statSync(join(folder, "new")).mode & 0o777]).toEqual([0o600, 0o700]);
    expect(failures).toEqual([]);
  });

  test("is replaced as a whole, and grows on from there", () => {
    const file = open();
    file.append(Uint8Array.of(1, 2));
    file.replace(Uint8Array.of(9));
    file.append(Uint8Array.of(8));
    file.close();
    expect([...readFileSync(path)]).toEqual([9, 8]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test("says once what it cannot read or write, and goes on without", () => {
    mkdirSync(path, { recursive: true });
    const file = open();
    expect(file.read()).toHaveLength(0);
    file.append(Uint8Array.of(1));
    file.replace(Uint8Array.of(1));
    expect(failures).toHaveLength(1);
    expect(failures[0]).toContain(path);
    writeFileSync(join(folder, "file"), "");
    open(join(folder, "file", "hellos")).append(Uint8Array.of(1));
    expect(failures).toHaveLength(2);
  });

  test("goes on when what was wrong is over, and says so the next time that it happens", () => {
    const file = open();
    const parent = join(folder, "blocked");
    const blocked = new AppendFile(join(parent, "hellos"), (error) => failures.push(error.message));
    writeFileSync(parent, "");
    expect([blocked.append(Uint8Array.of(1)), blocked.append(Uint8Array.of(2))]).toEqual([false, false]);
    expect(failures).toHaveLength(1);
    rmSync(parent);
    expect(blocked.replace(Uint8Array.of(1, 2))).toBe(true);
    expect(blocked.append(Uint8Array.of(3))).toBe(true);
    expect([...blocked.read()]).toEqual([1, 2, 3]);
    blocked.close();
    file.close();
  });
});
