import { afterEach, describe, expect, test } from "bun:test";
import { StartError } from "../../src/core/errors.ts";
import { closeDescriptor, duplicate, isReadable } from "../../src/net/libc.ts";
import { type ListeningSocket, openListeningSockets } from "../../src/net/listening-socket.ts";

const linux = process.platform === "linux";
let open: ListeningSocket[] = [];

afterEach(() => {
  for (const { fd } of open) closeDescriptor(fd);
  open = [];
});

function openSockets(port: number, count: number): ListeningSocket[] {
  const sockets = openListeningSockets("127.0.0.1", port, count);
  open.push(...sockets);
  return sockets;
}

/** Connects to a port of loopback, and waits until that is done. */
async function connect(port: number) {
  return Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
}

describe.skipIf(process.platform === "win32")("openListeningSockets()", () => {
  test("opens one that holds those who come until somebody accepts", async () => {
    const [socket] = openSockets(0, 1);
    if (socket === undefined) throw new Error("there is none");
    expect(isReadable(socket.fd)).toBeFalse();
    const client = await connect(socket.port);
    expect(isReadable(socket.fd)).toBeTrue();
    const { promise: accepted, resolve } = Promise.withResolvers<void>();
    const options = {
      fd: duplicate(socket.fd),
      hostname: "",
      port: 0,
      socket: { data() {}, open: () => resolve() },
    };
    const listener = Bun.listen(options);
    await accepted;
    expect(isReadable(socket.fd)).toBeFalse();
    listener.stop(true);
    client.terminate();
  });

  test.skipIf(!linux)("opens several at one port, which the system shares out", async () => {
    const sockets = openSockets(0, 3);
    const port = sockets[0]?.port ?? 0;
    expect(sockets.map((socket) => socket.port)).toEqual([port, port, port]);
    expect(new Set(sockets.map(({ fd }) => fd)).size).toBe(3);
    const clients = await Promise.all(Array.from({ length: 60 }, () => connect(port)));
    expect(sockets.filter(({ fd }) => isReadable(fd)).length).toBeGreaterThan(1);
    for (const client of clients) client.terminate();
  });

  test.each([1, 2])("throws PORT_IN_USE where somebody listens (%d wanted)", (count) => {
    if (count > 1 && !linux) return;
    const [first] = openSockets(0, 1);
    const attempt = (): unknown => openSockets(first?.port ?? 0, count);
    expect(attempt).toThrow(StartError);
    expect(attempt).toThrow(/the port is in use/);
  });

  test.skipIf(!linux)("does not share a port with others who would share it", () => {
    const [first] = openSockets(0, 2);
    expect(() => openSockets(first?.port ?? 0, 2)).toThrow(/the port is in use/);
  });

  test("throws BAD_ADDRESS for an address that is not this machine's", () => {
    expect(() => openListeningSockets("192.0.2.1", 0, 1)).toThrow(/no such address/);
  });
});
