import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseSecret } from "../../src/protocol/mtproto/secret.ts";
import { testCertificates } from "./certificates.ts";
import { LeakedSecrets, readLogFiles } from "./leaked-secrets.ts";
import type { StubDc } from "./stub-dc.ts";
import { Condition, within } from "./waiting.ts";

/** The data centres that a client can name. */
export const DCS = [1, 2, 3, 4, 5, 203] as const;

/** One of {@link DCS}. */
export type DcNumber = (typeof DCS)[number];

const ENTRY = resolve(import.meta.dir, "../../src/main.ts");
/** The command that is under test when nothing else is said. */
export const SOURCE = [process.execPath, "run", ENTRY] as const;
const LISTENING = /^ {2}Listening on {2}\S+:(\d+)$/m;
const LINK = /tg:\/\/proxy\?server=(?<server>[^&\s]+)&port=(?<port>\d+)&secret=(?<secret>\S+)/;
const START_LIMIT_MS = 30_000;
/** The proxy gives its sessions 5 s, and as much again for the closing handshakes. */
const STOP_LIMIT_MS = 30_000;

/** How a program is started for a test. */
export interface ProgramOptions {
  readonly args?: readonly string[];
  /** The program to run instead of `bun run src/main.ts`: an executable, and arguments that come first. */
  readonly command?: readonly [string, ...string[]];
  /** The folder of its configuration, which then is the caller's to remove. Without: a fresh one. */
  readonly home?: string;
  /** Variables of its environment, besides the machine's. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** How a proxy is started for a test. */
export interface ProxyOptions extends ProgramOptions {
  /** Serves every data centre that `stubs` does not name. */
  readonly stub?: StubDc;
  /** Who serves a data centre, by its number. */
  readonly stubs?: Readonly<Partial<Record<DcNumber, { readonly port: number }>>>;
  /** As for `--secret`. Without, there is one random secret; an empty list leaves it to the program. */
  readonly secrets?: readonly string[];
  /** Without: any that is free. */
  readonly port?: number;
  /** As for `--route`, in order. Without: direct-ws alone, unless `args` name some. */
  readonly routes?: readonly string[];
  /** Connections kept warm. Without: none, so that the stub sees only what clients cause. */
  readonly poolSize?: number;
}

/**
 * A process under test with what it has printed so far.
 *
 * At its end nothing that it has printed or logged may hold one of its secrets, but for links that are to be shared.
 */
export class Program implements AsyncDisposable {
  stdout = "";
  stderr = "";
  readonly #process: ReturnType<typeof spawn>;
  readonly #args: readonly string[];
  /** Its own, which goes when it does. */
  readonly #ownHome: string | undefined;
  readonly #home: string;
  readonly #secrets = new LeakedSecrets();
  readonly #output = new Condition();
  readonly #read: Promise<unknown>;

  constructor({ args = [], command = SOURCE, home, environment = {} }: ProgramOptions) {
    this.#args = args;
    this.#ownHome = home === undefined ? makeHome() : undefined;
    this.#home = home ?? this.#ownHome ?? "";
    this.#secrets.addFlags(args);
    this.#secrets.addEnvironment(environment);
    this.#secrets.addHome(this.#home);
    this.#process = spawn([...command, ...args], this.#home, environment);
    this.#read = Promise.all([
      this.#collect(this.#process.stdout, (text) => {
        this.stdout += text;
      }),
      this.#collect(this.#process.stderr, (text) => {
        this.stderr += text;
      }),
    ]);
  }

  get pid(): number {
    return this.#process.pid;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  signal(name: NodeJS.Signals): void {
    this.#process.kill(name);
  }

  /** Waits for the end of the process and of its output, and returns its exit code. */
  async exited(limitMs = STOP_LIMIT_MS): Promise<number> {
    await within(this.#read, "the end of the process, and of its output", limitMs);
    return this.#process.exited;
  }

  /** Asks the process to stop, and returns its exit code. */
  stop(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    this.signal(signal);
    return this.exited();
  }

  /** Waits until stderr matches, and returns the match. */
  async logged(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray> {
    return this.#printed(() => pattern.exec(this.stderr), `${pattern} in the log`, limitMs);
  }

  /** As {@link Program.logged}, but looks only at what comes after the first `from` characters of stderr. */
  async loggedSince(from: number, pattern: RegExp, limitMs?: number): Promise<RegExpExecArray> {
    const find = (): RegExpExecArray | null => pattern.exec(this.stderr.slice(from));
    return this.#printed(find, `${pattern} in the log`, limitMs);
  }

  /** Waits until stdout matches, and returns the match. */
  async said(pattern: RegExp, limitMs?: number): Promise<RegExpExecArray> {
    return this.#printed(() => pattern.exec(this.stdout), `${pattern} on stdout`, limitMs);
  }

  /** How often `pattern` (global) stands in the log. */
  countLogged(pattern: RegExp): number {
    return this.stderr.match(pattern)?.length ?? 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.#process.kill("SIGKILL");
    await within(this.#read, "the end of a killed process, and of its output", STOP_LIMIT_MS);
    try {
      this.#checkSecrets();
    } finally {
      if (this.#ownHome !== undefined) rmSync(this.#ownHome, { recursive: true, force: true });
    }
  }

  #checkSecrets(): void {
    this.#secrets.addHome(this.#home);
    const texts = { stdout: this.stdout, stderr: this.stderr, "the log file": readLogFiles(this.#args) };
    for (const [where, text] of Object.entries(texts)) {
      const secret = this.#secrets.findIn(text);
      if (secret !== undefined) throw new Error(`There is a secret in ${where}, ${secret}:\n${text}`);
    }
  }

  async #printed(
    find: () => RegExpExecArray | null,
    what: string,
    limitMs: number | undefined,
  ): Promise<RegExpExecArray> {
    const found = (): boolean => find() !== null || !this.running;
    await this.#output.until(found, what, limitMs).catch((cause: unknown) => {
      throw new Error(`${what}: not printed; the log is:\n${this.stderr}`, { cause });
    });
    const match = find();
    if (match === null) throw new Error(`${what}: the process ended without it:\n${this.stderr}`);
    return match;
  }

  async #collect(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      add(decoder.decode(chunk, { stream: true }));
      this.#output.changed();
    }
    await this.#process.exited;
    this.#output.changed();
  }
}

