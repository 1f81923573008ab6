import { ConfigError, StartError } from "../core/errors.ts";
import { closeDescriptor, duplicate } from "../net/libc.ts";
import { type Round, Rounds } from "../net/rounds.ts";
import { createRecordLogger, type ProcessLogger } from "../observe/log.ts";
import { hideKnownKeys } from "../observe/log-guard.ts";
import type { LogRecord } from "../observe/log-record.ts";
import { LagWatch, readProcessFigures } from "../observe/process-figures.ts";
import { type FromWorker, PROTOCOL, type StartMessage, type ToWorker } from "../workers/messages.ts";
import { Outbox } from "../workers/outbox.ts";
import { RemoteGate } from "../workers/remote-gate.ts";
import { RemoteHellos } from "../workers/remote-hellos.ts";
import { ProcessRoom, remoteRulesOf } from "./build-gate.ts";
import { Service } from "./service.ts";
import { openState } from "./state.ts";
import { survive } from "./survive.ts";
import { parseWorkerSettings, type WorkerSettings } from "./worker-settings.ts";

/** How often it is said what users have moved, in milliseconds. */
const TALLY_MS = 1_000;
/** How often figures are sent without being asked for: so much is lost at most when a worker is killed. */
const FIGURES_MS = 5_000;
/** Without a supervisor: how long sessions may go on, in milliseconds. */
const ORPHAN_GRACE_MS = 5_000;
/** How long the supervisor has to take what is said last, in milliseconds. */
const LAST_WORDS_MS = 2_000;
const EXIT_FAILURE = 1;

/** Runs a worker until its supervisor, or a signal, ends it. @returns The exit code. */
export async function work(): Promise<number> {
  if (process.send === undefined) {
    throw new StartError("WORKER", "Cannot run as a worker: there is no supervisor", "tgws --workers 2");
  }
  const worker = new WorkerRun((batch, onSent) => process.send?.(batch, undefined, undefined, onSent));
  process.on("message", (batch: unknown) => worker.onMessages(batch as readonly ToWorker[]));
  process.on("disconnect", () => worker.onOrphaned());
  process.on("SIGTERM", () => worker.onTerminate());
  // Of a terminal these come to every process in it; the supervisor says what is to be done.
  for (const signal of ["SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"] as const) process.on(signal, () => {});
  return worker.ended;
}

/** @param onSent Called once the supervisor has it, or cannot have it any more. */
type Send = (batch: readonly FromWorker[], onSent?: () => void) => void;

/** A worker from its first message to its end. */
class WorkerRun {
  readonly ended: Promise<number>;
  readonly #end: (code: number) => void;
  readonly #send: Send;
  readonly #outbox: Outbox<FromWorker>;
  readonly #gate: RemoteGate;
  readonly #hellos: RemoteHellos;
  #lag: LagWatch | undefined;
  readonly #rounds: Round[] = [];
  /** No log line may have them in it. */
  #keys: readonly Uint8Array[] = [];
  #records: LogRecord[] = [];
  #log: ProcessLogger | undefined;
  #service: Service | undefined;
  #drainMs = 0;
  /** Of all workers, itself included. */
  #count = 1;
  /** The sockets that it has inherited, as long as it has them. */
  #sockets: { readonly firstFd: number; readonly count: number } = { firstFd: 0, count: 0 };
  /** By the slot whose socket it accepts from, too: stops that. */
  readonly #adopted = new Map<number, () => void>();
  #orphaned = false;
  /** Settings are used one after the other, also those that come while it starts. */
  #configured: Promise<void> = Promise.resolve();

