import type { Server, ServerWebSocket, Socket, TCPSocketListener } from "bun";
import { Conversation, type Line } from "./conversation.ts";
import type { DoorState } from "./orders.ts";

/** What a door needs to know. */
export interface DoorOptions {
  readonly certificateFile: string;
  readonly keyFile: string;
  /** Every open conversation, those of other doors included. */
  readonly conversations: Set<Conversation>;
  onTrouble(error: Error): void;
}

interface Guest {
  conversation: Conversation | undefined;
}

/**
 * A port of the data centre, whose listener is another one for every way to fail.
 *
 * The new one takes the port over; the connections of the old one stay.
 */
export abstract class Door {
  /** Where it is; 0 before it has opened. */
  port = 0;
  protected readonly options: DoorOptions;
  #stop: () => void = () => {};

  constructor(options: DoorOptions) {
    this.options = options;
  }

  /** Behaves as `state` says, for those who come from now on. */
  change(state: DoorState): void {
    this.#stop();
    this.#stop = this.open(state);
  }

  /** @returns How it is closed. */
  protected abstract open(state: DoorState): () => void;

  protected begin(line: Line): Conversation {
    const conversation = new Conversation(line, this.options.onTrouble);
    this.options.conversations.add(conversation);
    return conversation;
  }

  protected finish(guest: Guest | undefined): void {
    if (guest?.conversation === undefined) return;
    guest.conversation.onClose();
    this.options.conversations.delete(guest.conversation);
  }

  /** A TCP port where nobody is served. */
  protected openDeaf(state: DoorState): () => void {
    if (state === "refused") return () => {};
    const listener = Bun.listen({
      hostname: "127.0.0.1",
      port: this.port,
      socket: {
        open(socket) {
          if (state === "reset") socket.terminate();
          if (state === "closes") socket.end();
        },
        data() {},
      },
    });
    return () => listener.stop();
  }
}

const STATUS: Readonly<Partial<Record<DoorState, ResponseInit>>> = {
  "302": { status: 302, headers: { Location: "https://telegram.org/" } },
  "403": { status: 403 },
  "429": { status: 429, headers: { "Retry-After": "1" } },
};

/** The WebSocket server of a data centre. */
export class WebSocketDoor extends Door {
  protected open(state: DoorState): () => void {
    if (state === "refused" || state === "hang" || state === "reset") return this.openDeaf(state);
    const server = this.#serve(state);
    this.port = server.port ?? 0;
    return () => void server.stop();
  }

  #serve(state: DoorState): Server<Guest> {
    return Bun.serve<Guest>({
      hostname: "127.0.0.1",
      port: this.port,
      tls: { cert: Bun.file(this.options.certificateFile), key: Bun.file(this.options.keyFile) },
      fetch(request, self) {
        const refusal = STATUS[state];
        if (refusal !== undefined) return new Response("no", refusal);
        const headers = { "Sec-WebSocket-Protocol": "binary" };
        if (self.upgrade(request, { headers, data: { conversation: undefined } })) return undefined;
        return new Response("not a WebSocket", { status: 400 });
      },
      websocket: {
        perMessageDeflate: false,
        idleTimeout: 0,
        maxPayloadLength: 8 * 1024 * 1024,
        open: (socket) => {
          if (state === "closes") socket.close(1011);
          else if (state === "serve") socket.data.conversation = this.begin(lineOver(socket));
        },
        message(socket, message) {
          if (typeof message !== "string") socket.data.conversation?.onBytes(message);
        },
        drain(socket) {
          if (socket.getBufferedAmount() === 0) socket.data.conversation?.onDrain();
        },
        close: (socket) => this.finish(socket.data),
      },
    });
  }
}

function lineOver(socket: ServerWebSocket<Guest>): Line {
  return {
    send(piece) {
      socket.sendBinary(piece);
      return socket.getBufferedAmount() === 0;
    },
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    drop: () => socket.terminate(),
  };
}

/** The TCP port of a data centre. */
export class TcpDoor extends Door {
  protected open(state: DoorState): () => void {
    if (this.port !== 0 && state !== "serve" && state !== "silent") return this.openDeaf(state);
    const listener = this.#listen(state);
    this.port = listener.port;
    return () => listener.stop();
  }

  #listen(state: DoorState): TCPSocketListener<Guest & { line: TcpLine | undefined }> {
    return Bun.listen<Guest & { line: TcpLine | undefined }>({
      hostname: "127.0.0.1",
      port: this.port,
      socket: {
        open: (socket) => {
          const line = state === "serve" ? new TcpLine(socket) : undefined;
          socket.data = { line, conversation: line && this.begin(line) };
        },
        data(socket, bytes) {
          socket.data.conversation?.onBytes(bytes);
        },
        drain(socket) {
          if (socket.data.line?.flush() === true) socket.data.conversation?.onDrain();
        },
        close: (socket) => this.finish(socket.data),
        error() {},
      },
    });
  }
}

/** A TCP connection, and what the kernel did not take yet: one piece at most. */
class TcpLine implements Line {
  readonly #socket: Socket<unknown>;
  #rest: Uint8Array | undefined;

  constructor(socket: Socket<unknown>) {
    this.#socket = socket;
    socket.setNoDelay(true);
  }

  send(piece: Uint8Array): boolean {
    this.#rest = piece;
    return this.flush();
  }

  /** @returns Whether everything is sent. */
  flush(): boolean {
    if (this.#rest === undefined) return true;
    const sent = Math.max(0, this.#socket.write(this.#rest));
    this.#rest = sent < this.#rest.length ? this.#rest.subarray(sent) : undefined;
    return this.#rest === undefined;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  drop(): void {
    this.#socket.terminate();
  }
}
