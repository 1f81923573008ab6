import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { Certificates } from "./certificates.ts";
import { makeInit, type Streams } from "./obfuscated2.ts";
import { concat, encodePacket, takePacket } from "./packets.ts";
import { Daemon, findProgram } from "./real-proxies.ts";
import { Condition, within } from "./waiting.ts";

const haproxy = findProgram("haproxy");
const nginx = findProgram("nginx");
/** Where Debian's libnginx-mod-stream puts it; other builds of nginx have it inside. */
const NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so";

/** Why HAProxy cannot be tested here. */
export const haproxyMissing = haproxy === undefined ? "it is not installed" : undefined;
/** Why nginx cannot be tested here. */
export const nginxMissing = nginx === undefined ? "it is not installed" : streamMissing(nginx);

function streamMissing(program: string): string | undefined {
  const { stderr } = Bun.spawnSync([program, "-V"]);
  const builtIn = /--with-stream(?:\s|$)/.test(stderr.toString());
  return builtIn || existsSync(NGINX_STREAM) ? undefined : "it has no stream module";
}

/** A frontend of HAProxy and all behind it. `PORT` and `FOLDER` stand for where it listens and its folder. */
export interface HaproxyConfig {
  /** What follows `bind`. Without: the port of 127.0.0.1. */
  readonly bind?: string;
  /** Lines of the frontend. */
  readonly frontend?: readonly string[];
  /** Lines of each backend; the first is the default. */
  readonly backends: Readonly<Record<string, readonly string[]>>;
  /** For `crt` of a `bind`: `FOLDER/cert.pem`. */
  readonly certificates?: Certificates;
}

/** Starts HAProxy in the foreground; what it says of its servers is in its output. */
export function startHaproxy(config: HaproxyConfig): Promise<Daemon> {
  const { bind = "127.0.0.1:PORT", frontend = [], backends, certificates } = config;
  const [first] = Object.keys(backends);
  const lines = [
    "global",
    "  maxconn 200",
    "defaults",
    "  mode tcp",
    "  timeout connect 5s",
    "  timeout check 5s",
    "  timeout client 60s",
    "  timeout server 60s",
    "frontend in",
    `  bind ${bind}`,
    ...frontend.map((line) => `  ${line}`),
    `  default_backend ${first}`,
    ...Object.entries(backends).flatMap(([name, body]) => [
      `backend ${name}`,
      ...body.map((line) => `  ${line}`),
    ]),
    "",
  ];
  const pem: Record<string, string> = certificates
    ? { "cert.pem": `${certificates.certificate}\n${certificates.key}\n` }
    : {};
  return Daemon.start({
    files: (port, folder) => ({ "haproxy.cfg": fill(lines, port, folder), ...pem }),
    command: (folder) => [haproxy ?? "", "-db", "-f", `${folder}/haproxy.cfg`],
  });
}

/** What nginx does. `PORT` and `FOLDER` stand for where it listens and its folder. */
export interface NginxConfig {
  /** Lines of the `stream` block. */
  readonly stream?: readonly string[];
  /** Lines of the `http` block. */
  readonly http?: readonly string[];
  /** For `ssl_certificate` and its key: `FOLDER/cert.pem`, `FOLDER/key.pem`. */
  readonly certificates?: Certificates;
}

/** Starts nginx in the foreground, with a worker, as it is run in earnest. */
export function startNginx({ stream, http, certificates }: NginxConfig): Promise<Daemon> {
  const lines = [
    ...(stream !== undefined && existsSync(NGINX_STREAM) ? [`load_module ${NGINX_STREAM};`] : []),
    "daemon off;",
    "worker_processes 1;",
    "pid FOLDER/pid;",
    "error_log stderr warn;",
    "events { worker_connections 256; }",
    ...(stream === undefined ? [] : ["stream {", ...stream, "}"]),
    ...(http === undefined ? [] : ["http {", "access_log FOLDER/access.log;", ...http, "}"]),
    "",
  ];
  const pem: Record<string, string> = certificates
    ? { "cert.pem": certificates.certificate, "key.pem": certificates.key }
    : {};
  return Daemon.start({
    files: (port, folder) => ({ "nginx.conf": fill(lines, port, folder), ...pem }),
    command: (folder) => [nginx ?? "", "-p", folder, "-c", `${folder}/nginx.conf`],
  });
}

