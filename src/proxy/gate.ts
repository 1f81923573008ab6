/**
 * Lets connections in, over all processes of the proxy: who comes, for whom, and how fast.
 *
 * Where one process does everything, its answers are there at once; a worker asks its supervisor.
 */
export interface Gate {
  /**
   * A connection has come from `address`, an IP address.
   *
   * @throws {RefusedError} `address-connections`, `address-rate` or `connections`; then there is nothing to leave.
   */
  arrive(address: string): Visit | Promise<Visit>;
}

/** One connection that is there. Whoever has it calls {@link Visit.leave} exactly once. */
export interface Visit {
  /**
   * The connection has shown `user`'s secret. Called at most once.
   *
   * @throws {RefusedError} `user-...`: the visit goes on, without a user.
   */
  enter(user: string): Grant | Promise<Grant>;
  /** It is gone. */
  leave(): void;
}

/** What a user's connection is given, for as long as it is there. */
export interface Grant {
  /** Shared by the user's connections in this process; `undefined`: as fast as it goes. It may come and go. */
  readonly rate: RateBucket | undefined;
}

/** Bytes that may pass now, of all that a user may move in a second. */
export interface RateBucket {
  /** Counts bytes that have passed already; it may go below zero by one read. */
  spend(bytes: number): void;
  /** Nothing may pass until {@link RateBucket.whenReady}. */
  readonly empty: boolean;
  /** Calls `listener` once, from the event loop, when something may pass again. @returns Takes that back. */
  whenReady(listener: () => void): () => void;
}

const GRANT: Grant = { rate: undefined };
const VISIT: Visit = { enter: () => GRANT, leave: () => {} };

/** Lets everybody in. */
export const OPEN_GATE: Gate = { arrive: () => VISIT };
