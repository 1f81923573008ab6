import { dlopen, FFIType, read, toArrayBuffer } from "bun:ffi";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Condition, within } from "./waiting.ts";

/** The npm package that brings the library, and the only platform that it is locked for. */
const PACKAGE = "@prebuilt-tdlib/linux-x64-glibc";
/** What TDLib waits for an answer of a proxy, and more. */
const PING_LIMIT_MS = 20_000;
/** How long the library is asked for an event at a time: no command is read from the pipe meanwhile. */
const RECEIVE_SECONDS = 0.01;
/** Loading 58 MB and opening a database takes a moment on a busy machine. */
const START_LIMIT_MS = 20_000;

/** An object of TDLib's interface, in JSON: `_` of its types is `@type` here. */
export type TdObject = { readonly "@type": string } & Readonly<Record<string, unknown>>;

/** Where TDLib finds the proxy; the secret is written as in a link. */
export interface TdProxy {
  readonly port: number;
  readonly secret: string;
}

/** An error that TDLib answered with. */
export class TdError extends Error {
  override readonly name = "TdError";
}

/**
 * TDLib itself, the library under Telegram's own mobile clients, in a process of its own.
 *
 * It is told that there is no network, so that it opens no connection but those of {@link Tdlib.ping}, which
 * go to the proxy of the call alone. It knows Telegram's RSA keys only: with a stub data centre it gets as
 * far as `resPQ`, which is what a ping is.
 *
 * @see https://core.telegram.org/tdlib
 */
export class Tdlib implements AsyncDisposable {
  /** Why it cannot be used here. */
  static readonly missing: string | undefined = whyMissing();
  /** The version that the library says it is. */
  version = "";
  readonly #folder = mkdtempSync(join(tmpdir(), "tgws-tdlib-"));
  readonly #process: ReturnType<typeof spawn>;
  readonly #read: Promise<unknown>;
  readonly #changes = new Condition();
  readonly #waiting = new Map<number, PromiseWithResolvers<TdObject>>();
  #state = "";
  #output = "";
  #lastExtra = 0;

  private constructor() {
    this.#process = spawn();
    const { stdout, stderr } = this.#process;
    this.#read = Promise.all([this.#readEvents(stdout), this.#readText(stderr)]);
  }

  /** Loads the library, and opens an empty database. @throws {Error} When {@link Tdlib.missing}. */
  static async start(): Promise<Tdlib> {
    if (Tdlib.missing !== undefined) throw new Error(Tdlib.missing);
    const tdlib = new Tdlib();
    try {
      await tdlib.#open();
      return tdlib;
    } catch (error) {
      await tdlib[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Has the proxy reach the main data centre, and returns how many seconds that took.
   *
   * The whole way of a client up to the answer of the data centre: the handshake of the secret's form, and
   * `req_pq_multi`, whose `resPQ` TDLib checks.
   *
   * @throws {TdError} What TDLib says when it does not work.
   */
  async ping(proxy: TdProxy): Promise<number> {
    const answer = await this.call({ "@type": "pingProxy", proxy: proxyObject(proxy) }, PING_LIMIT_MS);
    const { seconds } = answer;
    if (typeof seconds !== "number") throw new Error(`TDLib answers a ping with ${JSON.stringify(answer)}`);
    return seconds;
  }

  /** Calls any method. @throws {TdError} When its answer is an error. */
  async call(request: TdObject, limitMs?: number): Promise<TdObject> {
    this.#lastExtra += 1;
    const answer = Promise.withResolvers<TdObject>();
    this.#waiting.set(this.#lastExtra, answer);
    this.#process.stdin.write(`${JSON.stringify({ ...request, "@extra": this.#lastExtra })}\n`);
    await this.#process.stdin.flush();
    return within(answer.promise, `TDLib's answer to ${request["@type"]}`, limitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGKILL"); // the database is thrown away anyway
    await this.#process.exited;
    await this.#read;
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    await this.#reaches("authorizationStateWaitTdlibParameters");
    // Both in one go: the first is kept until the second has been done, and is the very next thing then.
    const offline = this.call({ "@type": "setNetworkType", type: { "@type": "networkTypeNone" } });
    await this.call({
      "@type": "setTdlibParameters",
      database_directory: this.#folder,
      files_directory: this.#folder,
      api_id: 1,
      api_hash: "0123456789abcdef0123456789abcdef",
      system_language_code: "en",
      device_model: "test",
      application_version: "1",
    });
    await offline;
    await this.#reaches("authorizationStateWaitPhoneNumber");
    const { value } = await this.call({ "@type": "getOption", name: "version" });
    this.version = String(value);
  }

  #reaches(state: string): Promise<void> {
    const done = (): boolean => this.#state === state || this.#process.exitCode !== null;
    return this.#changes.until(done, `TDLib in ${state}`, START_LIMIT_MS).then(() => {
      if (this.#state !== state) throw new Error(`TDLib has ended:\n${this.#output}`);
    });
  }

  #onEvent(event: TdObject): void {
    const state = event["authorization_state"];
    if (isObject(state)) this.#state = state["@type"];
    const extra = Number(event["@extra"]);
    const waiting = this.#waiting.get(extra);
    this.#waiting.delete(extra);
    if (event["@type"] === "error") waiting?.reject(new TdError(String(event["message"])));
    else waiting?.resolve(event);
    this.#changes.changed();
  }

  async #readEvents(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of linesOf(stream)) {
      const event: unknown = JSON.parse(line);
      if (isObject(event)) this.#onEvent(event);
    }
    await this.#process.exited;
    const cause = new Error(`TDLib has ended:\n${this.#output}`);
    for (const { reject } of this.#waiting.values()) reject(cause);
    this.#changes.changed();
  }

