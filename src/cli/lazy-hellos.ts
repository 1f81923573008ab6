import type { HelloClaims } from "../proxy/fake-tls.ts";
import type { SeenHellos } from "../proxy/seen-hellos.ts";
import type { State } from "./state.ts";

/** The hellos that were answered. They are read when the first one comes: without fake TLS that is never. */
export class LazyHellos implements HelloClaims {
  readonly #state: State;
  #seen: SeenHellos | Promise<SeenHellos> | undefined;

  constructor(state: State) {
    this.#state = state;
  }

  claim(random: Uint8Array, now: number): boolean | Promise<boolean> {
    this.#seen ??= this.#load().catch((error: unknown) => {
      this.#seen = undefined; // descriptors or memory were short: the next one tries again
      throw error;
    });
    if (this.#seen instanceof Promise) return this.#seen.then((seen) => seen.claim(random, now));
    return this.#seen.claim(random, now);
  }

  async #load(): Promise<SeenHellos> {
    const { SeenHellos } = await import("../proxy/seen-hellos.ts");
    this.#seen = new SeenHellos({ store: this.#state.hellos });
    return this.#seen;
  }
}
