import { randomBytes, timingSafeEqual } from "node:crypto";
import type { TCPSocketListener } from "bun";
import { ByteReader } from "../channel/byte-reader.ts";
import { type ByteCounts, Splice } from "../channel/splice.ts";
import type { Link, Transform } from "../channel/transform.ts";
import { HandshakeError, RouteError } from "../core/errors.ts";
import { quotable, readHttpHead } from "./http-connect.ts";
import { TCP_HANDLERS, TcpChannel } from "./tcp-channel.ts";
import type { TcpDialer, TcpEndpoint } from "./tcp-dial.ts";

/** The longest request. Bun's has some 250 bytes. */
const HEAD_LIMIT = 8 * 1024;

/** How long a client may take for its request, in milliseconds. */
const HEAD_TIMEOUT_MS = 5_000;

/**
 * How often connections that are ending are looked at, in milliseconds, and how often in vain before they
 * are dropped.
 */
const LOOK_INTERVAL_MS = 5_000;
const LOOKS_IN_VAIN = 3;

const USER = "tgws";

const REQUEST_LINE = /^CONNECT (?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+)):(\d{1,5}) HTTP\/1\.[01]$/i;

const unchanged: Transform = { push: (chunk, output) => output.write(chunk) };
const PLAIN: Link = { up: unchanged, down: unchanged };

/** Two joined connections, and what was seen of them at the last look. */
interface Joint {
  readonly splice: Splice;
  readonly counts: ByteCounts;
  lastSeen: string;
  inVain: number;
}

/**
 * An HTTP proxy on loopback for this process alone, which connects as its {@link TcpDialer} does.
 *
 * Bun's WebSocket knows HTTP proxies only: this is its way to a SOCKS5 one. It serves CONNECT to whoever
 * knows a credential that is made anew for each bridge. A connection that does not come about is answered
 * with `502 <code of the RouteError> <reason>`, which Bun quotes in its error.
 */
export class ConnectBridge {
  /** For the `proxy` option of Bun's WebSocket. It holds the credential: not for logs. */
  readonly url: string;
  readonly #dialer: TcpDialer;
  readonly #highWater: number;
  readonly #authorization: Buffer;
  readonly #listener: TCPSocketListener<TcpChannel | undefined>;
  /** Those who wait for their connection. */
  readonly #clients = new Set<TcpChannel>();
  readonly #joints = new Set<Joint>();
  #timer: ReturnType<typeof setInterval> | undefined;

  /** @param highWater See {@link TcpChannel}; for the clients of the bridge. */
  constructor(dialer: TcpDialer, highWater: number) {
    this.#dialer = dialer;
    this.#highWater = highWater;
    const credential = randomBytes(32).toString("hex");
    this.#authorization = Buffer.from(`Basic ${btoa(`${USER}:${credential}`)}`);
    this.#listener = Bun.listen<TcpChannel | undefined>({
      hostname: "127.0.0.1",
      port: 0,
      allowHalfOpen: true,
      socket: {
        ...TCP_HANDLERS,
        open: (socket) => {
          const client = new TcpChannel(socket, this.#highWater);
          this.#clients.add(client);
          void this.#serve(client);
        },
      },
    });
    this.url = `http://${USER}:${credential}@127.0.0.1:${this.#listener.port}`;
  }

  /** Accepts nobody any more, and drops every connection. */
  close(): void {
    this.#listener.stop(false);
    for (const client of this.#clients) client.destroy();
    for (const { splice } of this.#joints) splice.destroy();
  }

  async #serve(client: TcpChannel): Promise<void> {
    try {
      const reader = new ByteReader(client);
      const endpoint = await this.#readRequest(client, reader);
      if (endpoint !== undefined) await this.#connect(client, reader, endpoint);
    } catch (error) {
      client.destroy();
      // Too slow, or gone: there is nobody to tell.
      if (!(error instanceof HandshakeError)) throw error;
    } finally {
      this.#clients.delete(client);
    }
  }

  /** @returns `undefined` when the client has been refused. */
  async #readRequest(client: TcpChannel, reader: ByteReader): Promise<TcpEndpoint | undefined> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), HEAD_TIMEOUT_MS);
    const head = await readHttpHead(reader, HEAD_LIMIT, late.signal).finally(() => clearTimeout(timer));
    if (head === undefined) {
      refuse(client, "431 Request Header Fields Too Large");
      return undefined;
    }
    if (!this.#isAuthorized(head)) {
      refuse(client, "407 Proxy Authentication Required", [`Proxy-Authenticate: Basic realm="${USER}"`]);
      return undefined;
    }
    const [, ipv6, name = "", digits] = REQUEST_LINE.exec(head.split("\r\n", 1)[0] ?? "") ?? [];
    const port = Number(digits ?? 0);
    if (port < 1 || port > 65_535) {
      refuse(client, "400 Bad Request");
      return undefined;
    }
    return { host: ipv6 ?? name, port };
  }

  #isAuthorized(head: string): boolean {
    const given = /^proxy-authorization:[ \t]*(.*?)[ \t]*$/im.exec(head)?.[1] ?? "";
    const bytes = Buffer.from(given, "latin1");
    return bytes.length === this.#authorization.length && timingSafeEqual(bytes, this.#authorization);
  }

  async #connect(client: TcpChannel, reader: ByteReader, endpoint: TcpEndpoint): Promise<void> {
    const left = new AbortController();
    reader.onEnded = () => left.abort();
    if (reader.abandoned) left.abort(); // between its request and now
    try {
      const upstream = await this.#dialer.dial(endpoint, left.signal);
      reader.onEnded = undefined;
      client.write(Buffer.from("HTTP/1.1 200 Connection established\r\n\r\n"));
      const counts = { up: 0, down: 0 };
      client.unread(reader.rest()); // a hasty client's own bytes
      const splice = new Splice({ client, upstream, link: PLAIN, counts });
      this.#watch({ splice, counts, lastSeen: "", inVain: 0 });
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      refuse(client, `502 ${error.code} ${quotable(error.message)}`);
    }
  }

  /** Sees to it that `joint` comes to an end once one side has ended, however silent the other is. */
  #watch(joint: Joint): void {
    this.#joints.add(joint);
    this.#timer ??= setInterval(this.#look, LOOK_INTERVAL_MS);
    const forget = (): void => {
      this.#joints.delete(joint);
      if (this.#joints.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    };
    void joint.splice.ended.then(forget, forget);
  }

  readonly #look = (): void => {
    for (const joint of this.#joints) {
      const { splice, counts } = joint;
      const seen = `${counts.up} ${counts.down} ${splice.queuedBytes}`;
      joint.inVain = splice.closing && seen === joint.lastSeen ? joint.inVain + 1 : 0;
      joint.lastSeen = seen;
      if (joint.inVain >= LOOKS_IN_VAIN) splice.destroy();
    }
  };
}

/** Answers with `status` and closes. */
function refuse(client: TcpChannel, status: string, headers: readonly string[] = []): void {
  const lines = [`HTTP/1.1 ${status}`, ...headers, "Content-Length: 0", "Connection: close", "", ""];
  client.write(Buffer.from(lines.join("\r\n"), "latin1"));
  client.close();
  client.destroy(); // what the kernel has taken is still delivered
}
