import { renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type Child, findFreePort, startChild, waitUntilListening } from "../bench/children.ts";
import { readUsage } from "../bench/process-usage.ts";
import { childrenOf } from "./census.ts";
import { type ConfigValues, formatFlags, formatToml, type SoakUser } from "./config-text.ts";
import { CALM_DC, ROUGH_DC } from "./crowd.ts";
import type { DcPorts } from "./orders.ts";

const ENTRY = join(import.meta.dirname, "../../src/main.ts");

/** How the proxy is set up. */
export interface ProxySetting {
  readonly binary: string | undefined;
  readonly folder: string;
  readonly workers: number;
  readonly poolSize: number;
  readonly caFile: string;
  readonly ports: DcPorts;
  readonly cover: { readonly port: number; readonly domain: string } | undefined;
  /** How long sessions may go on when their worker is to end, in seconds. */
  readonly drainSeconds: number;
}

/** What a process of the proxy uses. */
export interface ProcessSample {
  readonly pid: number;
  readonly role: "supervisor" | "worker" | "proxy";
  readonly rssKib: number;
  readonly cpuSeconds: number;
}

/** Which of the flags that the soak can use this version has. */
export interface Features {
  readonly config: boolean;
  readonly workers: boolean;
  readonly status: boolean;
}

/** How the proxy hears of a changed file: by SIGHUP, or by watching it. */
export type Telling = "signal" | "file alone";

/** What the proxy says of itself, as far as it matters here. */
export interface ReportedState {
  readonly figures: {
    readonly connections: { readonly active: number; readonly ended: Readonly<Record<string, number>> };
  };
  readonly users: readonly {
    readonly name: string;
    readonly connections: number;
    readonly addresses: number;
  }[];
}

/** Asks the program for its flags. */
export function findFeatures(binary: string | undefined): Features {
  const { stdout } = Bun.spawnSync([...programOf(binary), "--help"]);
  const help = stdout.toString();
  return {
    config: /--config\b/.test(help),
    workers: /--workers\b/.test(help),
    status: /--status\b/.test(help),
  };
}

/** The proxy, all of its processes. */
export class SoakProxy {
  readonly port: number;
  readonly statusPort: number | undefined;
  readonly child: Child;
  /** There is a configuration file, which can be changed while it runs. */
  readonly configurable: boolean;
  /** There is a supervisor, and workers. */
  readonly supervised: boolean;
  readonly #values: ConfigValues;
  readonly #configFile: string;

  private constructor(setting: ProxySetting, features: Features, users: readonly SoakUser[]) {
    const { binary, folder, workers } = setting;
    this.port = findFreePort();
    this.statusPort = features.status ? findFreePort() : undefined;
    this.configurable = features.config;
    this.supervised = features.workers && workers > 1;
    this.#values = valuesOf(setting, features, this);
    this.#configFile = join(folder, "config.toml");
    if (features.config) this.#write(users);
    const flags = features.config ? ["--config", this.#configFile] : formatFlags(this.#values, users);
    // Added to the built-in roots: trust then costs what it costs a user.
    const env = { TGWS_HOME: folder, NODE_EXTRA_CA_CERTS: setting.caFile, NO_COLOR: "1" };
    this.child = startChild([...programOf(binary), ...flags], join(folder, "proxy.log"), env);
  }

  /** Starts it, and waits until it listens. */
  static async start(
    setting: ProxySetting,
    features: Features,
    users: readonly SoakUser[],
  ): Promise<SoakProxy> {
    const proxy = new SoakProxy(setting, features, users);
    await waitUntilListening(proxy.child, proxy.port, performance.now());
    return proxy;
  }

  get pid(): number {
    return this.child.pid;
  }

  get running(): boolean {
    return this.child.process.exitCode === null && this.child.process.signalCode === null;
  }

  /** Its worker processes; none where one process does everything. */
  get workers(): readonly number[] {
    return this.supervised ? childrenOf(this.pid) : [];
  }

  /** What each process uses at the moment. */
  sample(): readonly ProcessSample[] {
    const roles = [
      { pid: this.pid, role: this.supervised ? ("supervisor" as const) : ("proxy" as const) },
      ...this.workers.map((pid) => ({ pid, role: "worker" as const })),
    ];
    return roles.flatMap(({ pid, role }) => {
      try {
        const { rssKib = 0, cpuSeconds = 0 } = readUsage(pid);
        return { pid, role, rssKib, cpuSeconds };
      } catch {
        return []; // it has just ended
      }
    });
  }

  /** Writes another configuration. */
  configure(users: readonly SoakUser[], changes: ConfigValues, telling: Telling): void {
    this.#write(users, changes);
    if (telling === "signal") process.kill(this.pid, "SIGHUP");
  }

  /** Writes what is no configuration. */
  confuse(telling: Telling): void {
    writeFileSync(this.#configFile, 'port = "none of these\n');
    if (telling === "signal") process.kill(this.pid, "SIGHUP");
  }

  /** Asks how it is; `undefined` where it cannot tell. */
  async report(): Promise<ReportedState | undefined> {
    if (this.statusPort === undefined) return undefined;
    const url = `http://127.0.0.1:${this.statusPort}/api/status`;
    const response = await fetch(url, { signal: AbortSignal.timeout(10_000), keepalive: false });
    return (await response.json()) as ReportedState;
  }

  /** The temporary file keeps the proxy from reading half a file when it watches. */
  #write(users: readonly SoakUser[], changes: ConfigValues = {}): void {
    writeFileSync(`${this.#configFile}.new`, formatToml({ ...this.#values, ...changes }, users), {
      mode: 0o600,
    });
    renameSync(`${this.#configFile}.new`, this.#configFile);
  }
}

/** The command that runs the program. */
function programOf(binary: string | undefined): string[] {
  return binary === undefined ? [process.execPath, "run", ENTRY] : [resolve(binary)];
}

function valuesOf(
  { ports, poolSize, workers, cover, drainSeconds }: ProxySetting,
  features: Features,
  proxy: SoakProxy,
): ConfigValues {
  return {
    port: proxy.port,
    route: ["direct-ws", "direct-tcp"],
    "dc-ip": [`${CALM_DC}:127.0.0.1:${ports.calm.ws}`, `${ROUGH_DC}:127.0.0.1:${ports.rough.ws}`],
    "dc-tcp": [`${CALM_DC}:127.0.0.1:${ports.calm.tcp}`, `${ROUGH_DC}:127.0.0.1:${ports.rough.tcp}`],
    "pool-size": poolSize,
    ...(cover && {
      accept: ["ee", "dd"],
      "fake-tls-domain": [cover.domain],
      "mask-host": `127.0.0.1:${cover.port}`,
    }),
    ...(features.workers && { workers, "drain-seconds": drainSeconds }),
    ...(features.status && { status: `127.0.0.1:${proxy.statusPort}` }),
  };
}
