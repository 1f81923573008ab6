import type { Socket } from "bun";
import { release } from "../../src/core/bytes.ts";
import { FakeTlsStream } from "./fake-tls-stream.ts";
import { PacketReader } from "./packet-reader.ts";
import { PacketSender } from "./packet-sender.ts";
import type { RunningProxy } from "./proxies.ts";
import { createInit, KIND, type Packet, type StreamCiphers } from "./wire.ts";

/** What the load client asks a connection to send; `seq` is counted by the connection. */
export interface Request {
  readonly kind: number;
  readonly argument?: number;
  readonly bodyLength?: number;
}

/** Who hears of a connection's answers and of its end. */
export interface LoadSink {
  /** An answer arrived, whole and checked. */
  onAnswer(connection: LoadConnection, answer: Packet): void;
  /** The connection broke, or carried something else than was sent. */
  onFault(error: Error): void;
}

/** One client connection through a proxy to the stub data centre. */
export class LoadConnection {
  readonly #sink: LoadSink;
  readonly #ciphers: StreamCiphers;
  readonly #sender: PacketSender;
  readonly #reader = new PacketReader((packet) => this.#onPacket(packet));
  /** Around everything else, where the proxy wants that. */
  readonly #tls: FakeTlsStream | undefined;
  #socket: Socket<LoadConnection> | undefined;
  /** The init goes out together with the first packet, as real clients send it. */
  #init: Buffer | undefined;
  /** What the kernel did not take yet. */
  #rest: Buffer | undefined;
  #nextSeq = 0;
  #answeredSeq = 0;
  #closed = false;

  constructor({ secret, signer }: RunningProxy, sink: LoadSink) {
    const { init, ...ciphers } = createInit(secret);
    this.#init = init;
    this.#ciphers = ciphers;
    this.#sender = new PacketSender(ciphers.forward);
    this.#tls = signer && new FakeTlsStream(signer, (fragment) => this.#onStream(fragment));
    this.#sink = sink;
  }

  /** Resolves when packets can be sent; with fake TLS, when the proxy has answered the hello. */
  async connect(port: number): Promise<void> {
    this.#socket = await Bun.connect({ hostname: "127.0.0.1", port, data: this, socket: HANDLERS });
    this.#socket.setNoDelay(true);
    if (this.#tls === undefined) return;
    const { hello } = this.#tls;
    if (this.#socket.write(hello) < hello.length) throw new Error("no room for a hello");
    await this.#tls.answered;
  }

  /** Sends a request, or queues it behind those that are being sent. */
  send({ kind, argument = 0, bodyLength = 0 }: Request): void {
    this.#sender.add({ kind, seq: this.#nextSeq++, argument, bodyLength });
    // The stub does not answer this kind; see `#onPacket`.
    if (kind === KIND.stall) this.#answeredSeq += 1;
    if (this.#rest === undefined) this.onDrain();
  }

  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  close(): void {
    this.#closed = true;
    this.#socket?.terminate();
  }

  /** Called by the socket's handlers only. */
  onData(bytes: Buffer): void {
    try {
      if (this.#tls === undefined) this.#onStream(bytes);
      else this.#tls.push(bytes);
      release(bytes);
    } catch (error) {
      this.onClose(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Called by the socket's handlers only. */
  onDrain(): void {
    for (;;) {
      const piece = this.#rest ?? this.#nextPiece();
      if (piece === undefined || this.#socket === undefined) return;
      const sent = this.#socket.write(piece);
      this.#rest = sent < piece.length ? piece.subarray(Math.max(sent, 0)) : undefined;
      if (this.#rest !== undefined) return;
      release(piece);
    }
  }

  /** Called by the socket's handlers only. */
  onClose(error: Error): void {
    if (this.#closed) return;
    this.close();
    this.#tls?.fail(error);
    this.#sink.onFault(error);
  }

  #onStream(bytes: Buffer): void {
    const plain = this.#ciphers.backward.update(bytes);
    this.#reader.push(plain);
    release(plain);
  }

  #nextPiece(): Buffer | undefined {
    const piece = this.#sender.next();
    if (piece === undefined) return undefined;
    const bytes = this.#init === undefined ? piece : Buffer.concat([this.#init, piece]);
    this.#init = undefined;
    if (this.#tls === undefined) return bytes;
    const wrapped = this.#tls.wrap(bytes);
    release(bytes);
    return wrapped;
  }

  #onPacket(packet: Packet): void {
    if (packet.seq !== this.#answeredSeq++) {
      throw new Error(`Cannot accept answer ${packet.seq}: ${this.#answeredSeq - 1} was due`);
    }
    this.#sink.onAnswer(this, packet);
  }
}

const HANDLERS = {
  data(socket: Socket<LoadConnection>, bytes: Buffer): void {
    socket.data.onData(bytes);
  },
  drain(socket: Socket<LoadConnection>): void {
    socket.data.onDrain();
  },
  close(socket: Socket<LoadConnection>): void {
    socket.data.onClose(new Error("the proxy closed the connection"));
  },
  error(socket: Socket<LoadConnection>, error: Error): void {
    socket.data.onClose(error);
  },
};
