/** Measures tgws against a relay that only carries bytes, and prints a table. See docs/BENCHMARKS.md. */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { testCertificates } from "../../test/support/certificates.ts";
import { killChildrenAtExit, lastWords, stopChild } from "./children.ts";
import { findSitePrograms, startSite } from "./cover-site.ts";
import { Figures } from "./figures.ts";
import { type Options, parseOptions, USAGE } from "./options.ts";
import {
  FAKE_TLS_PAIR,
  PLAIN_PAIR,
  type ProxyName,
  type StartOptions,
  signerOf,
  startDataCentre,
  startProxy,
} from "./proxies.ts";
import { deadRoutesSteps } from "./steps/dead-routes.ts";
import { fakeTlsSteps } from "./steps/fake-tls.ts";
import { maskingStep } from "./steps/masking.ts";
import { idleStep, slowClientStep, slowDataCentreStep, startStep } from "./steps/memory.ts";
import { roundTripStep } from "./steps/round-trip.ts";
import { calmSetUpStep, setUpRateStep } from "./steps/set-up.ts";
import type { SoloStep, Step } from "./steps/step.ts";
import { throughputStep } from "./steps/throughput.ts";
import { formatCaveats, formatSoloTable, formatStrangerTable, formatTable } from "./table.ts";
import type { Rig } from "./window.ts";

const DEFAULT_POOL_SIZE = 4;

const STEPS: readonly (Step | SoloStep)[] = [
  // Quick, and the noisiest of all: three times a round.
  ...[startStep, startStep, startStep],
  ...[1, 8, 64].map((connections) => throughputStep("down", connections)),
  ...[1, 8, 64].map((connections) => throughputStep("up", connections)),
  ...[1, 50].map(roundTripStep),
  ...[DEFAULT_POOL_SIZE, 0].map(setUpRateStep),
  ...[DEFAULT_POOL_SIZE, 0].map(calmSetUpStep),
  ...[idleStep, slowClientStep, slowDataCentreStep],
  ...deadRoutesSteps(),
  ...fakeTlsSteps(DEFAULT_POOL_SIZE),
  ...findSitePrograms().map(maskingStep),
];

/** Runs every chosen step in every round. @returns How many failed. */
async function runRounds(options: Options, steps: typeof STEPS, figures: Figures): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), "tgws-bench-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const dataCentre = await startDataCentre(folder, await testCertificates());
  const wantsCover = steps.some((step) => "pair" in step && step.pair === FAKE_TLS_PAIR);
  const cover = wantsCover ? await startSite("Bun", folder, signerOf("hybrid")) : undefined;
  const start = { dataCentre, binary: options.binary, folder, ...(cover && { cover }) };
  const strangers = Math.ceil(options.strangers / options.rounds);
  const rig: Rig = { dataCentre, windowMs: options.windowMs, strangers };
  let failures = 0;
  for (let round = 1; round <= options.rounds; round += 1) {
    for (const step of steps) {
      console.error(`round ${round} of ${options.rounds}: ${step.name}`);
      if ("runSolo" in step) {
        if (!(await runSolo(step, { ...start, poolSize: DEFAULT_POOL_SIZE }, rig, figures))) failures += 1;
        continue;
      }
      // Whoever goes first meets another machine than whoever goes second: take turns.
      const pair = step.pair ?? PLAIN_PAIR;
      for (const name of round % 2 === 1 ? pair : pair.toReversed()) {
        const poolSize = step.poolSize ?? DEFAULT_POOL_SIZE;
        if (!(await runStep(step, name, { ...start, poolSize }, rig, figures))) failures += 1;
      }
    }
  }
  await stopChild(dataCentre.child);
  return failures;
}

/** @returns Whether it worked: what did not is reported and has no figures. */
async function runStep(
  step: Step,
  name: ProxyName,
  options: StartOptions,
  rig: Rig,
  figures: Figures,
): Promise<boolean> {
  const proxy = await startProxy(name, options);
  try {
    figures.add(step.pair ?? PLAIN_PAIR, name, await step.run(proxy, rig));
    return true;
  } catch (error) {
    console.error(`FAILED: ${name}, ${step.name}: ${error instanceof Error ? error.message : error}`);
    console.error(`${proxy.lastWords()}\n${lastWords(rig.dataCentre.child)}`.trim());
    return false;
  } finally {
    await proxy.stop();
  }
}

/** @returns As {@link runStep}. */
async function runSolo(step: SoloStep, options: StartOptions, rig: Rig, figures: Figures): Promise<boolean> {
  try {
    figures.add(PLAIN_PAIR, "tgws", await step.runSolo(options, rig));
    return true;
  } catch (error) {
    console.error(`FAILED: ${step.name}: ${error instanceof Error ? error.message : error}`);
    return false;
  }
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  if (options === undefined) {
    const names = new Set(STEPS.map(({ name }) => name));
    console.log(`${USAGE}\n\nSteps: ${[...names].join("; ")}`);
    return 0;
  }
  const steps = STEPS.filter(({ name }) => options.only.test(name));
  if (steps.length === 0) throw new Error(`Cannot find a step that matches ${options.only}`);
  killChildrenAtExit();
  const figures = new Figures();
  const failures = await runRounds(options, steps, figures);
  const machine = `${process.platform} ${process.arch}, ${availableParallelism()} cores of ${cpus()[0]?.model}`;
  console.log(`\nBun ${Bun.version} on ${machine}`);
  console.log(`medians of ${options.rounds} rounds; ratio: the first to the second`);
  const tables = [
    formatTable(figures.rows, PLAIN_PAIR),
    formatSoloTable(figures.rows),
    formatTable(figures.rows, FAKE_TLS_PAIR),
    formatStrangerTable(figures.rows),
  ].filter((table) => table !== "");
  console.log(["", ...tables.flatMap((table) => [table, ""]), ...formatCaveats(figures.rows)].join("\n"));
  if (options.json !== undefined) {
    await Bun.write(options.json, JSON.stringify({ machine, rows: figures.rows }, null, 2));
  }
  return failures === 0 ? 0 : 1;
}

try {
  process.exit(await main());
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
