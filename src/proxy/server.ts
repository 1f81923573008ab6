import { type Listener, listenTcp } from "../net/tcp-listen.ts";
import { type QuietLimits, Session, type SessionDeps } from "./session.ts";

/** Where a server listens, and its limits. */
export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  /** Bytes queued for a client from which on it counts as congested. */
  readonly highWater: number;
  readonly quiet: QuietLimits;
}

/** How often sessions are looked at for silence, in milliseconds. */
const LOOK_MS = 5_000;

/** Accepts clients and runs a session for each. */
export class ProxyServer {
  readonly #sessions = new Set<Session>();
  readonly #listener: Listener;
  readonly #look: ReturnType<typeof setInterval>;
  #lastId = 0;
  #onEmpty: (() => void) | undefined;

  /** @throws {StartError} When the address cannot be listened on. */
  constructor({ host, port, highWater, quiet }: ServerOptions, deps: SessionDeps) {
    this.#listener = listenTcp({ host, port, highWater }, ({ channel, address }) => {
      const session = new Session(++this.#lastId, address, channel, deps, this.#onGone);
      this.#sessions.add(session);
      void session.run();
    });
    this.#look = setInterval(() => {
      for (const session of this.#sessions) session.look(LOOK_MS, quiet);
    }, LOOK_MS);
  }

  get port(): number {
    return this.#listener.port;
  }

  /** Accepts nobody any more, waits up to `graceMs` for the sessions to end by themselves, then ends them. */
  async stop(graceMs: number): Promise<void> {
    this.#listener.stop();
    for (const session of this.#sessions) if (!session.connected) session.stop("shutdown");
    if (this.#sessions.size > 0) await this.#emptyWithin(graceMs);
    clearInterval(this.#look);
    for (const session of this.#sessions) session.stop("shutdown");
    if (this.#sessions.size > 0) await this.#emptyWithin(graceMs);
  }

  #emptyWithin(limitMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, limitMs);
    this.#onEmpty = resolve;
    return promise.finally(() => clearTimeout(timer));
  }

  readonly #onGone = (session: Session): void => {
    this.#sessions.delete(session);
    if (this.#sessions.size === 0) this.#onEmpty?.();
  };
}
