/**
 * The data centre of the benchmark: a TLS WebSocket server on loopback that answers the packets of wire.ts.
 *
 * `bun stub-dc.ts PORT CERTIFICATE KEY`; ends when its standard input does.
 */
import type { ServerWebSocket } from "bun";
import { release } from "../../src/core/bytes.ts";
import { PacketReader } from "./packet-reader.ts";
import { PacketSender } from "./packet-sender.ts";
import { deriveCiphers, INIT_LENGTH, KIND, type Packet, type StreamCiphers } from "./wire.ts";

/** One connection: reads requests, checks them, and answers them in order. */
class Conversation {
  readonly #socket: ServerWebSocket<SocketData>;
  readonly #reader = new PacketReader((packet) => this.#answer(packet));
  #init = Buffer.alloc(0);
  #ciphers: StreamCiphers | undefined;
  #sender: PacketSender | undefined;
  #nextSeq = 0;

  constructor(socket: ServerWebSocket<SocketData>) {
    this.#socket = socket;
  }

  /** A proxy may put the init and what follows it into messages as it likes. */
  onMessage(bytes: Buffer): void {
    if (this.#ciphers !== undefined) {
      const plain = this.#ciphers.forward.update(bytes);
      this.#reader.push(plain);
      release(plain);
      return;
    }
    this.#init = Buffer.concat([this.#init, bytes]);
    if (this.#init.length < INIT_LENGTH) return;
    this.#ciphers = deriveCiphers(this.#init.subarray(0, INIT_LENGTH), undefined);
    this.#sender = new PacketSender(this.#ciphers.backward);
    const rest = this.#init.subarray(INIT_LENGTH);
    if (rest.length > 0) this.#reader.push(this.#ciphers.forward.update(rest));
  }

  onDrain(): void {
    const sender = this.#sender;
    // One piece in the queue at most: what a slow reader does not take is not made, and Bun moves a long
    // queue forward in memory after every partial write, which would make the stub slower than the proxy.
    while (sender !== undefined && this.#socket.getBufferedAmount() === 0) {
      const piece = sender.next();
      if (piece === undefined) return;
      this.#socket.sendBinary(piece);
      release(piece);
    }
  }

  #answer(packet: Packet): void {
    if (packet.seq !== this.#nextSeq++) throw new Error(`Cannot answer packet ${packet.seq}: out of order`);
    const { seq, argument } = packet;
    switch (packet.kind) {
      case KIND.stall:
        this.#socket.pause();
        setTimeout(() => this.#socket.resume(), argument);
        return;
      case KIND.fetch:
        this.#sender?.add({ kind: KIND.data, seq, argument, bodyLength: argument });
        break;
      case KIND.store:
        this.#sender?.add({ kind: KIND.stored, seq, argument, bodyLength: 0 });
        break;
      default:
        this.#sender?.add(packet);
    }
    this.onDrain();
  }
}

interface SocketData {
  conversation: Conversation | undefined;
}

const [port, certificate = "", key = ""] = process.argv.slice(2);

Bun.serve<SocketData>({
  hostname: "127.0.0.1",
  port: Number(port),
  tls: { cert: Bun.file(certificate), key: Bun.file(key) },
  fetch(request, self) {
    const headers = { "Sec-WebSocket-Protocol": "binary" };
    if (self.upgrade(request, { headers, data: { conversation: undefined } })) return undefined;
    return new Response("not a WebSocket", { status: 400 });
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0,
    open(socket) {
      socket.data.conversation = new Conversation(socket);
    },
    message(socket, message) {
      try {
        if (typeof message !== "string") socket.data.conversation?.onMessage(message);
      } catch (error) {
        console.error(`stub data centre: ${error instanceof Error ? error.message : error}`);
        socket.terminate();
      }
    },
    drain(socket) {
      socket.data.conversation?.onDrain();
    },
  },
});
process.stdin.on("end", () => process.exit());
process.stdin.resume();
