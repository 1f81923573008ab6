import type { Round, Rounds } from "../net/rounds.ts";
import type { Session } from "./session.ts";

/**
 * How often it is looked, in milliseconds: more often when half of what may be queued is, less often while there
 * are too few sessions for that.
 */
const LOOK_MS = { few: 1_000, calm: 500, half: 100 } as const;
/** What a session may have queued beyond both of its queues' lengths, in bytes: a read and a message of each side. */
const OVERSHOOT = 2 * 1024 * 1024;
/** Sessions are dropped until no more than this part is queued. */
const ENOUGH = 0.9;

/**
 * Keeps what waits to be sent, over all sessions, within bounds.
 *
 * Each session's own queues are bounded already; it takes many slow readers to get here. Those go first that have
 * taken nothing for longest, and of those the ones for whom most is queued.
 */
export class BufferWatch {
  readonly #sessions: ReadonlySet<Session>;
  readonly #rounds: Rounds;
  readonly #onDrop: (session: Session) => void;
  #most: number | undefined;
  /** What one session may have queued, in both directions together. */
  #perSession = Number.POSITIVE_INFINITY;
  #round: Round | undefined;

  /** @param onDrop Ends a session. */
  constructor(sessions: ReadonlySet<Session>, rounds: Rounds, onDrop: (session: Session) => void) {
    this.#sessions = sessions;
    this.#rounds = rounds;
    this.#onDrop = onDrop;
  }

  /** Bytes that are queued. */
  get queuedBytes(): number {
    let queued = 0;
    for (const session of this.#sessions) queued += session.queuedBytes;
    return queued;
  }

  /**
   * @param most Bytes that may be queued; `undefined`: as many as come.
   * @param queueBytes Of one direction of a session, from which on its source is paused.
   */
  limit(most: number | undefined, queueBytes: number): void {
    this.#most = most;
    this.#perSession = 2 * queueBytes + OVERSHOOT;
    if (most === undefined) this.stop();
    else this.#round ??= this.#rounds.every(LOOK_MS.calm, () => this.#look());
  }

  stop(): void {
    this.#round?.stop();
    this.#round = undefined;
  }

  #look(): void {
    const most = this.#most ?? Number.POSITIVE_INFINITY;
    // So few sessions cannot fill it: to weigh them all the time would be most of what an idle proxy does.
    const few = this.#sessions.size * this.#perSession <= most;
    const queued = few ? 0 : this.#keepWithin(most);
    const usual = queued * 2 > most ? LOOK_MS.half : LOOK_MS.calm;
    this.#round?.pace(few ? LOOK_MS.few : usual);
  }

  /** @returns How much is queued still. */
  #keepWithin(most: number): number {
    const now = performance.now();
    let queued = 0;
    for (const session of this.#sessions) queued += session.weigh(now);
    return queued > most ? queued - this.#shed(now, queued - most * ENOUGH) : queued;
  }

  /** @returns How much was dropped. */
  #shed(now: number, excess: number): number {
    const heavy = Array.from(this.#sessions, (session) => ({
      session,
      queued: session.queuedBytes,
      stalledMs: session.stalledMs(now),
    })).filter(({ queued }) => queued > 0);
    heavy.sort((one, other) => other.stalledMs - one.stalledMs || other.queued - one.queued);
    let dropped = 0;
    for (const { session, queued } of heavy) {
      if (dropped >= excess) break;
      dropped += queued;
      this.#onDrop(session);
    }
    return dropped;
  }
}
