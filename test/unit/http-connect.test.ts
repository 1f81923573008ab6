import { describe, expect, test } from "bun:test";
import { ByteReader } from "../../src/channel/byte-reader.ts";
import { parseOutboundProxy } from "../../src/config/outbound-proxy.ts";
import { RouteError } from "../../src/core/errors.ts";
import { openHttpTunnel } from "../../src/net/http-connect.ts";
import { memoryChannelPair, RecordingSink } from "../support/memory-channel.ts";

const OK = "HTTP/1.1 200 Connection established\r\n\r\n";
const TARGET = { host: "example.org", port: 443 };
const never = new AbortController().signal;

/** A tunnel that is being asked for, and the proxy's end of the connection. */
function ask(proxyText = "http://h", target = TARGET, signal: AbortSignal = never) {
  const [ours, theirs] = memoryChannelPair(1 << 20);
  const request = new RecordingSink();
  theirs.attach(request);
  const reader = new ByteReader(ours);
  const opening = openHttpTunnel(ours, reader, parseOutboundProxy(proxyText, undefined), target, signal);
  opening.catch(() => {}); // looked at later
  return { ours, theirs, request, reader, opening };
}

async function refusal(answer: string, proxyText?: string): Promise<RouteError> {
  const { theirs, opening } = ask(proxyText);
  theirs.write(Buffer.from(answer, "latin1"));
  const error: unknown = await opening.then(
    () => new Error("it opened"),
    (caught: unknown) => caught,
  );
  if (error instanceof RouteError) return error;
  throw error;
}

describe("openHttpTunnel()", () => {
  test("asks for the name, and leaves what follows the answer to the reader", async () => {
    const { theirs, request, reader, opening } = ask();
    theirs.write(Buffer.from(`${OK}the peer's own bytes\r\n\r\n`));
    await opening;
    expect(Buffer.from(request.bytes).toString()).toBe(
      "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    );
    expect(Buffer.from(reader.rest()).toString()).toBe("the peer's own bytes\r\n\r\n");
  });

  test("sends credentials as Basic, and IPv6 in brackets", async () => {
    const { theirs, request, opening } = ask("http://us%C3%A9r:p%3Aw@h", { host: "2001:db8::1", port: 80 });
    theirs.write(Buffer.from(OK));
    await opening;
    const text = Buffer.from(request.bytes).toString();
    expect(text).toStartWith("CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n");
    expect(text).toContain(`Proxy-Authorization: Basic ${Buffer.from("usér:p:w").toString("base64")}\r\n`);
  });

  test.each(["HTTP/1.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 299 Fine\r\nX: \r\r\nVia: x"])(
    "takes %p for a yes, also byte by byte",
    async (head) => {
      const { theirs, reader, opening } = ask();
      for (const byte of Buffer.from(`${head}\r\n\r\nrest`)) theirs.write(Uint8Array.of(byte));
      await opening;
      const late = await reader.read(4, never);
      expect(Buffer.from(late).toString()).toBe("rest");
    },
  );

  test.each([
    ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "http://h", /wants a user and a password/],
    ["HTTP/1.1 407 No\r\n\r\n", "http://u:hunter2@h", /refused the user and the password \(407 No\)/],
    ["HTTP/1.1 403 Forbidden by rule 7\r\nX: y\r\n\r\n", "http://h", /refused: 403 Forbidden by rule 7/],
    ["HTTP/1.1 502\r\n\r\n", "http://h", /refused: 502/],
    ["HTTP/1.1 403 a\x1b[31m\xff\tb\r\n\r\n", "http://h", /refused: 403 a \[31m b$/],
    ["HTTP/1.1 20 OK\r\n\r\n", "http://h", /did not answer in HTTP/],
    ["HTTP/2 200\r\n\r\n", "http://h", /did not answer in HTTP/],
    ["SSH-2.0-OpenSSH", "http://h", /did not answer in HTTP: SSH-2/],
    ["\x05\xff\0\0\0", "http://h", /did not answer in HTTP/],
    [`HTTP/1.1 200 ${"x".repeat(20_000)}`, "http://h", /longer than 16 KiB/],
  ])("throws PROXY on %p", async (answer, proxyText, words) => {
    const error = await refusal(answer, proxyText);
    expect(error.code).toBe("PROXY");
    expect(error.message).toMatch(words);
    expect(error.message).not.toContain("hunter2");
    expect(error.message.length).toBeLessThan(200);
  });

  test("keeps the status", async () => {
    expect((await refusal("HTTP/1.1 403 No\r\n\r\n")).status).toBe(403);
  });

  test.each(["", "HT", "HTTP/1.1 200 OK\r\n"])(
    "throws PROXY when the proxy closes after %p",
    async (part) => {
      const { theirs, opening } = ask();
      theirs.write(Buffer.from(part));
      theirs.end();
      await expect(opening).rejects.toMatchObject({
        code: "PROXY",
        message: expect.stringMatching(/closed the connection/),
      });
    },
  );

  test.each(["", "HT", "HTTP/1.1 200 OK\r\n"])(
    "throws TIMEOUT when it is given up after %p",
    async (part) => {
      const stop = new AbortController();
      const { theirs, request, opening } = ask("http://h", TARGET, stop.signal);
      theirs.write(Buffer.from(part));
      await request.until(({ length }) => length > 0);
      stop.abort();
      await expect(opening).rejects.toMatchObject({ code: "TIMEOUT" });
    },
  );
});
