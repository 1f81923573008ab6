import { type Round, Rounds } from "../net/rounds.ts";
import { type Accepted, type Listener, listenTcp } from "../net/tcp-listen.ts";
import { BufferWatch } from "./buffer-watch.ts";
import { DescriptorWatch, type Strained } from "./descriptor-watch.ts";
import { Generation } from "./generation.ts";
import { type QuietLimits, Session, type SessionDeps } from "./session.ts";

/** What a server may use; what is `undefined` has no limit. */
export interface ServerLimits {
  /** Connections at a time. More are closed as soon as they are accepted. */
  readonly maxConnections: number | undefined;
  /** Bytes that wait to be sent, over all sessions. Above, those that have moved nothing for longest are dropped. */
  readonly bufferBytes: number | undefined;
  /** Bytes queued for a client from which on it counts as congested; of those who come from now on. */
  readonly queueBytes: number;
}

/** Where a server listens, and its limits. */
export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  /** A listening socket that was opened by somebody else, on `port`; it belongs to the server. */
  readonly fd?: number | undefined;
  readonly quiet: QuietLimits;
  readonly limits?: ServerLimits;
  /** When sessions are looked after. */
  readonly rounds?: Rounds;
  /** Descriptors or memory are short: drops what can be had again, such as connections that were opened ahead. */
  readonly relieve?: () => void;
}

/** What was turned away or dropped so that the others could go on, since the start. */
export interface ShedCounts {
  /** Connections that were closed as soon as they were accepted, for lack of room. */
  readonly connections: number;
  /** Sessions that ended as `overload`. */
  readonly sessions: number;
}

/** How often sessions are looked at for silence, in milliseconds. */
const LOOK_MS = 2_500;
/** How long a data centre has for a sign of life after the network has changed, in milliseconds. */
const SIGN_OF_LIFE_MS = 6_000;

/** After the time of a drain is over: how long connections may take to close, in milliseconds. */
const LAST_WORDS_MS = 2_000;
const NO_LIMITS: ServerLimits = {
  maxConnections: undefined,
  bufferBytes: undefined,
  queueBytes: 256 * 1024,
};

/** Accepts clients and runs a session for each. */
export class ProxyServer {
  readonly #sessions = new Set<Session>();
  readonly #listen: () => Listener;
  readonly #adopt: (fd: number) => Listener;
  /** Sockets of others that it accepts from, too. */
  readonly #adopted = new Set<Listener>();
  #generation: Generation;
  #limits: ServerLimits;
  #listener: Listener;
  #judgement: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  readonly #look: Round;
  #lastId = 0;
  /** Of sessions that have ended since the last tally. */
  #usage = new Map<string, { up: number; down: number }>();
  /** Connections that earlier listeners have closed. */
  #shedBefore = 0;
  #shedSessions = 0;
  readonly #buffers: BufferWatch;
  readonly #descriptors: DescriptorWatch;
  readonly #onEmpty = new Set<() => void>();

