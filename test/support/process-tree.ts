import { readdirSync, readFileSync } from "node:fs";

/** The processes that `pid` has started and that still run, in the order of their numbers. Linux only. */
export function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const text = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim();
    if (text !== "") children.push(...text.split(" ").map(Number));
  }
  return children.filter(isAlive).sort((one, other) => one - other);
}

/** Whether a process runs, and is not just waiting to be buried. */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