/** Lines of a `server` block: a web site that answers everything with `text`. */
export function nginxSite(listen: string, name: string, text: string): readonly string[] {
  return [
    "server {",
    `listen ${listen};`,
    `server_name ${name};`,
    "ssl_certificate FOLDER/cert.pem;",
    "ssl_certificate_key FOLDER/key.pem;",
    `location / { return 200 "${text}"; }`,
    "}",
  ];
}

function fill(lines: readonly string[], port: number, folder: string): string {
  return lines.join("\n").replaceAll("PORT", String(port)).replaceAll("FOLDER", folder);
}

/** Where somebody connects to, and from where. */
export type Path =
  | { readonly port: number; readonly host?: string; readonly from?: string }
  | { readonly socket: string };

/** Opens a connection, also from another address of this machine than the usual one. */
export async function openFrom(path: Path): Promise<Socket> {
  const socket = startFrom(path);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("connect", resolve);
  socket.once("error", reject);
  await within(promise, "a connection to the load balancer");
  socket.off("error", reject);
  return socket;
}

function startFrom(path: Path): Socket {
  const common = { noDelay: true, allowHalfOpen: true };
  if ("socket" in path) return connect({ ...common, path: path.socket });
  const { host = "127.0.0.1", port, from } = path;
  const local = from === undefined ? {} : { localAddress: from };
  return connect({ ...common, ...local, host, port });
}

/** Opens TLS over {@link openFrom}. */
export async function openTlsFrom(path: Path, serverName: string, { ca }: Certificates): Promise<TLSSocket> {
  const socket = connectTls({ socket: await openFrom(path), servername: serverName, ca });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  socket.once("secureConnect", resolve);
  socket.once("error", reject);
  await within(promise, `TLS with ${serverName}`);
  return socket;
}

/** Asks a web site for its first page. @returns What it answered, head and body. */
export async function getPage(path: Path, serverName: string, certificates: Certificates): Promise<string> {
  const socket = await openTlsFrom(path, serverName, certificates);
  try {
    let text = "";
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    socket.once("end", resolve);
    socket.once("error", reject);
    socket.write(`GET / HTTP/1.1\r\nHost: ${serverName}\r\nConnection: close\r\n\r\n`);
    await within(promise, `the page of ${serverName}`);
    return text;
  } finally {
    socket.destroy();
  }
}

/** Somebody who is connected: an MTProxy client once it knows a secret. */
export class Visitor implements Disposable {
  /** Bytes that came back, as they came. */
  received = 0;
  /** The other side has had enough. */
  gone = false;
  readonly #socket: Duplex;
  readonly #changes = new Condition();
  #streams: Streams | undefined;
  #held: Uint8Array = new Uint8Array();

  constructor(socket: Duplex) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.received += chunk.length;
      this.#held = concat(this.#held, this.#streams?.down.update(chunk) ?? chunk);
      this.#changes.changed();
    });
    for (const event of ["end", "error", "close"]) {
      socket.on(event, () => {
        this.gone = true;
        this.#changes.changed();
      });
    }
  }

  /** Connects, and says nothing yet. */
  static async connect(path: Path): Promise<Visitor> {
    return new Visitor(await openFrom(path));
  }

  /** Begins to connect where the connection may be reset before it is known to be open. */
  static knock(path: Path): Visitor {
    return new Visitor(startFrom(path));
  }

  write(bytes: Uint8Array | string): void {
    this.#socket.write(bytes);
  }

  /** Makes an init for DC 2, which is not sent. What comes back is decrypted from now on. */
  makeInit(secret: Uint8Array): Uint8Array {
    const { bytes, ...streams } = makeInit({ transport: "intermediate", dcId: 2 }, secret);
    this.#streams = streams;
    return bytes;
  }

  /** Encrypts one packet, in the order in which packets are sent. */
  encrypt(payload: Uint8Array): Uint8Array {
    if (this.#streams === undefined) throw new Error("There is no init yet");
    return this.#streams.up.update(encodePacket("intermediate", payload));
  }

  /** Takes the next packet. */
  async readPacket(): Promise<Uint8Array> {
    const take = (): ReturnType<typeof takePacket> => takePacket("intermediate", this.#held);
    await this.until(() => this.gone || take() !== undefined, "a packet");
    const taken = take();
    if (taken === undefined) throw new Error(`Nothing came but ${this.#held.length} bytes and the end`);
    this.#held = this.#held.slice(taken.size);
    return taken.packet.payload;
  }

  /** Waits until the connection is over, and returns how long that took from now, in milliseconds. */
  async untilGone(limitMs?: number): Promise<number> {
    const startedAt = performance.now();
    await this.until(() => this.gone, "the end of the connection", limitMs);
    return performance.now() - startedAt;
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
