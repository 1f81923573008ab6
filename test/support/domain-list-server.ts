import { createServer, type Server, type Socket } from "node:net";
import { portOf } from "./upgrade-server.ts";
import { Condition } from "./waiting.ts";

/** Writes a name as it stands in the public list: letters rotated by the number of letters, `.com` for `.co.uk`. */
export function encodeDomain(domain: string): string {
  const label = domain.replace(/\.co\.uk$/, "");
  if (label === domain) return domain;
  const places = label.match(/[a-z]/gi)?.length ?? 0;
  const rotated = label.replace(/[a-z]/gi, (letter) => {
    const first = letter < "a" ? 65 : 97;
    return String.fromCharCode(first + ((letter.charCodeAt(0) - first + places) % 26));
  });
  return `${rotated}.com`;
}

/** What a {@link DomainListServer} answers with: bytes of HTTP, and maybe more and more of them. */
export interface ListAnswer {
  /** What is sent at once; `undefined`: nothing at all. */
  readonly bytes: string | Uint8Array | undefined;
  /** Sent over and over until the client goes. */
  readonly endless?: Uint8Array;
  /** The connection stays open. */
  readonly hangs?: boolean;
}

/** An answer of HTTP with `body`. */
export function respondWith(body: string | Uint8Array, status = "200 OK", headers = ""): ListAnswer {
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const head = `HTTP/1.1 ${status}\r\nContent-Length: ${bytes.length}\r\nConnection: close\r\n${headers}\r\n`;
  return { bytes: Buffer.concat([new TextEncoder().encode(head), bytes]) };
}

/** A server of a list of domains on loopback, over plain HTTP. */
export class DomainListServer implements AsyncDisposable {
  readonly port: number;
  readonly url: string;
  answer: ListAnswer;
  /** Requests so far. */
  requests = 0;
  /** Bytes that were sent. */
  sent = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #changes = new Condition();

  private constructor(server: Server, answer: ListAnswer) {
    this.#server = server;
    this.answer = answer;
    this.port = portOf(server);
    this.url = `http://127.0.0.1:${this.port}/list`;
    server.on("connection", (socket) => this.#onConnection(socket));
  }

  /** Listens on a free port of 127.0.0.1. */
  static async start(answer: ListAnswer): Promise<DomainListServer> {
    const server = createServer();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    return new DomainListServer(server, answer);
  }

  /** Waits for so many requests. */
  asked(times: number, limitMs: number): Promise<void> {
    return this.#changes.until(() => this.requests >= times, `${times} requests for the list`, limitMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    socket.once("data", () => {
      this.requests += 1;
      this.#changes.changed();
      this.#respond(socket, this.answer);
    });
  }

  #respond(socket: Socket, { bytes, endless, hangs }: ListAnswer): void {
    if (bytes !== undefined) this.#send(socket, bytes);
    if (endless !== undefined) {
      const pump = (): void => {
        while (!socket.destroyed && this.#send(socket, endless));
      };
      socket.on("drain", pump);
      pump();
    } else if (hangs !== true) socket.end();
  }

  #send(socket: Socket, bytes: string | Uint8Array): boolean {
    this.sent += bytes.length;
    return socket.write(bytes);
  }
}
