import type { Subprocess } from "bun";

const running = new Set<Subprocess>();

/** A process of the soak that takes orders and reports over IPC. It ends when the channel does. */
export class Talker<Order, Report extends { readonly type: string }> {
  /** Hears of every report. */
  onReport: (report: Report) => void = () => {};
  readonly #process: Subprocess;
  readonly #waiting = new Map<string, (report: Report) => void>();

  /** @param outputFile Gets what it prints. */
  constructor(command: readonly string[], outputFile: string) {
    const output = Bun.file(outputFile);
    this.#process = Bun.spawn([...command], {
      stdin: "ignore",
      stdout: output,
      stderr: output,
      serialization: "json",
      ipc: (report: Report) => this.#onReport(report),
      onExit: (ended) => {
        running.delete(ended);
      },
    });
    running.add(this.#process);
  }

  get pid(): number {
    return this.#process.pid;
  }

  send(order: Order): void {
    this.#process.send(order);
  }

  /** Waits for the next report of a type. @throws {Error} When it does not come in time. */
  async next<Type extends Report["type"]>(
    type: Type,
    limitMs = 10_000,
  ): Promise<Extract<Report, { readonly type: Type }>> {
    const { promise, resolve, reject } = Promise.withResolvers<Report>();
    const timer = setTimeout(() => reject(new Error(`no report "${type}" for ${limitMs / 1000} s`)), limitMs);
    this.#waiting.set(type, resolve);
    try {
      return (await promise) as Extract<Report, { readonly type: Type }>;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(type);
    }
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }

  #onReport(report: Report): void {
    this.#waiting.get(report.type)?.(report);
    this.onReport(report);
  }
}

/** Kills every such process that still runs. */
export function killTalkers(): void {
  for (const child of running) child.kill("SIGKILL");
}
