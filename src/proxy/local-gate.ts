import { RefusedError } from "../core/errors.ts";
import type { UserFigures, UserPolicy } from "../core/users.ts";
import { type AddressLimits, AddressTable, type CountedAddress } from "./address-table.ts";
import type { Gate, Grant, Visit } from "./gate.ts";
import { GateUser, type Usage } from "./gate-user.ts";
import { type Clock, SYSTEM_CLOCK } from "./token-bucket.ts";

/** Limits of everybody together, and of each address; what is `undefined` has no limit. */
export interface GateLimits extends AddressLimits {
  /** Connections at a time, over all processes. */
  readonly maxConnections: number | undefined;
}

/** Without any. */
export const NO_LIMITS: GateLimits = {
  maxConnections: undefined,
  maxPerAddress: undefined,
  addressRate: undefined,
};

/** Who may come, and how many. */
export interface GateRules {
  readonly users: readonly UserPolicy[];
  readonly limits: GateLimits;
}

/** What a {@link LocalGate} is made with. */
export interface GateOptions {
  /** These users may not be connected any more, but are, or may be; maybe more than once until they are gone. */
  readonly onRevoked: (users: readonly string[]) => void;
  /** A user's rate has changed, in bytes per second: it holds for those who are connected, too. */
  readonly onRate?: (user: string, rate: number | undefined) => void;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  readonly clock?: Clock;
}

/** How often addresses that have left are looked for, in milliseconds. */
const SWEEP_MS = 60_000;

/** The gate of the process that counts: its answers are there at once. */
export class LocalGate implements Gate {
  readonly #options: GateOptions;
  readonly #clock: Clock;
  readonly #now: () => number;
  readonly #users = new Map<string, GateUser>();
  readonly #addresses = new AddressTable();
  #maxConnections = Number.POSITIVE_INFINITY;
  #connections = 0;
  #sweptAt = 0;

  constructor(options: GateOptions) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#now = options.now ?? Date.now;
  }

  /** Connections right now, of everybody. */
  get connections(): number {
    return this.#connections;
  }

  /**
   * Takes other rules; who is connected goes on counting.
   *
   * A user who is not there any more, or is under another key, is revoked: the old one may be in wrong hands.
   */
  configure({ users, limits }: GateRules): void {
    this.#maxConnections = limits.maxConnections ?? Number.POSITIVE_INFINITY;
    this.#addresses.limits = limits;
    const revoked: string[] = [];
    const rated: UserPolicy[] = [];
    const names = new Set<string>();
    for (const policy of users) {
      names.add(policy.name);
      const user = this.#users.get(policy.name);
      if (user === undefined) {
        this.#users.set(policy.name, new GateUser(policy, this.#clock));
        continue;
      }
      if (user.policy.rateBytes !== policy.rateBytes) rated.push(policy);
      const sameKey = Buffer.compare(user.policy.key, policy.key) === 0;
      user.follow(policy);
      if (!sameKey) revoked.push(policy.name);
    }
    for (const name of [...this.#users.keys()]) {
      if (names.has(name)) continue;
      this.#users.delete(name);
      revoked.push(name); // also without connections: some may be about to show its secret
    }
    this.#revoke([...revoked, ...this.#barred()]);
    for (const { name, rateBytes } of rated) this.#options.onRate?.(name, rateBytes);
  }

  /** Sets what users have used before; of those that are configured. */
  load(totals: ReadonlyMap<string, Usage>): void {
    for (const [name, { up, down }] of totals) {
      const user = this.#users.get(name);
      if (user !== undefined) user.usage = { up, down };
    }
    this.#revoke(this.#barred());
  }

  /** Adds what users have used since it was told last. */
  used(deltas: ReadonlyMap<string, Usage>): void {
    for (const [name, { up, down }] of deltas) {
      const user = this.#users.get(name);
      if (user !== undefined) user.usage = { up: user.usage.up + up, down: user.usage.down + down };
    }
    this.#revoke(this.#barred());
  }

  /** Notices whose time is over. Called about every second. */
  look(): void {
    this.#revoke(this.#barred());
    const now = this.#clock.now();
    if (now - this.#sweptAt < SWEEP_MS) return;
    this.#sweptAt = now;
    this.#addresses.sweep(now);
  }

  /** How all users stand, in the order in which they were configured first. */
  users(): UserFigures[] {
    return Array.from(this.#users.values(), ({ figures }) => figures);
  }

  /** @throws {RefusedError} */
  arrive(address: string): LocalVisit {
    if (this.#connections >= this.#maxConnections) throw new RefusedError("connections");
    const counted = this.#addresses.arrive(address, this.#clock.now());
    this.#connections += 1;
    return new LocalVisit(this, address, counted);
  }

  /** Called by a visit. @throws {RefusedError} */
  enter(name: string, address: string): GateUser {
    const user = this.#users.get(name);
    if (user === undefined) throw new RefusedError("user-disabled"); // removed a moment ago
    user.enter(address, this.#now());
    return user;
  }

  /** Called by a visit. */
  leave(counted: CountedAddress): void {
    this.#connections -= 1;
    this.#addresses.leave(counted, this.#clock.now());
  }

  /**
   * Lends up to `most` of the bytes that a user may move now to a process that moves them; returns how many.
   *
   * `most` itself for a user without a rate; 0 means: wait for {@link LocalGate.whenLendable}.
   */
  lease(name: string, most: number): number {
    return this.#users.get(name)?.rate?.take(most) ?? most;
  }

  /**
   * Calls `listener` once, when the user may move bytes again and it is its turn; it should lease them at once.
   *
   * @returns Takes that back.
   */
  whenLendable(name: string, listener: () => void): () => void {
    const bucket = this.#users.get(name)?.rate;
    return bucket === undefined ? this.#clock.after(0, listener) : bucket.whenReady(listener);
  }

  #barred(): string[] {
    const now = this.#now();
    const names: string[] = [];
    for (const [name, user] of this.#users) {
      if (user.connections > 0 && user.barred(now) !== undefined) names.push(name);
    }
    return names;
  }

  #revoke(names: readonly string[]): void {
    if (names.length > 0) this.#options.onRevoked([...new Set(names)]);
  }
}

/** A visit whose answers are there at once. */
export class LocalVisit implements Visit {
  readonly #gate: LocalGate;
  readonly #address: string;
  readonly #counted: CountedAddress;
  #user: GateUser | undefined;
  #left = false;

  constructor(gate: LocalGate, address: string, counted: CountedAddress) {
    this.#gate = gate;
    this.#address = address;
    this.#counted = counted;
  }

  enter(name: string): Grant {
    this.#user = this.#gate.enter(name, this.#address);
    return this.#user;
  }

  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#user?.leave(this.#address);
    this.#gate.leave(this.#counted);
  }
}