  /** @throws {StartError} When the address cannot be listened on. */
  constructor(options: ServerOptions, deps: SessionDeps) {
    const { quiet, fd, limits = NO_LIMITS, rounds = new Rounds(), relieve = () => {}, ...where } = options;
    this.#limits = limits;
    this.#generation = new Generation(deps, this.#onGone);
    const server = this;
    const open = (port: number, inherited: number | undefined): Listener => {
      const listening = {
        ...where,
        port,
        fd: inherited,
        hasRoom: this.#hasRoom,
        get highWater() {
          return server.#limits.queueBytes;
        },
      };
      return listenTcp(listening, this.#onAccept);
    };
    this.#listener = open(options.port, fd);
    const samePort = this.#listener.port;
    this.#listen = () => open(samePort, undefined);
    this.#adopt = (inherited) => open(samePort, inherited);
    this.#buffers = new BufferWatch(this.#sessions, rounds, this.#shed);
    this.#buffers.limit(limits.bufferBytes, limits.queueBytes);
    this.#descriptors = new DescriptorWatch(this.#strained(relieve), rounds);
    this.#look = rounds.every(LOOK_MS, () => {
      for (const session of this.#sessions) session.look(LOOK_MS, quiet);
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  /** Sessions right now. */
  get size(): number {
    return this.#sessions.size;
  }

  get shed(): ShedCounts {
    let connections = this.#shedBefore;
    for (const listener of this.#listeners) connections += listener.shed;
    return { connections, sessions: this.#shedSessions };
  }

  /**
   * Gives `deps` to sessions that begin from now on; the others keep what they have.
   *
   * @param onRetired Called once the last session has gone that has what was used before, which may be now.
   */
  use(deps: SessionDeps, onRetired: () => void = () => {}): void {
    const before = this.#generation;
    this.#generation = new Generation(deps, this.#onGone);
    before.retire(onRetired);
  }

  setLimits(limits: ServerLimits): void {
    this.#limits = limits;
    this.#buffers.limit(limits.bufferBytes, limits.queueBytes);
  }

  /**
   * Accepts also from another listening socket, which belongs to the server from now on.
   *
   * @returns Stops that.
   */
  adopt(fd: number): () => void {
    const listener = this.#adopt(fd);
    this.#adopted.add(listener);
    if (this.#stopped) listener.stop();
    return () => {
      if (!this.#adopted.delete(listener)) return;
      this.#shedBefore += listener.shed;
      listener.stop();
    };
  }

  /** Bytes that wait to be sent, over all sessions. */
  get queuedBytes(): number {
    return this.#buffers.queuedBytes;
  }

  /** Ends the sessions of these users, as `revoked`; also of those who are about to show a secret from before. */
  revoke(users: Iterable<string>): void {
    const names = new Set(users);
    for (const session of this.#sessions) session.revoke(names, this.#generation.deps);
  }

  /** Has the sessions of a user, who may have a rate now, go no faster than that; once it has resolved, all do. */
  async slow(user: string): Promise<void> {
    const those = [...this.#sessions].filter((session) => session.user === user);
    await Promise.all(those.map((session) => session.slow()));
  }

  /** Returns what each user has moved since the last call; users who have moved nothing are left out. */
  tally(): Map<string, { readonly up: number; readonly down: number }> {
    for (const session of this.#sessions) session.tally(this.#usage);
    const usage = this.#usage;
    this.#usage = new Map();
    return usage;
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
    this.#shedBefore += listener.shed;
    this.#listener = this.#listen();
  }

  /** Accepts nobody any more, waits up to `graceMs` for the sessions to end by themselves, then ends them. */
  async stop(graceMs: number): Promise<void> {
    this.#close();
    for (const session of this.#sessions) if (!session.connected) session.stop("shutdown");
    await this.#emptyWithin(graceMs);
    await this.#end(graceMs);
  }

  /**
   * As {@link ProxyServer.stop}, for somebody else to take its place unnoticed: those that have just come may still
   * find their way, too. While it waits, `stop` may shorten that.
   */
  async drain(limitMs: number): Promise<void> {
    this.#close();
    await this.#emptyWithin(limitMs);
    await this.#end(LAST_WORDS_MS);
  }

  get #listeners(): readonly Listener[] {
    return [this.#listener, ...this.#adopted];
  }

  /** @returns Whether nobody is accepted. */
  async #pause(): Promise<boolean> {
    const waiting = await Promise.all(this.#listeners.map((listener) => listener.pause()));
    return waiting.every((waits) => waits);
  }

  #resume(): void {
    for (const listener of this.#listeners) listener.resume();
  }

  #close(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    clearTimeout(this.#judgement);
    for (const listener of this.#listeners) listener.stop();
    this.#descriptors.stop();
  }

  async #end(graceMs: number): Promise<void> {
    this.#look.stop();
    this.#buffers.stop();
    for (const session of this.#sessions) session.stop("shutdown");
    await this.#emptyWithin(graceMs);
  }

  #emptyWithin(limitMs: number): Promise<void> {
    if (this.#sessions.size === 0) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, limitMs);
    this.#onEmpty.add(resolve);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#onEmpty.delete(resolve);
    });
  }

  readonly #hasRoom = (): boolean =>
    this.#sessions.size <
    Math.min(this.#limits.maxConnections ?? Number.POSITIVE_INFINITY, this.#descriptors.ceiling);

  readonly #shed = (session: Session): void => {
    this.#shedSessions += 1;
    session.stop("overload");
  };

  #strained(relieve: () => void): Strained {
    const server = this;
    return {
      get size() {
        return server.#sessions.size;
      },
      get accepted() {
        return server.#lastId + server.shed.connections;
      },
      waiting: async () => {
        const answers = await Promise.all(this.#listeners.map((listener) => listener.waiting()));
        return answers.includes(true) ? true : answers[0];
      },
      pause: () => this.#pause(),
      resume: () => this.#resume(),
      relieve,
      shedWhile: (isShort) => this.#shedWhile(isShort),
    };
  }

  /** Ends strangers, then clients, those first that have been of no use for longest. */
  #shedWhile(isShort: () => boolean): number {
    if (!isShort()) return 0;
    const all = Array.from(this.#sessions, (session) => ({ session, ...session.use }));
    all.sort((one, other) => one.rank - other.rank || other.quietMs - one.quietMs);
    let count = 0;
    for (const { session } of all) {
      if (session.stopped) continue;
      this.#shed(session);
      count += 1;
      if (!isShort()) break;
    }
    return count;
  }

  readonly #onAccept = ({ channel, address }: Accepted): void => {
    const generation = this.#generation;
    generation.enter();
    const session = new Session(++this.#lastId, address, channel, generation.deps, generation.onGone);
    this.#sessions.add(session);
    void session.run();
  };

  readonly #onGone = (session: Session): void => {
    this.#sessions.delete(session);
    session.tally(this.#usage);
    if (this.#sessions.size === 0) for (const resolve of this.#onEmpty) resolve();
  };
}
