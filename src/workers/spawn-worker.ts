import type { WorkerProcess, WorkerProcessEvents } from "./live-worker.ts";
import type { FromWorker } from "./messages.ts";

/** The first descriptor after the standard streams: there a worker finds the first socket. */
export const FIRST_SOCKET_FD = 3;

/** What shells report for a program that cannot be executed. */
const EXIT_NOT_STARTED = 126;

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
 * Never throws: one that cannot be started, as its file is not there while it is being replaced, fails like others.
 */
export function spawnWorker(how: WorkerCommand, events: WorkerProcessEvents): WorkerProcess {
  try {
    return spawn(how, events);
  } catch (error) {
    const [file = ""] = how.command;
    const message = `Cannot start a worker: ${error instanceof Error ? error.message : String(error)}`;
    const hint = `the user that tgws runs as must be able to execute ${file}`;
    setImmediate(() => {
      events.onMessages([{ type: "failed", message, hint }]);
      events.onExit(EXIT_NOT_STARTED, null);
    });
    return { pid: 0, send: () => {}, kill: () => {} };
  }
}

function spawn({ command, sockets }: WorkerCommand, events: WorkerProcessEvents): WorkerProcess {
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
