import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { Allowance } from "./allowance.ts";
import { concat } from "./packets.ts";
import { encodeFrame, type Frame, FrameReader, OPCODE } from "./websocket-frames.ts";

/** What a {@link ServerWebSocket} tells its owner. */
export interface WebSocketListener {
  /** A whole message. */
  onMessage(message: Uint8Array, opcode: number): void;
  /** Something has come, or there is room again. */
  onChange(): void;
  onClosed(): void;
}

/** How a message is sent. */
export interface SendOptions {
  /** The sizes of its frames but the last; a ping goes out after each. */
  readonly fragments?: readonly number[];
}

/** The server's end of a WebSocket, after the upgrade, with every misbehaviour that tests need. */
export class ServerWebSocket {
  listener: WebSocketListener = { onMessage: ignore, onChange: ignore, onClosed: ignore };
  pings = 0;
  pongs = 0;
  /** The code of the client's close frame; 1005 when it had none. */
  closeCode: number | undefined;
  closed = false;
  /** The client's close frame is answered, and the connection ended. */
  answerClose = true;
  readonly #raw: Socket;
  readonly #tls: TLSSocket;
  readonly #reader = new FrameReader();
  readonly #allowance = new Allowance();
  #fragments: Frame[] = [];

  constructor(raw: Socket, tls: TLSSocket) {
    this.#raw = raw;
    this.#tls = tls;
    tls.on("data", (chunk: Uint8Array) => this.#onData(chunk));
    tls.on("drain", () => this.listener.onChange());
    tls.on("close", () => this.#onClose());
  }

  /** More than a little of what was sent is still in this process. */
  get full(): boolean {
    return this.#tls.writableNeedDrain;
  }

  /** Sends `message`. @returns Whether there is room for more. */
  send(message: Uint8Array, { fragments = [] }: SendOptions = {}): boolean {
    const bytes = this.#allowance.take(message);
    if (bytes.length === 0 && message.length > 0) return true;
    let from = 0;
    let opcode: number = OPCODE.binary;
    for (const size of fragments) {
      this.#tls.write(encodeFrame(opcode, bytes.subarray(from, from + size), { fin: false }));
      this.#tls.write(encodeFrame(OPCODE.ping, Uint8Array.of(1, 2, 3)));
      opcode = OPCODE.continuation;
      from += size;
    }
    return this.#tls.write(encodeFrame(opcode, bytes.subarray(from)));
  }

  /** Sends bytes that need not be a frame. */
  sendRaw(bytes: Uint8Array): void {
    this.#tls.write(bytes);
  }

  /** Sends `bytes` more of messages, and nothing at all from then on, not even a pong. */
  stallAfter(bytes: number): void {
    this.#allowance.limit(bytes);
  }

  stopReading(): void {
    this.#tls.pause();
  }

  startReading(): void {
    this.#tls.resume();
  }

  /** Sends a close frame and, once the client has answered, ends the connection. */
  close(code = 1000): void {
    this.#tls.write(encodeFrame(OPCODE.close, Uint8Array.of(code >> 8, code & 0xff)));
  }

  /** Ends TLS and TCP without a close frame, and goes on reading. */
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
    this.listener.onChange();
  }

  #onFrame(frame: Frame): void {
    if (frame.opcode === OPCODE.ping) {
      this.pings += 1;
      if (!this.#allowance.used) this.#tls.write(encodeFrame(OPCODE.pong, frame.payload));
    } else if (frame.opcode === OPCODE.pong) {
      this.pongs += 1;
    } else if (frame.opcode === OPCODE.close) {
      this.#onCloseFrame(frame.payload);
    } else {
      this.#onDataFrame(frame);
    }
  }

  #onCloseFrame(payload: Uint8Array): void {
    this.closeCode = payload.length < 2 ? 1005 : ((payload[0] ?? 0) << 8) | (payload[1] ?? 0);
    if (!this.answerClose || this.#allowance.used) return;
    this.#tls.end(encodeFrame(OPCODE.close, payload.subarray(0, 2)));
  }

  #onDataFrame(frame: Frame): void {
    this.#fragments.push(frame);
    if (!frame.fin) return;
    const [first] = this.#fragments;
    const message = concat(...this.#fragments.map(({ payload }) => payload));
    this.#fragments = [];
    this.listener.onMessage(message, first?.opcode ?? OPCODE.binary);
  }

  #onClose(): void {
    if (this.closed) return;
    this.closed = true;
    this.listener.onChange();
    this.listener.onClosed();
  }
}

function ignore(): void {}
