import { StartError } from "../core/errors.ts";
import { type FromWorker, PROTOCOL, type ToWorker } from "./messages.ts";
import { Outbox } from "./outbox.ts";

/** From its start until a worker listens, in milliseconds. */
const READY_MS = 30_000;
/** So long after it should have ended by itself, a worker is killed, in milliseconds. */
const KILL_AFTER_MS = 10_000;

/** A process that runs a worker. */
export interface WorkerProcess {
  readonly pid: number;
  send(batch: readonly ToWorker[]): void;
  kill(): void;
}

/** What a process says, and how it ends; called from the event loop. */
export interface WorkerProcessEvents {
  onMessages(batch: readonly FromWorker[]): void;
  onExit(code: number | null, signal: string | null): void;
}

/** How a worker is. */
export type WorkerState = "starting" | "ready" | "draining";

/** Hears of one worker. */
export interface LiveWorkerListener {
  onMessage(worker: LiveWorker, message: FromWorker): void;
  /** The process is gone: `was killed by SIGKILL`. */
  onGone(worker: LiveWorker, how: string): void;
}

/** One worker process, from its start to its end. */
export class LiveWorker {
  readonly index: number;
  /** `Date.now()`. */
  readonly startedAt = Date.now();
  /** Resolves when it listens; rejects with a {@link StartError} when it ends before. */
  readonly ready: Promise<void>;
  /** When it said something last: `performance.now()`, which stands still while the machine sleeps. */
  #heardAt = performance.now();
  #state: WorkerState = "starting";
  readonly #listener: LiveWorkerListener;
  readonly #process: WorkerProcess;
  readonly #outbox: Outbox<ToWorker>;
  readonly #resolve: () => void;
  readonly #reject: (error: StartError) => void;
  #failure: StartError | undefined;
  #killer: ReturnType<typeof setTimeout>;

  /** @param spawn Starts the process. */
  constructor(
    index: number,
    spawn: (index: number, events: WorkerProcessEvents) => WorkerProcess,
    listener: LiveWorkerListener,
  ) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // who waits for it hears it; a new try in the background has nobody who does
    this.index = index;
    this.ready = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#listener = listener;
    this.#process = this.#spawn(spawn);
    this.#outbox = new Outbox((batch) => this.#process.send(batch));
    this.#killer = setTimeout(() => this.#process.kill(), READY_MS);
  }

  /** 0: it could not be started. */
  get pid(): number {
    return this.#process.pid;
  }

  /** For how long it has said nothing, in milliseconds. */
  get silentMs(): number {
    return performance.now() - this.#heardAt;
  }

  get state(): WorkerState {
    return this.#state;
  }

  post(message: ToWorker): void {
    this.#outbox.post(message);
  }

  /** Has it accept nobody any more, and end when its sessions have, `ms` later at the latest. */
  drain(ms: number): void {
    this.post({ type: "drain", ms });
    this.#leave(ms);
  }

  /** As {@link LiveWorker.drain}, for the end of the program. */
  stop(graceMs: number): void {
    this.post({ type: "stop", graceMs });
    this.#leave(graceMs * 2); // once for the sessions, once for their closing handshakes
  }

  /** Ends it at once. */
  kill(): void {
    this.#process.kill();
  }

  /** As good as one that ends at once, where there can be none: no memory, or the program is not there any more. */
  #spawn(spawn: (index: number, events: WorkerProcessEvents) => WorkerProcess): WorkerProcess {
    try {
      return spawn(this.index, {
        onMessages: (batch) => {
          this.#heardAt = performance.now();
          for (const message of batch) this.#onMessage(message);
        },
        onExit: (code, signal) => {
          this.#onExit(signal === null ? `ended with code ${code}` : `was killed by ${signal}`);
        },
      });
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const message = `Cannot start worker ${this.index}: ${why}`;
      this.#failure = new StartError("WORKER", message, hintOn(error));
      setImmediate(() => this.#onExit(`cannot be started: ${why}`));
      return { pid: 0, send: () => {}, kill: () => {} };
    }
  }

  #leave(ms: number): void {
    this.#state = "draining";
    clearTimeout(this.#killer);
    this.#killer = setTimeout(() => this.#process.kill(), ms + KILL_AFTER_MS);
  }

  #onMessage(message: FromWorker): void {
    if (message.type === "ready") this.#onReady(message.protocol);
    else if (message.type === "failed") {
      this.#failure = new StartError("WORKER", message.message, message.hint ?? "see the lines above");
    } else if (message.type === "leaving") this.#state = "draining";
    this.#listener.onMessage(this, message);
  }

  #onReady(protocol: number): void {
    if (protocol !== PROTOCOL) {
      this.#failure = new StartError(
        "WORKER",
        "Cannot use the new worker: its version and the running one do not understand each other",
        "stop tgws and start it again",
      );
      this.#process.kill();
      return;
    }
    if (this.#state === "starting") {
      clearTimeout(this.#killer); // otherwise it is there for the end, which has begun
      this.#state = "ready";
    }
    this.#resolve();
  }

  #onExit(how: string): void {
    clearTimeout(this.#killer);
    const why = this.#failure === undefined || this.pid === 0 ? how : `${how} (${this.#failure.message})`;
    this.#reject(
      this.#failure ??
        new StartError("WORKER", `Cannot start worker ${this.index}: it ${how}`, "see the lines above"),
    );
    this.#listener.onGone(this, why);
  }
}

/** What to do where no process can be started. */
function hintOn(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "EMFILE" || code === "ENFILE")
    return "raise the limit of open files: ulimit -n, LimitNOFILE= in systemd; or use fewer --workers";
  if (code === "ENOMEM" || code === "EAGAIN") return "the system has no room for more: use fewer --workers";
  return "the user that tgws runs as must be able to execute it";
}
