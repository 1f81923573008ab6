import type { Config } from "../config/config.ts";
import { closeDescriptor } from "../net/libc.ts";
import type { ListeningSocket } from "../net/listening-socket.ts";
import { addFigures, type Figures, forgetUsersBut, NO_FIGURES, retireFigures } from "../observe/figures.ts";
import type { ProcessLogger } from "../observe/log.ts";
import type { LogRecord } from "../observe/log-record.ts";
import type { ProcessFigures } from "../observe/process-figures.ts";
import type { Readiness, WorkerReport } from "../observe/status-report.ts";
import type { HelloClaims } from "../proxy/fake-tls.ts";
import type { Usage } from "../proxy/gate-user.ts";
import type { LocalGate } from "../proxy/local-gate.ts";
import { GateServer } from "../workers/gate-server.ts";
import type { LiveWorker } from "../workers/live-worker.ts";
import { type FromWorker, PROTOCOL, type StartMessage, type UsedBytes } from "../workers/messages.ts";
import { FIRST_SOCKET_FD, ownCommand, spawnWorker } from "../workers/spawn-worker.ts";
import { Supervisor, type WorkerListener } from "../workers/supervisor.ts";
import type { Collected, Engine, Settings } from "./engine.ts";
import { readNamedFiles } from "./named-files.ts";
import type { WorkerSettings } from "./worker-settings.ts";

/** How long workers have to say how they are, in milliseconds. */
const COLLECT_MS = 1_000;
/** How long they have to use other settings: name servers and cover sites may be asked, in milliseconds. */
const RELOAD_MS = 20_000;

/** In place of a round's number: nobody waits for the answer. */
const UNASKED = 0;

/** What the workers share. */
export interface WorkerEngineDeps {
  /** One for each worker. */
  readonly sockets: readonly ListeningSocket[];
  readonly log: ProcessLogger;
  readonly gate: LocalGate;
  readonly hellos: HelloClaims;
  readonly onUsed: (bytes: ReadonlyMap<string, Usage>) => void;
}

/** What is known of one worker. */
interface Known {
  readonly gate: GateServer;
  figures: Figures;
  process: ProcessFigures | undefined;
}

/** Who waits for an answer of each of some workers. */
interface Round {
  readonly left: Set<LiveWorker>;
  readonly errors: string[];
  readonly done: () => void;
  /** What these have moved is not heard from those who have not answered yet. */
  readonly deafTo?: ReadonlySet<string>;
}

/** Processes that share the port, and a supervisor that holds what they have in common: this one. */
export class WorkerEngine implements Engine, WorkerListener {
  readonly #deps: WorkerEngineDeps;
  readonly #supervisor: Supervisor;
  readonly #known = new Map<LiveWorker, Known>();
  readonly #rounds = new Map<number, Round>();
  #settings: Settings;
  /** Of workers that are gone. */
  #retired: Figures = NO_FIGURES;
  #lastRound = 0;
  #stopping = false;

  /** @throws {StartError} When a worker cannot start. */
  static async start(settings: Settings, deps: WorkerEngineDeps): Promise<WorkerEngine> {
    const engine = new WorkerEngine(await withFiles(settings), deps);
    await engine.#supervisor.start();
    return engine;
  }

