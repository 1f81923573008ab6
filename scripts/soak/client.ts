import type { Socket } from "bun";
import { makeInit, type Streams } from "../../test/support/obfuscated2.ts";
import type { TestTransport } from "../../test/support/packets.ts";
import type { HelloSigner } from "../bench/client-hello.ts";
import { FakeTlsStream } from "../bench/fake-tls-stream.ts";
import { CorruptionError, KIND, type Message, MessageReader, MessageWriter } from "./wire.ts";

/** How long anything may take that should take a moment, in milliseconds. */
const PATIENCE_MS = 30_000;

/** How a {@link Client} introduces itself. */
export interface ClientOptions {
  readonly port: number;
  /** 16 bytes. */
  readonly key: Uint8Array;
  /** With fake TLS. */
  readonly signer: HelloSigner | undefined;
  readonly transport: TestTransport;
  readonly dcId: number;
  /** Tells it from all others of the run; from 1. */
  readonly session: number;
}

/** What a client asks for. */
export interface Request {
  readonly kind: number;
  readonly argument?: number;
  readonly bodyLength?: number;
}

interface Waiting {
  readonly seq: number;
  readonly sentAt: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly timer: ReturnType<typeof setTimeout>;
}

/** What all clients of a run have moved. */
export interface Traffic {
  bytesUp: number;
  bytesDown: number;
  messages: number;
  slowestMs: number;
}

/** One session of the soak, as an app has it. */
export class Client {
  /** The own port; 0 before it is connected. */
  port = 0;
  /** What it does, for a failure. */
  doing = "connecting";
  readonly #options: ClientOptions;
  readonly #traffic: Traffic;
  readonly #tls: FakeTlsStream | undefined;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #down: Streams["down"];
  #init: Uint8Array | undefined;
  #socket: Socket<Client> | undefined;
  #rest: Uint8Array | undefined;
  #waiting: Waiting[] = [];
  #nextSeq: number;
  #ended: Error | undefined;
  readonly #broken = Promise.withResolvers<never>();
  /** It has left, or is about to: what happens now is no failure. */
  #leaving = false;

