import { dlopen, FFIType, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";

/** What can be read about another process here; what the system does not tell is `undefined`. */
export interface ProcessUsage {
  /** User and system time of all its threads, ended ones included, in seconds. */
  readonly cpuSeconds: number | undefined;
  readonly rssKib: number | undefined;
  /** The highest that `rssKib` has ever been. */
  readonly peakKib: number | undefined;
}

/** Reads what process `pid` has used so far. */
export function readUsage(pid: number): ProcessUsage {
  if (process.platform === "linux") {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return {
      cpuSeconds: readCpuClock?.(pid) ?? readCpuTicks(pid),
      rssKib: numberAfter(status, "VmRSS:"),
      peakKib: numberAfter(status, "VmHWM:"),
    };
  }
  if (process.platform === "win32") return { cpuSeconds: undefined, rssKib: undefined, peakKib: undefined };
  const { stdout } = Bun.spawnSync(["ps", "-o", "time=,rss=", "-p", String(pid)]);
  const [time = "", rss = ""] = stdout.toString().trim().split(/\s+/);
  return { cpuSeconds: parseClockTime(time), rssKib: Number(rss), peakKib: undefined };
}

/** What the whole machine has been busy, in CPU-seconds of all cores. */
export function readMachineSeconds(): number {
  let milliseconds = 0;
  for (const { times } of cpus()) milliseconds += times.user + times.nice + times.sys + times.irq;
  return milliseconds / 1000;
}

/** The CPU-time clock of another process, in seconds: nanoseconds where /proc counts in ticks of 10 ms. */
const readCpuClock = openCpuClock();

function openCpuClock(): ((pid: number) => number | undefined) | undefined {
  if (process.platform !== "linux") return undefined;
  const symbols = { clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 } } as const;
  for (const library of ["libc.so.6", "libc.so"]) {
    try {
      const { clock_gettime } = dlopen(library, symbols).symbols;
      const time = new BigInt64Array(2);
      // What clock_getcpuclockid(3) makes of a pid: its complement, then 2 for the scheduler's clock.
      return (pid) =>
        clock_gettime((~pid << 3) | 2, ptr(time)) === 0 ? Number(time[0]) + Number(time[1]) / 1e9 : undefined;
    } catch {
      // another C library, or none that can be loaded: ticks must do
    }
  }
  return undefined;
}

/** Fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms. The command in field 2 may contain spaces. */
function readCpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function numberAfter(text: string, name: string): number | undefined {
  const at = text.indexOf(name);
  return at < 0 ? undefined : Number.parseInt(text.slice(at + name.length), 10);
}

/** `[[hours:]minutes:]seconds` as `ps` prints it. */
function parseClockTime(text: string): number {
  return text.split(":").reduce((total, part) => total * 60 + Number(part), 0);
}
