import type { Round } from "../net/rounds.ts";
import type { Readiness } from "../observe/status-report.ts";
import type { Usage } from "../proxy/gate-user.ts";
import type { Collected, Engine, Settings } from "./engine.ts";
import { Service, type ServiceDeps } from "./service.ts";

/** How often it is said what users have moved, in milliseconds. */
const TALLY_MS = 1_000;

/** What it says to whom. */
export interface LocalEngineDeps extends ServiceDeps {
  readonly onUsed: (bytes: ReadonlyMap<string, Usage>) => void;
}

/** One process does everything. */
export class LocalEngine implements Engine {
  readonly #service: Service;
  readonly #deps: LocalEngineDeps;
  readonly #tally: Round;
  readonly #startedAt = Date.now();
  #stopping = false;

  /** @throws {StartError} @throws {ConfigError} */
  static async start(settings: Settings, deps: LocalEngineDeps): Promise<LocalEngine> {
    return new LocalEngine(await Service.start(settings, deps), deps);
  }

  private constructor(service: Service, deps: LocalEngineDeps) {
    this.#service = service;
    this.#deps = deps;
    this.#tally = deps.rounds.every(TALLY_MS, () => deps.onUsed(service.server.tally()));
  }

  get port(): number {
    return this.#service.server.port;
  }

  get readiness(): Readiness {
    return this.#stopping ? { ok: false, reason: "stopping" } : { ok: true, reason: "accepting connections" };
  }

  reload(settings: Settings): Promise<void> {
    return this.#service.reload(settings);
  }

  collect(): Promise<Collected> {
    const worker = {
      index: 0,
      pid: process.pid,
      state: this.#stopping ? "draining" : "running",
      startedAt: this.#startedAt,
      restarts: 0,
      process: undefined, // whoever asks is in it, too
    } as const;
    return Promise.resolve({ figures: this.#service.stats.figures(), workers: [worker] });
  }

  revoke(users: readonly string[]): void {
    this.#service.server.revoke(users);
  }

  setRate(user: string): void {
    void this.#service.server.slow(user);
  }

  forget(users: ReadonlySet<string>): void {
    const tally = this.#service.server.tally();
    for (const user of users) tally.delete(user);
    this.#deps.onUsed(tally);
  }

  restart(): void {
    this.#deps.log.warn("there are no workers to replace: --workers 2 or more makes some");
  }

  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    await this.#service.stop(graceMs);
    this.#tally.stop();
    this.#deps.onUsed(this.#service.server.tally());
  }
}
