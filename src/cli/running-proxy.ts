import type { LoadedConfig } from "../config/load-config.ts";
import type { ListeningSocket } from "../net/listening-socket.ts";
import { type Round, Rounds } from "../net/rounds.ts";
import type { ProcessLogger } from "../observe/log.ts";
import { LagWatch, readProcessFigures } from "../observe/process-figures.ts";
import { formatStatLines, formatSummary } from "../observe/stats-text.ts";
import type { Readiness, StatusReport } from "../observe/status-report.ts";
import type { Usage } from "../proxy/gate-user.ts";
import { type GateRules, LocalGate } from "../proxy/local-gate.ts";
import { gateRulesOf, ProcessRoom } from "./build-gate.ts";
import type { Engine, Settings } from "./engine.ts";
import type { FileStates } from "./file-watch.ts";
import { LazyHellos } from "./lazy-hellos.ts";
import { LocalEngine } from "./local-engine.ts";
import { lookAtFilesOf, Reloader } from "./reloader.ts";
import { resolveSecrets } from "./secrets.ts";
import type { State } from "./state.ts";
import { UsageKeeper } from "./usage-keeper.ts";

/** How often it is looked whose time is over, in milliseconds. */
const LOOK_MS = 1_000;
const SUMMARY_MS = 60_000;
/** How long sessions may finish by themselves when the program ends, in milliseconds. */
const GRACE_MS = 5_000;

/** The keys that no log line may have in it. */
export interface KnownKeys {
  keys: readonly Uint8Array[];
}

/** What a {@link RunningProxy} is started with. */
export interface ProxyParts {
  readonly version: string;
  readonly loaded: LoadedConfig;
  /** Reads the configuration again. @throws {ConfigError} @throws {StartError} */
  readonly load: () => LoadedConfig;
  /** One for each process that serves; `undefined`: this one opens its own. */
  readonly sockets: readonly ListeningSocket[] | undefined;
  readonly log: ProcessLogger;
  readonly known: KnownKeys;
  readonly state: State;
}

/** What there is once, however many processes serve: who may come, the configuration, and the figures. */
export class RunningProxy {
  readonly #parts: ProxyParts;
  readonly #gate: LocalGate;
  #rules: GateRules;
  readonly #usage: UsageKeeper;
  readonly #engine: Engine;
  readonly #reloader: Reloader;
  /** What it measures is shown by the status server only. */
  readonly #lag: LagWatch | undefined;
  readonly #startedAt = Date.now();
  readonly #rounds: readonly Round[];
  #lastSummary: string | undefined;

  /** Serves from now on. @throws {StartError} @throws {ConfigError} */
  static async start(parts: ProxyParts): Promise<RunningProxy> {
    const { loaded, log, known, sockets, state } = parts;
    const files = lookAtFilesOf(loaded); // now: a start may take seconds, and they may change meanwhile
    let engine: Engine | undefined;
    const rounds = new Rounds();
    const gate = new LocalGate({
      onRevoked: (users) => engine?.revoke(users),
      onRate: (user, rate) => engine?.setRate(user, rate),
    });
    const usage = new UsageKeeper({
      gate,
      folder: state.folder,
      rounds,
      onFailed: (error) => log.warn(error.message),
      onReset: (users) => engine?.forget(users),
    });
    const settings = { ...loaded, secrets: resolveSecrets(loaded.config) };
    known.keys = keysOf(settings);
    const rules = gateRulesOf(settings.config, settings.secrets);
    gate.configure(rules);
    if (loaded.raw.users !== undefined) await usage.start();
    const onUsed = (bytes: ReadonlyMap<string, Usage>): void => {
      gate.used(bytes);
      usage.note(bytes);
    };
    const room = new ProcessRoom();
    const shared = { log, gate, hellos: new LazyHellos(state), onUsed };
    if (sockets !== undefined && sockets.length > 1) {
      const { WorkerEngine } = await import("./worker-engine.ts"); // few have workers
      engine = await WorkerEngine.start(settings, { ...shared, sockets });
    } else {
      const own = { socket: sockets?.[0], state, room, rounds, keepsRoutes: true };
      engine = await LocalEngine.start(settings, { ...shared, ...own });
    }
    const warning = room.warningOf(loaded.config, sockets?.length ?? 1);
    if (warning !== undefined) log.warn(warning);
    return new RunningProxy(parts, { files, gate, rules, usage, engine, rounds });
  }

