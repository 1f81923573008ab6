import { describe, expect, spyOn, test } from "bun:test";
import { connect } from "node:net";
import type { GatherChannel } from "../../src/channel/channel.ts";
import { StartError } from "../../src/core/errors.ts";
import * as libc from "../../src/net/libc.ts";
import { openListeningSockets } from "../../src/net/listening-socket.ts";
import { type Accepted, listenTcp } from "../../src/net/tcp-listen.ts";
import { RecordingSink, settle } from "../support/memory-channel.ts";
import { eventually } from "./frame-server.ts";

const highWater = 64 * 1024;

function startErrorOf(host: string, port: number): StartError {
  try {
    listenTcp({ host, port, highWater }, () => {}).stop();
  } catch (error) {
    if (error instanceof StartError) return error;
    throw error;
  }
  throw new Error("it could be listened on");
}

/** Whether ports below 1024 are free for this process to listen on. */
const canListenLow = process.platform === "linux" && tryLowPort();

function tryLowPort(): boolean {
  try {
    listenTcp({ host: "127.44.3.1", port: 443, highWater }, () => {}).stop();
    return true;
  } catch {
    return false;
  }
}

describe("listenTcp()", () => {
  test("chooses a port for 0, and tells it", async () => {
    const clients: Accepted[] = [];
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, (accepted) => {
      accepted.channel.attach(new RecordingSink());
      clients.push(accepted);
    });
    expect(listener.port).toBeGreaterThan(0);
    const socket = connect({ host: "127.0.0.1", port: listener.port });
    await eventually(() => clients.length === 1);
    expect(clients[0]?.address).toBe("127.0.0.1");
    socket.destroy();
    listener.stop();
  });

  test("accepts nobody after stop, and keeps those who are connected", async () => {
    const sinks: RecordingSink[] = [];
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, ({ channel }) => {
      const sink = new RecordingSink();
      channel.attach(sink);
      sinks.push(sink);
    });
    const { port } = listener;
    const first = connect({ host: "127.0.0.1", port });
    await eventually(() => sinks.length === 1);
    listener.stop();

    const refused = Promise.withResolvers<unknown>();
    connect({ host: "127.0.0.1", port }).on("error", refused.resolve);
    expect(await refused.promise).toMatchObject({ code: "ECONNREFUSED" });

    first.write("still here");
    await eventually(() => sinks[0]?.length === 10);
    first.destroy();
    await settle();
  });

  test("throws PORT_IN_USE on a port that somebody listens on, with another port as hint", () => {
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, () => {});
    const error = startErrorOf("127.0.0.1", listener.port);
    expect(error.code).toBe("PORT_IN_USE");
    expect(error.message).toContain(`127.0.0.1:${listener.port}`);
    expect(error.hint).toContain("--port");
    expect(error.hint).not.toContain(`--port ${listener.port}`);
    expect(error.cause).toBeInstanceOf(Error);
    listener.stop();
  });

  test.skipIf(!canListenLow)("sends who finds port 443 taken to the README", () => {
    const listener = listenTcp({ host: "127.44.3.1", port: 443, highWater }, () => {});
    const error = startErrorOf("127.44.3.1", 443);
    expect(error.code).toBe("PORT_IN_USE");
    expect(error.hint).toBe('a web server has it? See README, "Behind HAProxy or nginx"');
    listener.stop();
  });

  test.skipIf(canListenLow || process.platform !== "linux")(
    "throws NO_PERMISSION on a low port, and says how to get it",
    () => {
      const error = startErrorOf("127.44.3.1", 443);
      expect(error.code).toBe("NO_PERMISSION");
      expect(error.hint).toContain(`sudo setcap cap_net_bind_service=+ep ${process.execPath} (or Ambient`);
      expect(error.hint).toEndWith(", or use --port 1443");
    },
  );

  test.each(["203.0.113.7", "nonexist.invalid"])(
    "throws BAD_ADDRESS on %s, which is not of this machine",
    (host) => {
      const error = startErrorOf(host, 0);
      expect(error.code).toBe("BAD_ADDRESS");
      expect(error.message).toContain(host);
      expect(error.hint).toContain("--host");
    },
  );

  test("puts an IPv6 address into brackets in what it says", () => {
    expect(startErrorOf("2001:db8::7", 1).message).toContain("[2001:db8::7]:1");
  });
});

describe("Listener.alive()", () => {
  test.each(["127.0.0.1", "0.0.0.0", "::1", "::"])(
    "is true while it listens on %s, and false after stop",
    async (host) => {
      const listener = listenTcp({ host, port: 0, highWater }, ({ channel }) =>
        channel.attach(new RecordingSink()),
      );
      expect(await listener.alive()).toBe(true);
      listener.stop();
      expect(await listener.alive()).toBe(false);
    },
  );

  test("is a client that leaves at once for the one who accepts", async () => {
    const sinks: RecordingSink[] = [];
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, ({ channel }) => {
      const sink = new RecordingSink();
      channel.attach(sink);
      sinks.push(sink);
    });
    await listener.alive();
    await eventually(() => sinks[0]?.heard("end") === true);
    expect(sinks).toHaveLength(1);
    expect(sinks[0]?.length).toBe(0);
    listener.stop();
  });
});

