import { randomBytes } from "node:crypto";
import type { Socket } from "bun";
import { makeInit } from "../../test/support/obfuscated2.ts";
import { type HelloSigner, makeForeignHello, makeHello } from "../bench/client-hello.ts";
import { measureFlight } from "../bench/fake-tls-stream.ts";
import type { Failure, Identity } from "./orders.ts";
import type { Random } from "./random.ts";

/** Where strangers come, and what they should see. */
export interface StrangerOptions {
  readonly port: number;
  /** The web site that they are shown; `undefined` without fake TLS: then they must see nothing. */
  readonly domain: string | undefined;
  /** Somebody whose hello is recorded and sent again. */
  readonly identity: Identity;
  onFailure(failure: Failure): void;
}

/** Longer than the proxy waits for a handshake, in milliseconds. */
const PATIENCE_MS = 15_000;
const MOST_AT_ONCE = 60;
const HANDSHAKE = 0x16;

/** What a stranger has seen. */
class Visit {
  port = 0;
  bytes = Buffer.alloc(0);
  readonly #socket: Socket;
  #wake: () => void = () => {};
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.port = socket.localPort;
  }

  static async begin(port: number, tls?: { readonly serverName: string }): Promise<Visit> {
    let visit: Visit | undefined;
    const ready = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      hostname: "127.0.0.1",
      port,
      ...(tls && { tls: { serverName: tls.serverName, rejectUnauthorized: false } }),
      socket: {
        open: () => {
          if (tls === undefined) ready.resolve();
        },
        handshake: () => ready.resolve(),
        data: (_, chunk: Buffer) => visit?.onData(chunk),
        end: () => visit?.onClose(),
        close: () => {
          ready.reject(new Error("closed within the handshake"));
          visit?.onClose();
        },
        error: () => {},
      },
    });
    visit = new Visit(socket);
    ready.promise.catch(() => {});
    await Promise.race([ready.promise, Bun.sleep(PATIENCE_MS)]);
    return visit;
  }

  onData(chunk: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, chunk]);
    this.#wake();
  }

  onClose(): void {
    this.#closed = true;
    this.#wake();
  }

  write(bytes: Uint8Array | string): void {
    this.#socket.write(bytes);
  }

  /** Waits until `holds()`, or the end of the connection. @returns Whether it held. */
  async until(holds: () => boolean, limitMs = PATIENCE_MS): Promise<boolean> {
    const late = performance.now() + limitMs;
    while (!holds() && !this.#closed && performance.now() < late) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, Math.max(0, late - performance.now()));
      await promise;
      clearTimeout(timer);
    }
    return holds();
  }

  get closed(): boolean {
    return this.#closed;
  }

  leave(how: "fin" | "reset"): void {
    if (how === "fin") this.#socket.end();
    else this.#socket.terminate();
  }
}

type Stranger = (visit: Visit, options: StrangerOptions, random: Random) => Promise<void>;

/** Waits for whatever comes. @throws {Error} When there is something to see, and should not be. */
async function look(visit: Visit, { domain }: StrangerOptions): Promise<void> {
  await visit.until(() => visit.closed);
  if (domain === undefined && visit.bytes.length > 0)
    throw new Error(`it was told ${visit.bytes.length} bytes`);
  if (domain === undefined && !visit.closed) throw new Error("it was let stay");
}

