import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type HttpServer, listenHttp } from "../../src/observe/http-server.ts";

let server: HttpServer;
beforeAll(() => {
  const limits = { connections: 64, deadlineMs: 2_000 };
  server = listenHttp({ host: "127.0.0.1", port: 0, limits }, async ({ method, url }) => ({
    status: 200,
    type: "text/plain",
    body: `${method} ${url.pathname}`,
  }));
});
afterAll(() => server.stop());

/** What the server answers to `pieces`, each a write of its own; the client then ends. */
async function ask(pieces: readonly Uint8Array[]): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let heard = "";
  const socket = await Bun.connect({
    hostname: "127.0.0.1",
    port: server.port,
    allowHalfOpen: true,
    socket: {
      data: (_, bytes) => {
        heard += bytes.toString();
      },
      end: (ended) => void ended.end(),
      close: () => resolve(heard),
      error: () => resolve(heard),
    },
  });
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise((next) => setImmediate(next));
  }
  socket.shutdown();
  return promise;
}

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = sizes[pieces.length % sizes.length] ?? bytes.length;
    pieces.push(bytes.slice(at, at + size));
    at += size;
  }
  return pieces;
}

const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 10 });

describe("listenHttp()", () => {
  test("understands a request however it is cut", async () => {
    const bytes = Buffer.from("GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9100\r\nAccept: */*\r\n\r\n");
    await fc.assert(
      fc.asyncProperty(sizes, async (these) => {
        expect(await ask(cut(bytes, these))).toEndWith("\r\n\r\nGET /metrics");
      }),
      { numRuns: 60 },
    );
  });

  test("answers any bytes with HTTP or not at all, and goes on", async () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc
        .constantFrom(
          "GET / HTTP/1.1\r\n",
          "Host: a\r\n",
          "\r\n\r\n",
          "GET ",
          "http://",
          "\0",
          ": ",
          "\r\nX:",
        )
        .map((text) => new Uint8Array(Buffer.from(text))),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (pieces) => {
        const heard = await ask(pieces.filter(({ length }) => length > 0));
        expect(heard === "" || /^HTTP\/1\.1 (200|400|431) /.test(heard)).toBe(true);
      }),
      { numRuns: 150 },
    );
    expect(await ask([Buffer.from("GET / HTTP/1.0\r\n\r\n")])).toEndWith("GET /");
  });
});
