import type { WorkerProcess, WorkerProcessEvents } from "./live-worker.ts";
import type { FromWorker } from "./messages.ts";

/** The first descriptor after the standard streams: there a worker finds the first socket. */
export const FIRST_SOCKET_FD = 3;

/** How a worker is started. */
export interface WorkerCommand {
  /** The program and its arguments. */
  readonly command: readonly string[];
  /** Listening sockets that it inherits, all of them, as {@link FIRST_SOCKET_FD} and following. */
  readonly sockets: readonly number[];
}

/**
 * Starts a worker process: this program once more, with an IPC channel. Its output goes where ours goes.
 *
 * @throws {Error} When it cannot be started: no memory, or the program is not there any more.
 */
export function spawnWorker({ command, sockets }: WorkerCommand, events: WorkerProcessEvents): WorkerProcess {
  const child = Bun.spawn([...command], {
    stdio: ["ignore", "inherit", "inherit", ...sockets],
    serialization: "json",
    ipc: (batch: FromWorker[]) => events.onMessages(batch),
    onExit: (_, code) => {
      // Its last words may still be on their way.
      setImmediate(() => events.onExit(code, code === null ? String(child.signalCode ?? "a signal") : null));
    },
  });
  return {
    pid: child.pid,
    send: (batch) => {
      try {
        child.send(batch);
      } catch {
        // It is gone: `onExit` follows.
      }
    },
    kill: () => child.kill("SIGKILL"),
  };
}

/** How this program is started once more: as an executable, or from its source. */
export function ownCommand(): readonly string[] {
  const compiled = Bun.main.startsWith("/$bunfs/") || Bun.main.startsWith("B:\\~BUN\\");
  return compiled ? [process.execPath] : [process.execPath, "run", Bun.main];
}
