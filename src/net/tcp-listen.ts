import type { TCPSocketListener } from "bun";
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
  /** Whether a connection to it still succeeds. Its sessions see that as a client who leaves at once. */
  alive(): Promise<boolean>;
  /** Accepts nobody any more; those who are connected stay. */
  stop(): void;
}

/**
 * Listens for TCP clients.
 *
 * @param highWater Bytes queued for a client from which on it counts as congested.
 * @param onAccept Must attach a sink before it returns.
 * @throws {StartError} When the address cannot be listened on.
 */
export function listenTcp(
  { host, port, highWater }: { readonly host: string; readonly port: number; readonly highWater: number },
  onAccept: (accepted: Accepted) => void,
): Listener {
  const collector = new GrowthCollector();
  /** Clients that have not said their last: sessions that only wait for their end do not count. */
  let clients = 0;
  let listener: TCPSocketListener<TcpChannel | undefined>;
  try {
    listener = Bun.listen<TcpChannel | undefined>({
      hostname: host,
      port,
      allowHalfOpen: true,
      socket: {
        ...TCP_HANDLERS,
        open(socket) {
          // Its types do not say so: a client that has reset the connection meanwhile has no address any more.
          const address: string | undefined = socket.remoteAddress;
          if (address === undefined) {
            socket.terminate();
            return;
          }
          clients += 1;
          collector.note(clients);
          onAccept({ channel: new TcpChannel(socket, highWater), address });
        },
        end(socket) {
          if (socket.data === undefined) return;
          clients -= 1;
          collector.note(clients);
          TCP_HANDLERS.end(socket);
        },
        close(socket, error) {
          if (socket.data?.peerEnded === false) {
            clients -= 1;
            collector.note(clients);
          }
          TCP_HANDLERS.close(socket, error);
        },
      },
    });
  } catch (error) {
    throw startErrorOf(error, host, port);
  }
  return {
    port: listener.port,
    alive: () => canConnect(host, listener.port),
    stop: () => {
      listener.stop(false);
      collector.stop();
    },
  };
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
