import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { type InitFields, openInit, type Streams } from "./obfuscated2.ts";
import { concat, encodePacket, type Packet, takePacket } from "./packets.ts";
import { Condition } from "./waiting.ts";
import { encodeFrame, type Frame, FrameReader, OPCODE } from "./websocket-frames.ts";

/** What a WebSocket upgrade asked for. */
export interface UpgradeRequest {
  /** The connection's number at its stub, from 1. */
  readonly number: number;
  /** The name of the TLS handshake. */
  readonly serverName: string | undefined;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

/** What a connection tells the stub that owns it. */
export interface ConnectionListener {
  onInit(connection: StubConnection): void;
  onPacket(packet: Packet, connection: StubConnection): Iterable<Uint8Array>;
  onClosed(connection: StubConnection): void;
  /** Whether messages are kept, or only counted and hashed. */
  readonly keepMessages: boolean;
}

/** How a message is sent. */
export interface SendOptions {
  /** The sizes of its frames but the last; a ping goes out after each. */
  readonly fragments?: readonly number[];
}

/** One upgraded WebSocket of a {@link StubDc}, with the obfuscated2 stream inside it. */
export class StubConnection {
  readonly request: UpgradeRequest;
  /** What the init said, once it has come. */
  init: InitFields | undefined;
  /** The length of every binary message, the init's included. */
  readonly sizes: number[] = [];
  /** The decrypted messages after the init, unless they are only counted. */
  readonly messages: Uint8Array[] = [];
  readonly packets: Packet[] = [];
  /** What a Telegram data centre would not have accepted. */
  readonly violations: string[] = [];
  /** Decrypted bytes after the init. */
  received = 0;
  pings = 0;
  pongs = 0;
  /** The code of the client's close frame; 1005 when it had none. */
  closeCode: number | undefined;
  closed = false;
  /** The client's close frame is answered, and the connection ended. */
  answerClose = true;
  readonly #hash = createHash("sha256");
  readonly #raw: Socket;
  readonly #tls: TLSSocket;
  readonly #listener: ConnectionListener;
  readonly #reader = new FrameReader();
  readonly #changes = new Condition();
  #streams: Streams | undefined;
  #fragments: Frame[] = [];

  constructor(raw: Socket, tls: TLSSocket, request: UpgradeRequest, listener: ConnectionListener) {
    this.request = request;
    this.#raw = raw;
    this.#tls = tls;
    this.#listener = listener;
    tls.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    tls.on("drain", () => this.#changes.changed());
    tls.on("close", () => this.#onClose());
  }

  /** The SHA-256 of the decrypted bytes so far. */
  get digest(): string {
    return this.#hash.copy().digest("hex");
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  /** Encrypts `plain` and sends it as one message. @returns Whether there is room for more. */
  send(plain: Uint8Array, { fragments = [] }: SendOptions = {}): boolean {
    if (this.#streams === undefined) throw new Error("Nothing can be sent before the init");
    const bytes = this.#streams.down.update(plain);
    let from = 0;
    let opcode: number = OPCODE.binary;
    for (const size of fragments) {
      this.#tls.write(encodeFrame(opcode, bytes.subarray(from, from + size), { fin: false }));
      this.#tls.write(encodeFrame(OPCODE.ping, new Uint8Array([1, 2, 3])));
      opcode = OPCODE.continuation;
      from += size;
    }
    return this.#tls.write(encodeFrame(opcode, bytes.subarray(from)));
  }

  /** Sends `payload` as one packet in one message. */
  sendPacket(payload: Uint8Array, options?: SendOptions): boolean {
    if (this.init === undefined) throw new Error("Nothing can be sent before the init");
    return this.send(encodePacket(this.init.transport, payload), options);
  }

  /** Sends bytes that need not be a frame. */
  sendRaw(bytes: Uint8Array): void {
    this.#tls.write(bytes);
  }

  /** Waits until what was sent is out of this process. */
  async drained(limitMs?: number): Promise<void> {
    await this.until(() => this.closed || !this.#tls.writableNeedDrain, "the stub's queue drains", limitMs);
  }

  stopReading(): void {
    this.#tls.pause();
  }

  startReading(): void {
    this.#tls.resume();
  }

  /** Sends a close frame and, once the client has answered, ends the connection. */
  close(code = 1000): void {
    this.#tls.write(encodeFrame(OPCODE.close, new Uint8Array([code >> 8, code & 0xff])));
  }

  /** Ends TLS and TCP without a close frame. */
  end(): void {
    this.#tls.end();
  }

  /** Breaks the connection with a TCP reset. */
  reset(): void {
    this.#raw.resetAndDestroy();
    this.#tls.destroy();
  }

  /** Drops the connection. */
  destroy(): void {
    this.#tls.destroy();
    this.#raw.destroy();
  }

  #onData(chunk: Uint8Array): void {
    for (const frame of this.#reader.push(chunk)) this.#onFrame(frame);
    this.#changes.changed();
  }

  #onFrame(frame: Frame): void {
    if (frame.opcode === OPCODE.ping) {
      this.pings += 1;
      this.#tls.write(encodeFrame(OPCODE.pong, frame.payload));
    } else if (frame.opcode === OPCODE.pong) {
      this.pongs += 1;
    } else if (frame.opcode === OPCODE.close) {
      const { payload } = frame;
      this.closeCode = payload.length < 2 ? 1005 : ((payload[0] ?? 0) << 8) | (payload[1] ?? 0);
      if (this.answerClose) this.#tls.end(encodeFrame(OPCODE.close, payload.subarray(0, 2)));
    } else {
      this.#onDataFrame(frame);
    }
  }

  #onDataFrame(frame: Frame): void {
    this.#fragments.push(frame);
    if (!frame.fin) return;
    const [first] = this.#fragments;
    const message = concat(...this.#fragments.map(({ payload }) => payload));
    this.#fragments = [];
    if (first?.opcode !== OPCODE.binary) this.violations.push(`a message with opcode ${first?.opcode}`);
    this.sizes.push(message.length);
    if (this.#streams === undefined) this.#onInit(message);
    else this.#onMessage(this.#streams.up.update(message));
  }

  #onInit(message: Uint8Array): void {
    if (message.length !== 64) {
      this.violations.push(`an init of ${message.length} bytes`);
      this.destroy();
      return;
    }
    const opened = openInit(message, undefined);
    this.#streams = opened;
    this.init = { transport: opened.transport, dcId: opened.dcId };
    this.#listener.onInit(this);
  }

  #onMessage(plain: Uint8Array): void {
    this.received += plain.length;
    this.#hash.update(plain);
    if (this.#listener.keepMessages) this.messages.push(plain);
    const { init } = this;
    if (init === undefined) return;
    const taken = takePacket(init.transport, plain);
    if (taken === undefined || taken.size !== plain.length) {
      this.violations.push(`a message of ${plain.length} bytes that is not one packet`);
      return;
    }
    if (this.#listener.keepMessages) this.packets.push(taken.packet);
    for (const reply of this.#listener.onPacket(taken.packet, this)) this.sendPacket(reply);
  }

  #onClose(): void {
    if (this.closed) return;
    this.closed = true;
    this.#changes.changed();
    this.#listener.onClosed(this);
  }
}
