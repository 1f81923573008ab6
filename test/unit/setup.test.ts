import { expect, test } from "bun:test";
import { makeSetup, type Setup } from "../../src/cli/setup.ts";
import { openState } from "../../src/cli/state.ts";
import { loadConfig } from "../../src/config/load-config.ts";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { ReplayBudget } from "../../src/proxy/replay.ts";
import { probeWay } from "../../src/upstream/probe.ts";
import { Restorer } from "../../src/upstream/restorer.ts";

const SILENT = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const SECRET = "00112233445566778899aabbccddeeff";
const DISGUISED = `ee${SECRET}${Buffer.from("www.example.com").toString("hex")}`;

/** Makes a setup of each of these command lines, each after the one before. @returns How many are held still. */
async function heldAfter(lines: readonly (readonly string[])[]): Promise<number> {
  const state = openState(() => {});
  const parts = {
    log: SILENT,
    gate: OPEN_GATE,
    hellos: { claim: () => true },
    state,
    replays: new ReplayBudget(),
    restorer: new Restorer(state.standings, probeWay, () => {}),
    counts: { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } },
    observe: () => {},
    port: () => 0,
  };
  const made: WeakRef<Setup>[] = [];
  let last: Setup | undefined;
  for (const line of lines) {
    const loaded = loadConfig(["--no-cfproxy", ...line], { environment: {}, platform: process.platform });
    last = await makeSetup({ ...loaded, secrets: loaded.config.secrets }, parts, last);
    made.push(new WeakRef(last));
  }
  await Bun.sleep(0); // what a weak reference was made of lives on until the end of a turn
  Bun.gc(true);
  const held = made.filter((setup) => setup.deref() !== undefined).length;
  expect(last?.deps.gate).toBe(OPEN_GATE);
  return held;
}

test.each([
  ["the same routes", ["--secret", SECRET]],
  ["fake TLS", ["--secret", DISGUISED]],
])("makeSetup() holds none that was before, with %s", async (_, line) => {
  const others = [[...line, "--handshake-seconds", "5"], [...line, "--buf-kb", "300"], line];
  const held = await heldAfter(Array.from({ length: 8 }, () => others).flat());
  expect(held).toBeLessThan(8); // of 24: what the stack has on it by chance is not collected
});
