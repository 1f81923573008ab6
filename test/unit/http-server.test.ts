import { afterEach, describe, expect, test } from "bun:test";
import {
  type HttpAnswer,
  type HttpRequest,
  type HttpServer,
  listenHttp,
} from "../../src/observe/http-server.ts";
import { eventually } from "./frame-server.ts";

const running: HttpServer[] = [];
afterEach(() => {
  for (const server of running.splice(0)) server.stop();
});

const ECHO: HttpAnswer = { status: 200, type: "text/plain", body: "hello\n" };

function start(
  answer: (request: HttpRequest) => Promise<HttpAnswer> = async () => ECHO,
  limits = { connections: 64, deadlineMs: 5_000 },
): HttpServer {
  const server = listenHttp({ host: "127.0.0.1", port: 0, limits }, answer);
  running.push(server);
  return server;
}

/** A client that keeps what it hears. */
interface Client {
  heard: string;
  write(text: string): void;
  end(): void;
  readonly closed: Promise<string>;
}

async function connect(port: number): Promise<Client> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const client = { heard: "" };
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port,
    allowHalfOpen: true,
    socket: {
      data: (_, bytes) => {
        client.heard += bytes.toString();
      },
      end: (ended) => void ended.end(),
      close: () => resolve(client.heard),
      error: () => resolve(client.heard),
    },
  });
  return Object.assign(client, {
    write: (text: string) => void socket.write(text),
    end: () => void socket.shutdown(),
    closed: promise,
  });
}

async function ask(port: number, text: string): Promise<string> {
  const client = await connect(port);
  client.write(text);
  return client.closed;
}

const GET = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

