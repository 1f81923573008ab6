import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { type Failure, ROUTES, type RouteName } from "../../../test/support/route-failures.ts";
import { World } from "../../../test/support/world.ts";
import { FIRST_MS, type Figure, NEXT_MS } from "../figures.ts";
import { type StartOptions, startProxy } from "../proxies.ts";
import { CALM_GAP_MS, setUpOnce } from "./set-up.ts";
import type { SoloStep } from "./step.ts";

/** A proxy that has just begun to listen is not done with starting, in milliseconds. */
const SETTLE_MS = 100;

/** How routes are dead: refused at once, never open, or open and then without a word. */
const DEATHS = {
  refused: "403",
  hanging: "accept-and-hang",
  silent: "101-then-silence",
} as const satisfies Record<string, Failure>;

/** Breaks the first routes, none to all but the last, in every way: how long a client waits for its answer. */
export function deadRoutesSteps(): SoloStep[] {
  const rehearsed = new Set<RouteName>();
  return Object.entries(DEATHS).flatMap(([death, failure]) => {
    return ROUTES.map((serving, dead): SoloStep => {
      const name = `first byte, ${dead} of ${ROUTES.length} routes ${death}`;
      const runSolo = async (options: StartOptions): Promise<Figure[]> => {
        // Load client and stubs are this process, where everything is slow the first time; proxies are fresh anyway.
        if (!rehearsed.has(serving)) await measure(name, DEATHS.refused, serving, options);
        rehearsed.add(serving);
        return measure(name, failure, serving, options);
      };
      return { name, runSolo };
    });
  });
}

/** @param serving The first route that works: those before it have the failure. */
async function measure(
  name: string,
  failure: Failure,
  serving: RouteName,
  options: StartOptions,
): Promise<Figure[]> {
  await using world = await World.start();
  for (const route of ROUTES.slice(0, ROUTES.indexOf(serving))) world.break(route, failure);
  // A folder of its own: what is learned about routes is kept there.
  const home = mkdtempSync(join(options.folder, "home-"));
  const proxy = await startProxy("tgws", { ...options, home, upstreams: world.flags(ROUTES) });
  try {
    await Bun.sleep(SETTLE_MS);
    const firstMs = await setUpOnce(proxy);
    if (world.peers(serving).length === 0) throw new Error(`another route than ${serving} has answered`);
    await Bun.sleep(CALM_GAP_MS);
    const nextMs = await setUpOnce(proxy);
    return [
      { name, unit: FIRST_MS, value: firstMs },
      { name, unit: NEXT_MS, value: nextMs },
    ];
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${message}\n${proxy.lastWords()}`, { cause });
  } finally {
    await proxy.stop();
  }
}
