/** Lets so many at a time do something, the others in the order in which they came. */
export class Gate {
  readonly #width: number;
  #inside = 0;
  readonly #waiting: (() => void)[] = [];

  /** @param width How many are inside at most. */
  constructor(width: number) {
    this.#width = width;
  }

  /** Does `work` when there is room. */
  async pass<T>(work: () => Promise<T>): Promise<T> {
    if (this.#inside >= this.#width) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    }
    this.#inside += 1;
    try {
      return await work();
    } finally {
      this.#inside -= 1;
      this.#waiting.shift()?.();
    }
  }
}

/** How long the machine is looked at, in milliseconds. */
const LOOK_MS = 50;
/** A timer that is later than this has had to wait for a processor, in milliseconds. */
const LATE_MS = 15;
/** After a late look, so many in a row have to be good. */
const GOOD_LOOKS = 8;
/** A machine that never keeps up has to do all the same, in milliseconds. */
const CALM_LIMIT_MS = 20_000;

/**
 * A gate for what has deadlines of its own, as the proxy has for its routes: it opens only while the machine keeps up.
 *
 * The data centres are in this process, so that its own timers tell how late they answer. On a quiet machine, that
 * makes starts some milliseconds apart; on a slow one, fewer are inside.
 */
export class PacedGate {
  readonly #gate: Gate;
  #last: Promise<void> = Promise.resolve();

  /** @param width How many are inside at most. */
  constructor(width: number) {
    this.#gate = new Gate(width);
  }

  /** Does `work` when there is room, and others have left it a processor. */
  pass<T>(work: () => Promise<T>): Promise<T> {
    return this.#gate.pass(async () => {
      this.#last = this.#last.then(untilCalm);
      await this.#last;
      return work();
    });
  }
}

async function untilCalm(): Promise<void> {
  const deadline = performance.now() + CALM_LIMIT_MS;
  for (let wanted = 1; wanted > 0 && performance.now() < deadline; ) {
    const from = performance.now();
    await Bun.sleep(LOOK_MS);
    wanted = performance.now() - from - LOOK_MS > LATE_MS ? GOOD_LOOKS : wanted - 1;
  }
}
