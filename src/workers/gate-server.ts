import { RefusedError } from "../core/errors.ts";
import type { RefusalReason } from "../core/events.ts";
import type { LocalGate } from "../proxy/local-gate.ts";
import { TokenBucket } from "../proxy/token-bucket.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/** Why a user may not be connected at all, now that it is. */
const BARRED: ReadonlySet<RefusalReason> = new Set(["user-disabled", "user-expired", "user-quota"]);

type Question<Type extends FromWorker["type"]> = Extract<FromWorker, { type: Type }>;

/** Answers one worker's questions to the gate, and leaves for its connections when it is gone. */
export class GateServer {
  readonly #gate: LocalGate;
  readonly #post: (message: ToWorker) => void;
  readonly #visits = new Map<number, ReturnType<LocalGate["arrive"]>>();
  /** By user: takes back that it waits for its rate. */
  readonly #leases = new Map<string, () => void>();

  constructor(gate: LocalGate, post: (message: ToWorker) => void) {
    this.#gate = gate;
    this.#post = post;
  }

  arrive({ visit, address }: Question<"arrive">): void {
    try {
      this.#visits.set(visit, this.#gate.arrive(address));
      this.#post({ type: "arrived", visit });
    } catch (error) {
      this.#post({ type: "arrived", visit, refused: refusalOf(error) });
    }
  }

  enter({ visit, user, address }: Question<"enter">): void {
    try {
      if (address !== undefined) this.#visits.set(visit, this.#gate.arrive(address));
      const bucket = this.#visits.get(visit)?.enter(user).rate;
      const rate = bucket instanceof TokenBucket ? { rate: bucket.rate } : {};
      this.#post({ type: "entered", visit, ...rate });
    } catch (error) {
      this.#post({ type: "entered", visit, refused: refusalOf(error) });
    }
  }

  came({ visit, user, address }: Question<"came">): void {
    try {
      const arrived = this.#gate.arrive(address);
      this.#visits.set(visit, arrived);
      const bucket = arrived.enter(user).rate;
      // The worker does not know of it yet; it was told when this user was not there.
      if (bucket instanceof TokenBucket) this.#post({ type: "rate", user, rate: bucket.rate });
    } catch (error) {
      // Another limit is as new as that: it holds for those who come next. Who may not be here at all has to go.
      if (BARRED.has(refusalOf(error))) this.#post({ type: "revoke", users: [user] });
    }
  }

  leave({ visit }: Question<"leave">): void {
    this.#visits.get(visit)?.leave();
    this.#visits.delete(visit);
  }

  lease({ user, bytes }: Question<"lease">): void {
    const given = this.#gate.lease(user, bytes);
    if (given > 0) this.#post({ type: "leased", user, bytes: given });
    else if (!this.#leases.has(user)) {
      const cancel = this.#gate.whenLendable(user, () => {
        this.#leases.delete(user);
        this.lease({ type: "lease", user, bytes });
      });
      this.#leases.set(user, cancel);
    }
  }

  /** The worker is gone, and its connections with it. */
  close(): void {
    for (const cancel of this.#leases.values()) cancel();
    for (const visit of this.#visits.values()) visit.leave();
    this.#leases.clear();
    this.#visits.clear();
  }
}

function refusalOf(error: unknown): RefusedError["code"] {
  if (error instanceof RefusedError) return error.code;
  throw error;
}