/** By their names. Those that come over a TCP connection that they write into as they like. */
const STRANGERS: Readonly<Record<string, Stranger>> = {
  async garbage(visit, options, random) {
    visit.write(randomBytes(random.length(4, 600)));
    await look(visit, options);
  },
  async "slow loris"(visit, options, random) {
    const bytes = options.domain === undefined ? randomBytes(64) : makeForeignHello(signerOf(options));
    for (const byte of bytes.subarray(0, 24)) {
      if (visit.closed) break;
      visit.write(Uint8Array.of(byte));
      await visit.until(() => visit.closed, random.between(200, 800));
    }
    await look(visit, options);
  },
  async "wrong secret"(visit, options) {
    visit.write(makeInit({ transport: "padded", dcId: 2 }, randomBytes(16)).bytes);
    visit.write(randomBytes(200));
    await look(visit, options);
  },
  async "half-open"(visit, _, random) {
    await visit.until(() => visit.closed, random.between(1_000, 12_000));
  },
  async reset(visit, _, random) {
    if (random.chance(0.5)) visit.write(randomBytes(10));
    visit.leave("reset");
  },
  async http(visit, options) {
    visit.write("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    await look(visit, options);
  },
};

/** Those that only come where there is a web site to see. */
const VISITORS: Readonly<Record<string, Stranger>> = {
  async "foreign hello"(visit, options) {
    visit.write(makeForeignHello(signerOf(options)));
    await expectSite(visit);
  },
  async "replayed hello"(visit, options) {
    const hello = makeHello(signerOf(options));
    const first = await Visit.begin(options.port);
    first.write(hello);
    const answered = await first.until(() => first.bytes.length > 0);
    first.leave("reset");
    if (!answered) throw new Error("a client's hello has no answer");
    visit.write(hello);
    await expectSite(visit);
  },
};

/** The site's own handshake, which is encrypted for whoever has made the hello: it ends with records for its eyes only. */
async function expectSite(visit: Visit): Promise<void> {
  const shown = await visit.until(() => measureFlight(visit.bytes).types.length >= 3);
  if (!shown || visit.bytes[0] !== HANDSHAKE) {
    throw new Error(`it was not shown the site, but ${visit.bytes.subarray(0, 16).toHex()}`);
  }
}

function signerOf({ domain = "", identity }: StrangerOptions): HelloSigner {
  return { key: Uint8Array.fromHex(identity.secret), domain, shape: "hybrid" };
}

/** A browser: it has to see the page. */
async function browse(visit: Visit, { domain }: StrangerOptions): Promise<void> {
  visit.write(`GET / HTTP/1.1\r\nHost: ${domain}\r\nConnection: close\r\n\r\n`);
  const page = (): string => visit.bytes.toString("latin1");
  const shown = await visit.until(() => page().endsWith("hello\n"));
  if (!shown || !page().startsWith("HTTP/1.1 200 ")) throw new Error(`it was shown ${page().slice(0, 80)}`);
}

/** All who are no clients. */
export class Strangers {
  /** How many of each kind have come. */
  readonly counts: Record<string, number> = {};
  readonly #options: StrangerOptions;
  readonly #random: Random;
  readonly #visits = new Set<Promise<void>>();
  readonly #inside = new Set<Visit>();
  #isOver = false;

  constructor(options: StrangerOptions, random: Random) {
    this.#options = options;
    this.#random = random;
  }

  /** Sends one more, unless there are many already. */
  send(): void {
    if (this.#isOver || this.#visits.size >= MOST_AT_ONCE) return;
    const kinds = Object.keys(STRANGERS);
    if (this.#options.domain !== undefined) kinds.push(...Object.keys(VISITORS), "browser");
    const kind = this.#random.pick(kinds);
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    const visit = this.#visit(kind).finally(() => this.#visits.delete(visit));
    this.#visits.add(visit);
  }

  /** Has all of them leave, and resolves when they have. */
  async stop(): Promise<void> {
    this.#isOver = true;
    for (const visit of this.#inside) visit.onClose();
    await Promise.all(this.#visits);
  }

  async #visit(kind: string): Promise<void> {
    const { port, domain, onFailure } = this.#options;
    const startedAt = Date.now();
    let visit: Visit | undefined;
    try {
      const isBrowser = kind === "browser" && domain !== undefined;
      visit = await Visit.begin(port, isBrowser ? { serverName: domain } : undefined);
      this.#inside.add(visit);
      const run = isBrowser ? browse : (STRANGERS[kind] ?? VISITORS[kind]);
      await run?.(visit, this.#options, this.#random);
    } catch (error) {
      if (this.#isOver) return; // it was interrupted
      onFailure({
        session: 0,
        who: "stranger",
        port: visit?.port ?? 0,
        startedAt,
        failedAt: Date.now(),
        doing: kind,
        message: error instanceof Error ? error.message : String(error),
        corruption: false,
      });
    } finally {
      if (visit !== undefined) this.#inside.delete(visit);
      visit?.leave(this.#random.chance(0.5) ? "fin" : "reset");
    }
  }
}