  private constructor(settings: Settings, deps: WorkerEngineDeps) {
    this.#settings = settings;
    this.#deps = deps;
    const command = [...ownCommand(), "worker"];
    const sockets = deps.sockets.map(({ fd }) => fd);
    this.#supervisor = new Supervisor({
      count: sockets.length,
      spawn: (_, events) => spawnWorker({ command, sockets }, events),
      listener: this,
      log: deps.log,
      drainMs: () => this.#settings.config.drainMs,
    });
  }

  get port(): number {
    return this.#deps.sockets[0]?.port ?? 0;
  }

  get readiness(): Readiness {
    if (this.#stopping) return { ok: false, reason: "stopping" };
    const ready = this.#supervisor.workers.filter(({ state }) => state === "ready").length;
    const { length } = this.#deps.sockets;
    return { ok: ready > 0, reason: `${ready} of ${length} workers accept connections` };
  }

  async reload(next: Settings): Promise<void> {
    const settings = await withFiles(next);
    const before = this.#settings;
    this.#settings = settings; // also for workers that start from now on
    // Those that are starting have been given the old ones.
    const errors = await this.#ask(this.#supervisor.live, RELOAD_MS, (worker, id) => {
      worker.post({ type: "reload", id, settings: formatSettings(settings) });
    });
    if (errors.length === 0) {
      // As the workers do: what is left of users that are gone would stay for good.
      this.#retired = forgetUsersBut(this.#retired, new Set(settings.secrets.map(({ name }) => name)));
      return;
    }
    this.#settings = before;
    // Some may have taken them: all of them go back.
    this.#supervisor.broadcast({ type: "reload", id: UNASKED, settings: formatSettings(before) });
    throw new Error(errors.join("\n"));
  }

  async collect(): Promise<Collected> {
    const started = this.#supervisor.live.filter(({ state }) => state !== "starting");
    await this.#ask(started, COLLECT_MS, (worker, id) => worker.post({ type: "collect", id }));
    let figures = addFigures(this.#retired, { ...NO_FIGURES, log: this.#deps.log.counts });
    for (const known of this.#known.values()) figures = addFigures(figures, known.figures);
    const byPid = new Map([...this.#known].map(([worker, known]) => [worker.pid, known]));
    const workers = this.#supervisor.workers.map(({ pid, state, ...rest }): WorkerReport => {
      return {
        ...rest,
        pid: pid === 0 ? undefined : pid,
        state: state === "ready" ? "running" : state,
        process: byPid.get(pid)?.process,
      };
    });
    return { figures, workers };
  }

  revoke(users: readonly string[]): void {
    this.#supervisor.broadcast({ type: "revoke", users });
  }

  setRate(user: string, rate: number | undefined): void {
    this.#supervisor.broadcast({ type: "rate", user, ...(rate === undefined ? {} : { rate }) });
  }

  /** Workers say what users have moved before they answer, so that is the last that was moved before. */
  forget(users: ReadonlySet<string>): void {
    const id = ++this.#lastRound;
    // Those that are starting have nothing to tell, and do not answer.
    const left = new Set(this.#supervisor.live.filter(({ state }) => state !== "starting"));
    if (left.size === 0) return;
    this.#rounds.set(id, { left, errors: [], done: () => this.#rounds.delete(id), deafTo: users });
    for (const worker of left) worker.post({ type: "collect", id });
  }

  restart(): void {
    void this.#supervisor.restart();
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    process.once("exit", () => this.#supervisor.kill()); // it is told once more to stop, and does so at once
    const stopped = this.#supervisor.stop(graceMs);
    // Now, as workers do: whoever comes is refused, instead of waiting for somebody who does not come.
    for (const { fd } of this.#deps.sockets) closeDescriptor(fd);
    await stopped;
  }

  onStarted(worker: LiveWorker): StartMessage {
    const gate = new GateServer(this.#deps.gate, (message) => worker.post(message));
    this.#known.set(worker, { gate, figures: NO_FIGURES, process: undefined });
    return {
      type: "start",
      protocol: PROTOCOL,
      index: worker.index,
      firstFd: FIRST_SOCKET_FD,
      port: this.port,
      count: this.#deps.sockets.length,
      settings: formatSettings(this.#settings),
    };
  }

  onGone(worker: LiveWorker): void {
    const known = this.#known.get(worker);
    known?.gate.close();
    if (known !== undefined) this.#retired = addFigures(this.#retired, retireFigures(known.figures));
    this.#known.delete(worker);
    for (const round of this.#rounds.values()) this.#answered(round, worker);
  }

  onMessage(worker: LiveWorker, message: FromWorker): void {
    const known = this.#known.get(worker);
    if (known === undefined) return;
    switch (message.type) {
      case "arrive":
        known.gate.arrive(message);
        break;
      case "enter":
        known.gate.enter(message);
        break;
      case "came":
        known.gate.came(message);
        break;
      case "leave":
        known.gate.leave(message);
        break;
      case "lease":
        known.gate.lease(message);
        break;
      case "claim":
        void this.#claim(worker, message);
        break;
      case "used":
        this.#deps.onUsed(this.#usedOf(worker, message.users));
        break;
      case "log":
        for (const record of message.records) this.#log(worker, record as LogRecord);
        break;
      case "figures":
        known.figures = message.figures as Figures;
        known.process = message.process as ProcessFigures;
        this.#onAnswer(worker, message.id, undefined);
        break;
      case "reloaded":
        this.#onAnswer(worker, message.id, message.error);
        break;
    }
  }

  #usedOf(worker: LiveWorker, users: readonly UsedBytes[]): ReadonlyMap<string, Usage> {
    const used = new Map<string, Usage>(users.map(({ user, up, down }) => [user, { up, down }]));
    for (const { left, deafTo } of this.#rounds.values()) {
      if (deafTo !== undefined && left.has(worker)) for (const user of deafTo) used.delete(user);
    }
    return used;
  }

  async #claim(worker: LiveWorker, { id, random }: Extract<FromWorker, { type: "claim" }>): Promise<void> {
    try {
      const fresh = await this.#deps.hellos.claim(Uint8Array.fromHex(random), performance.now() / 1000);
      worker.post({ type: "claimed", id, fresh });
    } catch (error) {
      worker.post({ type: "claimed", id, fresh: false }); // or its client would wait for good
      throw error;
    }
  }

  #log({ index }: LiveWorker, record: LogRecord): void {
    this.#deps.log.write({ ...record, fields: { ...record.fields, worker: index } });
  }

  /** Asks workers and waits for all answers, or until time is up. @returns What went wrong. */
  async #ask(
    asked: readonly LiveWorker[],
    limitMs: number,
    ask: (worker: LiveWorker, id: number) => void,
  ): Promise<readonly string[]> {
    if (asked.length === 0) return [];
    const id = ++this.#lastRound;
    const { promise, resolve } = Promise.withResolvers<void>();
    const round = { left: new Set(asked), errors: [], done: resolve };
    this.#rounds.set(id, round);
    const timer = setTimeout(resolve, limitMs);
    for (const worker of asked) ask(worker, id);
    await promise;
    clearTimeout(timer);
    this.#rounds.delete(id);
    return round.errors;
  }

  #onAnswer(worker: LiveWorker, id: number, error: string | undefined): void {
    const round = this.#rounds.get(id);
    if (round === undefined) {
      if (error !== undefined) this.#deps.log.error(`worker ${worker.index} goes on as it was: ${error}`);
      return;
    }
    if (error !== undefined && !round.errors.includes(error)) round.errors.push(error);
    this.#answered(round, worker);
  }

  #answered(round: Round, worker: LiveWorker): void {
    if (round.left.delete(worker) && round.left.size === 0) round.done();
  }
}

/** What a worker needs of the settings. */
function formatSettings({ raw, secrets, config, files }: Settings): WorkerSettings {
  return { raw, kept: keptSecret(config, secrets), files };
}

/** Read once for all workers, also for those that start later. */
async function withFiles(settings: Settings): Promise<Settings> {
  return { ...settings, files: await readNamedFiles(settings.config) };
}

/** The secret that is kept on disk, when it is the one that serves: a worker may not be able to read it. */
function keptSecret(config: Config, secrets: Settings["secrets"]): string | undefined {
  return config.secrets.length > 0 ? undefined : secrets[0]?.key.toHex();
}
