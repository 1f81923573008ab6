import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What a process of this machine holds at a moment. */
export interface ProcessFigures {
  /** Open file descriptors. */
  readonly descriptors: number;
  /** Of those, sockets. */
  readonly sockets: number;
  /** TCP connections of its own, by their state, listeners left out. */
  readonly connections: Readonly<Record<string, number>>;
  /** Resident memory, in bytes. */
  readonly residentBytes: number;
}

const LISTEN = "0A";
const STATES: Readonly<Record<string, string>> = {
  "01": "established",
  "02": "syn-sent",
  "03": "syn-received",
  "04": "fin-wait-1",
  "05": "fin-wait-2",
  "06": "time-wait",
  "07": "close",
  "08": "close-wait",
  "09": "last-ack",
  "0B": "closing",
};

/** Reads what /proc says of a process. Linux only. */
export function readFigures(pid: number): ProcessFigures {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`));
  const open = links.filter((link) => link !== undefined);
  const inodes = new Set(open.flatMap((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1] ?? []));
  const connections: Record<string, number> = {};
  for (const { state, inode } of ["tcp", "tcp6"].flatMap((table) => readTable(`/proc/${pid}/net/${table}`))) {
    if (state === LISTEN || !inodes.has(inode)) continue;
    const name = STATES[state] ?? state;
    connections[name] = (connections[name] ?? 0) + 1;
  }
  const [, kib = "0"] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return {
    descriptors: open.length,
    sockets: inodes.size,
    connections,
    residentBytes: Number(kib) * 1024,
  };
}

/** A descriptor may be closed between both looks. */
function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function readTable(path: string): { readonly state: string; readonly inode: string }[] {
  const [, ...lines] = readFileSync(path, "utf8").trim().split("\n");
  return lines.map((line) => {
    const fields = line.trim().split(/\s+/);
    return { state: fields[3] ?? "", inode: fields[9] ?? "" };
  });
}