describe("listenHttp()", () => {
  test("answers with a date, a length and the end of the connection", async () => {
    const heard = await ask(start().port, GET);
    const [head = "", body] = heard.split("\r\n\r\n");
    expect(head.split("\r\n")).toEqual([
      "HTTP/1.1 200 OK",
      expect.stringMatching(/^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$/),
      "Content-Type: text/plain",
      "Content-Length: 6",
      "Cache-Control: no-store",
      "X-Content-Type-Options: nosniff",
      "Connection: close",
    ]);
    expect(body).toBe("hello\n");
  });

  test("reads a request that comes byte by byte", async () => {
    const client = await connect(start().port);
    for (const letter of GET) {
      client.write(letter);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await client.closed).toEndWith("hello\n");
  });

  test("passes on method, address and authorization", async () => {
    let seen: HttpRequest | undefined;
    const { port } = start(async (request) => {
      seen = request;
      return ECHO;
    });
    await ask(port, "POST /a/b?c=d HTTP/1.1\r\nhOST:\t x:1 \r\nAuthorization: Bearer t\r\n\r\n");
    expect(seen).toMatchObject({ method: "POST", authorization: "Bearer t" });
    expect(seen?.url.href).toBe("http://x:1/a/b?c=d");
  });

  test("takes an address that is whole, as proxies send it", async () => {
    const { port } = start(async ({ url }) => ({ ...ECHO, body: url.href }));
    const heard = await ask(port, "GET http://other.example/x HTTP/1.1\r\nHost: a\r\n\r\n");
    expect(heard).toEndWith("\r\n\r\nhttp://other.example/x");
  });

  test("takes HTTP/1.0 without a host", async () => {
    expect(await ask(start().port, "GET / HTTP/1.0\r\n\r\n")).toStartWith("HTTP/1.1 200 ");
  });

  test("answers HEAD with the length, and no body", async () => {
    const heard = await ask(start().port, GET.replace("GET", "HEAD"));
    expect(heard).toContain("Content-Length: 6\r\n");
    expect(heard).toEndWith("\r\n\r\n");
  });

  test("answers one that has ended its side already", async () => {
    const client = await connect(start().port);
    client.write(GET);
    client.end();
    expect(await client.closed).toEndWith("hello\n");
  });

  test("reads past a body, so that the answer arrives", async () => {
    const client = await connect(start().port);
    client.write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n${"x".repeat(200_000)}`);
    expect(await client.closed).toEndWith("hello\n");
  });

  test("delivers an answer of megabytes whole", async () => {
    const body = "0123456789abcdef".repeat(512 * 1024);
    const heard = await ask(start(async () => ({ ...ECHO, body })).port, GET);
    expect(heard.length).toBeGreaterThan(body.length);
    expect(heard.endsWith(body)).toBe(true);
  });

  test("answers 500 when there is no answer", async () => {
    const { port } = start(() => Promise.reject(new Error("secret reason")));
    const heard = await ask(port, GET);
    expect(heard).toStartWith("HTTP/1.1 500 ");
    expect(heard).not.toContain("secret reason");
  });

  test.each([
    ["no HTTP", "\x16\x03\x01\x02\x00\r\n\r\n"],
    ["no version", "GET /\r\n\r\n"],
    ["another version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"],
    ["no host", "GET / HTTP/1.1\r\n\r\n"],
    ["two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"],
    ["an address that is none", "GET nonsense HTTP/1.1\r\nHost: a\r\n\r\n"],
    ["an address of another kind", "GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"],
    ["a header without a name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"],
    ["a header that is folded", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"],
    ["a bare line feed in a header", "GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n"],
    ["nothing", "\r\n\r\n"],
  ])("answers 400 to %s", async (_, text) => {
    expect(await ask(start().port, text)).toStartWith("HTTP/1.1 400 Bad Request\r\n");
  });

  test("answers 431 to a head of more than 8 KiB, ended or not", async () => {
    const { port } = start();
    const long = `GET / HTTP/1.1\r\nHost: a\r\nX: ${"x".repeat(9_000)}`;
    for (const text of [long, `${long}\r\n\r\n`]) {
      expect(await ask(port, text)).toStartWith("HTTP/1.1 431 ");
    }
  });

  test("closes the oldest that has not asked for one too many", async () => {
    const { port } = start(undefined, { connections: 3, deadlineMs: 5_000 });
    const idle = [await connect(port), await connect(port), await connect(port)];
    expect(await ask(port, GET)).toEndWith("hello\n");
    expect(await idle[0]?.closed).toBe("");
    idle[1]?.write(GET);
    expect(await idle[1]?.closed).toEndWith("hello\n");
    for (const one of idle) one.end();
  });

  test("closes at once whoever is one too many when all have asked, and takes the next when one has left", async () => {
    const { promise, resolve } = Promise.withResolvers<HttpAnswer>();
    let asked = 0;
    const answer = (): Promise<HttpAnswer> => {
      asked += 1;
      return promise;
    };
    const { port } = start(answer, { connections: 2, deadlineMs: 5_000 });
    const waiting = [await connect(port), await connect(port)];
    for (const one of waiting) one.write(GET);
    await eventually(() => asked === 2);
    expect(await ask(port, GET)).toBe("");
    resolve(ECHO);
    for (const one of waiting) expect(await one.closed).toEndWith("hello\n");
    let heard = "";
    for (let tries = 0; heard === "" && tries < 50; tries += 1) heard = await ask(port, GET);
    expect(heard).toEndWith("hello\n");
  });

  test("closes whoever has not asked, or not taken the answer, at the deadline", async () => {
    const { port } = start(undefined, { connections: 64, deadlineMs: 100 });
    const begin = performance.now();
    const [silent, slow] = [await connect(port), await connect(port)];
    slow.write("GET / HTTP/1.1\r\nHost: ");
    expect(await Promise.all([silent.closed, slow.closed])).toEqual(["", ""]);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(90);
  });

  test("forgets at once who ends without having asked", async () => {
    const client = await connect(start().port);
    client.write("GET / HTT");
    client.end();
    expect(await client.closed).toBe("");
  });

  test("survives who leaves before the answer is there", async () => {
    const { promise, resolve } = Promise.withResolvers<HttpAnswer>();
    const { port } = start(({ url }) => (url.pathname === "/slow" ? promise : Promise.resolve(ECHO)), {
      connections: 64,
      deadlineMs: 50,
    });
    expect(await ask(port, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")).toBe("");
    resolve(ECHO);
    expect(await ask(port, GET)).toEndWith("hello\n");
  });
});
