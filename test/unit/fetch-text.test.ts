import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { RouteError } from "../../src/core/errors.ts";
import {
  type FetchTextOptions,
  fetchText,
  parseRetryAfter,
  readRetryAfter,
} from "../../src/net/fetch-text.ts";
import { type Certificates, testCertificates } from "../support/certificates.ts";
import { eventually } from "./frame-server.ts";

const NAME = "kws2.web.telegram.org";
const never = new AbortController().signal;

/** What a server was asked, and what it answers. */
interface Server {
  readonly port: number;
  readonly requests: string[];
  readonly sockets: Set<Socket>;
  answer: (path: string, socket: Socket) => void;
  /** Sent at once. */
  greeting: string;
  close(): void;
}

async function serve(certificates?: Certificates): Promise<Server> {
  const sockets = new Set<Socket>();
  const onSocket = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => sockets.delete(socket));
    if (started.greeting !== "") socket.write(started.greeting);
    let head = "";
    socket.on("data", (chunk: Buffer) => {
      head += chunk.toString("latin1");
      if (!head.endsWith("\r\n\r\n")) return;
      started.requests.push(head);
      started.answer(head.split(" ")[1] ?? "", socket);
      head = "";
    });
  };
  const server =
    certificates === undefined
      ? createServer(onSocket)
      : createTlsServer({ key: certificates.key, cert: certificates.certificate }, onSocket);
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server does not listen");
  const started: Server = {
    port: address.port,
    requests: [],
    sockets,
    answer: () => {},
    greeting: "",
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  return started;
}

let certificates: Certificates;
let secure: Server;
let plain: Server;

beforeAll(async () => {
  certificates = await testCertificates();
  secure = await serve(certificates);
  plain = await serve();
});
afterEach(() => {
  for (const server of [secure, plain]) {
    server.requests.length = 0;
    server.greeting = "";
    for (const socket of server.sockets) socket.destroy();
  }
});
afterAll(() => {
  secure.close();
  plain.close();
});

const options = (changes: Partial<FetchTextOptions> = {}): FetchTextOptions => ({
  addresses: ["127.0.0.1"],
  proxy: undefined,
  ca: [certificates.ca],
  verify: true,
  limitBytes: 1_000,
  timeoutMs: 3_000,
  signal: never,
  ...changes,
});

const answerWith = (status: string, body = "", headers = ""): ((path: string, socket: Socket) => void) => {
  return (_, socket) => {
    socket.end(`HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n${headers}\r\n${body}`);
  };
};

async function refusal(fetching: Promise<unknown>): Promise<RouteError> {
  const error: unknown = await fetching.then(
    () => new Error("it came"),
    (caught: unknown) => caught,
  );
  if (error instanceof RouteError) return error;
  throw error;
}

