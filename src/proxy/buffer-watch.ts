import type { Session } from "./session.ts";

/** How often it is looked, in milliseconds: more often when half of what may be queued is. */
const LOOK_MS = { calm: 500, half: 100 } as const;
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
  readonly #onDrop: (session: Session) => void;
  #most: number | undefined;
  /** What one session may have queued, in both directions together. */
  #perSession = Number.POSITIVE_INFINITY;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When it was last looked; 0 while it was not worth a look. */
  #queued = 0;

  /** @param onDrop Ends a session. */
  constructor(sessions: ReadonlySet<Session>, onDrop: (session: Session) => void) {
    this.#sessions = sessions;
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
    else if (this.#timer === undefined) this.#plan(most);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #plan(most: number): void {
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        this.look(performance.now());
        if (this.#most !== undefined) this.#plan(this.#most);
      },
      this.#queued * 2 > most ? LOOK_MS.half : LOOK_MS.calm,
    );
  }

  /** Looks now. @param now `performance.now()`. */
  look(now: number): void {
    // So few sessions cannot fill it: to weigh them all the time would be most of what an idle proxy does.
    if (this.#most !== undefined && this.#sessions.size * this.#perSession <= this.#most) {
      this.#queued = 0;
      return;
    }
    let queued = 0;
    for (const session of this.#sessions) queued += session.weigh(now);
    this.#queued = queued;
    if (this.#most !== undefined && queued > this.#most) this.#shed(now, this.#most * ENOUGH);
  }

  #shed(now: number, enough: number): void {
    const heavy = Array.from(this.#sessions, (session) => ({
      session,
      queued: session.queuedBytes,
      stalledMs: session.stalledMs(now),
    })).filter(({ queued }) => queued > 0);
    heavy.sort((one, other) => other.stalledMs - one.stalledMs || other.queued - one.queued);
    for (const { session, queued } of heavy) {
      if (this.#queued <= enough) break;
      this.#queued -= queued;
      this.#onDrop(session);
    }
  }
}
