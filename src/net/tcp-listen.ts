import type { SocketHandler, TCPSocketListener } from "bun";
import type { GatherChannel } from "../channel/channel.ts";
import { StartError } from "../core/errors.ts";
import { GrowthCollector } from "./growth-collector.ts";
import { TCP_HANDLERS, TcpChannel } from "./tcp-channel.ts";

/** A client that has just connected. */
export interface Accepted {
  readonly channel: GatherChannel;
  /** Its IP address. */
  readonly address: string;
}

/** An open listening socket. */
export interface Listener {
  /** The port, also when 0 was asked for. */
  readonly port: number;
  /** Connections that were closed at once: there was no room, or a pause. */
  readonly shed: number;
  /** Whether a connection to it still succeeds. Its sessions see that as a client who leaves at once. */
  alive(): Promise<boolean>;
  /**
   * Accepts nobody for now: those who come wait in the system's queue. Where no file descriptor is left for that, they
   * are refused; where the socket is not ours to open again, they are closed at once, as on Windows.
   *
   * @returns Whether nobody is accepted.
   */
  pause(): Promise<boolean>;
  /** @throws {StartError} When that fails, because memory or file descriptors are short: try again later. */
  resume(): void;
  /** Whether somebody waits to be accepted; `undefined` where that cannot be asked. */
  waiting(): Promise<boolean | undefined>;
  /** Accepts nobody any more; those who are connected stay. */
  stop(): void;
}

/** Where and how to listen. */
export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  /** Bytes queued for a client from which on it counts as congested. */
  readonly highWater: number;
  /** A listening socket that was opened by somebody else, on `port`; it belongs to the listener. */
  readonly fd?: number | undefined;
  /** Whether there is room for one more; asked before anything is allocated for it. Without: always. */
  readonly hasRoom?: () => boolean;
}

/**
 * Listens for TCP clients.
 *
 * @param onAccept Must attach a sink before it returns.
 * @throws {StartError} When the address cannot be listened on.
 */
export function listenTcp(options: ListenOptions, onAccept: (accepted: Accepted) => void): Listener {
  return new TcpListener(options, onAccept);
}

type BunListener = TCPSocketListener<TcpChannel | undefined>;

class TcpListener implements Listener {
  port: number;
  shed = 0;
  readonly #options: ListenOptions;
  readonly #onAccept: (accepted: Accepted) => void;
  readonly #collector = new GrowthCollector();
  /** Clients that have not said their last: sessions that only wait for their end do not count. */
  #clients = 0;
  #listener: BunListener | undefined;
  #libc: Libc | undefined;
  /**
   * Keeps the socket open while it is paused. Of one that cannot be had again it is there from the start: when it is
   * needed, there may be no descriptor left.
   */
  #kept: number | undefined;
  /** It cannot be paused: those who come are closed. */
  #refusing = false;
  #stopped = false;

  constructor(options: ListenOptions, onAccept: (accepted: Accepted) => void) {
    this.#options = options;
    this.#onAccept = onAccept;
    this.port = options.port;
    this.#listener = this.#open(options.fd);
    if (options.fd === undefined)
      this.port = this.#listener.port; // also where 0 was asked for
    else void this.#keep();
  }

