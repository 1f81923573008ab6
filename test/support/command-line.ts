import { spyOn } from "bun:test";
import { run } from "../../src/cli/run.ts";

/** What a command line has done. */
export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What was written to standard error, but not as a message of `run`. */
  readonly progress: string;
}

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Runs the command line in this process, with what it prints kept. */
export async function runTgws(...argv: readonly string[]): Promise<Result> {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const progress: string[] = [];
  const listeners = SIGNALS.map((signal) => process.listeners(signal));
  const out = spyOn(console, "log").mockImplementation((text: string) => void stdout.push(`${text}\n`));
  const err = spyOn(console, "error").mockImplementation((text: string) => void stderr.push(`${text}\n`));
  const write = spyOn(process.stderr, "write").mockImplementation((text) => {
    progress.push(String(text));
    return true;
  });
  try {
    const code = await run(argv);
    return { code, stdout: stdout.join(""), stderr: stderr.join(""), progress: progress.join("") };
  } finally {
    write.mockRestore();
    out.mockRestore();
    err.mockRestore();
    // A proxy that could not start has begun to wait for signals, since its process would be over.
    for (const [at, signal] of SIGNALS.entries()) {
      for (const listener of process.listeners(signal)) {
        if (!listeners[at]?.includes(listener)) process.off(signal, listener);
      }
    }
  }
}