  async #readText(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) this.#output += decoder.decode(chunk, { stream: true });
  }
}

function proxyObject({ port, secret }: TdProxy): TdObject {
  const type = { "@type": "proxyTypeMtproto", secret };
  return { "@type": "proxy", server: "127.0.0.1", port, type };
}

function isObject(value: unknown): value is TdObject {
  return typeof value === "object" && value !== null && "@type" in value;
}

function spawn() {
  return Bun.spawn([process.execPath, import.meta.path], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
}

function findLibrary(): string | undefined {
  try {
    const manifest = Bun.resolveSync(`${PACKAGE}/package.json`, import.meta.dir);
    const file = join(manifest, "../libtdjson.so");
    return existsSync(file) ? file : undefined;
  } catch {
    return undefined; // it is installed only where it runs
  }
}

function whyMissing(): string | undefined {
  return findLibrary() === undefined ? `${PACKAGE} is not installed: it is for Linux on x64 only` : undefined;
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

/** The process with the library: a request a line on stdin, an event or answer a line on stdout. */
async function serve(): Promise<void> {
  const library = dlopen(findLibrary() ?? "", {
    td_create_client_id: { args: [], returns: FFIType.i32 },
    td_send: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.void },
    td_receive: { args: [FFIType.f64], returns: FFIType.ptr },
    td_execute: { args: [FFIType.ptr], returns: FFIType.ptr },
  });
  const { td_create_client_id, td_send, td_receive, td_execute } = library.symbols;
  td_execute(cString('{"@type":"setLogVerbosityLevel","new_verbosity_level":0}'));
  const client = td_create_client_id();
  const send = (request: string): void => td_send(client, cString(request));
  let open = true;
  const requests = (async () => {
    for await (const line of linesOf(Bun.stdin.stream())) send(line);
    open = false;
  })();
  send('{"@type":"getOption","name":"version"}'); // the client starts with its first request
  while (open) {
    const event = td_receive(RECEIVE_SECONDS);
    if (event !== null) process.stdout.write(`${textAt(event)}\n`);
    await Bun.sleep(0);
  }
  await requests;
}

function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/** Copies the text at once: it is the library's until its next call. */
function textAt(pointer: Parameters<typeof read.u8>[0]): string {
  let length = 0;
  while (read.u8(pointer, length) !== 0) length += 1;
  return new TextDecoder().decode(toArrayBuffer(pointer, 0, length).slice(0));
}

if (import.meta.main) await serve();
