/** Those who wait for something that is shared out, in the order in which they came. */
export class Turns {
  readonly #line = new Set<() => void>();
  /** Somebody has its turn: the others still wait, but not it. */
  #serving = false;

  /** Whether nobody else may go now, because others have come before. */
  get taken(): boolean {
    return this.#line.size > 0 && !this.#serving;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#line.size;
  }

  /** Puts `listener` at the end of the line, for one turn. @returns Takes it out again. */
  add(listener: () => void): () => void {
    const turn = (): void => listener();
    this.#line.add(turn);
    return () => {
      this.#line.delete(turn);
    };
  }

  /** Gives a turn to each who waits now, as long as something `isLeft`. */
  serve(isLeft: () => boolean): void {
    this.#serving = true;
    try {
      for (let count = this.#line.size; count > 0 && isLeft(); count -= 1) {
        const [turn] = this.#line;
        if (turn === undefined) return;
        this.#line.delete(turn);
        turn();
      }
    } finally {
      this.#serving = false;
    }
  }
}
