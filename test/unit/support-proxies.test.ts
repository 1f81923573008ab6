import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import type { Server, Socket } from "node:net";
import { testCertificates } from "../support/certificates.ts";
import { openTcp } from "../support/client-stream.ts";
import { StubDc } from "../support/stub-dc.ts";
import { SOCKS_REPLY, StubHttpProxy, StubSocksProxy } from "../support/stub-proxies.ts";
import { listenOnLoopback, portOf } from "../support/upgrade-server.ts";
import { Condition, nextTurn, within } from "../support/waiting.ts";

const CREDENTIALS = { username: "ann", password: "p:ss wörd" };
const NAME = "kws2.example";

/** Answers with what it gets, and ends when the client does. */
let echo: Server;
let http: StubHttpProxy;
let lockedHttp: StubHttpProxy;
let socks: StubSocksProxy;
let lockedSocks: StubSocksProxy;

beforeAll(async () => {
  echo = await listenOnLoopback();
  echo.on("connection", (socket) => socket.pipe(socket));
  const table = { [NAME]: portOf(echo), "[2001:db8::7]:443": 1, "2001:db8::7": portOf(echo) };
  http = await StubHttpProxy.start({ table });
  lockedHttp = await StubHttpProxy.start({ table, credentials: CREDENTIALS });
  socks = await StubSocksProxy.start({ table });
  lockedSocks = await StubSocksProxy.start({ table, credentials: CREDENTIALS });
});

afterEach(() => {
  for (const proxy of [http, lockedHttp, socks, lockedSocks]) proxy.reset();
});

afterAll(async () => {
  for (const proxy of [http, lockedHttp, socks, lockedSocks]) await proxy[Symbol.asyncDispose]();
  const { promise, resolve } = Promise.withResolvers<void>();
  echo.close(() => resolve());
  await promise;
});