  private constructor(
    parts: ProxyParts,
    made: {
      readonly files: FileStates;
      readonly gate: LocalGate;
      readonly rules: GateRules;
      readonly usage: UsageKeeper;
      readonly engine: Engine;
      readonly rounds: Rounds;
    },
  ) {
    const { loaded: current, load, log } = parts;
    this.#parts = parts;
    this.#gate = made.gate;
    this.#rules = made.rules;
    this.#usage = made.usage;
    this.#engine = made.engine;
    this.#lag = current.config.status === undefined ? undefined : new LagWatch();
    const { files, rounds } = made;
    const apply = (loaded: LoadedConfig): Promise<void> => this.#apply(loaded);
    this.#reloader = new Reloader({ current, files, load, apply, log, rounds });
    this.#rounds = [
      rounds.every(LOOK_MS, () => made.gate.look()),
      rounds.every(SUMMARY_MS, () => void this.#summarize()),
    ];
  }

  get port(): number {
    return this.#engine.port;
  }

  get readiness(): Readiness {
    return this.#engine.readiness;
  }

  async report(): Promise<StatusReport> {
    const { figures, workers } = await this.#engine.collect();
    const own = readProcessFigures(this.#lag);
    const { current, loadedAt, lastError } = this.#reloader;
    const { maxConnections, maxPerAddress, addressRate, bufferBytes } = current.config;
    return {
      version: this.#parts.version,
      time: Date.now(),
      startedAt: this.#startedAt,
      process: own,
      workers: workers.map((worker) => (worker.pid === own.pid ? { ...worker, process: own } : worker)),
      figures,
      users: this.#gate.users(),
      limits: { maxConnections, maxPerAddress, addressRate, bufferBytes },
      config: { file: current.file, loadedAt, lastError },
    };
  }

  /** Reads the configuration again. */
  reload(): void {
    this.#reloader.reload();
  }

  /** The log file was moved away. */
  reopenLog(): void {
    const { log } = this.#parts;
    void log.reopen().then((isOpen) => {
      if (isOpen) log.info("the log file has been opened again"); // otherwise it has said why not, or there is none
    });
  }

  /** Replaces the workers. */
  restart(): void {
    this.#engine.restart();
  }

  /** Accepts nobody any more, lets sessions end for some seconds, and says what there was. */
  async stop(): Promise<void> {
    const { log } = this.#parts;
    this.#reloader.stop();
    for (const round of this.#rounds) round.stop();
    await this.#engine.stop(GRACE_MS);
    this.#usage.close();
    this.#lag?.stop();
    const { figures } = await this.#engine.collect();
    log.info(`stats: ${formatSummary(figures)}`);
    for (const line of formatStatLines(figures)) log.info(`stats: ${line}`);
  }

  async #apply(loaded: LoadedConfig): Promise<void> {
    const settings = { ...loaded, secrets: resolveSecrets(loaded.config) };
    const { known, log } = this.#parts;
    let keys = known.keys;
    known.keys = [...keys, ...keysOf(settings)]; // until it is known which of them serve
    const before = this.#rules;
    const after = gateRulesOf(settings.config, settings.secrets);
    // Workers know new users one after the other; none of them must know one whom the gate does not.
    this.#gate.configure({ ...before, users: withNewUsers(before, after) });
    try {
      await this.#engine.reload(settings);
      this.#rules = after;
      keys = keysOf(settings);
    } finally {
      this.#gate.configure(this.#rules);
      known.keys = keys;
    }
    log.setLevel(loaded.config.logLevel);
    if (loaded.raw.users !== undefined) await this.#usage.start();
    if (loaded.config.users.length === 0 && this.#reloader.current.config.users.length > 0)
      log.warn(
        "there are no users any more: whoever has the secret that is kept is served (tgws link shows it)",
      );
  }

  /** While something happens, a line a minute. */
  async #summarize(): Promise<void> {
    const { log } = this.#parts;
    const { figures } = await this.#engine.collect();
    const summary = formatSummary(figures);
    if (summary !== this.#lastSummary && figures.connections.total > 0) {
      log.info(`stats: ${summary}`);
      for (const line of formatStatLines(figures)) log.debug(`stats: ${line}`);
    }
    this.#lastSummary = summary;
  }
}

function keysOf({ secrets }: Pick<Settings, "secrets">): readonly Uint8Array[] {
  return secrets.map(({ key }) => key);
}

/** The users of `before`, and those that only `after` has. */
function withNewUsers(before: GateRules, after: GateRules): GateRules["users"] {
  const known = new Set(before.users.map(({ name }) => name));
  return [...before.users, ...after.users.filter(({ name }) => !known.has(name))];
}
