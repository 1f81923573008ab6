import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { portOf } from "./upgrade-server.ts";
import { within } from "./waiting.ts";

/** How long a program may take until it listens, in milliseconds. */
const START_LIMIT_MS = 20_000;
/** Between two looks whether it does. */
const LOOK_MS = 20;
/** A port that was free a moment ago may be taken by somebody else. */
const START_TRIES = 5;

/** How a program of others is started on a port. */
export interface DaemonOptions {
  /** Returns the files of its folder, by name. */
  readonly files: (port: number, folder: string) => Readonly<Record<string, string>>;
  /** Returns the command, which stays in the foreground. */
  readonly command: (folder: string) => readonly string[];
}

/** A program of others that listens on a port of 127.0.0.1. */
export class Daemon implements AsyncDisposable {
  readonly port: number;
  readonly folder: string;
  /** What it has printed so far. */
  output = "";
  readonly #process: ReturnType<typeof spawn>;
  readonly #read: Promise<unknown>;

  private constructor(port: number, folder: string, command: readonly string[]) {
    this.port = port;
    this.folder = folder;
    this.#process = spawn(command);
    const { stdout, stderr } = this.#process;
    this.#read = Promise.all([this.#collect(stdout), this.#collect(stderr)]);
  }

  /** Starts it on a free port, on another one when that is taken meanwhile. @throws {Error} With what it said. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    let last = "";
    for (let tries = 0; tries < START_TRIES; tries += 1) {
      const port = await freePort();
      const folder = mkdtempSync(join(tmpdir(), "tgws-daemon-"));
      for (const [name, text] of Object.entries(options.files(port, folder))) {
        writeFileSync(join(folder, name), text);
      }
      const daemon = new Daemon(port, folder, options.command(folder));
      if (await daemon.#listens()) return daemon;
      last = daemon.output;
      await daemon[Symbol.asyncDispose]();
    }
    throw new Error(`It does not start:\n${last}`);
  }

  /** The text of a file in its folder; empty when there is none. */
  read(name: string): string {
    try {
      return readFileSync(join(this.folder, name), "utf8");
    } catch {
      return "";
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    const killed = setTimeout(() => this.#process.kill("SIGKILL"), 2_000);
    await this.#process.exited;
    clearTimeout(killed);
    await within(this.#read, "the end of its output").catch(() => {}); // a child of it may hold the pipe
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #listens(): Promise<boolean> {
    const deadline = performance.now() + START_LIMIT_MS;
    while (performance.now() < deadline && this.#process.exitCode === null) {
      if (await accepts(this.port)) return this.#process.exitCode === null;
      await Bun.sleep(LOOK_MS);
    }
    return false;
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) this.output += decoder.decode(chunk, { stream: true });
  }
}

/** Whether a program is there; packages of Debian put some where only root's path leads. */
export function findProgram(name: string): string | undefined {
  return Bun.which(name, { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` }) ?? undefined;
}

function spawn(command: readonly string[]) {
  return Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
}

/** Returns a port of 127.0.0.1 on which nothing listens just now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const port = portOf(server);
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  return port;
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.once("connect", () => resolve(true));
  socket.once("error", () => resolve(false));
  const connected = await promise;
  socket.destroy();
  return connected;
}
