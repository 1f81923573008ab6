import { readFileSync } from "node:fs";
import type { Subprocess } from "bun";

/** A process of the benchmark: the stub data centre, or a proxy. */
export interface Child {
  readonly pid: number;
  readonly process: Subprocess;
  /** Everything that it has written, standard output and errors together, in a file. */
  readonly outputFile: string;
}

const running = new Set<Subprocess>();

/** Starts a process that is killed at the latest when this one ends. */
export function startChild(
  command: readonly string[],
  outputFile: string,
  env: Readonly<Record<string, string>> = {},
): Child {
  const output = Bun.file(outputFile);
  const child = Bun.spawn([...command], {
    // Kept open: our own programs end when it closes, should this process be killed without a chance to clean up.
    stdin: "pipe",
    stdout: output,
    stderr: output,
    env: { ...process.env, ...env },
    onExit(ended) {
      running.delete(ended);
    },
  });
  running.add(child);
  return { pid: child.pid, process: child, outputFile };
}

/** Kills a child and waits for its end. */
export async function stopChild({ process: child }: Child): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
}

/** Kills every child that still runs. */
export function killChildren(): void {
  for (const child of running) child.kill("SIGKILL");
}

/** The last lines that a child has written: what to show when it fails. */
export function lastWords({ outputFile }: Child): string {
  return readFileSync(outputFile, "utf8").trimEnd().split("\n").slice(-5).join("\n");
}

/** Makes sure that no child outlives this process, however it ends. */
export function killChildrenAtExit(): void {
  process.on("exit", killChildren);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => process.exit(130));
  }
}

/**
 * Waits until something accepts connections on a port of loopback.
 *
 * @returns Milliseconds since `startedAt`, `performance.now()`.
 * @throws {Error} When the child ends first, or after 10 seconds.
 */
export async function waitUntilListening(child: Child, port: number, startedAt: number): Promise<number> {
  while (performance.now() - startedAt < 10_000) {
    try {
      const socket = await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
      const tookMs = performance.now() - startedAt;
      socket.terminate();
      return tookMs;
    } catch {
      // not yet: refused
    }
    if (child.process.exitCode !== null) break;
    await Bun.sleep(1);
  }
  throw new Error(`nothing listens on port ${port}:\n${lastWords(child)}`);
}

/** Returns a port of loopback that is free at the moment. */
export function findFreePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
