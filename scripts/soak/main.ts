/** Runs the proxy for a while under everything that it can meet, and looks at what is left. See docs/SOAK.md. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killChildren } from "../bench/children.ts";
import { parseOptions, USAGE } from "./options.ts";
import { formatReport } from "./report.ts";
import { Soak } from "./soak.ts";
import { killTalkers } from "./talker.ts";

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  if (process.platform !== "linux") throw new Error("Cannot soak here: descriptors are counted in /proc");
  const folder = mkdtempSync(join(tmpdir(), "tgws-soak-"));
  process.on("exit", () => {
    killChildren();
    killTalkers();
  });
  const soak = new Soak(options, folder);
  process.once("SIGINT", () => {
    soak.stop();
    process.once("SIGINT", () => process.exit(130));
  });
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
  const result = await soak.run();
  console.log(formatReport(result));
  if (options.json !== undefined) await Bun.write(options.json, JSON.stringify(result, null, 2));
  const passed = result.criteria.every(({ holds }) => holds);
  if (passed) rmSync(folder, { recursive: true, force: true });
  else console.log(`\nwhat the processes have printed is in ${folder}`);
  return passed ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
