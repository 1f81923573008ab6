import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** The ports that tell what a TCP socket of the proxy is for. */
export interface KnownPorts {
  readonly proxy: number;
  readonly status: number | undefined;
  readonly site: number | undefined;
  readonly dataCentres: readonly number[];
}

/** How many descriptors of each kind a process has. */
export type Census = Readonly<Record<string, number>>;

/** Sockets that live as long as a session does. */
export const PASSING = ["client", "cover site", "other TCP", "closed TCP"] as const;
/** Connections to data centres: those of sessions, and those that are kept ready. */
export const UPSTREAM = "data centre";

const LISTEN = "0A";

interface TcpSocket {
  readonly localPort: number;
  readonly remotePort: number;
  readonly listens: boolean;
}

/** Counts the descriptors of a process by what they are. Linux only. */
export function takeCensus(pid: number, ports: KnownPorts): Census {
  const tcp = readTcpSockets(pid);
  const unix = readUnixSockets(pid);
  const counts: Record<string, number> = {};
  for (const link of readLinks(pid)) {
    const kind = kindOf(link, tcp, unix, ports);
    counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

/** The other ends' ports of the clients that a process has accepted. */
export function clientPorts(pid: number, proxyPort: number): ReadonlySet<number> {
  const tcp = readTcpSockets(pid);
  const clients = readLinks(pid).flatMap((link) => {
    const socket = tcp.get(inodeOf(link) ?? "");
    return socket !== undefined && !socket.listens && socket.localPort === proxyPort ? socket.remotePort : [];
  });
  return new Set(clients);
}

/** The processes that `pid` has started and that still run. */
export function childrenOf(pid: number): readonly number[] {
  const tasks = orNothing(() => readdirSync(`/proc/${pid}/task`));
  const texts = tasks.map((task) => readText(`/proc/${pid}/task/${task}/children`));
  const children = texts.flatMap((text) =>
    text
      .split(" ")
      .filter((word) => word !== "")
      .map(Number),
  );
  return children.filter((child) => !readText(`/proc/${child}/stat`).includes(") Z ")).sort((a, b) => a - b);
}

function kindOf(
  link: string,
  tcp: ReadonlyMap<string, TcpSocket>,
  unix: ReadonlySet<string>,
  ports: KnownPorts,
): string {
  const inode = inodeOf(link);
  if (inode === undefined) return /^(?:pipe|anon_inode):/.test(link) ? link.replace(/:\[\d+\]$/, "") : link;
  const socket = tcp.get(inode);
  if (socket === undefined) return unix.has(inode) ? "unix socket" : "closed TCP";
  const { localPort, remotePort, listens } = socket;
  if (listens) return "listener";
  if (localPort === ports.proxy) return "client";
  if (localPort === ports.status) return "status client";
  if (remotePort === ports.site) return "cover site";
  return ports.dataCentres.includes(remotePort) ? UPSTREAM : "other TCP";
}

function inodeOf(link: string): string | undefined {
  return /^socket:\[(\d+)\]$/.exec(link)?.[1];
}

/** A descriptor may be closed between both looks, and a process may have ended. */
function readLinks(pid: number): readonly string[] {
  return orNothing(() => readdirSync(`/proc/${pid}/fd`)).flatMap((fd) =>
    orNothing(() => [readlinkSync(`/proc/${pid}/fd/${fd}`)]),
  );
}

function orNothing(read: () => readonly string[]): readonly string[] {
  try {
    return read();
  } catch {
    return [];
  }
}

/** By inode. */
function readTcpSockets(pid: number): ReadonlyMap<string, TcpSocket> {
  const sockets = new Map<string, TcpSocket>();
  for (const table of ["tcp", "tcp6"]) {
    const [, ...lines] = readText(`/proc/${pid}/net/${table}`).trim().split("\n");
    for (const line of lines) {
      const fields = line.trim().split(/\s+/);
      const [local = "", remote = "", state] = fields.slice(1);
      sockets.set(fields[9] ?? "", {
        localPort: portOf(local),
        remotePort: portOf(remote),
        listens: state === LISTEN,
      });
    }
  }
  return sockets;
}

function readUnixSockets(pid: number): ReadonlySet<string> {
  const [, ...lines] = readText(`/proc/${pid}/net/unix`).trim().split("\n");
  return new Set(lines.map((line) => line.trim().split(/\s+/)[6] ?? ""));
}

function portOf(address: string): number {
  return Number.parseInt(address.slice(address.indexOf(":") + 1), 16);
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // the process has ended
  }
}