describe("fetchText()", () => {
  test("connects to the address under the URL's name", async () => {
    secure.answer = (_, socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncafé");
    expect(await fetchText(`https://${NAME}:${secure.port}/a/b?c=d#e`, options())).toBe("café");
    expect(secure.requests[0]).toStartWith("GET /a/b?c=d HTTP/1.1\r\n");
    expect(secure.requests[0]?.toLowerCase()).toContain(`\r\nhost: ${NAME}:${secure.port}\r\n`);
    await eventually(() => secure.sockets.size === 0);
  });

  test("throws TLS when the certificate is for another name, or nobody's", async () => {
    secure.answer = answerWith("200 OK", "text");
    const wrong = await refusal(fetchText(`https://example.org:${secure.port}/`, options()));
    expect(wrong).toMatchObject({ code: "TLS" });
    expect(wrong.message).toContain("another name");
    const unknown = await refusal(fetchText(`https://${NAME}:${secure.port}/`, options({ ca: undefined })));
    expect(unknown.code).toBe("TLS");
    const url = `https://example.org:${secure.port}/`;
    expect(await fetchText(url, options({ ca: undefined, verify: false }))).toBe("text");
    plain.greeting = "220 mail.example.org ready\r\n";
    expect((await refusal(fetchText(`https://${NAME}:${plain.port}/`, options()))).code).toBe("TLS");
  }, 10_000);

  test("tries one address after the other, and looks the name up where there is none", async () => {
    plain.answer = answerWith("200 OK", "text");
    const url = `http://localhost:${plain.port}/`;
    expect(await fetchText(url, options({ addresses: ["127.0.0.2", "::1", "127.0.0.1"] }))).toBe("text");
    expect(await fetchText(url, options({ addresses: [undefined] }))).toBe("text");
    const error = await refusal(fetchText(url, options({ addresses: ["127.0.0.2", "127.0.0.3"] })));
    expect(error).toMatchObject({ code: "REFUSED" });
    expect(error.message).toContain("127.0.0.2: connection refused; 127.0.0.3: connection refused");
  });

  test("throws DNS for a name without an address, and without any address at all", async () => {
    const url = "https://no.such.name.invalid/";
    expect((await refusal(fetchText(url, options({ addresses: [undefined] })))).code).toBe("DNS");
    expect((await refusal(fetchText(url, options({ addresses: [] })))).code).toBe("DNS");
  });

  test.each(["ftp://example.org/", "file:///etc/passwd", "example.org", ""])(
    "throws PROTOCOL on %p",
    async (url) => {
      expect((await refusal(fetchText(url, options()))).code).toBe("PROTOCOL");
    },
  );

  test.each(["404 Not Found", "204 No Content", "500 Oops"])("throws STATUS on %s", async (status) => {
    plain.answer = answerWith(status);
    const error = await refusal(fetchText(`http://localhost:${plain.port}/`, options()));
    expect(error).toMatchObject({ code: "STATUS", status: Number(status.slice(0, 3)) });
  });

  test("cuts a body off that is too long, whether it says so or not", async () => {
    plain.answer = answerWith("200 OK", "x".repeat(1_000));
    const url = `http://localhost:${plain.port}/`;
    expect(await fetchText(url, options())).toHaveLength(1_000);
    expect((await refusal(fetchText(url, options({ limitBytes: 999 })))).code).toBe("PROTOCOL");
    plain.answer = (_, socket) => {
      socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      const flood = setInterval(() => socket.write(`64\r\n${"x".repeat(100)}\r\n`), 1);
      socket.on("close", () => clearInterval(flood));
    };
    expect((await refusal(fetchText(url, options()))).code).toBe("PROTOCOL");
    await eventually(() => plain.sockets.size === 0);
  });

  test("does not unpack a body", async () => {
    const packed = Bun.gzipSync(new Uint8Array(1_000_000));
    plain.answer = (_, socket) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ${packed.length}\r\n\r\n`);
      socket.end(packed);
    };
    const url = `http://localhost:${plain.port}/`;
    expect((await refusal(fetchText(url, options({ limitBytes: 10_000_000 })))).code).toBe("PROTOCOL");
    expect(plain.requests[0]?.toLowerCase()).toContain("accept-encoding: identity");
  });

  test("throws CLOSED when the body breaks off", async () => {
    plain.answer = (_, socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    expect((await refusal(fetchText(`http://localhost:${plain.port}/`, options()))).code).toBe("CLOSED");
  });

  test("throws TIMEOUT and ABORTED before the answer and in the middle of the body", async () => {
    const url = `http://localhost:${plain.port}/`;
    for (const part of ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"]) {
      plain.answer = (_, socket) => void socket.write(part);
      expect((await refusal(fetchText(url, options({ timeoutMs: 50 })))).code).toBe("TIMEOUT");
      const stop = new AbortController();
      const before = plain.requests.length;
      const fetching = fetchText(
        url,
        options({ signal: stop.signal, addresses: ["127.0.0.1", "127.0.0.1"] }),
      );
      await eventually(() => plain.requests.length > before);
      stop.abort();
      expect((await refusal(fetching)).code).toBe("ABORTED");
      expect((await refusal(fetchText(url, options({ signal: stop.signal })))).code).toBe("ABORTED");
      await eventually(() => plain.sockets.size === 0);
    }
  });

  test("follows redirects to HTTPS by name, three at most", async () => {
    secure.answer = (path, socket) => {
      const left = Number(path.slice(1));
      if (left === 0) answerWith("200 OK", "there")(path, socket);
      else
        answerWith(
          "302 Found",
          "",
          `Location: https://localhost:${secure.port}/${left - 1}\r\n`,
        )(path, socket);
    };
    expect(await fetchText(`https://${NAME}:${secure.port}/3`, options())).toBe("there");
    expect(secure.requests[1]?.toLowerCase()).toContain(`host: localhost:${secure.port}`);
    const error = await refusal(fetchText(`https://${NAME}:${secure.port}/4`, options()));
    expect(error).toMatchObject({ code: "REDIRECT", status: 302 });
  });

  test.each(["http://localhost:1/", "file:///etc/passwd", "http://[", ""])(
    "throws REDIRECT on a redirect to %p",
    async (location) => {
      plain.answer = answerWith("301 Moved", "", location === "" ? "" : `Location: ${location}\r\n`);
      expect((await refusal(fetchText(`http://localhost:${plain.port}/`, options()))).code).toBe("REDIRECT");
      expect(plain.requests).toHaveLength(1);
    },
  );

  test("goes through a proxy, and says what that refused", async () => {
    plain.answer = answerWith("502 REFUSED connection refused, says the proxy");
    const proxy = `http://user:hunter2@127.0.0.1:${plain.port}`;
    const bridged = await refusal(fetchText(`https://${NAME}:443/`, options({ proxy })));
    expect(bridged.code).toBe("REFUSED");
    expect(plain.requests[0]).toStartWith("CONNECT 127.0.0.1:443 HTTP/1.1\r\n");
    plain.answer = answerWith("403 Forbidden");
    const refused = await refusal(fetchText(`https://${NAME}:443/`, options({ proxy })));
    expect(refused).toMatchObject({ code: "PROXY" });
    expect(refused.message).toContain("403 Forbidden");
    expect(refused.message).not.toContain("hunter2");
    const gone = await refusal(fetchText(`https://${NAME}/`, options({ proxy: "http://127.0.0.1:1" })));
    expect(gone.code).toBe("PROXY");
  });

  test("leaves no descriptor behind", async () => {
    plain.answer = answerWith("200 OK", "text");
    const url = `http://localhost:${plain.port}/`;
    await fetchText(url, options());
    await eventually(() => plain.sockets.size === 0);
    const before = readdirSync("/proc/self/fd").length;
    for (let round = 0; round < 20; round += 1) await fetchText(url, options());
    await eventually(() => readdirSync("/proc/self/fd").length <= before);
  });
});

describe("readRetryAfter()", () => {
  const ask = (signal: AbortSignal = never, token?: string): Promise<number | undefined> =>
    readRetryAfter(
      { serverName: NAME, host: NAME, address: "127.0.0.1", port: secure.port, path: "/apiws", token },
      { proxy: undefined, ca: [certificates.ca], verify: true, signal },
    );

  test("asks for a WebSocket, and reads the header of a 429", async () => {
    secure.answer = answerWith("429 Too Many Requests", "slow down", "Retry-After: 7\r\n");
    expect(await ask()).toBe(7_000);
    const [request = ""] = secure.requests;
    expect(request).toStartWith("GET /apiws HTTP/1.1\r\n");
    expect(request).toContain(`\r\nHost: ${NAME}:${secure.port}\r\n`);
    expect(request).toMatch(/\r\nConnection: Upgrade\r\n/);
    expect(request).toMatch(/\r\nUpgrade: websocket\r\n/);
    expect(request).toMatch(/\r\nSec-WebSocket-Version: 13\r\n/);
    expect(request).toMatch(/\r\nSec-WebSocket-Key: [A-Za-z0-9+/]{22}==\r\n/);
    expect(request).not.toMatch(/Authorization/i);
    await eventually(() => secure.sockets.size === 0);
  });

  test("sends the token", async () => {
    secure.answer = answerWith("429 Too Many Requests", "", "Retry-After: 7\r\n");
    expect(await ask(never, "hunter2")).toBe(7_000);
    expect(secure.requests.at(-1)).toContain("\r\nAuthorization: Bearer hunter2\r\n");
    await eventually(() => secure.sockets.size === 0);
  });

  test.each([
    ["503 Unavailable", "Retry-After: 99999\r\n", 3_600_000],
    ["503 Unavailable", "", undefined],
    ["404 Not Found", "Retry-After: 7\r\n", undefined],
    ["101 Switching Protocols", "Upgrade: websocket\r\nConnection: Upgrade\r\nRetry-After: 7\r\n", undefined],
    ["garbage", "", undefined],
  ])("on %s with %p returns %p", async (status, headers, expected) => {
    secure.answer = answerWith(status, "", headers);
    expect(await ask()).toBe(expected);
    await eventually(() => secure.sockets.size === 0);
  });

  test("does not wait for a body that does not end, nor for a server that is silent", async () => {
    secure.answer = (_, socket) => {
      socket.write("HTTP/1.1 429 No\r\nRetry-After: 1\r\nContent-Length: 100\r\n\r\nx");
    };
    expect(await ask()).toBe(1_000);
    await eventually(() => secure.sockets.size === 0);
    secure.answer = () => {};
    expect(await ask()).toBeUndefined();
    await eventually(() => secure.sockets.size === 0);
    expect(await ask(AbortSignal.abort())).toBeUndefined();
  }, 10_000);
});

describe("parseRetryAfter()", () => {
  const now = Date.UTC(2026, 0, 2, 3, 4, 5);
  test.each([
    ["0", 0],
    ["120", 120_000],
    [" 5 ", 5_000],
    ["3601", 3_600_000],
    ["99999999999999999999", 3_600_000],
    ["Fri, 02 Jan 2026 03:05:05 GMT", 60_000],
    ["Fri, 02 Jan 2026 03:00:00 GMT", 0],
    ["Fri, 02 Jan 2036 03:00:00 GMT", 3_600_000],
    ["", undefined],
    ["-5", undefined],
    ["1.5", undefined],
    ["soon", undefined],
  ])("reads %p as %p", (text, expected) => {
    expect(parseRetryAfter(text, now)).toBe(expected);
  });
});
