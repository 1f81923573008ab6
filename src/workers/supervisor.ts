import type { Logger } from "../core/logger.ts";
import {
  LiveWorker,
  type LiveWorkerListener,
  type WorkerProcess,
  type WorkerProcessEvents,
  type WorkerState,
} from "./live-worker.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/** A worker that lived for so long was well: its death is a first one, in milliseconds. */
const WELL_MS = 60_000;
/** Before the next try after the second death in a row; it doubles with each, in milliseconds. */
const BACK_OFF_MS = { first: 500, most: 30_000 } as const;

/** Workers say how they are every few seconds: for one that has missed three times others accept, too, in milliseconds. */
const LATE_MS = 15_000;
/** One that says nothing for so long hangs, in milliseconds. */
const SILENT_MS = 60_000;
const LOOK_MS = 10_000;

/** Who knows what the messages mean. */
export interface WorkerListener {
  /** A worker has been started: what it is to hear first. */
  onStarted(worker: LiveWorker): ToWorker;
  onMessage(worker: LiveWorker, message: FromWorker): void;
  onGone(worker: LiveWorker): void;
}

/** One worker, or a slot that waits for its next one. */
export interface WorkerStatus {
  readonly index: number;
  /** 0: there is none at the moment. */
  readonly pid: number;
  readonly state: WorkerState | "waiting";
  /** `Date.now()`; 0 without a worker. */
  readonly startedAt: number;
  /** How often a worker of this slot has died. */
  readonly restarts: number;
}

/** What a {@link Supervisor} needs. */
export interface SupervisorOptions {
  readonly count: number;
  /** Starts a process. */
  readonly spawn: (index: number, events: WorkerProcessEvents) => WorkerProcess;
  readonly listener: WorkerListener;
  readonly log: Logger;
  /** How long a worker that is replaced lets its sessions go on; asked for when it is. */
  readonly drainMs: () => number;
}

/** Where one worker listens: its socket outlives it. */
interface Slot {
  readonly index: number;
  /** The one that accepts, or will; the others let their sessions end. */
  current: LiveWorker | undefined;
  readonly live: Set<LiveWorker>;
  /** Deaths in a row. */
  failures: number;
  restarts: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  /** Who accepts from its socket while it has no worker. */
  deputy: LiveWorker | undefined;
}

