import { dlopen } from "bun:ffi";
import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { parseOutboundProxy } from "../../src/config/outbound-proxy.ts";
import { RouteError } from "../../src/core/errors.ts";
import { socketErrorOf, TcpDialer, type TcpEndpoint } from "../../src/net/tcp-dial.ts";
import { RecordingSink, settle } from "../support/memory-channel.ts";
import { eventually } from "./frame-server.ts";

const never = new AbortController().signal;
const CONNECT_OK = "HTTP/1.1 200 OK\r\n\r\n";
const SOCKS_OK = Buffer.from("050005000001000000000000", "hex");
const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** A TCP server on loopback that gives its sockets to `onSocket`. */
async function serve(onSocket: (socket: Socket) => void): Promise<{ port: number; sockets: Set<Socket> }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server does not listen");
  return { port: address.port, sockets };
}

function newDialer(options: { timeoutMs?: number; proxy?: string; noProxy?: string } = {}): TcpDialer {
  const { timeoutMs = 3_000, proxy, noProxy } = options;
  return new TcpDialer({
    highWater: 64 * 1024,
    timeoutMs,
    proxy: proxy === undefined ? undefined : parseOutboundProxy(proxy, noProxy),
  });
}

async function refusal(dialing: Promise<unknown>): Promise<RouteError> {
  const error: unknown = await dialing.then(
    () => new Error("it opened"),
    (caught: unknown) => caught,
  );
  if (error instanceof RouteError) return error;
  throw error;
}

const fileDescriptors = (): string[] => readdirSync("/proc/self/fd");

/** Sockets that this process holds to `port` on loopback, also those that the kernel still connects. */
function socketsTo(port: number): number {
  const remote = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const all = readFileSync("/proc/self/net/tcp", "latin1").split("\n");
  const fields = all.map((line) => line.trim().split(/\s+/));
  const inodes = fields.flatMap(([, , to, , , , , , , inode]) =>
    to === remote ? [`socket:[${inode}]`] : [],
  );
  const own = fileDescriptors().filter((fd) => inodes.includes(targetOf(fd)));
  return own.length;
}

function targetOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return ""; // of the listing itself
  }
}

