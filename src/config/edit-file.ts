import { randomBytes } from "node:crypto";
import {
  chmodSync,
  closeSync,
  lchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { StartError } from "../core/errors.ts";
import { hasCode, reasonOf, syncFile, writeBeside } from "./private-file.ts";
import { readFileText } from "./toml-file.ts";

/** How long to wait for another program that edits the file, and how often to look. */
const LOCK_WAIT_MS = 10_000;
const LOCK_LOOK_MS = 20;
/** An edit takes a blink: a lock of a program that is gone, or this old, is left over. */
const GONE_MS = 1_000;
const STALE_MS = 30_000;
/** A program without our lock, such as an editor, may write the file, too. */
const ATTEMPTS = 5;
const LONGEST_CHAIN = 40;

/**
 * Replaces a file by what `edit` makes of its text, as a whole: a program that is killed meanwhile leaves the old
 * file or the new one. Of two edits at once, the second sees what the first has made.
 *
 * Rights and owner stay; a new file is for its owner only (0600). Where `path` is a link, the file it leads to is
 * replaced.
 *
 * @param edit Gets `undefined` when there is no file. What it throws leaves everything as it was.
 * @throws {StartError} `FILE`
 */
export async function editFile(
  path: string,
  edit: (text: string | undefined) => string | Promise<string>,
): Promise<void> {
  const target = guard(path, () => followLinks(path));
  guard(path, () => mkdirSync(dirname(target), { recursive: true, mode: 0o700 }));
  const lock = await acquire(path, `${target}.lock`);
  try {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const before = readFileText(target)?.text;
      const text = await edit(before);
      if (text === before) return;
      if (guard(path, () => replace(target, text, before))) return;
    }
    throw fileError(path, "another program keeps changing it", "close the editor that has it open");
  } finally {
    lock.release();
  }
}

/** @returns False when the file has changed meanwhile. */
function replace(target: string, text: string, before: string | undefined): boolean {
  const status = statusOf(target);
  return writeBeside(target, text, (temporary) => {
    if (status !== undefined) adopt(temporary, status);
    syncFile(temporary);
    if (readFileText(target)?.text !== before) return false;
    renameSync(temporary, target);
    return true;
  });
}

/** Gives a file the owner and the rights of another one. */
function adopt(path: string, { uid, gid, mode }: Stats): void {
  if (process.platform === "win32") return;
  const own = statSync(path);
  if (own.uid !== uid || own.gid !== gid) lchownSync(path, uid, gid);
  chmodSync(path, mode & 0o7777);
}

function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return undefined;
    throw error;
  }
}

/** Where a chain of links leads, also when there is no file at its end. */
function followLinks(path: string): string {
  let target = resolve(path);
  for (let links = 0; links < LONGEST_CHAIN; links++) {
    try {
      if (!lstatSync(target).isSymbolicLink()) return realpathSync(target);
    } catch (error) {
      if (hasCode(error, "ENOENT")) return target;
      throw error;
    }
    target = resolve(dirname(target), readlinkSync(target));
  }
  throw Object.assign(new Error("too many links"), { code: "ELOOP" });
}

interface Lock {
  release(): void;
}

/** Makes the file `lock`, which only one program can do. @throws {StartError} `FILE` */
async function acquire(path: string, lock: string): Promise<Lock> {
  const mark = `${process.pid} ${randomBytes(8).toString("hex")}\n`;
  const limit = performance.now() + LOCK_WAIT_MS;
  for (;;) {
    if (guard(path, () => tryLock(lock, mark))) return { release: () => unlock(lock, mark) };
    dropStale(lock);
    if (performance.now() > limit) {
      const hint = `if none does, delete ${lock}`;
      throw fileError(path, "another program is editing it", hint);
    }
    await Bun.sleep(LOCK_LOOK_MS);
  }
}

function tryLock(lock: string, mark: string): boolean {
  try {
    const fd = openSync(lock, "wx", 0o600);
    try {
      writeSync(fd, mark);
    } finally {
      closeSync(fd);
    }
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    throw error;
  }
}

function unlock(lock: string, mark: string): void {
  try {
    if (readFileSync(lock, "utf8") === mark) rmSync(lock);
  } catch {
    // It was taken for a left-over: whoever did has removed it.
  }
}

/** Removes a lock whose program is gone. It is moved first: of two that do so, one gets it. */
function dropStale(lock: string): void {
  try {
    const ageMs = Date.now() - statSync(lock).mtimeMs;
    const mark = readFileSync(lock, "utf8");
    const alive = isRunning(Number.parseInt(mark, 10));
    if (ageMs < GONE_MS || (alive && ageMs < STALE_MS)) return;
    const aside = `${lock}.${randomBytes(6).toString("hex")}`;
    renameSync(lock, aside);
    rmSync(aside);
  } catch {
    // Somebody else has removed it.
  }
}

function isRunning(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

const NOT_OURS = "run this as the owner of the file and of its folder, or as root";
const HINTS: ReadonlyMap<string, string> = new Map([
  ["EPERM", NOT_OURS],
  ["EACCES", NOT_OURS],
  ["EBUSY", "a file that is mounted by itself, as into a container, cannot be replaced: mount its folder"],
]);

/** Runs `work`; what the file system says against it is a reason that a person can read. */
function guard<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && "code" in error && !(error instanceof StartError)) {
      const hint =
        HINTS.get(reasonOf(error)) ??
        "see whether the disk is full or read-only; --config names another file";
      throw fileError(path, reasonOf(error), hint, error);
    }
    throw error;
  }
}

function fileError(path: string, why: string, hint: string, cause?: unknown): StartError {
  return new StartError("FILE", `Cannot change ${path}: ${why}`, hint, cause);
}
