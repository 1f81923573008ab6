/** What is due so soon is done with what is due now, in milliseconds: timers are no more exact. */
const SLACK_MS = 5;

/** Something that is looked after at regular times. */
export interface Round {
  /** Sets another pace. */
  pace(ms: number): void;
  stop(): void;
}

/** A round as {@link Rounds} sees it. */
interface Planned {
  everyMs: number;
  dueAt: number;
  readonly look: () => void;
}

/**
 * Looks after several things at regular times, with one timer.
 *
 * To wake up costs an idle process more than what it then does: 0.2 to 0.4 ms. So all that is done every second is done
 * at the same moments, and what is done every four seconds at some of those.
 */
export class Rounds {
  readonly #startedAt = performance.now();
  readonly #rounds = new Set<Planned>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When the timer fires. */
  #wakesAt = Number.POSITIVE_INFINITY;

  /** Calls `look` every `ms` milliseconds until it is stopped; the first time may be earlier. */
  every(ms: number, look: () => void): Round {
    const round: Planned = { everyMs: ms, dueAt: this.#turnAfter(performance.now(), ms), look };
    this.#rounds.add(round);
    this.#wakeBy(round.dueAt);
    return {
      pace: (newMs) => {
        if (newMs === round.everyMs || !this.#rounds.has(round)) return;
        round.everyMs = newMs;
        round.dueAt = this.#turnAfter(performance.now() + SLACK_MS, newMs);
        this.#wakeBy(round.dueAt);
      },
      stop: () => {
        this.#rounds.delete(round);
        if (this.#rounds.size > 0) return;
        clearTimeout(this.#timer);
        this.#wakesAt = Number.POSITIVE_INFINITY;
      },
    };
  }

  /** The first moment after `now` that all rounds of this pace share. */
  #turnAfter(now: number, everyMs: number): number {
    const turns = Math.floor((now - this.#startedAt) / everyMs);
    return this.#startedAt + (turns + 1) * everyMs;
  }

  #wakeBy(moment: number): void {
    if (moment >= this.#wakesAt) return;
    clearTimeout(this.#timer);
    this.#wakesAt = moment;
    this.#timer = setTimeout(this.#wake, Math.max(1, moment - performance.now()));
  }

  readonly #wake = (): void => {
    this.#wakesAt = Number.POSITIVE_INFINITY;
    const now = performance.now() + SLACK_MS;
    let next = Number.POSITIVE_INFINITY;
    for (const round of this.#rounds) {
      if (round.dueAt <= now) {
        round.dueAt = this.#turnAfter(now, round.everyMs);
        try {
          round.look();
        } catch (error) {
          queueMicrotask(() => {
            throw error; // the others have their turn all the same
          });
        }
      }
      if (this.#rounds.has(round)) next = Math.min(next, round.dueAt);
    }
    this.#wakeBy(next);
  };
}