/** A listening socket of which nobody accepts, with a full backlog: the kernel drops what else comes. */
function openBlackHole(): { readonly port: number; readonly acceptAll: () => number } {
  const { symbols: libc } = dlopen("libc.so.6", {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
    listen: { args: ["i32", "i32"], returns: "i32" },
    accept: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    getsockname: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    close: { args: ["i32"], returns: "i32" },
  });
  const [inet, stream, nonBlocking] = [2, 1, 0o4000];
  const descriptor = libc.socket(inet, stream | nonBlocking, 0);
  const address = Uint8Array.of(inet, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  if (libc.bind(descriptor, address, 16) !== 0) throw new Error("bind failed");
  if (libc.listen(descriptor, 0) !== 0) throw new Error("listen failed");
  libc.getsockname(descriptor, address, Uint32Array.of(16));
  cleanups.push(() => void libc.close(descriptor));
  return {
    port: ((address[2] ?? 0) << 8) | (address[3] ?? 0),
    acceptAll: () => {
      for (let accepted = 0; ; accepted += 1) {
        const peer = libc.accept(descriptor, null, null);
        if (peer < 0) return accepted;
        libc.close(peer);
      }
    },
  };
}

describe("TcpDialer.dial()", () => {
  test("opens a connection that carries bytes and half-closes", async () => {
    const { port } = await serve((socket) => {
      socket.on("data", (chunk: Buffer) => socket.write(chunk.toString().toUpperCase()));
      socket.on("end", () => socket.end("bye"));
    });
    const channel = await newDialer().dial({ host: "127.0.0.1", port }, never);
    const sink = new RecordingSink();
    channel.attach(sink);
    channel.write(Buffer.from("hello"));
    await sink.until(({ length }) => length === 5);
    channel.end();
    await sink.until((heard) => heard.heard("close"));
    expect(Buffer.from(sink.bytes).toString()).toBe("HELLObye");
    expect(sink.error).toBeUndefined();
  });

  test("looks a name up", async () => {
    const { port, sockets } = await serve((socket) => socket.resume());
    const channel = await newDialer().dial({ host: "localhost", port }, never);
    await eventually(() => sockets.size === 1);
    channel.destroy();
    await eventually(() => sockets.size === 0);
  });

  test("keeps what comes before somebody listens, and pauses a peer that sends much", async () => {
    const blocks = 400;
    const peers: Socket[] = [];
    const { port } = await serve((socket) => {
      peers.push(socket);
      for (let block = 0; block < blocks; block += 1) socket.write(new Uint8Array(64 * 1024).fill(block));
      socket.end();
    });
    const channel = await newDialer().dial({ host: "127.0.0.1", port }, never);
    await settle(300);
    expect(peers[0]?.writableLength).toBeGreaterThan(0);
    const sink = new RecordingSink();
    channel.attach(sink);
    expect(sink.calls).toEqual([]);
    await sink.until((heard) => heard.heard("end"));
    const bytes = sink.bytes;
    expect(bytes.length).toBe(blocks * 64 * 1024);
    for (let block = 0; block < blocks; block += 1) expect(bytes[block * 64 * 1024]).toBe(block & 0xff);
    channel.destroy();
  });

  test("tells a late listener what came, the end and the close, in this order", async () => {
    const { port, sockets } = await serve((socket) => socket.end("last words"));
    const channel = await newDialer().dial({ host: "127.0.0.1", port }, never);
    await settle(50);
    channel.end();
    await eventually(() => sockets.size === 0);
    await settle(50);
    const sink = new RecordingSink();
    channel.attach(sink);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.calls).toEqual(["chunk", "end", "close"]);
  });

  test("throws REFUSED, DNS and UNKNOWN", async () => {
    const dialer = newDialer();
    const { port } = await serve(() => {});
    for (const cleanup of cleanups.splice(0)) cleanup();
    expect((await refusal(dialer.dial({ host: "127.0.0.1", port }, never))).code).toBe("REFUSED");
    expect((await refusal(dialer.dial({ host: "no.such.name.invalid", port }, never))).code).toBe("DNS");
    expect((await refusal(dialer.dial({ host: "127.0.0.1", port: 70_000 }, never))).code).toBe("UNKNOWN");
  });

  test("throws ABORTED, before and while it connects", async () => {
    const hole = openBlackHole();
    const dialer = newDialer();
    const endpoint = { host: "127.0.0.1", port: hole.port };
    expect((await refusal(dialer.dial(endpoint, AbortSignal.abort()))).code).toBe("ABORTED");
    const filler = await dialer.dial(endpoint, never);
    const stop = new AbortController();
    const dialing = dialer.dial(endpoint, stop.signal);
    stop.abort();
    expect((await refusal(dialing)).code).toBe("ABORTED");
    filler.destroy();
  });

  test("drops a connection that opens late", async () => {
    const hole = openBlackHole();
    const endpoint = { host: "127.0.0.1", port: hole.port };
    const filler = await newDialer().dial(endpoint, never);
    const error = await refusal(newDialer({ timeoutMs: 20 }).dial(endpoint, never));
    expect(error).toMatchObject({ code: "TIMEOUT", message: "no connection within 0.02 s" });
    expect(socketsTo(hole.port)).toBe(2);
    // The kernel sends each SYN anew, a second later the first time.
    filler.destroy();
    let accepted = 0;
    await eventually(() => {
      accepted += hole.acceptAll();
      return accepted === 2 && socketsTo(hole.port) === 0;
    });
  }, 20_000);
});

