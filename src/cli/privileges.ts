import { readFileSync } from "node:fs";
import { StartError } from "../core/errors.ts";

/** Who to become. */
export interface Account {
  /** A name, or a number. */
  readonly user: string;
  readonly uid: number;
  /** Primary. */
  readonly gid: number;
}

/** Its types leave it out. */
type ProcessWithGroups = NodeJS.Process & { initgroups(user: string, group: number): void };

/** The largest number that can be one of a user or group. */
const MOST_ID = 0xffff_fffe;

/**
 * Finds the user and group that `--user` and `--group` name.
 *
 * @throws {StartError} `PRIVILEGES` when there is no such user or group, it is root, or we may not become it.
 */
export function findAccount(user: string | undefined, group: string | undefined): Account | undefined {
  if (user === undefined) {
    if (group === undefined) return undefined;
    throw failure(`Cannot become group ${group} alone`, "name a user, too: --user");
  }
  if (process.getuid === undefined)
    throw failure("Cannot become another user on this system", "leave out --user");
  const found = lookUpUser(user);
  if (found === undefined)
    throw failure(`Cannot become ${user}: there is no such user`, "useradd --system --no-create-home tgws");
  const gid = group === undefined ? found.gid : lookUpGroup(group);
  if (gid === undefined) {
    const why = group === undefined ? `its group is not known` : `there is no group ${group}`;
    throw failure(`Cannot become ${user}: ${why}`, "name another one with --group");
  }
  if (found.uid === 0)
    throw failure("Cannot give up privileges: --user root keeps them all", "name another user");
  if (gid === 0)
    throw failure("Cannot give up privileges: the group root keeps some", "name another --group");
  const here = process.getuid();
  if (here !== 0 && here !== found.uid)
    throw failure(`Cannot become ${user}: only root can`, "start it with sudo, or leave out --user");
  if (here !== 0 && group !== undefined && process.getgid?.() !== gid)
    throw failure(
      `Cannot join the group ${group}: only root can`,
      "start it with sudo, or leave out --group",
    );
  return { user, uid: found.uid, gid };
}

/**
 * Becomes `account`, for good, and makes sure of it.
 *
 * @throws {StartError} `PRIVILEGES` when that fails, or anything is left of what it was: then nothing may go on.
 */
export function becomeAccount({ user, uid, gid }: Account): void {
  if (process.getuid?.() !== 0) {
    // It is that user already; whoever made it so may have left it a way back, or a container the group that it begins with.
    if ([process.getgid?.(), process.getegid?.(), ...(process.getgroups?.() ?? [])].includes(0))
      throw failure(`Cannot stay ${user}: it is in the group root`, "start it as root, or in another group");
    const way = findWayBack();
    if (way === undefined) return;
    throw failure(`Cannot stay ${user}: ${way}`, "start it as root, or without CAP_SETUID and CAP_SETGID");
  }
  try {
    // With the groups of that user; one that has only a number has none.
    if (/^\d+$/.test(user)) process.setgroups?.([gid]);
    else (process as ProcessWithGroups).initgroups(user, gid);
    process.setgid?.(gid);
    process.setuid?.(uid);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw failure(
      `Cannot become ${user}: ${why}`,
      "in a container it may lack the rights: CAP_SETUID, CAP_SETGID",
      error,
    );
  }
  if (process.getgroups?.().includes(0))
    throw failure(`Cannot become ${user}: it is in the group root`, "take it out of that group");
  const left = findLeftovers(uid, gid);
  if (left !== undefined)
    throw failure(`Cannot become ${user}: ${left}`, "this is a bug, or a very old kernel");
}

/** What a process still has of root; `undefined`: nothing. */
function findLeftovers(uid: number, gid: number): string | undefined {
  if (process.getuid?.() !== uid || process.geteuid?.() !== uid) return "it is another user still";
  if (process.getgid?.() !== gid || process.getegid?.() !== gid) return "it is in another group still";
  const way = findWayBack();
  if (way !== undefined || process.platform !== "linux") return way;
  const capabilities = /^Cap(?:Prm|Eff):\t0*[1-9a-f]/m;
  return capabilities.test(readFileSync("/proc/self/status", "utf8"))
    ? "it has capabilities still"
    : undefined;
}

function findWayBack(): string | undefined {
  if (succeeds(() => process.setuid?.(0))) return "it can become root again";
  if (succeeds(() => process.setgid?.(0))) return "it can join the group root again";
  return undefined;
}

function succeeds(attempt: () => void): boolean {
  try {
    attempt();
    return true;
  } catch {
    return false;
  }
}

function lookUpUser(user: string): { readonly uid: number; readonly gid: number | undefined } | undefined {
  const isNumber = /^\d+$/.test(user);
  for (const [name, , uid, gid] of readTable("/etc/passwd")) {
    if (name === user || (isNumber && uid === user)) return { uid: Number(uid), gid: Number(gid) };
  }
  // Users may come from elsewhere, such as LDAP: `id` knows.
  const uid = isNumber ? toId(user) : askId(["-u", "--", user]);
  return uid === undefined ? undefined : { uid, gid: askId(["-g", "--", user]) };
}

function lookUpGroup(group: string): number | undefined {
  for (const [name, , gid] of readTable("/etc/group")) if (name === group) return Number(gid);
  return toId(group);
}

/** The rows of a table of the system, by columns. */
function readTable(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .filter((line) => line.includes(":"))
      .map((line) => line.split(":"));
  } catch {
    return [];
  }
}

function askId(args: readonly string[]): number | undefined {
  try {
    const { success, stdout } = Bun.spawnSync(["id", ...args], { stderr: "ignore" });
    return success ? toId(stdout.toString().trim()) : undefined;
  } catch {
    return undefined; // a system without it
  }
}

function toId(text: string): number | undefined {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  return id <= MOST_ID ? id : undefined;
}

function failure(message: string, hint: string, cause?: unknown): StartError {
  return new StartError("PRIVILEGES", message, hint, cause);
}
