import type { Session, SessionDeps } from "./session.ts";

/** What sessions were given that began between two changes of the configuration, and how many are left. */
export class Generation {
  readonly deps: SessionDeps;
  readonly #onGone: (session: Session) => void;
  #sessions = 0;
  #onIdle: (() => void) | undefined;

  /** @param onGone Called for each session that is over. */
  constructor(deps: SessionDeps, onGone: (session: Session) => void) {
    this.deps = deps;
    this.#onGone = onGone;
  }

  /** A session begins with it. */
  enter(): void {
    this.#sessions += 1;
  }

  /** For the session that began. */
  readonly onGone = (session: Session): void => {
    this.#sessions -= 1;
    this.#onGone(session);
    if (this.#sessions === 0) this.#onIdle?.();
  };

  /** No more sessions begin with it: calls `onIdle` once the last one has gone, which may be now. */
  retire(onIdle: () => void): void {
    if (this.#sessions === 0) onIdle();
    else this.#onIdle = onIdle;
  }
}