describe("TcpDialer.dial(), while attempts hang", () => {
  /** The clock by which the dialer tells the age of its attempts goes on by so much, and not by itself. */
  function skipTime(ms: number): void {
    nowMs += ms;
  }

  let nowMs = 0;
  let clock: { mockRestore(): void };
  beforeEach(() => {
    nowMs = 0;
    clock = spyOn(performance, "now").mockImplementation(() => nowMs);
  });
  afterEach(() => {
    clock.mockRestore();
  });

  /** `count` attempts that were given up, all of which the kernel still makes. */
  async function hang(count: number): Promise<{ dialer: TcpDialer; endpoint: TcpEndpoint }> {
    const hole = openBlackHole();
    const endpoint = { host: "127.0.0.1", port: hole.port };
    const filler = await newDialer().dial(endpoint, never);
    cleanups.push(() => filler.destroy());
    const dialer = newDialer({ timeoutMs: 200 }); // enough where nothing hangs
    await Promise.all(Array.from({ length: count }, () => refusal(dialer.dial(endpoint, never))));
    return { dialer, endpoint };
  }

  const codeOf = async (dialer: TcpDialer, endpoint: TcpEndpoint): Promise<string> =>
    (await refusal(dialer.dial(endpoint, never))).code;

  test.each([
    { ms: 1_000, code: "TIMEOUT" },
    { ms: 2_000, code: "ABORTED" },
    { ms: 11_000, code: "ABORTED" },
    { ms: 12_000, code: "TIMEOUT" },
  ])("with four that began $ms ms ago throws $code", async ({ ms, code }) => {
    const { dialer, endpoint } = await hang(4);
    skipTime(ms);
    expect(socketsTo(endpoint.port)).toBe(5);
    expect(await codeOf(dialer, endpoint)).toBe(code);
    expect(socketsTo(endpoint.port)).toBe(code === "ABORTED" ? 5 : 6);
  });

  test("says that it was not tried, for this endpoint only, and tries while there are three", async () => {
    const { dialer, endpoint } = await hang(3);
    skipTime(2_000);
    expect(await codeOf(dialer, endpoint)).toBe("TIMEOUT");
    skipTime(2_000); // the fourth hangs, too
    expect((await refusal(dialer.dial(endpoint, never))).message).toMatch(/^not tried: /);
    const { port } = await serve((socket) => socket.resume());
    (await dialer.dial({ host: "127.0.0.1", port }, never)).destroy();
  });

  test("tries again after forgive()", async () => {
    const { dialer, endpoint } = await hang(4);
    skipTime(5_000);
    expect(await codeOf(dialer, endpoint)).toBe("ABORTED");
    dialer.forgive();
    expect(await codeOf(dialer, endpoint)).toBe("TIMEOUT");
  });

  test("tries nothing at all with 64 that were given up, however young they are", async () => {
    const { dialer } = await hang(64);
    const { port } = await serve((socket) => socket.resume());
    expect(await codeOf(dialer, { host: "127.0.0.1", port })).toBe("ABORTED");
  });
});

