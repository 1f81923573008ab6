import type { TCPSocketListener } from "bun";
import { StartError } from "../core/errors.ts";
import { closeDescriptor, duplicate } from "./libc.ts";
import { startErrorOf } from "./tcp-listen.ts";

/** A socket that listens, and that nobody accepts from yet: whoever connects waits. */
export interface ListeningSocket {
  readonly fd: number;
  readonly port: number;
}

/**
 * Opens `count` sockets that listen on one address, for a process each. With more than one, the kernel spreads
 * connections over them (`SO_REUSEPORT`, Linux).
 *
 * @param port 0: a free one, the same for all.
 * @throws {StartError} When the address cannot be listened on; also when another program listens there, which would
 * share the port if it were willing to, too.
 */
export function openListeningSockets(host: string, port: number, count: number): ListeningSocket[] {
  const sockets: ListeningSocket[] = [];
  try {
    if (port !== 0 && count > 1) listen(host, port, "alone").stop(true);
    for (let index = 0; index < count; index++) {
      const listener = listen(host, sockets[0]?.port ?? port, count > 1 ? "shared" : "alone");
      const fd = duplicate(descriptorOf(listener));
      const opened = listener.port;
      listener.stop(true); // in the same turn of the event loop: it has accepted nobody
      if (fd === undefined) throw new Error("the socket cannot be duplicated");
      sockets.push({ fd, port: opened });
    }
    return sockets;
  } catch (error) {
    for (const { fd } of sockets) closeDescriptor(fd);
    throw error instanceof StartError ? error : startErrorOf(error, host, port);
  }
}

function listen(host: string, port: number, use: "alone" | "shared"): TCPSocketListener<undefined> {
  const options = { hostname: host, port, reusePort: use === "shared", socket: { data() {} } };
  return Bun.listen(options); // its types leave reusePort out
}

/** Its types leave it out. */
function descriptorOf(listener: object): number {
  return "fd" in listener && typeof listener.fd === "number" ? listener.fd : -1;
}
