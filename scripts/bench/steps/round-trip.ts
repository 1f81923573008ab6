import { type Figure, quantile } from "../figures.ts";
import { Load } from "../load.ts";
import type { LoadConnection } from "../load-connection.ts";
import type { RunningProxy } from "../proxies.ts";
import { openWindow, type Rig } from "../window.ts";
import { GREETING, type Step, WARM_UP_MS } from "./step.ts";

/** Sends a small packet on every connection as soon as the one before has come back. */
export function roundTripStep(connections: number): Step {
  const name = `round trip, ${connections} connection${connections === 1 ? "" : "s"}`;
  return { name, run: (proxy, rig) => measure(name, connections, proxy, rig) };
}

async function measure(name: string, connections: number, proxy: RunningProxy, rig: Rig): Promise<Figure[]> {
  const load = new Load(proxy);
  try {
    await load.open(connections);
    const sentAt = new Map<LoadConnection, number>();
    let tripsUs: number[] = [];
    const send = (connection: LoadConnection): void => {
      sentAt.set(connection, performance.now());
      connection.send(GREETING);
    };
    load.onAnswer = (connection) => {
      tripsUs.push((performance.now() - (sentAt.get(connection) ?? 0)) * 1000);
      send(connection);
    };
    for (const connection of load.connections) send(connection);
    await load.wait(Bun.sleep(WARM_UP_MS));
    tripsUs = [];
    const closeWindow = openWindow(proxy, rig);
    await load.wait(Bun.sleep(rig.windowMs));
    const { proxyCpuSeconds } = closeWindow();
    const cpuUs = proxyCpuSeconds === undefined ? undefined : (proxyCpuSeconds * 1e6) / tripsUs.length;
    return [
      { name, unit: "p50 µs", value: quantile(tripsUs, 0.5) },
      { name, unit: "p99 µs", value: quantile(tripsUs, 0.99) },
      { name, unit: "CPU µs", value: cpuUs },
    ];
  } finally {
    load.close();
  }
}
