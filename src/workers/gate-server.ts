import { RefusedError } from "../core/errors.ts";
import type { Gate, Visit } from "../proxy/gate.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/** What a {@link GateServer} hands out: bytes of a user's rate. */
export interface Leases {
  /** Calls `give` with `bytes` of `user`'s rate, or a part of them, once, maybe later. */
  lease(user: string, bytes: number, give: (bytes: number) => void): void;
}

/** The gate that all workers share has synchronous answers. */
export interface LocalGateOfAll extends Gate, Leases {
  arrive(address: string): Visit;
  /** Bytes per second of a user; `undefined`: no limit. */
  rateOf(user: string): number | undefined;
}

/** Answers one worker's questions to the gate, and leaves for its connections when it is gone. */
export class GateServer {
  readonly #gate: LocalGateOfAll;
  readonly #post: (message: ToWorker) => void;
  readonly #visits = new Map<number, Visit>();
  #gone = false;

  constructor(gate: LocalGateOfAll, post: (message: ToWorker) => void) {
    this.#gate = gate;
    this.#post = post;
  }

  arrive({ visit, address }: Extract<FromWorker, { type: "arrive" }>): void {
    const refused = refusalOf(() => this.#visits.set(visit, this.#gate.arrive(address)));
    this.#post({ type: "arrived", visit, ...refused });
  }

  enter({ visit, user }: Extract<FromWorker, { type: "enter" }>): void {
    const refused = refusalOf(() => this.#visits.get(visit)?.enter(user));
    const rate = this.#gate.rateOf(user);
    this.#post({ type: "entered", visit, ...refused, ...(rate === undefined ? {} : { rate }) });
  }

  leave({ visit }: Extract<FromWorker, { type: "leave" }>): void {
    this.#visits.get(visit)?.leave();
    this.#visits.delete(visit);
  }

  lease({ user, bytes }: Extract<FromWorker, { type: "lease" }>): void {
    this.#gate.lease(user, bytes, (given) => {
      if (!this.#gone) this.#post({ type: "leased", user, bytes: given });
    });
  }

  /** The worker is gone, and its connections with it. */
  close(): void {
    this.#gone = true;
    for (const visit of this.#visits.values()) visit.leave();
    this.#visits.clear();
  }
}

function refusalOf(attempt: () => unknown): { readonly refused?: RefusedError["code"] } {
  try {
    attempt();
    return {};
  } catch (error) {
    if (error instanceof RefusedError) return { refused: error.code };
    throw error;
  }
}
