/**
 * The yardstick: what carrying bytes from TCP to a TLS WebSocket costs in Bun, and nothing else.
 *
 * No MTProto, no AES, no splitting: every chunk that arrives is one message, every message is written as
 * it is. Queues are bounded both ways. `bun bare-relay.ts PORT DC_PORT`; ends when its standard
 * input does.
 */
import type { Socket } from "bun";

/** Bytes queued on the WebSocket from which on the client is not read. */
const HIGH_WATER = 256 * 1024;
/** A Bun WebSocket client has no drain event: how often a congested one is looked at, in milliseconds. */
const LOOK_MS = 1;

const [port, dcPort] = process.argv.slice(2);

/** One client and its WebSocket. */
class Relay {
  readonly #client: Socket<Relay | undefined>;
  readonly #upstream: WebSocket;
  /** What the kernel did not take yet. The WebSocket is paused while there is any. */
  #queue: Uint8Array[] = [];

  constructor(client: Socket<Relay | undefined>) {
    this.#client = client;
    client.setNoDelay(true);
    client.pause();
    const upstream = new WebSocket(`wss://127.0.0.1:${dcPort}/apiws`, {
      protocols: "binary",
      headers: { Host: `kws2.web.telegram.org:${dcPort}` },
      tls: { serverName: "kws2.web.telegram.org" },
      perMessageDeflate: false,
    });
    this.#upstream = upstream;
    upstream.binaryType = "nodebuffer";
    upstream.onopen = () => client.resume();
    upstream.onmessage = (event: MessageEvent<Buffer>) => this.#onMessage(event.data);
    upstream.onclose = () => client.terminate();
    upstream.onerror = () => client.terminate();
  }

  onData(chunk: Uint8Array): void {
    this.#upstream.send(chunk);
    if (this.#upstream.bufferedAmount <= HIGH_WATER) return;
    this.#client.pause();
    setTimeout(this.#look, LOOK_MS);
  }

  onDrain(): void {
    for (;;) {
      const [first] = this.#queue;
      if (first === undefined) break;
      const sent = this.#client.write(first);
      if (sent < first.length) {
        if (sent > 0) this.#queue[0] = first.subarray(sent);
        return;
      }
      this.#queue.shift();
    }
    this.#upstream.resume();
  }

  onClose(): void {
    this.#upstream.terminate();
  }

  #onMessage(message: Buffer): void {
    const sent = this.#queue.length > 0 ? 0 : this.#client.write(message);
    if (sent < 0 || sent === message.length) return;
    this.#queue.push(message.subarray(sent));
    this.#upstream.pause();
  }

  readonly #look = (): void => {
    if (this.#upstream.readyState > WebSocket.OPEN) return;
    if (this.#upstream.bufferedAmount > HIGH_WATER / 4) setTimeout(this.#look, LOOK_MS);
    else this.#client.resume();
  };
}

Bun.listen<Relay | undefined>({
  hostname: "127.0.0.1",
  port: Number(port),
  socket: {
    open(socket) {
      socket.data = new Relay(socket);
    },
    data(socket, chunk) {
      socket.data?.onData(chunk);
    },
    drain(socket) {
      socket.data?.onDrain();
    },
    close(socket) {
      socket.data?.onClose();
    },
    error(socket) {
      socket.terminate();
    },
  },
});

process.stdin.on("end", () => process.exit());
process.stdin.resume();