describe.skipIf(process.platform === "win32")("Listener.pause()", () => {
  /** Connects, and resolves when the proxy's end says something. */
  async function greeted(port: number): Promise<string> {
    const socket = connect({ host: "127.0.0.1", port });
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    socket.on("data", (chunk) => resolve(chunk.toString())).on("error", reject);
    return promise.finally(() => socket.destroy());
  }

  const greet = ({ channel }: { readonly channel: GatherChannel }): void => {
    channel.attach({ onChunk: () => {}, onEnd: () => channel.end(), onDrain: () => {}, onClose: () => {} });
    channel.write(Buffer.from("hello"));
  };

  test("keeps the port, and those who come wait until it goes on", async () => {
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, greet);
    const { port } = listener;
    expect(await listener.pause()).toBe(true);
    expect(await listener.pause()).toBe(true);
    expect(await listener.waiting()).toBe(false);
    const greeting = greeted(port);
    while ((await listener.waiting()) !== true) await Bun.sleep(5);
    expect(await listener.alive()).toBe(true);
    expect(() => listenTcp({ host: "127.0.0.1", port, highWater }, greet)).toThrow(StartError);
    listener.resume();
    listener.resume();
    expect(await greeting).toBe("hello");
    expect(listener.port).toBe(port);
    expect(await listener.pause()).toBe(true);
    listener.resume();
    expect(await greeted(port)).toBe("hello");
    listener.stop();
  });

  test("leaves the port free when it is stopped meanwhile", async () => {
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, greet);
    const { port } = listener;
    await listener.pause();
    listener.stop();
    expect(await listener.pause()).toBe(false);
    listener.resume();
    await Bun.sleep(20);
    listenTcp({ host: "127.0.0.1", port, highWater }, greet).stop();
  });

  test("opens another one on the same port when the kept one cannot be used", async () => {
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, greet);
    const { port } = listener;
    await listener.pause();
    const listen = spyOn(Bun, "listen").mockImplementationOnce(() => {
      throw Object.assign(new Error("no"), { code: "EMFILE" });
    });
    expect(() => listener.resume()).toThrow(StartError);
    listen.mockRestore();
    await Bun.sleep(20);
    listener.resume();
    expect(await greeted(port)).toBe("hello");
    listener.stop();
  });

  test("of one on a socket that somebody else has opened", async () => {
    const owner = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = owner;
    const fd = libc.duplicate("fd" in owner ? Number(owner.fd) : -1);
    owner.stop();
    if (fd === undefined) throw new Error("it cannot be duplicated");
    const listener = listenTcp({ host: "127.0.0.1", port, highWater, fd }, greet);
    expect(listener.port).toBe(port);
    expect(await greeted(port)).toBe("hello");
    expect(await listener.alive()).toBe(true);
    await listener.pause();
    const greeting = greeted(port);
    while ((await listener.waiting()) !== true) await Bun.sleep(5);
    listener.resume();
    expect(await greeting).toBe("hello");
    listener.stop();
    listenTcp({ host: "127.0.0.1", port, highWater }, greet).stop();
  });

  test("stops listening when no descriptor is left to wait with, and listens again", async () => {
    const listener = listenTcp({ host: "127.0.0.1", port: 0, highWater }, greet);
    const none = spyOn(libc, "duplicate").mockReturnValue(undefined);
    expect(await listener.pause()).toBe(true);
    expect(await listener.pause()).toBe(true);
    expect(await listener.waiting()).toBeUndefined();
    expect(await greeted(listener.port).catch(String)).toContain("ECONNREFUSED");
    none.mockRestore();
    listener.resume();
    expect(await greeted(listener.port)).toBe("hello");
    listener.stop();
  });

  test("needs no descriptor for a socket that cannot be had again", async () => {
    const [socket] = openListeningSockets("127.0.0.1", 0, 1);
    if (socket === undefined) throw new Error("there is none");
    const { fd, port } = socket;
    const listener = listenTcp({ host: "127.0.0.1", port, highWater, fd }, greet);
    expect(await greeted(port)).toBe("hello");
    const none = spyOn(libc, "duplicate").mockReturnValue(undefined);
    expect(await listener.pause()).toBe(true);
    const greeting = greeted(port);
    while ((await listener.waiting()) !== true) await Bun.sleep(5);
    listener.resume();
    expect(await greeting).toBe("hello");
    // Now there is none, and none to be had: those who come are closed, until there is.
    expect(await listener.pause()).toBe(false);
    expect(listener.shed).toBe(0);
    const socketOfOne = connect({ host: "127.0.0.1", port });
    await eventually(() => listener.shed === 1);
    socketOfOne.destroy();
    none.mockRestore();
    listener.resume();
    expect(await greeted(port)).toBe("hello");
    listener.stop();
    listenTcp({ host: "127.0.0.1", port, highWater }, greet).stop();
  });
});

describe("ListenOptions.hasRoom", () => {
  test("closes whom there is no room for, counts them, and tells nobody", async () => {
    let room = 1;
    const accepted: string[] = [];
    const listener = listenTcp(
      { host: "127.0.0.1", port: 0, highWater, hasRoom: () => room > 0 },
      ({ channel, address }) => {
        accepted.push(address);
        room -= 1;
        channel.attach({
          onChunk: () => {},
          onEnd: () => channel.end(),
          onDrain: () => {},
          onClose: () => {},
        });
      },
    );
    const sockets = Array.from({ length: 5 }, () => connect({ host: "127.0.0.1", port: listener.port }));
    let ended = 0;
    for (const socket of sockets) {
      socket.on("end", () => {
        ended += 1;
      });
      socket.on("error", () => {});
    }
    while (ended < 4) await Bun.sleep(5);
    expect([accepted.length, listener.shed]).toEqual([1, 4]);
    for (const socket of sockets) socket.destroy();
    listener.stop();
  });
});
