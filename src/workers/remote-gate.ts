import { RefusedError } from "../core/errors.ts";
import type { RefusalReason } from "../core/events.ts";
import type { Gate, Grant, Visit } from "../proxy/gate.ts";
import { LeasedBucket } from "./leased-bucket.ts";
import type { FromWorker } from "./messages.ts";

/** Who waits for an answer. */
interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

interface Answer {
  readonly refused?: RefusalReason | undefined;
  readonly rate?: number | undefined;
}

/**
 * The gate of a worker: it asks the supervisor, which knows the connections of all workers.
 *
 * At most two questions per connection wait at a time. Without a supervisor nobody comes in any more.
 */
export class RemoteGate implements Gate {
  readonly #post: (message: FromWorker) => void;
  readonly #arriving = new Map<number, Waiting>();
  readonly #entering = new Map<number, Waiting>();
  /** By user: those that have a rate, and a connection here now or before. */
  readonly #buckets = new Map<string, LeasedBucket>();
  #lastVisit = 0;
  #closed = false;

  constructor(post: (message: FromWorker) => void) {
    this.#post = post;
  }

  async arrive(address: string): Promise<Visit> {
    const visit = ++this.#lastVisit;
    await this.#ask(this.#arriving, visit, { type: "arrive", visit, address });
    return {
      enter: (user) => this.#enter(visit, user),
      leave: () => this.#post({ type: "leave", visit }),
    };
  }

  /** The supervisor's answer to `arrive`. */
  onArrived(visit: number, refused: RefusalReason | undefined): void {
    answer(this.#arriving, visit, { refused });
  }

  /** The supervisor's answer to `enter`. */
  onEntered(visit: number, given: Answer): void {
    answer(this.#entering, visit, given);
  }

  onLeased(user: string, bytes: number): void {
    this.#buckets.get(user)?.grant(bytes);
  }

  /** There is no supervisor any more. */
  close(): void {
    this.#closed = true;
    for (const waiting of [this.#arriving, this.#entering]) {
      for (const { reject } of waiting.values()) reject(new RefusedError("connections"));
      waiting.clear();
    }
  }

  async #enter(visit: number, user: string): Promise<Grant> {
    const { rate } = await this.#ask(this.#entering, visit, { type: "enter", visit, user });
    if (rate === undefined) {
      this.#buckets.delete(user); // the limit was lifted; sessions that have the old bucket keep it
      return { rate: undefined };
    }
    let bucket = this.#buckets.get(user);
    if (bucket === undefined) {
      bucket = new LeasedBucket(rate, (bytes) => this.#post({ type: "lease", user, bytes }));
      this.#buckets.set(user, bucket);
    }
    bucket.rate = rate;
    return { rate: bucket };
  }

  async #ask(waiting: Map<number, Waiting>, visit: number, question: FromWorker): Promise<Answer> {
    if (this.#closed) throw new RefusedError("connections");
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    waiting.set(visit, { resolve, reject });
    this.#post(question);
    const given = await promise;
    if (given.refused !== undefined) throw new RefusedError(given.refused);
    return given;
  }
}

function answer(waiting: Map<number, Waiting>, visit: number, given: Answer): void {
  waiting.get(visit)?.resolve(given);
  waiting.delete(visit);
}
