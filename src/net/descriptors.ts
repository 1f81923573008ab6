import { closeSync, openSync, readdirSync, readFileSync, statSync } from "node:fs";

/** Why something could not be opened, for a {@link RouteError} `LOCAL`. */
export const SHORT_OF_DESCRIPTORS = "this machine has no file descriptors left";

/** What is there to be opened everywhere, and waits for nothing; Windows has no such limits. */
const NOTHING = process.platform === "win32" ? undefined : "/dev/null";

/** Whether `count` more files or sockets could be opened at this moment. */
export function hasSpareDescriptors(count: number): boolean {
  if (NOTHING === undefined) return true;
  const opened: number[] = [];
  try {
    while (opened.length < count) opened.push(openSync(NOTHING, "r"));
    return true;
  } catch {
    return false; // EMFILE of the process, ENFILE of the system
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/** Bun says "connection refused", or "no such name", when it has no descriptor to find out with. */
export function hidesShortage(code: string | undefined): boolean {
  return code === "REFUSED" || code === "DNS";
}

/** How many files and sockets the process may have open, and has. */
export interface ProcessDescriptors {
  readonly most: number;
  readonly open: number;
}

/** Where there is no /proc: standard streams, the event loop and the like. */
const OPEN_AT_START = 16;

/** Reads what the system allows this process (`ulimit -n`); `undefined` where there is no such limit, or none is known. */
export function processDescriptors(): ProcessDescriptors | undefined {
  if (process.platform === "win32") return undefined;
  const most = process.platform === "linux" ? mostByProc() : mostByShell();
  return most === undefined ? undefined : { most, open: countOpen() ?? OPEN_AT_START };
}

function mostByProc(): number | undefined {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8")) ?? [];
    return soft === undefined ? undefined : Number(soft); // `unlimited` is none
  } catch {
    return undefined;
  }
}

/** A program that is started has the same limit. */
function mostByShell(): number | undefined {
  try {
    const { stdout } = Bun.spawnSync(["/bin/sh", "-c", "ulimit -n"], { stderr: "ignore" });
    const text = stdout.toString().trim();
    return /^\d+$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined;
  }
}

function countOpen(): number | undefined {
  try {
    const { size } = statSync("/proc/self/fd"); // their number since Linux 6.2
    return size > 0 ? size : readdirSync("/proc/self/fd").length;
  } catch {
    return undefined;
  }
}
