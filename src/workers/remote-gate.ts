import { RefusedError } from "../core/errors.ts";
import type { RefusalReason } from "../core/events.ts";
import type { Gate, Grant, Visit } from "../proxy/gate.ts";
import { LeasedBucket } from "./leased-bucket.ts";
import type { FromWorker } from "./messages.ts";

/** A supervisor that does not answer for so long does not answer at all, in milliseconds. */
const ANSWER_MS = 10_000;

/** Who waits for an answer. */
interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
  /** Who wants to enter. */
  readonly user?: RemoteUser | undefined;
}

interface Answer {
  readonly refused?: RefusalReason | undefined;
  readonly rate?: number | undefined;
}

/** What the supervisor has to be asked about. */
export interface RemoteRules {
  /** Whether addresses, or connections as such, have a limit. */
  readonly limitsAddresses: boolean;
  /** Users who have a limit of any kind, or may not come at all. */
  readonly limitedUsers: ReadonlySet<string>;
}

/** Sends messages to the supervisor. */
export interface Sender {
  post(message: FromWorker): void;
  /** It may wait for another one. */
  postLater(message: FromWorker): void;
}

/**
 * The gate of a worker: it asks the supervisor, which knows the connections of all workers. Where there is nothing to
 * limit it only tells, now and then.
 *
 * At most two questions per connection wait at a time. Without a supervisor nobody comes in any more.
 */
export class RemoteGate implements Gate {
  readonly #sender: Sender;
  readonly #arriving = new Map<number, Waiting>();
  readonly #entering = new Map<number, Waiting>();
  /** Those that have a connection here, or had one. */
  readonly #users = new Map<string, RemoteUser>();
  #rules: RemoteRules | undefined;
  #lastVisit = 0;
  #closed = false;

  constructor(sender: Sender) {
    this.#sender = sender;
  }

  /** For those who come from now on. Without any rules, all of them are asked for. */
  configure(rules: RemoteRules): void {
    this.#rules = rules;
  }

  arrive(address: string): Visit | Promise<Visit> {
    if (this.#closed) throw new RefusedError("connections");
    const visit = ++this.#lastVisit;
    if (this.#rules?.limitsAddresses === false) return new RemoteVisit(this, visit, address);
    return this.#ask(this.#arriving, visit, { type: "arrive", visit, address }).then(
      () => new RemoteVisit(this, visit, undefined),
    );
  }

  /** Called by a visit. @param address When it has not arrived by a message. */
  enter(visit: number, user: string, address: string | undefined): Grant | Promise<Grant> {
    if (address !== undefined && this.#rules?.limitedUsers.has(user) === false) {
      this.#sender.postLater({ type: "came", visit, user, address });
      return this.#userOf(user);
    }
    const question = { type: "enter", visit, user, ...(address === undefined ? {} : { address }) } as const;
    const remote = this.#userOf(user);
    return this.#ask(this.#entering, visit, question, remote).then(() => remote);
  }

  /** Called by a visit. */
  leave(visit: number): void {
    this.#sender.postLater({ type: "leave", visit });
  }

  /** The supervisor's answer to `arrive`. */
  onArrived(visit: number, refused: RefusalReason | undefined): void {
    answer(this.#arriving, visit, { refused });
  }

  /** The supervisor's answer to `enter`. */
  onEntered(visit: number, given: Answer): void {
    // At once: by the time that the visit hears of it, another rate may have come.
    if (given.refused === undefined) this.#entering.get(visit)?.user?.setRate(given.rate);
    answer(this.#entering, visit, given);
  }

  onLeased(user: string, bytes: number): void {
    this.#users.get(user)?.onLeased(bytes);
  }

  /** The supervisor says that a user's rate has changed. */
  onRate(user: string, rate: number | undefined): void {
    this.#users.get(user)?.setRate(rate);
  }

  /** There is no supervisor any more. */
  close(): void {
    this.#closed = true;
    for (const waiting of [this.#arriving, this.#entering]) {
      for (const { reject } of waiting.values()) reject(new RefusedError("connections"));
      waiting.clear();
    }
  }

  #userOf(name: string): RemoteUser {
    let user = this.#users.get(name);
    if (user === undefined) {
      user = new RemoteUser((bytes) => this.#sender.post({ type: "lease", user: name, bytes }));
      this.#users.set(name, user);
    }
    return user;
  }

  async #ask(
    waiting: Map<number, Waiting>,
    visit: number,
    question: FromWorker,
    user?: RemoteUser,
  ): Promise<Answer> {
    if (this.#closed) throw new RefusedError("connections");
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    waiting.set(visit, { resolve, reject, user });
    this.#sender.post(question);
    const timer = setTimeout(() => {
      waiting.delete(visit);
      if (question.type === "arrive") this.leave(visit); // the answer may be on its way
      reject(new RefusedError("connections"));
    }, ANSWER_MS);
    const given = await promise.finally(() => clearTimeout(timer));
    if (given.refused !== undefined) throw new RefusedError(given.refused);
    return given;
  }
}

/** What a user's connections here share. */
class RemoteUser implements Grant {
  readonly #ask: (bytes: number) => void;
  #bucket: LeasedBucket | undefined;
  #limited = false;

  /** @param ask Asks for so many bytes of its rate. */
  constructor(ask: (bytes: number) => void) {
    this.#ask = ask;
  }

  get rate(): LeasedBucket | undefined {
    return this.#limited ? this.#bucket : undefined;
  }

  /** When it was lifted, sessions that have the bucket keep it, and go on getting leases by it. */
  setRate(rate: number | undefined): void {
    this.#limited = rate !== undefined;
    if (rate === undefined) return;
    this.#bucket ??= new LeasedBucket(rate, this.#ask);
    this.#bucket.rate = rate;
  }

  onLeased(bytes: number): void {
    this.#bucket?.grant(bytes);
  }
}

class RemoteVisit implements Visit {
  readonly #gate: RemoteGate;
  readonly #visit: number;
  readonly #address: string | undefined;
  /** The supervisor knows of it. */
  #known: boolean;

  /** @param address When it has not arrived by a message. */
  constructor(gate: RemoteGate, visit: number, address: string | undefined) {
    this.#gate = gate;
    this.#visit = visit;
    this.#address = address;
    this.#known = address === undefined;
  }

  enter(user: string): Grant | Promise<Grant> {
    this.#known = true;
    return this.#gate.enter(this.#visit, user, this.#address);
  }

  leave(): void {
    if (this.#known) this.#gate.leave(this.#visit);
  }
}

function answer(waiting: Map<number, Waiting>, visit: number, given: Answer): void {
  waiting.get(visit)?.resolve(given);
  waiting.delete(visit);
}