  constructor(options: ClientOptions, traffic: Traffic) {
    const { transport, dcId, key, signer, session } = options;
    const { bytes, up, down } = makeInit({ transport, dcId }, key);
    this.#options = options;
    this.#traffic = traffic;
    this.#init = bytes;
    this.#down = down;
    this.#writer = new MessageWriter(transport, up);
    this.#reader = new MessageReader(transport, {
      onMessage: (message) => this.#onMessage(message),
      onPlain: () => {
        throw new CorruptionError("an unencrypted message that nobody has asked for");
      },
    });
    this.#tls = signer && new FakeTlsStream(signer, (fragment) => this.#onStream(fragment));
    this.#nextSeq = session % 1000;
    this.#broken.promise.catch(() => {}); // nobody may be waiting
  }

  /** Rejects when the session breaks before it leaves, also while nothing is asked. */
  get broken(): Promise<never> {
    return this.#broken.promise;
  }

  /** Connects; with fake TLS, until the proxy has answered the hello. */
  async connect(): Promise<void> {
    const connected = Bun.connect({
      hostname: "127.0.0.1",
      port: this.#options.port,
      data: this as Client,
      socket: HANDLERS,
    });
    this.#socket = await within(connected, "no connection");
    this.port = this.#socket.localPort;
    this.#socket.setNoDelay(true);
    if (this.#tls === undefined) return;
    this.doing = "shaking hands";
    if (this.#socket.write(this.#tls.hello) < this.#tls.hello.length) throw new Error("no room for a hello");
    await within(this.#tls.answered, "no answer to the hello");
    this.doing = "about to speak";
  }

  /**
   * Sends a request, and resolves when it is answered: at once where there is no answer.
   *
   * @param heldUpMs So much later than otherwise its answer may come.
   */
  ask({ kind, argument = 0, bodyLength = 0 }: Request, heldUpMs = 0): Promise<void> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const { session } = this.#options;
    const seq = this.#nextSeq++;
    this.#writer.add({ kind, session, seq, argument, bodyLength });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (kind === KIND.stall) {
      resolve();
    } else {
      const limitMs = PATIENCE_MS + heldUpMs;
      const timer = setTimeout(() => this.fail(new Error(`no answer for ${limitMs / 1000} s`)), limitMs);
      // What is held up on purpose says nothing of how quick the proxy is.
      const sentAt = heldUpMs > 0 ? Number.POSITIVE_INFINITY : performance.now();
      this.#waiting.push({ seq, sentAt, resolve, reject, timer });
    }
    if (this.#rest === undefined) this.onDrain();
    return promise;
  }

  /** Sends bytes of the stream that are no message: the start of an init, say. */
  sendInit(length?: number): void {
    const init = this.#init?.subarray(0, length);
    this.#init = undefined;
    if (init !== undefined) this.#transmit(init);
  }

  stopReading(): void {
    this.#socket?.pause();
  }

  startReading(): void {
    this.#socket?.resume();
  }

  /** Leaves, with a FIN or a reset. */
  leave(how: "fin" | "reset"): void {
    this.#leaving = true;
    this.#settle(new Error("it has left"));
    if (how === "fin") this.#socket?.end();
    else this.#socket?.terminate();
  }

  /** Ends it because of `error`. Called by the socket's handlers, too. */
  fail(error: Error): void {
    if (this.#leaving || this.#ended !== undefined) return;
    this.#settle(error);
    this.#broken.reject(error);
    this.#socket?.terminate();
  }

  /** Called by the socket's handlers only. */
  onData(bytes: Uint8Array): void {
    if (this.#leaving) return;
    this.#traffic.bytesDown += bytes.length;
    try {
      if (this.#tls === undefined) this.#onStream(bytes);
      else this.#tls.push(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Called by the socket's handlers only. */
  onDrain(): void {
    for (;;) {
      const piece = this.#rest ?? this.#nextPiece();
      if (piece === undefined || this.#ended !== undefined) return;
      if (!this.#transmit(piece)) return;
    }
  }

  /** @returns Whether the kernel has taken all of it. */
  #transmit(piece: Uint8Array): boolean {
    const sent = Math.max(0, this.#socket?.write(piece) ?? 0);
    this.#traffic.bytesUp += sent;
    this.#rest = sent < piece.length ? piece.subarray(sent) : undefined;
    return this.#rest === undefined;
  }

  #nextPiece(): Uint8Array | undefined {
    const piece = this.#writer.next();
    if (piece === undefined) return undefined;
    const bytes = this.#init === undefined ? Buffer.from(piece) : Buffer.concat([this.#init, piece]);
    this.#init = undefined;
    return this.#tls === undefined ? bytes : this.#tls.wrap(bytes);
  }

  #onStream(bytes: Uint8Array): void {
    this.#reader.push(this.#down.update(bytes));
  }

  #onMessage({ session, seq }: Message): void {
    const waiting = this.#waiting.shift();
    if (session !== this.#options.session || seq !== waiting?.seq) {
      throw new CorruptionError(
        `message ${seq} of session ${session} came to session ${this.#options.session}, where ${waiting?.seq} was due`,
      );
    }
    clearTimeout(waiting.timer);
    this.#traffic.messages += 1;
    this.#traffic.slowestMs = Math.max(this.#traffic.slowestMs, performance.now() - waiting.sentAt);
    waiting.resolve();
  }

  #settle(error: Error): void {
    this.#ended ??= error;
    this.#tls?.fail(error);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { timer, reject } of waiting) {
      clearTimeout(timer);
      reject(error);
    }
  }
}

/** @throws {Error} That `what`, when `promise` takes too long. */
async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`${what} for ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

const HANDLERS = {
  data(socket: Socket<Client>, bytes: Uint8Array): void {
    socket.data.onData(bytes);
  },
  drain(socket: Socket<Client>): void {
    socket.data.onDrain();
  },
  end(socket: Socket<Client>): void {
    socket.data.fail(new Error("the proxy ended the connection"));
  },
  close(socket: Socket<Client>): void {
    socket.data.fail(new Error("the proxy closed the connection"));
  },
  error(socket: Socket<Client>, error: Error): void {
    socket.data.fail(error);
  },
};