describe("TcpDialer.dial() through a proxy", () => {
  test.each(["http", "socks5"])(
    "gives the peer's first bytes on, whatever came with the %s answer",
    async (kind) => {
      const { port } = await serve((socket) => {
        socket.once("data", () => {
          const answer = kind === "http" ? Buffer.from(CONNECT_OK) : SOCKS_OK;
          socket.write(Buffer.concat([answer, Buffer.from("early ")]));
          socket.on("data", (chunk: Buffer) => socket.write(chunk));
        });
      });
      const dialer = newDialer({ proxy: `${kind}://127.0.0.1:${port}` });
      const channel = await dialer.dial({ host: "example.org", port: 443 }, never);
      await settle(20);
      const sink = new RecordingSink();
      channel.attach(sink);
      channel.write(Buffer.from("echo"));
      await sink.until(({ length }) => length >= (kind === "http" ? 10 : 10 + 18));
      expect(Buffer.from(sink.bytes).toString("latin1")).toStartWith("early ");
      expect(Buffer.from(sink.bytes).toString("latin1")).toEndWith("echo");
      channel.destroy();
    },
  );

  test("goes on when the peer has sent more with the answer than is held", async () => {
    const length = 4 * 1024 * 1024;
    const { port } = await serve((socket) => {
      socket.once("data", () => {
        socket.end(Buffer.concat([Buffer.from(CONNECT_OK), Buffer.alloc(length, 7)]));
        socket.resume();
      });
    });
    const channel = await newDialer({ proxy: `http://127.0.0.1:${port}` }).dial(
      { host: "a", port: 1 },
      never,
    );
    await settle(100);
    const sink = new RecordingSink();
    channel.attach(sink);
    await sink.until((heard) => heard.heard("end"));
    expect(sink.length).toBe(length);
    channel.destroy();
  });

  test("understands answers that come byte by byte", async () => {
    const { port } = await serve((socket) => {
      socket.once("data", async () => {
        for (const byte of Buffer.from(`${CONNECT_OK}x`)) {
          socket.write(Uint8Array.of(byte));
          await settle(1);
        }
      });
    });
    const channel = await newDialer({ proxy: `http://127.0.0.1:${port}` }).dial(
      { host: "a", port: 1 },
      never,
    );
    const sink = new RecordingSink();
    channel.attach(sink);
    await sink.until(({ length }) => length === 1);
    channel.destroy();
  });

  test("leaves the proxy out where it is told to", async () => {
    const { port } = await serve((socket) => socket.end("direct"));
    const dialer = newDialer({ proxy: "http://127.0.0.1:1", noProxy: "127.0.0.0/8" });
    const channel = await dialer.dial({ host: "127.0.0.1", port }, never);
    channel.destroy();
  });

  test("throws PROXY when the proxy cannot be reached, without its credentials", async () => {
    const dialer = newDialer({ proxy: "socks5://user:hunter2@127.0.0.1:1" });
    const error = await refusal(dialer.dial({ host: "a", port: 1 }, never));
    expect(error.code).toBe("PROXY");
    expect(error.message).toBe("the proxy socks5://127.0.0.1:1 cannot be reached: connection refused");
  });

  test.each(["http", "socks5"])(
    "gives up a %s proxy that says nothing, and drops the connection",
    async (kind) => {
      const { port, sockets } = await serve((socket) => socket.resume());
      const proxy = `${kind}://127.0.0.1:${port}`;
      const late = await refusal(newDialer({ timeoutMs: 50, proxy }).dial({ host: "a", port: 1 }, never));
      expect(late).toMatchObject({ code: "TIMEOUT", message: expect.stringMatching(/proxy did not answer/) });
      await eventually(() => sockets.size === 0);
      const stop = new AbortController();
      const dialing = newDialer({ proxy }).dial({ host: "a", port: 1 }, stop.signal);
      await eventually(() => sockets.size === 1);
      stop.abort();
      expect((await refusal(dialing)).code).toBe("ABORTED");
      await eventually(() => sockets.size === 0);
    },
  );

  test.each(["close", "reset", "garbage", "refuse"])(
    "throws PROXY on a %s, and leaves nothing open",
    async (way) => {
      const { port, sockets } = await serve((socket) => {
        socket.once("data", () => {
          if (way === "close") socket.end();
          else if (way === "reset") socket.resetAndDestroy();
          else socket.write(way === "garbage" ? "220 mail.example.org" : "HTTP/1.1 403 Forbidden\r\n\r\n");
        });
      });
      const before = fileDescriptors().length;
      const dialer = newDialer({ proxy: `http://127.0.0.1:${port}` });
      for (let attempt = 0; attempt < 5; attempt += 1) {
        expect((await refusal(dialer.dial({ host: "a", port: 1 }, never))).code).toBe("PROXY");
      }
      await eventually(() => {
        for (const socket of sockets) socket.end();
        return sockets.size === 0 && fileDescriptors().length <= before;
      });
    },
  );
});

describe("socketErrorOf()", () => {
  test.each([
    ["ECONNREFUSED", "REFUSED"],
    ["ECONNRESET", "CLOSED"],
    ["ETIMEDOUT", "TIMEOUT"],
    ["EHOSTUNREACH", "UNREACHABLE"],
    ["ENETUNREACH", "UNREACHABLE"],
    ["ENOTFOUND", "DNS"],
    ["EAI_AGAIN", "DNS"],
    ["EMFILE", "LOCAL"],
    ["ENFILE", "LOCAL"],
    ["ENOMEM", "LOCAL"],
    ["ENOBUFS", "LOCAL"],
    ["DNS_ENOTFOUND", "DNS"],
    ["EWHATEVER", "UNKNOWN"],
  ])("maps %s to %s", (code, expected) => {
    const error = socketErrorOf(Object.assign(new Error("words"), { code }));
    expect(error.code).toBe(expected as RouteError["code"]);
    expect(error.cause).toBeInstanceOf(Error);
  });
});
