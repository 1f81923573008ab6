import type { Socket } from "bun";
import { release } from "../../src/core/bytes.ts";
import { PacketReader } from "./packet-reader.ts";
import { PacketSender } from "./packet-sender.ts";
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
  #socket: Socket<LoadConnection> | undefined;
  /** The init goes out together with the first packet, as real clients send it. */
  #init: Buffer | undefined;
  /** What the kernel did not take yet. */
  #rest: Buffer | undefined;
  #nextSeq = 0;
  #answeredSeq = 0;
  #closed = false;

  /** @param secret The proxy's secret; `undefined` for a proxy that does not look into the stream. */
  constructor(secret: Uint8Array | undefined, sink: LoadSink) {
    const { init, ...ciphers } = createInit(secret);
    this.#init = init;
    this.#ciphers = ciphers;
    this.#sender = new PacketSender(ciphers.forward);
    this.#sink = sink;
  }

  async connect(port: number): Promise<void> {
    this.#socket = await Bun.connect({ hostname: "127.0.0.1", port, data: this, socket: HANDLERS });
    this.#socket.setNoDelay(true);
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
      const plain = this.#ciphers.backward.update(bytes);
      release(bytes);
      this.#reader.push(plain);
      release(plain);
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
    this.#sink.onFault(error);
  }

  #nextPiece(): Buffer | undefined {
    const piece = this.#sender.next();
    if (piece === undefined || this.#init === undefined) return piece;
    const first = Buffer.concat([this.#init, piece]);
    this.#init = undefined;
    return first;
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
