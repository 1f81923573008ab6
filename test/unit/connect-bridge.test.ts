import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from "bun:test";
import { readdirSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { parseOutboundProxy } from "../../src/config/outbound-proxy.ts";
import { ConnectBridge } from "../../src/net/connect-bridge.ts";
import { TcpDialer } from "../../src/net/tcp-dial.ts";
import { testCertificates } from "../support/certificates.ts";
import { StubDc } from "../support/stub-dc.ts";
import { eventually } from "./frame-server.ts";

const NAME = "kws2.web.telegram.org";
const HIGH_WATER = 64 * 1024;
const fileDescriptors = (): number => readdirSync("/proc/self/fd").length;

/** A server on loopback; `close` drops its sockets, too. */
interface LoopbackServer {
  readonly port: number;
  readonly sockets: Set<Socket>;
  close(): void;
}

async function serve(onSocket: (socket: Socket) => void): Promise<LoopbackServer> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server does not listen");
  return {
    port: address.port,
    sockets,
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A SOCKS5 proxy that connects every name to loopback, and keeps what it was asked for. */
class SocksServer {
  readonly names: string[] = [];
  /** The reply of every request, and whether there is any. */
  reply = 0;
  silent = false;
  readonly #server: LoopbackServer;

  private constructor(server: LoopbackServer) {
    this.#server = server;
  }

  static async start(): Promise<SocksServer> {
    const started: { proxy?: SocksServer } = {};
    const server = await serve((socket) => started.proxy?.onSocket(socket));
    started.proxy = new SocksServer(server);
    return started.proxy;
  }

  get port(): number {
    return this.#server.port;
  }

  get open(): number {
    return this.#server.sockets.size;
  }

  close(): void {
    this.#server.close();
  }

  onSocket(socket: Socket): void {
    let bytes = Buffer.alloc(0);
    let greeted = false;
    let answered = false;
    const onData = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      if (!greeted && bytes.length >= 2 + (bytes[1] ?? 0)) {
        bytes = bytes.subarray(2 + (bytes[1] ?? 0));
        greeted = true;
        socket.write(Uint8Array.of(5, 0));
      }
      const named = bytes[3] === 3;
      const size = named ? 4 + 1 + (bytes[4] ?? 0) + 2 : 4 + 4 + 2;
      if (!greeted || bytes.length < size) return;
      socket.off("data", onData);
      this.names.push(named ? bytes.toString("latin1", 5, size - 2) : bytes.subarray(4, 8).join("."));
      if (this.silent) return;
      answered = true;
      this.#answer(socket, bytes.readUInt16BE(size - 2));
    };
    socket.on("data", onData);
    socket.on("end", () => {
      if (!answered) socket.end();
    });
  }

  #answer(socket: Socket, port: number): void {
    const answer = Uint8Array.of(5, this.reply, 0, 1, 0, 0, 0, 0, 0, 0);
    if (this.reply !== 0) {
      socket.end(answer);
      return;
    }
    const onward = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true }, () => {
      socket.write(answer);
      socket.pipe(onward).pipe(socket);
    });
    onward.on("error", () => socket.destroy());
    onward.on("close", () => socket.destroy());
    socket.on("close", () => onward.destroy());
  }
}

let stub: StubDc;
let ca: string;
let socks: SocksServer;
let bridge: ConnectBridge;
const others: LoopbackServer[] = [];

beforeAll(async () => {
  ca = (await testCertificates()).ca;
  stub = await StubDc.start();
  socks = await SocksServer.start();
  const proxy = parseOutboundProxy(`socks5://127.0.0.1:${socks.port}`, undefined);
  bridge = new ConnectBridge(new TcpDialer({ highWater: HIGH_WATER, timeoutMs: 3_000, proxy }), HIGH_WATER);
});
afterEach(() => {
  socks.reply = 0;
  socks.silent = false;
  socks.names.length = 0;
  stub.reset();
  for (const server of others.splice(0)) server.close();
});
afterAll(async () => {
  bridge.close();
  socks.close();
  await stub[Symbol.asyncDispose]();
});

interface Opened {
  readonly socket: WebSocket;
  readonly error: string | undefined;
}

/** Opens a WebSocket through the bridge, and waits until it is open or has failed. */
async function openWebSocket(url = bridge.url): Promise<Opened> {
  const socket = new WebSocket(`wss://${NAME}:${stub.port}/apiws`, {
    protocols: "binary",
    tls: { ca: [ca] },
    proxy: url,
    perMessageDeflate: false,
  });
  socket.binaryType = "nodebuffer";
  const error = await new Promise<string | undefined>((resolve) => {
    socket.onopen = () => resolve(undefined);
    socket.onerror = (event) => resolve(event.message);
  });
  return { socket, error };
}

