import { RefusedError } from "../core/errors.ts";
import type { RefusalReason } from "../core/events.ts";
import type { UserFigures, UserPolicy } from "../core/users.ts";
import { addressKey } from "./address-key.ts";
import type { Grant } from "./gate.ts";
import { type Clock, TokenBucket } from "./token-bucket.ts";

/** Bytes of a user. */
export interface Usage {
  readonly up: number;
  readonly down: number;
}

/** For a bucket whose limit is gone: bytes a second. */
const AS_FAST_AS_IT_GOES = 2 ** 50;

/** One user, who is there right now, and what was refused. */
export class GateUser implements Grant {
  usage: Usage = { up: 0, down: 0 };
  connections = 0;
  /** Connections by address. */
  readonly #addresses = new Map<string, number>();
  readonly #refused = new Map<RefusalReason, number>();
  readonly #clock: Clock;
  #policy: UserPolicy;
  #bucket: TokenBucket | undefined;

  constructor(policy: UserPolicy, clock: Clock) {
    this.#policy = policy;
    this.#clock = clock;
  }

  /** What it may move in a second; `undefined`: as fast as it goes. */
  get rate(): TokenBucket | undefined {
    if (this.policy.rateBytes === undefined) return undefined;
    this.#bucket ??= new TokenBucket(this.policy.rateBytes, this.#clock);
    return this.#bucket;
  }

  /** Takes another policy. Connections that have a bucket keep it, with its new rate. */
  follow(policy: UserPolicy): void {
    this.#policy = policy;
    const rate = policy.rateBytes ?? AS_FAST_AS_IT_GOES;
    if (this.#bucket !== undefined && this.#bucket.rate !== rate) this.#bucket.rate = rate;
  }

  get policy(): UserPolicy {
    return this.#policy;
  }

  /** Why it may not be connected at all, if it may not. @param now Milliseconds since 1970. */
  barred(now: number): RefusalReason | undefined {
    const { enabled, expiresAt, quotaBytes } = this.policy;
    if (!enabled) return "user-disabled";
    if (expiresAt !== undefined && now >= expiresAt) return "user-expired";
    const used = this.usage.up + this.usage.down;
    return quotaBytes !== undefined && used >= quotaBytes ? "user-quota" : undefined;
  }

  /**
   * Counts a connection until {@link GateUser.leave}.
   *
   * @throws {RefusedError}
   */
  enter(address: string, now: number): void {
    const key = addressKey(address);
    const refusal = this.barred(now) ?? this.#full(key);
    if (refusal !== undefined) {
      this.#refused.set(refusal, (this.#refused.get(refusal) ?? 0) + 1);
      throw new RefusedError(refusal);
    }
    this.connections += 1;
    this.#addresses.set(key, (this.#addresses.get(key) ?? 0) + 1);
  }

  /** A connection that has entered is gone. */
  leave(address: string): void {
    const key = addressKey(address);
    this.connections -= 1;
    const left = (this.#addresses.get(key) ?? 0) - 1;
    if (left > 0) this.#addresses.set(key, left);
    else this.#addresses.delete(key);
  }

  #full(key: string): RefusalReason | undefined {
    const { maxConnections, maxAddresses } = this.policy;
    if (maxConnections !== undefined && this.connections >= maxConnections) return "user-connections";
    const another = maxAddresses !== undefined && !this.#addresses.has(key);
    return another && this.#addresses.size >= maxAddresses ? "user-addresses" : undefined;
  }

  get figures(): UserFigures {
    const { name, enabled, maxConnections, maxAddresses, quotaBytes, expiresAt, rateBytes } = this.policy;
    return {
      name,
      enabled,
      connections: this.connections,
      addresses: this.#addresses.size,
      ...this.usage,
      maxConnections,
      maxAddresses,
      quotaBytes,
      expiresAt,
      rateBytes,
      refused: Object.fromEntries(this.#refused),
    };
  }
}