  alive(): Promise<boolean> {
    // What somebody else has opened is shared: a connection would go to any of those who listen there.
    if (this.#options.fd !== undefined || this.#listener === undefined) return Promise.resolve(true);
    return canConnect(this.#options.host, this.port);
  }

  async pause(): Promise<boolean> {
    await this.#keep();
    const listener = this.#listener;
    if (this.#stopped) return false;
    if (listener === undefined) return true;
    // Our own can be opened again: better nobody can connect than that Bun spins, as it does while `accept` fails.
    this.#refusing = this.#kept === undefined && this.#options.fd !== undefined;
    if (this.#refusing) return false;
    this.#listener = undefined;
    listener.stop(false);
    return true;
  }

  resume(): void {
    this.#refusing = false;
    if (this.#listener !== undefined || this.#stopped) return;
    const kept = this.#kept;
    try {
      this.#listener = this.#open(kept);
      this.#kept = undefined; // it belongs to the listener now
    } catch (error) {
      // What was inherited cannot be had again; of our own there may be another, the next time.
      if (this.#options.fd === undefined) this.#letGo();
      throw error;
    }
    if (this.#options.fd !== undefined) void this.#keep();
  }

  async waiting(): Promise<boolean | undefined> {
    this.#libc ??= await loadLibc();
    const fd = this.#kept ?? (this.#listener && descriptorOf(this.#listener));
    return fd === undefined || this.#stopped ? undefined : this.#libc?.isReadable(fd);
  }

  stop(): void {
    this.#stopped = true;
    this.#listener?.stop(false);
    this.#collector.stop();
    this.#letGo();
  }

  /** Sees to it that the socket can outlive its listener, where that can be had. */
  async #keep(): Promise<void> {
    this.#libc ??= await loadLibc();
    if (this.#stopped || this.#listener === undefined) return;
    this.#kept ??= this.#libc?.duplicate(descriptorOf(this.#listener));
  }

  #letGo(): void {
    if (this.#kept !== undefined) this.#libc?.closeDescriptor(this.#kept);
    this.#kept = undefined;
  }

  #open(fd: number | undefined): BunListener {
    const { host, port } = this.#options;
    const socket = this.#handlers();
    try {
      return Bun.listen<TcpChannel | undefined>({
        ...(fd === undefined ? { hostname: host, port: this.port } : { fd, hostname: host, port }), // its types leave `fd` out, with which the others do not matter
        allowHalfOpen: true,
        socket,
      });
    } catch (error) {
      throw startErrorOf(error, host, port);
    }
  }

  #handlers(): SocketHandler<TcpChannel | undefined> {
    return {
      ...TCP_HANDLERS,
      open: (socket) => {
        if (this.#refusing || this.#options.hasRoom?.() === false) {
          this.shed += 1;
          socket.end();
          return;
        }
        // Its types do not say so: a client that has reset the connection meanwhile has no address any more.
        const address: string | undefined = socket.remoteAddress;
        if (address === undefined) {
          socket.terminate();
          return;
        }
        this.#clients += 1;
        this.#collector.note(this.#clients);
        const channel = new TcpChannel(socket, this.#options.highWater);
        this.#onAccept({ channel, address });
      },
      end: (socket) => {
        if (socket.data === undefined) return;
        this.#clients -= 1;
        this.#collector.note(this.#clients);
        TCP_HANDLERS.end(socket);
      },
      close: (socket, error) => {
        if (socket.data?.peerEnded === false) {
          this.#clients -= 1;
          this.#collector.note(this.#clients);
        }
        TCP_HANDLERS.close(socket, error);
      },
    };
  }
}

/** Its types leave it out. */
function descriptorOf(listener: object): number {
  return "fd" in listener && typeof listener.fd === "number" ? listener.fd : -1;
}

type Libc = typeof import("./libc.ts");

/** Loaded by need: it costs 2 MiB. `undefined` when there are no file descriptors left to load it with. */
function loadLibc(): Promise<Libc | undefined> {
  return import("./libc.ts").catch(() => undefined);
}

/** How long the kernel may take to accept a connection to ourselves, in milliseconds. */
const SELF_CONNECT_MS = 2_000;

async function canConnect(host: string, port: number): Promise<boolean> {
  const own = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), SELF_CONNECT_MS);
  Bun.connect({
    hostname: own,
    port,
    socket: {
      data() {},
      open(socket) {
        socket.end();
        resolve(true);
      },
    },
  }).catch(() => resolve(false)); // the reason does not matter: a new listener will say it again
  return promise.finally(() => clearTimeout(timer));
}

const HTTPS_PORT = 443;
const FIRST_FREE_PORT = 1024;

function hintOnPermission(port: number): string {
  if (port >= FIRST_FREE_PORT) return `the system keeps port ${port} to itself; choose another one`;
  if (process.platform !== "linux")
    return "ports below 1024 need more rights; choose a higher one: --port 1443";
  const program = /\s/.test(process.execPath) ? `"${process.execPath}"` : process.execPath;
  return (
    `allow it: sudo setcap cap_net_bind_service=+ep ${program} ` +
    "(or AmbientCapabilities=CAP_NET_BIND_SERVICE in systemd), or use --port 1443"
  );
}

/** What to tell a person about an address that cannot be listened on. */
export function startErrorOf(error: unknown, host: string, port: number): StartError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const where = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  if (code === "EADDRINUSE") {
    return new StartError(
      "PORT_IN_USE",
      `Cannot listen on ${where}: the port is in use`,
      port === HTTPS_PORT
        ? 'a web server has it? See README, "Behind HAProxy or nginx"'
        : `another tgws may be running; stop it, or choose another port: --port ${port < 65_535 ? port + 1 : 1443}`,
      error,
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new StartError(
      "NO_PERMISSION",
      `Cannot listen on ${where}: no permission`,
      hintOnPermission(port),
      error,
    );
  }
  return new StartError(
    "BAD_ADDRESS",
    `Cannot listen on ${where}: this machine has no such address${code === "" ? "" : ` (${code})`}`,
    "use --host 127.0.0.1 for this machine only, or --host 0.0.0.0 for the whole network",
    error,
  );
}
