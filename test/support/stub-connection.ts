import { takePacket } from "./packets.ts";
import type { SendOptions, ServerWebSocket } from "./server-websocket.ts";
import { StubPeer } from "./stub-peer.ts";
import type { UpgradeRequest } from "./upgrade-server.ts";
import { OPCODE } from "./websocket-frames.ts";

/** One upgraded WebSocket of a {@link StubDc}, with the obfuscated2 stream inside it: a packet a message. */
export class StubConnection extends StubPeer {
  readonly request: UpgradeRequest;
  /** The length of every binary message, the init's included. */
  readonly sizes: number[] = [];
  readonly #socket: ServerWebSocket;

  constructor(socket: ServerWebSocket, request: UpgradeRequest, keepMessages: boolean) {
    super(keepMessages);
    this.request = request;
    this.#socket = socket;
    socket.listener = {
      onMessage: (message, opcode) => this.#onMessage(message, opcode),
      onChange: () => this.changed(),
      onClosed: () => this.listener.onClosed(),
    };
  }

  get pings(): number {
    return this.#socket.pings;
  }

  get pongs(): number {
    return this.#socket.pongs;
  }

  /** The code of the client's close frame; 1005 when it had none. */
  get closeCode(): number | undefined {
    return this.#socket.closeCode;
  }

  /** The client's close frame is answered, and the connection ended. */
  set answerClose(answers: boolean) {
    this.#socket.answerClose = answers;
  }

  get closed(): boolean {
    return this.#socket.closed;
  }

  get full(): boolean {
    return this.#socket.full;
  }

  /** Sends bytes that need not be a frame. */
  sendRaw(bytes: Uint8Array): void {
    this.#socket.sendRaw(bytes);
  }

  stallAfter(bytes: number): void {
    this.#socket.stallAfter(bytes);
  }

  stopReading(): void {
    this.#socket.stopReading();
  }

  startReading(): void {
    this.#socket.startReading();
  }

  /** Sends a close frame and, once the client has answered, ends the connection. */
  close(code?: number): void {
    this.#socket.close(code);
  }

  end(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.reset();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  protected transmit(bytes: Uint8Array, options: SendOptions): boolean {
    return this.#socket.send(bytes, options);
  }

  #onMessage(message: Uint8Array, opcode: number): void {
    if (opcode !== OPCODE.binary) this.violations.push(`a message with opcode ${opcode}`);
    this.sizes.push(message.length);
    const { init } = this;
    if (init !== undefined) {
      const plain = this.decrypt(message);
      const taken = takePacket(init.transport, plain);
      if (taken?.size === plain.length) this.onPacket(taken.packet);
      else this.violations.push(`a message of ${plain.length} bytes that is not one packet`);
    } else if (message.length === 64) {
      this.onInit(message);
    } else {
      this.violations.push(`an init of ${message.length} bytes`);
      this.destroy();
    }
  }
}
