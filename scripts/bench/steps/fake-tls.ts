import type { HelloShape } from "../client-hello.ts";
import { FAKE_TLS_PAIR, signerOf } from "../proxies.ts";
import { roundTripStep } from "./round-trip.ts";
import { setUpRateStep } from "./set-up.ts";
import type { Step } from "./step.ts";
import { throughputStep } from "./throughput.ts";

/** What fake TLS adds: steps that compare tgws with it and without. */
export function fakeTlsSteps(poolSize: number): Step[] {
  const steps = [
    ...[1, 8].map((connections) => throughputStep("down", connections)),
    ...[1, 8].map((connections) => throughputStep("up", connections)),
    ...[1, 50].map(roundTripStep),
    setUpRateStep(poolSize),
  ];
  return [
    ...steps.map((step) => throughFakeTls(step, "hybrid", step.name)),
    throughFakeTls(setUpRateStep(poolSize), "short", "set-up, hello of 517 bytes"),
  ];
}

function throughFakeTls(step: Step, shape: HelloShape, what: string): Step {
  const name = `fake TLS, ${what}`;
  return {
    ...step,
    name,
    pair: FAKE_TLS_PAIR,
    run: async (proxy, rig) => {
      const figures = await step.run({ ...proxy, signer: proxy.signer && signerOf(shape) }, rig);
      return figures.map((figure) => ({ ...figure, name }));
    },
  };
}