/** A running proxy. */
export class ProxyProcess extends Program {
  /** Where it listens. */
  port = 0;
  /** The key of the first secret. */
  secret: Uint8Array = new Uint8Array(16);
  /** The `tg://` link of the banner. */
  link = "";

  /** Starts a proxy on 127.0.0.1, and waits until it can be used. */
  static async start(options: ProxyOptions = {}): Promise<ProxyProcess> {
    const { stub, stubs = {}, secrets = [randomBytes(16).toHex()], poolSize = 0, args = [] } = options;
    const { port = 0 } = options;
    const { routes = namesRoutes(args) ? [] : ["direct-ws"] } = options;
    const { caFile } = await testCertificates();
    const flags = ["--port", String(port), "--tls-ca", caFile, "--pool-size", String(poolSize)];
    for (const secret of secrets) flags.push("--secret", secret);
    for (const route of routes) flags.push("--route", route);
    for (const dc of DCS) {
      const server = stubs[dc] ?? stub;
      if (server !== undefined) flags.push("--dc-ip", `${dc}:127.0.0.1:${server.port}`);
    }
    const proxy = new ProxyProcess({ ...options, args: [...flags, ...args] });
    try {
      await proxy.#readBanner(args.includes("--proxy-protocol"), secrets[0]);
      return proxy;
    } catch (error) {
      await proxy[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Resident memory of the process in bytes, or `undefined` where there is no /proc. */
  get residentBytes(): number | undefined {
    if (process.platform !== "linux") return undefined;
    const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, "utf8")) ?? [];
    return kib === undefined ? undefined : Number(kib) * 1024;
  }

  /** @param given The first secret, for a banner without links: behind a load balancer there are none. */
  async #readBanner(behindBalancer: boolean, given: string | undefined): Promise<void> {
    if (behindBalancer) {
      const [, port] = await this.said(LISTENING, START_LIMIT_MS);
      this.port = Number(port);
      if (given !== undefined) this.secret = parseSecret(given.replace(/^[\w.-]+:/, ""));
      return;
    }
    const match = await this.said(LINK, START_LIMIT_MS);
    const { port, secret } = match.groups ?? {};
    if (secret === undefined) throw new Error(`There is no secret in ${match[0]}`);
    this.link = match[0];
    this.port = Number(port);
    // `dd` or `ee` may stand before the key, and after `ee` the domain follows it.
    this.secret = Uint8Array.fromHex(secret.length === 32 ? secret : secret.slice(2, 34));
  }
}

/** Makes an empty folder for a program's configuration. */
export function makeHome(): string {
  return mkdtempSync(join(tmpdir(), "tgws-home-"));
}

function namesRoutes(args: readonly string[]): boolean {
  return args.some((arg) => arg === "--route" || arg.startsWith("--route="));
}

/** The machine's own, but for proxies, which would lead elsewhere, and for settings. */
const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(?:https?|all|no)_proxy$|^TGWS_/i.test(name)),
);

function spawn(command: string[], home: string, environment: Readonly<Record<string, string>>) {
  return Bun.spawn(command, {
    env: { ...ENVIRONMENT, TGWS_HOME: home, NO_COLOR: "1", ...environment },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}
