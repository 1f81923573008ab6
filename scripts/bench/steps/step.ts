import type { Figure } from "../figures.ts";
import type { Pair, RunningProxy, StartOptions } from "../proxies.ts";
import type { Rig } from "../window.ts";
import { HEADER_LENGTH, KIND } from "../wire.ts";

/** One thing that is measured, with a proxy that was started for it alone. */
export interface Step {
  /** What `--only` is compared with. */
  readonly name: string;
  /** How `--pool-size` differs from the default, where it does. */
  readonly poolSize?: number;
  /** What is compared, where it is not tgws with the bare relay. */
  readonly pair?: Pair;
  run(proxy: RunningProxy, rig: Rig): Promise<Figure[]>;
}

/** One thing that the bare relay has no counterpart for. Starts the proxies that it needs. */
export interface SoloStep {
  /** What `--only` is compared with. */
  readonly name: string;
  runSolo(options: StartOptions, rig: Rig): Promise<Figure[]>;
}

/** Before the clock starts: the just-in-time compiler and the congestion windows need a moment. */
export const WARM_UP_MS = 400;

/** Asks for itself back. 200 bytes with its header: a short message, or an acknowledgement. */
export const GREETING = { kind: KIND.echo, bodyLength: 200 - HEADER_LENGTH };
