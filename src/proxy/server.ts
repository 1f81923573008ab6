import { type Accepted, type Listener, listenTcp } from "../net/tcp-listen.ts";
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
const LOOK_MS = 2_500;
/** How long a data centre has for a sign of life after the network has changed, in milliseconds. */
const SIGN_OF_LIFE_MS = 6_000;

/** Accepts clients and runs a session for each. */
export class ProxyServer {
  readonly #sessions = new Set<Session>();
  readonly #listen: () => Listener;
  #listener: Listener;
  #judgement: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  readonly #look: ReturnType<typeof setInterval>;
  #lastId = 0;
  #onEmpty: (() => void) | undefined;

  /** @throws {StartError} When the address cannot be listened on. */
  constructor({ host, port, highWater, quiet }: ServerOptions, deps: SessionDeps) {
    const onAccept = ({ channel, address }: Accepted): void => {
      const session = new Session(++this.#lastId, address, channel, deps, this.#onGone);
      this.#sessions.add(session);
      void session.run();
    };
    this.#listener = listenTcp({ host, port, highWater }, onAccept);
    const samePort = this.#listener.port;
    this.#listen = () => listenTcp({ host, port: samePort, highWater }, onAccept);
    this.#look = setInterval(() => {
      for (const session of this.#sessions) session.look(LOOK_MS, quiet);
    }, LOOK_MS);
  }

  get port(): number {
    return this.#listener.port;
  }

  /**
   * The network has changed, or the machine has slept: drops sessions whose data centre does not answer any more,
   * so that their clients come again at once, and sees to it that there is somebody to come to.
   *
   * @param withoutPings Also quiet ones over TCP, which cannot be asked: the old network is gone for sure.
   * @throws {StartError} When the listener was gone and cannot be opened again.
   */
  async recover({ withoutPings }: { readonly withoutPings: boolean }): Promise<void> {
    if (this.#stopped) return;
    const asked = [...this.#sessions];
    for (const session of asked) session.ask();
    clearTimeout(this.#judgement);
    this.#judgement = setTimeout(() => {
      for (const session of asked) session.dropIfDead({ withoutPings });
    }, SIGN_OF_LIFE_MS);
    const listener = this.#listener;
    if ((await listener.alive()) || this.#stopped || listener !== this.#listener) return;
    listener.stop();
    this.#listener = this.#listen();
  }

  /** Accepts nobody any more, waits up to `graceMs` for the sessions to end by themselves, then ends them. */
  async stop(graceMs: number): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#judgement);
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
