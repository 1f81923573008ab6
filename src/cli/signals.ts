import { closeSync, openSync } from "node:fs";
import { isatty } from "node:tty";

/** Two SIGINT within this time are one Ctrl-C, in milliseconds. */
const ECHO_MS = 100;
/** What shells report for a program that Ctrl-C ended. */
const EXIT_SECOND_SIGNAL = 130;

/** What signals besides the ending ones ask for. */
export interface SignalActions {
  /** SIGHUP */
  reload(): void;
  /** SIGUSR1 */
  reopenLog(): void;
  /** SIGUSR2 */
  restart(): void;
}

/** The signals of a running proxy. */
export class Signals {
  /** Resolves at the first SIGINT or SIGTERM; another one then ends the process at once. */
  readonly ended: Promise<void>;
  readonly #end: () => void;
  #actions: SignalActions | undefined;
  /** A reload was asked for before there was anything to reload. */
  #reloadsLater = false;
  readonly #hadTerminal = [0, 1, 2].some((fd) => isatty(fd));

  /**
   * Listens from now on. Before {@link Signals.serve}, a reload is put off until then, since what it is for may have
   * been read already; other signals have no effect, but do not end the process either.
   */
  constructor() {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.ended = promise;
    this.#end = resolve;
    const onEnd = endOnce(resolve);
    process.on("SIGINT", onEnd);
    process.on("SIGTERM", onEnd);
    if (process.platform === "win32") return;
    process.on("SIGHUP", () => this.#onHangUp());
    process.on("SIGUSR1", () => this.#actions?.reopenLog());
    process.on("SIGUSR2", () => this.#actions?.restart());
  }

  serve(actions: SignalActions): void {
    this.#actions = actions;
    if (this.#reloadsLater) actions.reload();
  }

  /** A daemon is asked to read its configuration again; a program in a terminal hears that its window was closed. */
  #onHangUp(): void {
    if (this.#hadTerminal && !isTerminalThere()) this.#end();
    else if (this.#actions === undefined) this.#reloadsLater = true;
    else this.#actions.reload();
  }
}

/** Whether the terminal that it was started in is there still. */
function isTerminalThere(): boolean {
  try {
    closeSync(openSync("/dev/tty", "r"));
    return true;
  } catch {
    return false;
  }
}

/**
 * A package script's runner passes on the SIGINT that the terminal has sent to us already, so there one Ctrl-C comes
 * twice.
 */
function endOnce(onFirst: () => void): (signal: NodeJS.Signals) => void {
  const echoes = process.env["npm_lifecycle_event"] === "start";
  let first: { readonly signal: NodeJS.Signals; readonly at: number } | undefined;
  return (signal) => {
    const now = performance.now();
    if (first === undefined) {
      first = { signal, at: now };
      onFirst();
    } else if (!echoes || signal !== first.signal || now - first.at > ECHO_MS) {
      process.exit(EXIT_SECOND_SIGNAL);
    }
  };
}
