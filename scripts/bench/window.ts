import { readMachineSeconds, readUsage } from "./process-usage.ts";
import type { DataCentre, RunningProxy } from "./proxies.ts";

/** What every step of the benchmark gets besides a proxy. */
export interface Rig {
  readonly dataCentre: DataCentre;
  /** The length of a timed window. */
  readonly windowMs: number;
  /** How many strangers of each kind a step sends. */
  readonly strangers: number;
}

/** What a stretch of time has cost. */
export interface Window {
  readonly seconds: number;
  /** The proxy's; `undefined` where the system does not tell. */
  readonly proxyCpuSeconds: number | undefined;
  /** The load client's and the stub data centre's together. */
  readonly rigCpuSeconds: number | undefined;
  /** Cores that were busy with anything else on this machine: what makes figures noisy. */
  readonly otherCores: number | undefined;
}

/** Starts to measure. @returns Call it at the end of the window. */
export function openWindow(proxy: RunningProxy, { dataCentre }: Rig): () => Window {
  const before = readAll(proxy.pid, dataCentre.child.pid);
  return () => {
    const after = readAll(proxy.pid, dataCentre.child.pid);
    const seconds = after.now - before.now;
    const proxyCpuSeconds = difference(after.proxy, before.proxy);
    const rigCpuSeconds = difference(after.rig, before.rig);
    const machine = after.machine - before.machine;
    const otherCores =
      proxyCpuSeconds === undefined || rigCpuSeconds === undefined
        ? undefined
        : Math.max(0, machine - proxyCpuSeconds - rigCpuSeconds) / seconds;
    return { seconds, proxyCpuSeconds, rigCpuSeconds, otherCores };
  };
}

function readAll(
  proxyPid: number,
  dcPid: number,
): {
  now: number;
  proxy: number | undefined;
  rig: number | undefined;
  machine: number;
} {
  const own = process.cpuUsage();
  const dc = readUsage(dcPid).cpuSeconds;
  return {
    now: performance.now() / 1000,
    proxy: readUsage(proxyPid).cpuSeconds,
    rig: dc === undefined ? undefined : dc + (own.user + own.system) / 1e6,
    machine: readMachineSeconds(),
  };
}

function difference(after: number | undefined, before: number | undefined): number | undefined {
  return after === undefined || before === undefined ? undefined : after - before;
}
