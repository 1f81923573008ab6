import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hintOnDisk, writeBeside } from "../../src/config/private-file.ts";

/** Nobody's number in most systems; any that is not root's will do. */
const SOMEBODY = 65_534;
const isRoot = process.getuid?.() === 0;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-private-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(path: string): void {
  writeBeside(path, "text", (temporary) => renameSync(temporary, path));
}

describe("writeBeside()", () => {
  test("makes a file for its owner only, and leaves nothing else", () => {
    write(join(folder, "file"));
    expect(readdirSync(folder)).toEqual(["file"]);
    if (process.platform !== "win32") expect(statSync(join(folder, "file")).mode & 0o777).toBe(0o600);
  });

  test("leaves nothing when the file cannot be put in its place", () => {
    const path = join(folder, "file");
    expect(() =>
      writeBeside(path, "text", () => {
        throw new Error("no");
      }),
    ).toThrow("no");
    expect(readdirSync(folder)).toEqual([]);
  });

  test.skipIf(!isRoot)("gives what root writes to whom the folder belongs", () => {
    chmodSync(folder, 0o755);
    chownSync(folder, SOMEBODY, SOMEBODY);
    write(join(folder, "file"));
    expect(statSync(join(folder, "file"))).toMatchObject({ uid: SOMEBODY, gid: SOMEBODY });
  });
});

describe("hintOnDisk()", () => {
  test("tells a disk that is full or read-only from rights that are missing", () => {
    const hint = (code: string): string | undefined => hintOnDisk(Object.assign(new Error("no"), { code }));
    expect(["ENOSPC", "EDQUOT", "EROFS", "SQLITE_FULL"].map(hint)).toEqual(
      Array(4).fill("see whether the disk is full or read-only"),
    );
    expect(hint("EACCES")).toBeUndefined();
  });
});