/** A plain client of the bridge and what it has received. */
async function openClient(): Promise<{
  socket: Socket;
  seen: { text: string; ended: boolean; closed: boolean };
}> {
  const seen = { text: "", ended: false, closed: false };
  const socket = connect({ host: "127.0.0.1", port: Number(new URL(bridge.url).port), allowHalfOpen: true });
  socket.on("data", (chunk: Buffer) => {
    seen.text += chunk.toString("latin1");
  });
  socket.on("end", () => {
    seen.ended = true;
  });
  socket.on("close", () => {
    seen.closed = true;
  });
  socket.on("error", () => {}); // `close` follows
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
  });
  return { socket, seen };
}

function authorization(url = bridge.url): string {
  const { username, password } = new URL(url);
  return `Proxy-Authorization: Basic ${btoa(`${username}:${password}`)}`;
}

const request = (target: string, header = authorization()): string =>
  `CONNECT ${target} HTTP/1.1\r\n${header}\r\n\r\n`;

describe("ConnectBridge", () => {
  test("carries Bun's WebSocket over TLS through a SOCKS5 proxy, which gets the name", async () => {
    let before = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 4; round += 1) {
      const { socket, error } = await openWebSocket();
      expect(error).toBeUndefined();
      expect(socks.names.at(-1)).toBe(NAME);
      const [connection] = stub.connections.slice(-1);
      socket.close();
      await eventually(() => connection?.closed === true);
      await eventually(() => socks.open === 0 && fileDescriptors() <= before);
      if (round === 0) before = fileDescriptors(); // the first opens what Bun keeps
    }
  });

  test("shows the proxy's reply in Bun's error", async () => {
    socks.reply = 5;
    expect((await openWebSocket()).error).toMatch(/Proxy [a-z ]+: 502 REFUSED connection refused/);
    socks.reply = 2;
    expect((await openWebSocket()).error).toMatch(/: 502 PROXY the proxy's rules do not allow/);
    await eventually(() => socks.open === 0);
  });

  test("refuses a wrong credential", async () => {
    const url = new URL(bridge.url);
    url.password = url.password.replace(/^./, (digit) => (digit === "0" ? "1" : "0"));
    expect((await openWebSocket(url.href)).error).toMatch(/407/);
    expect((await openWebSocket(`http://${url.host}`)).error).toMatch(/407/);
    expect(socks.names).toEqual([]);
  });

  test("has a credential of 32 random bytes, another one each time", () => {
    const dialer = new TcpDialer({ highWater: 1, timeoutMs: 1, proxy: undefined });
    const [one, other] = [new ConnectBridge(dialer, 1), new ConnectBridge(dialer, 1)];
    expect(new URL(one.url).password).toMatch(/^[0-9a-f]{64}$/);
    expect(new URL(one.url).password).not.toBe(new URL(other.url).password);
    one.close();
    other.close();
  });

  test.each([
    ["", "407"],
    ["Proxy-Authorization: Basic", "407"],
    ["Proxy-Authorization: Bearer x", "407"],
    [`Proxy-Authorization: Basic ${btoa("tgws:")}`, "407"],
    ["X: y", "407"],
  ])("answers %p with %s and closes", async (header, status) => {
    const { socket, seen } = await openClient();
    socket.write(request("example.org:443", header));
    await eventually(() => seen.ended);
    expect(seen.text).toStartWith(`HTTP/1.1 ${status} `);
    socket.destroy();
  });

  test.each([
    "GET / HTTP/1.1",
    "CONNECT example.org HTTP/1.1",
    "CONNECT example.org:0 HTTP/1.1",
    "CONNECT example.org:65536 HTTP/1.1",
    "CONNECT exa mple.org:1 HTTP/1.1",
    "CONNECT exa\tmple.org:1 HTTP/1.1",
    "CONNECT user@example.org:1 HTTP/1.1",
    "CONNECT [::1:1 HTTP/1.1",
  ])("answers %p with 400", async (line) => {
    const { socket, seen } = await openClient();
    socket.write(`${line}\r\n${authorization()}\r\n\r\n`);
    await eventually(() => seen.ended);
    expect(seen.text).toStartWith("HTTP/1.1 400 ");
    expect(socks.names).toEqual([]);
    socket.destroy();
  });

  test("answers a head that is too long with 431", async () => {
    const { socket, seen } = await openClient();
    socket.write(`CONNECT a:1 HTTP/1.1\r\n${authorization()}\r\nX: ${"x".repeat(9_000)}`);
    await eventually(() => seen.ended || seen.closed);
    expect(seen.text).toStartWith("HTTP/1.1 431 ");
    socket.destroy();
  });

  test("understands a request that comes byte by byte, and keeps what follows it", async () => {
    const target = await serve((socket) => socket.pipe(socket));
    others.push(target);
    const { socket, seen } = await openClient();
    for (const byte of Buffer.from(`${request(`example.org:${target.port}`)}early`)) {
      socket.write(Uint8Array.of(byte));
      if (byte === 0x0a) await new Promise((resolve) => setImmediate(resolve));
    }
    await eventually(() => seen.text.endsWith("\r\n\r\nearly"));
    expect(seen.text).toStartWith("HTTP/1.1 200 ");
    socket.destroy();
    await eventually(() => target.sockets.size === 0 && socks.open === 0);
  });

  test("passes half-closes on, in both directions", async () => {
    let heard = "";
    const target = await serve((socket) => {
      socket.on("data", (chunk: Buffer) => {
        heard += chunk.toString();
      });
      socket.on("end", () => socket.end(`heard ${heard}`));
    });
    others.push(target);
    const { socket, seen } = await openClient();
    socket.write(request(`example.org:${target.port}`));
    await eventually(() => seen.text.startsWith("HTTP/1.1 200 "));
    socket.end("question");
    await eventually(() => seen.closed);
    expect(seen.text).toEndWith("\r\n\r\nheard question");
    await eventually(() => socks.open === 0);
  });

  test("carries much in both directions through slow readers", async () => {
    const length = 8 * 1024 * 1024;
    const target = await serve((socket) => socket.pipe(socket));
    others.push(target);
    const { socket, seen } = await openClient();
    socket.write(request(`example.org:${target.port}`));
    await eventually(() => seen.text.endsWith("\r\n\r\n"));
    const head = seen.text.length;
    socket.pause();
    socket.end(Buffer.alloc(length, "0123456789abcdef"));
    await Bun.sleep(50);
    socket.resume();
    await eventually(() => seen.closed);
    expect(seen.text.length - head).toBe(length);
    expect(seen.text.slice(head) === "0123456789abcdef".repeat(length / 16)).toBe(true);
  }, 20_000);

  test("gives the connection up when its client leaves first", async () => {
    socks.silent = true;
    const { socket } = await openClient();
    socket.write(request("example.org:443"));
    await eventually(() => socks.names.length === 1);
    socket.destroy();
    await eventually(() => socks.open === 0);
  });

  test("drops a client that does not finish its request within 5 s", async () => {
    jest.useFakeTimers();
    try {
      const { socket, seen } = await openClient();
      socket.write("CONNECT ");
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      jest.advanceTimersByTime(4_900);
      expect(seen.closed).toBe(false);
      jest.advanceTimersByTime(200);
      await eventually(() => seen.closed || seen.ended);
      expect(seen.text).toBe("");
      socket.destroy();
    } finally {
      jest.useRealTimers();
    }
  });

  test("drops a side that stays silent after the other has closed", async () => {
    const target = await serve((socket) => socket.resume()); // never ends
    others.push(target);
    const before = fileDescriptors();
    jest.useFakeTimers();
    try {
      const { socket, seen } = await openClient();
      socket.write(request(`example.org:${target.port}`));
      await eventually(() => seen.text.startsWith("HTTP/1.1 200 "));
      socket.end();
      for (let turn = 0; turn < 50; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      jest.advanceTimersByTime(10_000);
      expect(seen.closed).toBe(false);
      jest.advanceTimersByTime(15_000);
      await eventually(() => seen.closed || seen.ended);
      socket.destroy();
      // What is left is the target's socket, the proxy's to it, and the proxy's from the bridge.
      await eventually(() => fileDescriptors() <= before + 3);
    } finally {
      jest.useRealTimers();
    }
  });

  test("drops everybody on close, and listens no more", async () => {
    const before = fileDescriptors();
    const proxy = parseOutboundProxy(`socks5://127.0.0.1:${socks.port}`, undefined);
    const dialer = new TcpDialer({ highWater: HIGH_WATER, timeoutMs: 3_000, proxy });
    const closing = new ConnectBridge(dialer, HIGH_WATER);
    const { socket, error } = await openWebSocket(closing.url);
    expect(error).toBeUndefined();
    socks.silent = true;
    const waiting = openWebSocket(closing.url);
    await eventually(() => socks.names.length === 2);
    closing.close();
    expect((await waiting).error).toBeDefined();
    await eventually(() => socket.readyState === WebSocket.CLOSED && socks.open === 0);
    expect((await openWebSocket(closing.url)).error).toBeDefined();
    await eventually(() => fileDescriptors() <= before);
  });
});
