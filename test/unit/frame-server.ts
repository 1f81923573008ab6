import { createServer, type Server, type Socket } from "node:net";
import { acceptKey, encodeFrame, type Frame, FrameReader, OPCODE } from "../support/websocket-frames.ts";

/** The real one, so that waiting works while a test has fake timers. */
const onNextTurn = setImmediate;

/** Lets the event loop turn until `holds()`; the test's own time limit is the only one. */
export async function eventually(holds: () => boolean): Promise<void> {
  while (!holds()) {
    await new Promise<void>((resolve) => {
      onNextTurn(resolve);
    });
  }
}

/** One client of a {@link FrameServer}. */
export class FrameConnection {
  /** Data, close, ping and pong frames, as they came. */
  readonly frames: Frame[] = [];
  closed = false;
  /** What is done by itself. */
  answerPings = true;
  answerClose = true;
  readonly #socket: Socket;
  readonly #reader = new FrameReader();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Uint8Array) => {
      for (const frame of this.#reader.push(chunk)) this.#onFrame(frame);
    });
    socket.on("close", () => {
      this.closed = true;
    });
  }

  /** The payloads of the binary frames so far. */
  get messages(): Uint8Array[] {
    return this.frames.filter(({ opcode }) => opcode === OPCODE.binary).map(({ payload }) => payload);
  }

  /** How many frames of this kind have come. */
  count(kind: keyof typeof OPCODE): number {
    return this.frames.filter(({ opcode }) => opcode === OPCODE[kind]).length;
  }

  /** Bytes that the kernel did not take. */
  get queued(): number {
    return this.#socket.writableLength;
  }

  send(payload: Uint8Array): void {
    this.#socket.write(encodeFrame(OPCODE.binary, payload));
  }

  /** Sends bytes as they are. */
  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** Starts the closing handshake. */
  close(code: number): void {
    this.#socket.write(encodeFrame(OPCODE.close, Uint8Array.of(code >> 8, code & 0xff)));
  }

  stopReading(): void {
    this.#socket.pause();
  }

  startReading(): void {
    this.#socket.resume();
  }

  /** Drops the connection without a closing handshake. */
  destroy(): void {
    this.#socket.destroy();
  }

  #onFrame(frame: Frame): void {
    this.frames.push(frame);
    if (frame.opcode === OPCODE.ping && this.answerPings) {
      this.#socket.write(encodeFrame(OPCODE.pong, frame.payload));
    }
    if (frame.opcode === OPCODE.close && this.answerClose) {
      this.#socket.end(encodeFrame(OPCODE.close, frame.payload.subarray(0, 2)));
    }
  }
}

/** A WebSocket server without TLS, by hand, so that every frame of it is the test's. */
export class FrameServer implements Disposable {
  readonly connections: FrameConnection[] = [];
  /** Sent in one write with the answer to the upgrade. */
  greeting: Uint8Array = new Uint8Array(0);
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** By the path of their requests, each of which is used once. */
  readonly #byPath = new Map<string, FrameConnection>();
  #lastPath = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Listens on a free port of loopback. */
  static async start(): Promise<FrameServer> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    return new FrameServer(server);
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("The server does not listen");
    return address.port;
  }

  /** Opens a WebSocket to this server, ready to become a channel; also returns the server's end of it. */
  async open(): Promise<{ socket: WebSocket; connection: FrameConnection }> {
    this.#lastPath += 1;
    const path = `/${this.#lastPath}`;
    const socket = new WebSocket(`ws://127.0.0.1:${this.port}${path}`, { perMessageDeflate: false });
    socket.binaryType = "nodebuffer";
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const connection = this.#byPath.get(path);
    if (connection === undefined) throw new Error("The server has not seen the WebSocket");
    return { socket, connection };
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {}); // `close` follows
    let head = "";
    const onData = (chunk: Buffer): void => {
      head += chunk.toString("latin1");
      if (!head.endsWith("\r\n\r\n")) return;
      socket.off("data", onData);
      const key = /^sec-websocket-key: (.+)\r$/im.exec(head)?.[1] ?? "";
      const answer =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${acceptKey(key)}\r\n\r\n`;
      const connection = new FrameConnection(socket);
      this.connections.push(connection);
      this.#byPath.set(head.split(" ")[1] ?? "", connection);
      socket.write(Buffer.concat([Buffer.from(answer, "latin1"), this.greeting]));
    };
    socket.on("data", onData);
  }
}
