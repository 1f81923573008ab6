import { type Figure, median } from "../figures.ts";
import { Load } from "../load.ts";
import type { RunningProxy } from "../proxies.ts";
import { openWindow, type Rig } from "../window.ts";
import { GREETING, type Step } from "./step.ts";

/** How many connections are being set up at any time. */
const LANES = 8;

/** Between two connections of a calm client, in milliseconds: time enough for a pool to refill. */
export const CALM_GAP_MS = 200;

/** After the last of many connections: what they cost in closing still belongs to them, in milliseconds. */
const AFTERMATH_MS = 300;

/** Sets up connections as fast as it goes, each up to its first answer. */
export function setUpRateStep(poolSize: number): Step {
  const name = `set-up, ${describePool(poolSize)}`;
  return { name, poolSize, run: (proxy, rig) => measureRate(name, proxy, rig) };
}

/** Sets up one connection every now and then: what a pool is for. */
export function calmSetUpStep(poolSize: number): Step {
  const name = `set-up every ${CALM_GAP_MS} ms, ${describePool(poolSize)}`;
  return { name, poolSize, run: (proxy, rig) => measureCalm(name, proxy, rig) };
}

function describePool(size: number): string {
  return size === 0 ? "no pool" : `pool of ${size}`;
}

async function measureRate(name: string, proxy: RunningProxy, rig: Rig): Promise<Figure[]> {
  await setUpOnce(proxy);
  const tookMs: number[] = [];
  const closeWindow = openWindow(proxy, rig);
  const startedAt = performance.now();
  const lane = async (): Promise<void> => {
    while (performance.now() - startedAt < rig.windowMs) tookMs.push(await setUpOnce(proxy));
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  const seconds = (performance.now() - startedAt) / 1000;
  await Bun.sleep(AFTERMATH_MS);
  const { proxyCpuSeconds } = closeWindow();
  const cpuMs = proxyCpuSeconds === undefined ? undefined : (proxyCpuSeconds * 1000) / tookMs.length;
  return [
    { name, unit: "per second", value: tookMs.length / seconds },
    { name, unit: "p50 ms", value: median(tookMs) },
    { name, unit: "CPU ms", value: cpuMs },
  ];
}

async function measureCalm(name: string, proxy: RunningProxy, rig: Rig): Promise<Figure[]> {
  await setUpOnce(proxy);
  const tookMs: number[] = [];
  const startedAt = performance.now();
  while (performance.now() - startedAt < rig.windowMs) {
    await Bun.sleep(CALM_GAP_MS);
    tookMs.push(await setUpOnce(proxy));
  }
  return [{ name, unit: "p50 ms", value: median(tookMs) }];
}

/** @returns Milliseconds from the connection attempt to the first answer through it. */
export async function setUpOnce(proxy: RunningProxy): Promise<number> {
  const load = new Load(proxy);
  try {
    const startedAt = performance.now();
    const answered = Promise.withResolvers<void>();
    load.onAnswer = () => answered.resolve();
    const connection = await load.openOne();
    connection.send(GREETING);
    await load.wait(answered.promise);
    return performance.now() - startedAt;
  } finally {
    load.close();
  }
}
