import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { makeInit, type Streams } from "./obfuscated2.ts";
import { concat, encodePacket, type Packet, type TestTransport, takePacket } from "./packets.ts";
import { Condition, nextTurn, within } from "./waiting.ts";

/** What every client of the tests' own can be told. */
export interface ClientStreamOptions {
  /** 16 bytes. */
  readonly secret: Uint8Array;
  readonly transport?: TestTransport;
  /** As it stands in the init: negative = media, from 10000 on = test. */
  readonly dcId?: number;
  /** Bytes are counted and hashed, but not kept. */
  readonly discard?: boolean;
}

/** Opens a TCP connection to `port` of 127.0.0.1, or of another address of this machine. */
export async function openTcp(
  port: number,
  {
    host = "127.0.0.1",
    localAddress,
  }: { readonly host?: string; readonly localAddress?: string | undefined } = {},
): Promise<Socket> {
  const from = localAddress === undefined ? {} : { localAddress };
  const socket = connect({ host, port, noDelay: true, allowHalfOpen: true, ...from });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("connect", resolve);
  socket.once("error", reject);
  await within(promise, `a connection to port ${port}`);
  socket.off("error", reject);
  return socket;
}

/** The connection of an MTProxy client whose every byte and segment is under control. */
export abstract class ClientStream implements Disposable {
  readonly transport: TestTransport;
  /** The 64 bytes that open the stream. The client does not send them by itself. */
  readonly init: Uint8Array;
  /** Decrypted bytes so far. */
  received = 0;
  /** The proxy has sent its FIN. */
  ended = false;
  /** The connection is gone, both ways. */
  closed = false;
  /** What broke the connection. */
  error: Error | undefined;
  readonly #socket: Socket;
  readonly #streams: Streams;
  readonly #discard: boolean;
  readonly #hash = createHash("sha256");
  readonly #changes = new Condition();
  #held: Uint8Array[] = [];
  #heldBytes = 0;

  protected constructor(
    socket: Socket,
    options: ClientStreamOptions & { readonly transport: TestTransport },
  ) {
    const { transport, dcId = 2, secret, discard = false } = options;
    const { bytes, ...streams } = makeInit({ transport, dcId }, secret);
    this.transport = transport;
    this.init = bytes;
    this.#streams = streams;
    this.#discard = discard;
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.onData(chunk);
      this.#changes.changed();
    });
    socket.on("drain", () => this.#changes.changed());
    socket.on("end", () => {
      this.ended = true;
      this.#changes.changed();
    });
    socket.on("error", (error) => {
      this.error ??= error;
    });
    socket.on("close", () => {
      this.closed = true;
      this.#changes.changed();
    });
  }

  /** Hears what comes, as it comes, and gives what of it is of the stream to {@link ClientStream.decrypt}. */
  protected abstract onData(chunk: Uint8Array): void;

  /** Bytes of the stream have come. */
  protected decrypt(bytes: Uint8Array): void {
    const plain = this.#streams.down.update(bytes);
    this.received += plain.length;
    this.#hash.update(plain);
    if (this.#discard) return;
    this.#held.push(plain);
    this.#heldBytes += plain.length;
  }

  /** The SHA-256 of the decrypted bytes so far. */
  get digest(): string {
    return this.#hash.copy().digest("hex");
  }

  /** Encrypts `plain`, for {@link ClientStream.write}. What is encrypted first is to be sent first. */
  encrypt(plain: Uint8Array): Uint8Array {
    return this.#streams.up.update(plain);
  }

  /** Encrypts `payload` as one packet. */
  encryptPacket(payload: Uint8Array, options?: { readonly quickAck?: boolean }): Uint8Array {
    return this.encrypt(encodePacket(this.transport, payload, options));
  }

  /** Sends bytes as they are. @returns Whether there is room for more. */
  write(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes);
  }

  /** Sends bytes as they are, in segments of `sizes`, the last one repeated. */
  async writeSegments(bytes: Uint8Array, ...sizes: readonly [number, ...number[]]): Promise<void> {
    const rest = [...sizes];
    let from = 0;
    let size = 1;
    while (from < bytes.length) {
      size = rest.shift() ?? size;
      this.write(bytes.subarray(from, from + size));
      from += size;
      await nextTurn();
    }
  }

  /** Waits until what was written is out of this process. */
  async drained(limitMs?: number): Promise<void> {
    const drained = (): boolean => this.closed || !this.#socket.writableNeedDrain;
    await this.until(drained, "the client's queue drains", limitMs);
  }

  /** Takes `length` decrypted bytes. */
  async read(length: number, limitMs?: number): Promise<Uint8Array> {
    await this.until(() => this.#heldBytes >= length, `${length} bytes from the proxy`, limitMs);
    const all = concat(...this.#held);
    this.#hold(all.subarray(length));
    return all.subarray(0, length);
  }

  /** Takes the next packet. */
  async readPacket(limitMs?: number): Promise<Packet> {
    let taken: ReturnType<typeof takePacket>;
    const holds = (): boolean => {
      const all = concat(...this.#held);
      this.#hold(all);
      taken = takePacket(this.transport, all);
      return taken !== undefined;
    };
    await this.until(holds, "a packet from the proxy", limitMs);
    if (taken === undefined) throw new Error("unreachable");
    await this.read(taken.size);
    return taken.packet;
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  stopReading(): void {
    this.#socket.pause();
  }

  startReading(): void {
    this.#socket.resume();
  }

  /** Sends a FIN, and goes on reading. */
  end(): void {
    this.#socket.end();
  }

  /** Breaks the connection with a TCP reset. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #hold(bytes: Uint8Array): void {
    this.#held = [bytes];
    this.#heldBytes = bytes.length;
  }
}
