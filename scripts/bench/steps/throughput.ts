import { type Figure, OTHER_CORES, RIG_COST } from "../figures.ts";
import { Load } from "../load.ts";
import type { Request } from "../load-connection.ts";
import { readUsage } from "../process-usage.ts";
import type { RunningProxy } from "../proxies.ts";
import { openWindow, type Rig } from "../window.ts";
import { KIND } from "../wire.ts";
import { GREETING, type Step, WARM_UP_MS } from "./step.ts";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** A part of a file, as Telegram's clients send it. */
const UPLOAD_PART = 512 * 1024;

const DIRECTIONS = {
  down: { request: { kind: KIND.fetch, argument: MIB }, bytes: MIB },
  up: { request: { kind: KIND.store, bodyLength: UPLOAD_PART }, bytes: UPLOAD_PART },
} satisfies Record<string, { request: Request; bytes: number }>;

/** Downloads or uploads as fast as it goes, a few requests under way on every connection. */
export function throughputStep(direction: keyof typeof DIRECTIONS, connections: number): Step {
  const name = `${direction}, ${connections} connection${connections === 1 ? "" : "s"}`;
  return { name, run: (proxy, rig) => measure(name, direction, connections, proxy, rig) };
}

async function measure(
  name: string,
  direction: keyof typeof DIRECTIONS,
  connections: number,
  proxy: RunningProxy,
  rig: Rig,
): Promise<Figure[]> {
  const { request, bytes } = DIRECTIONS[direction];
  const load = new Load(proxy);
  try {
    await load.open(connections);
    await load.greet(GREETING);
    let answers = 0;
    load.onAnswer = (connection, answer) => {
      if (direction === "down" && answer.bodyLength !== bytes) throw new Error("an answer is too short");
      answers += 1;
      connection.send(request);
    };
    const underWay = connections === 1 ? 4 : 2;
    for (const connection of load.connections) {
      for (let sent = 0; sent < underWay; sent += 1) connection.send(request);
    }
    await load.wait(Bun.sleep(WARM_UP_MS));
    const before = answers;
    const closeWindow = openWindow(proxy, rig);
    await load.wait(Bun.sleep(rig.windowMs));
    const { seconds, proxyCpuSeconds, rigCpuSeconds, otherCores } = closeWindow();
    if (answers === before) throw new Error("nothing arrived during the window");
    const gib = ((answers - before) * bytes) / GIB;
    const { peakKib } = readUsage(proxy.pid);
    return [
      { name, unit: "GiB/s", value: gib / seconds },
      { name, unit: "CPU s/GiB", value: proxyCpuSeconds === undefined ? undefined : proxyCpuSeconds / gib },
      { name, unit: RIG_COST, value: rigCpuSeconds === undefined ? undefined : rigCpuSeconds / gib },
      { name, unit: OTHER_CORES, value: otherCores },
      { name, unit: "peak MiB", value: peakKib === undefined ? undefined : peakKib / 1024 },
    ];
  } finally {
    load.close();
  }
}
