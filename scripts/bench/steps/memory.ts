import type { Figure } from "../figures.ts";
import { Load } from "../load.ts";
import { readUsage } from "../process-usage.ts";
import type { RunningProxy } from "../proxies.ts";
import { openWindow, type Rig } from "../window.ts";
import { KIND } from "../wire.ts";
import { GREETING, type Step } from "./step.ts";

const MIB = 1024 ** 2;
/** A process that has just started, or just become quiet, gets this long before it counts as idle. */
const SETTLE_MS = 1_000;
const SESSIONS = 1_000;

/** Bytes that cross, or try to, while one side does not read. */
const STALLED_BYTES = 256 * MIB;
const STALL_MS = 3_000;
const SAMPLE_MS = 50;

/** How long it takes until a connection is accepted. The start itself is measured by whoever starts proxies. */
export const startStep: Step = {
  name: "start",
  run: async ({ startMs }) => [{ name: "start to listening", unit: "ms", value: startMs }],
};

/** What a proxy needs at rest, and for sessions that are quiet. */
export const idleStep: Step = { name: "idle sessions", run: measureIdle };

async function measureIdle(proxy: RunningProxy, rig: Rig): Promise<Figure[]> {
  await Bun.sleep(SETTLE_MS);
  const atRest = readUsage(proxy.pid).rssKib;
  const load = new Load(proxy);
  try {
    await load.open(SESSIONS);
    await load.greet(GREETING);
    await load.wait(Bun.sleep(SETTLE_MS));
    const closeWindow = openWindow(proxy, rig);
    await load.wait(Bun.sleep(SETTLE_MS));
    const { seconds, proxyCpuSeconds } = closeWindow();
    const { rssKib } = readUsage(proxy.pid);
    if (atRest === undefined || rssKib === undefined) return [];
    const cpuMs = proxyCpuSeconds === undefined ? undefined : (proxyCpuSeconds * 1000) / seconds;
    return [
      { name: "at rest", unit: "RSS MiB", value: atRest / 1024 },
      { name: "1,000 idle sessions", unit: "KiB/session", value: (rssKib - atRest) / SESSIONS },
      { name: "1,000 idle sessions", unit: "CPU ms/s", value: cpuMs },
    ];
  } finally {
    load.close();
  }
}

/** The client asks for much, then does not read for a while. */
export const slowClientStep: Step = {
  name: "slow client",
  run: (proxy) => {
    return measureStall("slow client", proxy, (load) => {
      const [connection] = load.connections;
      for (let asked = 0; asked < STALLED_BYTES; asked += MIB) {
        connection?.send({ kind: KIND.fetch, argument: MIB });
      }
      connection?.pause();
      setTimeout(() => connection?.resume(), STALL_MS);
      return STALLED_BYTES / MIB;
    });
  },
};

/** The data centre does not read for a while, and the client goes on sending. */
export const slowDataCentreStep: Step = {
  name: "slow data centre",
  run: (proxy) => {
    return measureStall("slow data centre", proxy, (load) => {
      const [connection] = load.connections;
      connection?.send({ kind: KIND.stall, argument: STALL_MS });
      for (let sent = 0; sent < STALLED_BYTES; sent += MIB) {
        connection?.send({ kind: KIND.store, bodyLength: MIB });
      }
      return STALLED_BYTES / MIB;
    });
  },
};

/** @param stall Starts the stall, and returns how many answers are due after it. */
async function measureStall(
  name: string,
  proxy: RunningProxy,
  stall: (load: Load) => number,
): Promise<Figure[]> {
  const load = new Load(proxy);
  try {
    await load.open(1);
    await load.greet(GREETING);
    await load.wait(Bun.sleep(SETTLE_MS));
    const before = readUsage(proxy.pid).rssKib ?? Number.NaN;
    const done = Promise.withResolvers<void>();
    let answers = 0;
    let due = Number.POSITIVE_INFINITY;
    load.onAnswer = () => {
      answers += 1;
      if (answers === due) done.resolve();
    };
    const startedAt = performance.now();
    due = stall(load);
    let stalledPeak = before;
    while (performance.now() - startedAt < STALL_MS - SAMPLE_MS) {
      await load.wait(Bun.sleep(SAMPLE_MS));
      stalledPeak = Math.max(stalledPeak, readUsage(proxy.pid).rssKib ?? Number.NaN);
    }
    await load.wait(done.promise);
    const peak = readUsage(proxy.pid).peakKib;
    return [
      { name, unit: "growth MiB", value: (stalledPeak - before) / 1024 },
      {
        name,
        unit: "growth until all is there, MiB",
        value: peak === undefined ? undefined : (peak - before) / 1024,
      },
    ];
  } finally {
    load.close();
  }
}
