import type { Session } from "./session.ts";

/** How often it is looked, in milliseconds: more often when half of what may be queued is. */
const LOOK_MS = { calm: 500, half: 100 } as const;
/** Sessions are dropped until no more than this part is queued. */
const ENOUGH = 0.9;

/**
 * Keeps what waits to be sent, over all sessions, within bounds.
 *
 * Each session's own queues are bounded already; it takes many slow readers to get here. Those go first that have
 * taken nothing for longest, and of those the ones for whom most is queued.
 */
export class BufferWatch {
  readonly #sessions: Iterable<Session>;
  readonly #onDrop: (session: Session) => void;
  #most: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #queued = 0;

  /** @param onDrop Ends a session. */
  constructor(sessions: Iterable<Session>, onDrop: (session: Session) => void) {
    this.#sessions = sessions;
    this.#onDrop = onDrop;
  }

  /** Bytes that were queued when it was last looked. */
  get queuedBytes(): number {
    return this.#queued;
  }

  /** Bytes that may be queued; `undefined`: as many as come. */
  set most(bytes: number | undefined) {
    this.#most = bytes;
    if (bytes === undefined) this.stop();
    else if (this.#timer === undefined) this.#plan(bytes);
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