/** A TCP client that keeps what it gets. */
class Dialog implements Disposable {
  ended = false;
  #held = Buffer.alloc(0);
  readonly #socket: Socket;
  readonly #changes = new Condition();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#held = Buffer.concat([this.#held, chunk]);
      this.#changes.changed();
    });
    const onEnd = (): void => {
      this.ended = true;
      this.#changes.changed();
    };
    socket.on("end", onEnd);
    socket.on("close", onEnd);
    socket.on("error", () => {});
  }

  static async open({ port }: { readonly port: number }): Promise<Dialog> {
    return new Dialog(await openTcp(port));
  }

  say(...bytes: readonly (string | number | Uint8Array)[]): void {
    const parts = bytes.map((part) => {
      if (typeof part === "number") return Buffer.of(part);
      return typeof part === "string" ? Buffer.from(part) : Buffer.from(part);
    });
    this.#socket.write(Buffer.concat(parts));
  }

  async sayByteByByte(bytes: Uint8Array): Promise<void> {
    for (const byte of bytes) {
      this.say(byte);
      await nextTurn();
    }
  }

  end(): void {
    this.#socket.end();
  }

  async hear(length: number): Promise<string> {
    await this.#changes.until(() => this.ended || this.#held.length >= length, `${length} bytes`);
    const taken = this.#held.subarray(0, length);
    this.#held = this.#held.subarray(length);
    return taken.toString("latin1");
  }

  async hearAll(): Promise<string> {
    await this.#changes.until(() => this.ended, "the end");
    return this.hear(this.#held.length);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

function hex(text: string): string {
  return Buffer.from(text, "latin1").toString("hex");
}

const ESTABLISHED = "HTTP/1.1 200 Connection established\r\n\r\n";

describe("StubHttpProxy", () => {
  test("connects to what its table says, with the bytes that came early, and passes the end on", async () => {
    using dialog = await Dialog.open(http);
    dialog.say(`CONNECT ${NAME}:443 HTTP/1.1\r\nHost: ${NAME}:443\r\n\r\nearly`);
    expect(await dialog.hear(ESTABLISHED.length + 5)).toBe(`${ESTABLISHED}early`);
    dialog.say("late");
    dialog.end();
    expect(await dialog.hearAll()).toBe("late");
    expect(http.requests).toEqual([{ host: NAME, port: 443, credentials: undefined }]);
  });

  test("carries a WebSocket with TLS, whose name it looks up in its table", async () => {
    const name = "kws2.web.telegram.org";
    await using dc = await StubDc.start();
    await using proxy = await StubHttpProxy.start({ table: { [name]: dc.port } });
    const { ca } = await testCertificates();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = new WebSocket(`wss://${name}/apiws`, {
      protocols: "binary",
      proxy: proxy.url,
      tls: { ca },
    });
    socket.onopen = () => resolve();
    socket.onerror = () => reject(new Error("no WebSocket"));
    await within(promise, "a WebSocket through the proxy");
    socket.terminate();
    expect(proxy.requests).toEqual([{ host: name, port: 443, credentials: undefined }]);
    expect(dc.requests[0]?.serverName).toBe(name);
  });

  test("asks for credentials, and notes those that it got", async () => {
    using first = await Dialog.open(lockedHttp);
    first.say(`CONNECT ${NAME}:443 HTTP/1.1\r\n\r\n`);
    expect(await first.hearAll()).toMatch(/^HTTP\/1\.1 407 .*\r\nProxy-Authenticate: Basic /);
    using second = await Dialog.open(lockedHttp);
    const basic = Buffer.from(`${CREDENTIALS.username}:${CREDENTIALS.password}`).toString("base64");
    second.say(`CONNECT ${NAME}:443 HTTP/1.1\r\nProxy-Authorization: Basic ${basic}\r\n\r\n`);
    expect(await second.hear(ESTABLISHED.length)).toBe(ESTABLISHED);
    expect(lockedHttp.requests.map(({ credentials }) => credentials)).toEqual([undefined, CREDENTIALS]);
    expect(lockedHttp.url).toBe(`http://ann:p%3Ass%20w%C3%B6rd@127.0.0.1:${lockedHttp.port}`);
  });

  test("looks no name up, and knows IPv6 addresses", async () => {
    using unknown = await Dialog.open(http);
    unknown.say("CONNECT localhost.localdomain:443 HTTP/1.1\r\n\r\n");
    expect(await unknown.hearAll()).toStartWith("HTTP/1.1 502 ");
    using known = await Dialog.open(http);
    known.say("CONNECT [2001:db8::7]:443 HTTP/1.1\r\n\r\n");
    expect(await known.hear(ESTABLISHED.length)).toBe(ESTABLISHED);
    expect(http.requests[1]?.host).toBe("2001:db8::7");
  });

  test("refuses, closes, resets and speaks nonsense when it is told to", async () => {
    http.behave = () => ({ kind: "status", status: "403 Forbidden" });
    using refused = await Dialog.open(http);
    refused.say(`CONNECT ${NAME}:443 HTTP/1.1\r\n\r\n`);
    expect(await refused.hearAll()).toStartWith("HTTP/1.1 403 ");
    http.behave = () => ({ kind: "close" });
    using closed = await Dialog.open(http);
    closed.say(`CONNECT ${NAME}:443 HTTP/1.1\r\n\r\n`);
    expect(await closed.hearAll()).toBe("");
    for (const [behaviour, heard] of [
      ["garbage", "220 "],
      ["close", ""],
      ["reset", ""],
    ] as const) {
      http.accept = () => behaviour;
      using dialog = await Dialog.open(http);
      expect(await dialog.hearAll()).toStartWith(heard);
    }
  });
});

describe("StubSocksProxy", () => {
  const request = Buffer.concat([Buffer.of(5, 1, 0, 3, NAME.length), Buffer.from(NAME), Buffer.of(1, 187)]);
  const succeeded = "05000001000000000000";

  test("connects without a password, byte by byte, and passes the end on", async () => {
    using dialog = await Dialog.open(socks);
    await dialog.sayByteByByte(Buffer.of(5, 1, 0));
    expect(hex(await dialog.hear(2))).toBe("0500");
    await dialog.sayByteByByte(request);
    expect(hex(await dialog.hear(10))).toBe(succeeded);
    dialog.say("hello");
    dialog.end();
    expect(await dialog.hearAll()).toBe("hello");
    expect(socks.requests).toEqual([{ host: NAME, port: 443, credentials: undefined }]);
    expect(socks.offers).toEqual([[0]]);
  });

  test("serves all that comes in one segment", async () => {
    using dialog = await Dialog.open(socks);
    dialog.say(Buffer.of(5, 2, 2, 0), request, "early");
    expect(hex(await dialog.hear(12))).toBe(`0500${succeeded}`);
    expect(await dialog.hear(5)).toBe("early");
  });

  test("knows addresses of both kinds", async () => {
    for (const [bytes, host] of [
      [Buffer.of(1, 127, 0, 0, 1), "127.0.0.1"],
      [Buffer.of(4, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7), "2001:db8::7"],
    ] as const) {
      using dialog = await Dialog.open(socks);
      const port = portOf(echo);
      dialog.say(Buffer.of(5, 1, 0), Buffer.of(5, 1, 0), bytes, Buffer.of(port >> 8, port & 0xff));
      expect(hex(await dialog.hear(12))).toBe(`0500${succeeded}`);
      expect(socks.requests.at(-1)).toEqual({ host, port, credentials: undefined });
    }
  });

  test("asks for a password, and notes the one that it got", async () => {
    const password = Buffer.from(CREDENTIALS.password);
    for (const [given, verdict] of [
      [password, "0100"],
      [Buffer.from("guess"), "0101"],
    ] as const) {
      using dialog = await Dialog.open(lockedSocks);
      dialog.say(5, 2, 0, 2);
      expect(hex(await dialog.hear(2))).toBe("0502");
      dialog.say(1, 3, CREDENTIALS.username, given.length, given);
      expect(hex(await dialog.hear(2))).toBe(verdict);
      if (verdict === "0101") expect(await dialog.hearAll()).toBe("");
      else dialog.say(request);
    }
    await lockedSocks.until(() => lockedSocks.requests.length === 1, "the request");
    expect(lockedSocks.requests[0]?.credentials).toEqual(CREDENTIALS);
    using open = await Dialog.open(lockedSocks);
    open.say(5, 1, 0);
    expect(hex(await open.hearAll())).toBe("05ff");
  });

  test("answers with the reply that it is told to, and with one for what it does not know", async () => {
    const ask = async (command: number, type = 3): Promise<string> => {
      using dialog = await Dialog.open(socks);
      dialog.say(5, 1, 0, 5, command, 0, type, NAME.length, NAME, 1, 187);
      return hex(await dialog.hearAll()).slice(4, 8);
    };
    expect(await ask(2)).toBe(`050${SOCKS_REPLY.commandNotSupported}`);
    expect(await ask(1, 9)).toBe(`050${SOCKS_REPLY.addressTypeNotSupported}`);
    for (const code of Object.values(SOCKS_REPLY)) {
      socks.behave = () => ({ kind: "reply", code });
      expect(await ask(1)).toBe(`050${code}`);
    }
  });

  test("hangs when it is told to", async () => {
    socks.behave = () => ({ kind: "hang" });
    using dialog = await Dialog.open(socks);
    dialog.say(5, 1, 0, request);
    await within(dialog.hear(2), "the method");
    await socks.until(() => socks.requests.length === 1, "the request");
    await nextTurn();
    expect(dialog.ended).toBe(false);
  });
});