/** Keeps one worker alive in each slot. */
export class Supervisor {
  readonly #slots: readonly Slot[];
  readonly #options: SupervisorOptions;
  /** Workers that were silent for too long at the last look. */
  #suspects: ReadonlySet<LiveWorker> = new Set();
  #look: ReturnType<typeof setInterval> | undefined;
  #started = false;
  #stopping = false;
  #rolling = false;
  #onEmpty: (() => void) | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#slots = Array.from({ length: options.count }, (_, index) => ({
      index,
      current: undefined,
      live: new Set<LiveWorker>(),
      failures: 0,
      restarts: 0,
      timer: undefined,
      deputy: undefined,
    }));
  }

  /** Starts a worker in every slot. @throws {StartError} `WORKER` when one cannot start; then none is left. */
  async start(): Promise<void> {
    const starting = this.#slots.map((slot) => {
      slot.current = this.#launch(slot);
      return slot.current.ready;
    });
    const failed = (await Promise.allSettled(starting)).find((one) => one.status === "rejected");
    if (failed === undefined) {
      this.#started = true;
      this.#look = setInterval(() => {
        this.#killSilent();
        this.#depute();
      }, LOOK_MS);
      return;
    }
    await this.stop(0);
    throw failed.reason;
  }

  /** Every live worker, those that only let their sessions end included, and the slots that have none. */
  get workers(): readonly WorkerStatus[] {
    return this.#slots.flatMap(({ index, live, current, restarts }): WorkerStatus[] => {
      const all = [...live].map(({ pid, state, startedAt }) => ({ index, pid, state, startedAt, restarts }));
      return current === undefined
        ? [...all, { index, pid: 0, state: "waiting", startedAt: 0, restarts }]
        : all;
    });
  }

  get live(): readonly LiveWorker[] {
    return this.#slots.flatMap(({ live }) => [...live]);
  }

  broadcast(message: ToWorker): void {
    for (const worker of this.live) worker.post(message);
  }

  /**
   * Replaces the workers, one after the other. A new one accepts before the old one stops to, from the same socket, so
   * that nobody is refused; the old one goes on with its sessions.
   */
  async restart(): Promise<void> {
    const { log, drainMs } = this.#options;
    if (this.#stopping) return;
    if (this.#rolling) {
      log.warn("the workers are being replaced already");
      return;
    }
    this.#rolling = true;
    try {
      for (const slot of this.#slots) {
        if (slot.current === undefined) continue; // the next one will be new anyway
        const after = this.#launch(slot);
        await after.ready;
        if (this.#stopping) return;
        slot.current?.drain(drainMs()); // by now that may be another one, or none
        this.#settle(slot, after);
        this.#depute();
      }
      log.info("all workers have been replaced");
    } catch (error) {
      if (this.#stopping) return; // the new one has ended with the others
      const why = error instanceof Error ? error.message : String(error);
      log.error(`the workers are not replaced, those that there are go on: ${why}`);
    } finally {
      this.#rolling = false;
    }
  }

  /** Ends all workers, within twice `graceMs` and some seconds. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#look);
    for (const { timer } of this.#slots) clearTimeout(timer);
    const workers = this.live;
    if (workers.length === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onEmpty = resolve;
    for (const worker of workers) worker.stop(graceMs);
    await promise;
  }

  /** Ends all of them at once. */
  kill(): void {
    for (const worker of this.live) worker.kill();
  }

  /** One that hangs keeps its clients waiting for ever; those who come go to the next one. */
  #killSilent(): void {
    const silent = this.live.filter(({ state, silentMs }) => state !== "starting" && silentMs > SILENT_MS);
    for (const worker of silent) {
      if (!this.#suspects.has(worker)) continue; // after a sleep of the machine everybody was silent
      this.#options.log.error(
        `worker ${worker.index} (${worker.pid}) has said nothing for a minute: it is killed`,
      );
      worker.kill();
    }
    this.#suspects = new Set(silent);
  }

  #launch(slot: Slot): LiveWorker {
    const { spawn, listener } = this.#options;
    const events: LiveWorkerListener = {
      onMessage: (worker, message) => {
        if (message.type === "leaving") this.#replace(slot, worker);
        else listener.onMessage(worker, message);
      },
      onGone: (worker, how) => this.#onGone(slot, worker, how),
    };
    const worker = new LiveWorker(slot.index, spawn, events);
    slot.live.add(worker);
    worker.post(listener.onStarted(worker));
    worker.ready.then(
      () => this.#depute(),
      () => {}, // `onGone` has it
    );
    return worker;
  }

  #settle(slot: Slot, worker: LiveWorker): void {
    clearTimeout(slot.timer);
    slot.timer = undefined;
    slot.current = worker;
  }

  /** It has been told to end, and not by us. */
  #replace(slot: Slot, worker: LiveWorker): void {
    if (slot.current !== worker || this.#stopping) return;
    this.#options.log.warn(
      `worker ${slot.index} (${worker.pid}) was told to end: another one takes its place`,
    );
    this.#settle(slot, this.#launch(slot));
    this.#depute();
  }

  #onGone(slot: Slot, worker: LiveWorker, how: string): void {
    const { listener } = this.#options;
    slot.live.delete(worker);
    listener.onGone(worker);
    if (this.#stopping && this.live.length === 0) this.#onEmpty?.();
    if (slot.current === worker) this.#onDeath(slot, worker, how);
    this.#depute();
  }

  #onDeath(slot: Slot, worker: LiveWorker, how: string): void {
    slot.current = undefined;
    if (this.#stopping || !this.#started) return;
    slot.restarts += 1;
    slot.failures = Date.now() - worker.startedAt >= WELL_MS ? 1 : slot.failures + 1;
    const waitMs = backOff(slot.failures);
    const next = waitMs === 0 ? "another one starts" : `another one starts in ${waitMs / 1000} s`;
    const who = worker.pid === 0 ? `worker ${slot.index}` : `worker ${slot.index} (${worker.pid})`;
    this.#options.log.error(`${who} ${how}: ${next}`);
    slot.timer = setTimeout(() => this.#settle(slot, this.#launch(slot)), waitMs);
  }

  /**
   * Has others accept from the sockets of slots that keep losing their own workers, or whose worker seems to hang, until
   * one serves there. Who is about to end accepts nobody any more: then it is somebody else's turn.
   */
  #depute(): void {
    if (this.#stopping) return;
    const serving = this.#slots.flatMap(({ current }) =>
      current !== undefined && serves(current) ? [current] : [],
    );
    for (const slot of this.#slots) {
      const { current, deputy, failures } = slot;
      const isHelped = current?.state === "ready" ? serves(current) : failures <= 1;
      const stays = deputy !== undefined && serving.includes(deputy);
      const next = isHelped ? undefined : stays ? deputy : serving[0];
      if (next === deputy) continue;
      deputy?.post({ type: "abandon", index: slot.index });
      next?.post({ type: "adopt", index: slot.index });
      slot.deputy = next;
    }
  }
}

/** Whether it accepts, as far as it has said something lately. */
function serves({ state, silentMs }: LiveWorker): boolean {
  return state === "ready" && silentMs <= LATE_MS;
}

/** @param failures In a row: 1 and up. */
function backOff(failures: number): number {
  if (failures <= 1) return 0;
  return Math.min(BACK_OFF_MS.first * 2 ** (failures - 2), BACK_OFF_MS.most);
}