  constructor(send: Send) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    this.#end = resolve;
    this.#send = send;
    this.#outbox = new Outbox((batch) => send(batch));
    this.#gate = new RemoteGate({
      post: this.#post,
      postLater: (message) => {
        if (!this.#orphaned) this.#outbox.postLater(message);
      },
    });
    this.#hellos = new RemoteHellos(this.#post);
  }

  onMessages(batch: readonly ToWorker[]): void {
    for (const message of batch) this.#onMessage(message);
  }

  /** The supervisor is gone: nobody counts or logs any more, so this cannot go on. */
  onOrphaned(): void {
    this.#orphaned = true;
    this.#gate.close();
    this.#hellos.close();
    this.#stop(ORPHAN_GRACE_MS, EXIT_FAILURE);
  }

  /** Somebody has told this worker alone to end. */
  onTerminate(): void {
    this.#post({ type: "leaving" });
    void this.#finish(this.#service?.drain(this.#drainMs), 0);
  }

  readonly #post = (message: FromWorker): void => {
    if (!this.#orphaned) this.#outbox.post(message);
  };

  #onMessage(message: ToWorker): void {
    switch (message.type) {
      case "start":
        this.#configured = this.#start(message);
        break;
      case "reload":
        this.#configured = this.#configured.then(() => this.#reload(message));
        break;
      case "arrived":
        this.#gate.onArrived(message.visit, message.refused);
        break;
      case "entered":
        this.#gate.onEntered(message.visit, message);
        break;
      case "claimed":
        this.#hellos.onClaimed(message.id, message.fresh);
        break;
      case "leased":
        this.#gate.onLeased(message.user, message.bytes);
        break;
      case "rate":
        this.#gate.onRate(message.user, message.rate);
        void this.#service?.server.slow(message.user);
        break;
      case "revoke":
        this.#service?.server.revoke(message.users);
        break;
      case "adopt":
        this.#adopt(message.index);
        break;
      case "abandon":
        this.#adopted.get(message.index)?.();
        this.#adopted.delete(message.index);
        break;
      case "collect":
        this.#sendUsed();
        this.#sendFigures(message.id);
        break;
      case "drain":
        void this.#finish(this.#service?.drain(message.ms), 0);
        break;
      case "stop":
        this.#stop(message.graceMs, 0);
        break;
    }
  }

  #stop(graceMs: number, code: number): void {
    void this.#finish(this.#service?.stop(graceMs), code);
    // Nobody accepts from them any more, and the port is the next start's: it must not wait for sessions to end.
    const { firstFd, count } = this.#sockets;
    for (let index = 0; index < count; index++) closeDescriptor(firstFd + index);
    this.#sockets = { firstFd, count: 0 };
  }

  async #start({ protocol, index, firstFd, count, port, settings: sent }: StartMessage): Promise<void> {
    try {
      if (protocol !== PROTOCOL) {
        this.#post({ type: "ready", protocol: PROTOCOL }); // the supervisor says what is wrong
        return;
      }
      const settings = parseWorkerSettings(sent as WorkerSettings, count);
      const log = createRecordLogger({
        level: settings.config.logLevel,
        write: (record) => this.#write(record),
        redact: hideKnownKeys(() => this.#keys),
      });
      this.#log = log;
      this.#keys = settings.secrets.map(({ key }) => key);
      this.#gate.configure(remoteRulesOf(settings.config));
      this.#drainMs = settings.config.drainMs;
      survive(log);
      if (settings.config.status !== undefined) this.#lag = new LagWatch();
      this.#count = count;
      this.#sockets = { firstFd, count };
      const fd = duplicate(firstFd + index);
      if (fd === undefined) throw new Error("the socket cannot be duplicated");
      const rounds = new Rounds();
      const service = await Service.start(settings, {
        socket: { fd, port },
        log,
        gate: this.#gate,
        hellos: this.#hellos,
        state: openState((error) => log.warn(error.message)),
        room: new ProcessRoom(),
        rounds,
        keepsRoutes: index === 0, // each learns by itself; of several, the last to write would win
      });
      this.#service = service;
      this.#rounds.push(rounds.every(TALLY_MS, () => this.#sendUsed()));
      this.#rounds.push(rounds.every(FIGURES_MS, () => this.#sendFigures(0)));
      this.#post({ type: "ready", protocol: PROTOCOL });
    } catch (error) {
      this.#post({ type: "failed", ...explain(error) });
      await this.#leave(EXIT_FAILURE);
    }
  }

  /** @param index Of a slot whose worker is down. */
  #adopt(index: number): void {
    if (index >= this.#sockets.count) return;
    const fd = duplicate(this.#sockets.firstFd + index);
    if (fd === undefined || this.#service === undefined || this.#adopted.has(index)) return;
    this.#adopted.set(index, this.#service.server.adopt(fd));
  }

  async #reload({ id, settings: sent }: Extract<ToWorker, { type: "reload" }>): Promise<void> {
    const before = this.#keys;
    try {
      const settings = parseWorkerSettings(sent as WorkerSettings, this.#count);
      const keys = settings.secrets.map(({ key }) => key);
      this.#keys = [...before, ...keys]; // until it is known which of them serve
      await this.#service?.reload(settings);
      this.#keys = keys;
      this.#gate.configure(remoteRulesOf(settings.config));
      this.#log?.setLevel(settings.config.logLevel);
      this.#drainMs = settings.config.drainMs;
      this.#post({ type: "reloaded", id });
    } catch (error) {
      this.#keys = before;
      this.#post({ type: "reloaded", id, error: explain(error).message });
    }
  }

  /** Says what is left to say when `ending` is over, and ends. */
  async #finish(ending: Promise<void> | undefined, code: number): Promise<void> {
    await ending;
    for (const round of this.#rounds) round.stop();
    this.#sendUsed();
    this.#sendFigures(0);
    await this.#log?.close();
    this.#sendRecords();
    await this.#leave(code);
  }

  /** Ends once the supervisor has heard everything: what waits to be sent is lost with the process. */
  async #leave(code: number): Promise<void> {
    this.#outbox.flush();
    if (!this.#orphaned) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#send([], resolve);
      setTimeout(resolve, LAST_WORDS_MS);
      await promise;
    }
    this.#end(code);
  }

  #write(record: LogRecord): void {
    this.#records.push(record);
    if (this.#records.length === 1) setImmediate(() => this.#sendRecords());
  }

  #sendRecords(): void {
    const records = this.#records;
    if (records.length === 0) return;
    this.#records = [];
    this.#post({ type: "log", records });
  }

  #sendUsed(): void {
    const tally = this.#service?.server.tally();
    if (tally === undefined || tally.size === 0) return;
    this.#post({ type: "used", users: [...tally].map(([user, { up, down }]) => ({ user, up, down })) });
  }

  #sendFigures(id: number): void {
    const figures = this.#service?.stats.figures();
    if (figures !== undefined)
      this.#post({ type: "figures", id, figures, process: readProcessFigures(this.#lag) });
  }
}

function explain(error: unknown): { readonly message: string; readonly hint?: string } {
  if (error instanceof StartError) return { message: error.message, hint: error.hint };
  if (error instanceof ConfigError) return { message: error.message };
  return { message: error instanceof Error ? error.message : String(error) };
}
