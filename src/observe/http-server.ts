import type { Socket, TCPSocketListener } from "bun";

/** What is asked. */
export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  /** The header Authorization. */
  readonly authorization: string | undefined;
}

/** What is answered. */
export interface HttpAnswer {
  readonly status: keyof typeof STATUS_TEXTS;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Limits of a {@link listenHttp}. */
export interface HttpLimits {
  /** Connections at a time; for one more an idle one is closed, or else the new one. */
  readonly connections: number;
  /** From accept until the answer is taken, in milliseconds. */
  readonly deadlineMs: number;
}

/** An HTTP server that runs. */
export interface HttpServer {
  readonly port: number;
  /** Closes everything at once. */
  stop(): void;
}

/** Request line and headers, in bytes. */
const HEAD_LIMIT = 8 * 1024;
const STATUS_TEXTS = {
  200: "OK",
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  503: "Service Unavailable",
} as const;
const REQUEST_LINE = /^(?<method>[A-Z]{1,16}) (?<target>[!-~]+) HTTP\/1\.(?<minor>[01])$/;
const HEADER = /^(?<name>[\w!#$%&'*+.^`|~-]+):[ \t]*(?<value>[\t\x20-\x7e\x80-\xff]*?)[ \t]*$/;

/**
 * A small HTTP/1.1 server for a few who ask briefly: one answer a connection, bodies of requests are not read.
 *
 * Bun's own would do, but neither bounds the connections nor says when they come: whoever holds many takes
 * file descriptors from the proxy's clients.
 *
 * @param answer A rejection is answered with 500.
 * @throws What `Bun.listen` throws.
 */
export function listenHttp(
  { host, port, limits }: { readonly host: string; readonly port: number; readonly limits: HttpLimits },
  answer: (request: HttpRequest) => Promise<HttpAnswer>,
): HttpServer {
  const connections = new Set<Connection>();
  const listener: TCPSocketListener<Connection | undefined> = Bun.listen<Connection | undefined>({
    hostname: host,
    port,
    allowHalfOpen: true, // who has asked and said so still gets the answer
    socket: {
      open(socket) {
        if (connections.size >= limits.connections) {
          // Who holds connections without asking, or after the answer, must not keep those out who ask.
          const all = [...connections];
          const idle =
            all.find(({ state }) => state === "asking") ?? all.find(({ state }) => state === "done");
          if (idle === undefined) {
            socket.terminate();
            return;
          }
          connections.delete(idle);
          idle.drop();
        }
        socket.data = new Connection(socket, limits.deadlineMs, answer);
        connections.add(socket.data);
      },
      data: (socket, bytes) => socket.data?.read(bytes),
      drain: (socket) => socket.data?.flush(),
      end: (socket) => socket.data?.onEnd(),
      close(socket) {
        if (socket.data === undefined) return;
        socket.data.closed();
        connections.delete(socket.data);
      },
      error() {}, // close follows
    },
  });
  return { port: listener.port, stop: () => listener.stop(true) };
}

/** One that asks, from accept until it is gone. */
class Connection {
  readonly #socket: Socket<Connection | undefined>;
  readonly #answer: (request: HttpRequest) => Promise<HttpAnswer>;
  readonly #deadline: ReturnType<typeof setTimeout>;
  #head = "";
  #asked = false;
  #answered = false;
  #hasEnded = false;
  #isClosed = false;
  /** What is left of the answer. */
  #rest: Uint8Array | undefined;

  constructor(
    socket: Socket<Connection | undefined>,
    deadlineMs: number,
    answer: (request: HttpRequest) => Promise<HttpAnswer>,
  ) {
    this.#socket = socket;
    this.#answer = answer;
    this.#deadline = setTimeout(() => socket.terminate(), deadlineMs);
  }

  /** Whether it has asked, and has been answered as far as this process is concerned. */
  get state(): "asking" | "waiting" | "done" {
    if (!this.#asked) return "asking";
    return this.#answered ? "done" : "waiting";
  }

  /** Others need the room. */
  drop(): void {
    this.#socket.terminate();
  }

  /** What comes after the head is read and forgotten: a reset would take the answer from the client. */
  read(bytes: Uint8Array): void {
    if (this.#asked) return;
    this.#head += Buffer.from(bytes).toString("latin1");
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0 && this.#head.length <= HEAD_LIMIT) return;
    this.#asked = true;
    const head = this.#head;
    this.#head = "";
    if (end < 0 || end > HEAD_LIMIT) this.#say(failure(431), "GET");
    else this.#onHead(head.slice(0, end));
  }

  #onHead(head: string): void {
    const request = parseHead(head);
    if (request === undefined) {
      this.#say(failure(400), "GET");
      return;
    }
    this.#answer(request).then(
      (given) => this.#say(given, request.method),
      () => this.#say(failure(500), request.method),
    );
  }

  flush(): void {
    if (this.#rest === undefined) return;
    const written = this.#socket.write(this.#rest);
    this.#rest = written < this.#rest.length ? this.#rest.subarray(Math.max(0, written)) : undefined;
    if (this.#rest !== undefined) return;
    this.#answered = true;
    if (this.#hasEnded) this.#socket.end();
    else this.#socket.shutdown(); // the client closes: a close with bytes unread would be a reset
  }

  /** The client says no more. */
  onEnd(): void {
    this.#hasEnded = true;
    if (this.#answered || !this.#asked) this.#socket.end();
  }

  closed(): void {
    this.#isClosed = true;
    this.#rest = undefined;
    clearTimeout(this.#deadline);
  }

  #say(given: HttpAnswer, method: string): void {
    if (this.#isClosed) return;
    this.#rest = encodeAnswer(given, method);
    this.flush();
  }
}

function failure(status: HttpAnswer["status"]): HttpAnswer {
  return { status, type: "text/plain; charset=utf-8", body: `${STATUS_TEXTS[status]}\n` };
}

/** @returns `undefined` for what is no request of HTTP/1. */
function parseHead(head: string): HttpRequest | undefined {
  const [first = "", ...lines] = head.split("\r\n");
  const { method = "", target = "", minor } = REQUEST_LINE.exec(first)?.groups ?? {};
  if (method === "") return undefined;
  const headers = new Map<string, string>();
  for (const line of lines) {
    const { name = "", value = "" } = HEADER.exec(line)?.groups ?? {};
    const key = name.toLowerCase();
    if (key === "" || (key === "host" && headers.has(key))) return undefined;
    headers.set(key, value);
  }
  const host = headers.get("host");
  if (host === undefined && minor === "1") return undefined;
  const url = parseUrl(target, host ?? "localhost");
  return url && { method, url, authorization: headers.get("authorization") };
}

/** @param target A path, or a whole address, as proxies are asked with. */
function parseUrl(target: string, host: string): URL | undefined {
  if (!/^[\w.:[\]-]+$/.test(host)) return undefined;
  const text = target.startsWith("/") ? `http://${host}${target}` : target;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url?.protocol === "http:" ? url : undefined;
}

function encodeAnswer({ status, type, body, headers = {} }: HttpAnswer, method: string): Uint8Array {
  const bytes = Buffer.from(body);
  const lines = Object.entries({
    Date: new Date().toUTCString(),
    "Content-Type": type,
    "Content-Length": bytes.length,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    Connection: "close",
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = Buffer.from(`HTTP/1.1 ${status} ${STATUS_TEXTS[status]}\r\n${lines.join("")}\r\n`);
  return method === "HEAD" ? head : Buffer.concat([head, bytes]);
}
