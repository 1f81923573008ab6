import "reflect-metadata";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { checkServerIdentity, createServer as createTlsServer } from "node:tls";
import * as x509 from "@peculiar/x509";
import { RouteError } from "../../src/core/errors.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import type { WebSocketChannel } from "../../src/net/websocket-channel.ts";
import { routeErrorOf, WebSocketDialer, type WebSocketEndpoint } from "../../src/net/websocket-dial.ts";
import { Authority, type Certificates, testAuthority, testCertificates } from "../support/certificates.ts";
import { RecordingSink } from "../support/memory-channel.ts";
import { StubDc } from "../support/stub-dc.ts";
import { StubHttpProxy } from "../support/stub-proxies.ts";
import { acceptKey } from "../support/websocket-frames.ts";
import { eventually } from "./frame-server.ts";

const NAME = "kws2.web.telegram.org";
const never = new AbortController().signal;
let stub: StubDc;
let certificates: Certificates;

beforeAll(async () => {
  certificates = await testCertificates();
  stub = await StubDc.start();
});
afterEach(() => stub.reset());
afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

/** @param options.ca The test CA, unless given. */
function newDialer(
  options: {
    verify?: boolean;
    ca?: string[] | undefined;
    timeoutMs?: number;
    proxyFor?: (names: readonly string[], port: number) => string | undefined;
  } = {},
): WebSocketDialer {
  return new WebSocketDialer({
    trust: { verify: options.verify ?? true, ca: "ca" in options ? options.ca : [certificates.ca] },
    poller: new DrainPoller(),
    highWater: 64 * 1024,
    timeoutMs: options.timeoutMs ?? 4_000,
    checkIdentity: checkServerIdentity,
    proxyFor: options.proxyFor,
  });
}

const endpoint = (changes: Partial<WebSocketEndpoint> = {}): WebSocketEndpoint => ({
  serverName: NAME,
  address: "127.0.0.1",
  port: stub.port,
  path: "/apiws",
  subprotocol: true,
  ...changes,
});

/** A server that accepts TCP connections and says nothing. */
interface SilentServer {
  readonly port: number;
  readonly accepted: number;
  readonly open: number;
  close(): void;
}

async function startSilentServer(): Promise<SilentServer> {
  let accepted = 0;
  let open = 0;
  const server = createServer((socket) => {
    accepted += 1;
    open += 1;
    socket.resume();
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => {
      open -= 1;
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server does not listen");
  return {
    port: address.port,
    get accepted() {
      return accepted;
    },
    get open() {
      return open;
    },
    close: () => server.close(),
  };
}

async function selfSignedCertificate(): Promise<Certificates> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${NAME}`,
    signingAlgorithm: algorithm,
    keys,
    extensions: [new x509.SubjectAlternativeNameExtension([{ type: "dns", value: NAME }])],
  });
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    ...certificates,
    certificate: certificate.toString("pem"),
    key: x509.PemConverter.encode(key, "PRIVATE KEY"),
  };
}

async function refusal(dialing: Promise<WebSocketChannel>): Promise<RouteError> {
  const error: unknown = await dialing.then(
    (channel) => {
      channel.destroy();
      return new Error("it opened");
    },
    (caught: unknown) => caught,
  );
  if (error instanceof RouteError) return error;
  throw error;
}

describe("WebSocketDialer.dial()", () => {
  test("opens a WebSocket at the address, under the server's name", async () => {
    const channel = await newDialer().dial(endpoint(), never);
    const [request] = stub.requests;
    expect(request?.serverName).toBe(NAME);
    expect(request?.path).toBe("/apiws");
    expect(request?.headers.get("host")).toBe(`${NAME}:${stub.port}`);
    expect(request?.headers.get("sec-websocket-protocol")).toBe("binary");
    expect(channel.open).toBe(true);
    channel.destroy();
  });

  test("asks for no compression", async () => {
    const channel = await newDialer().dial(endpoint(), never);
    expect(stub.requests[0]?.headers.has("sec-websocket-extensions")).toBe(false);
    channel.destroy();
  });

  test("looks the server's name up when there is no address", async () => {
    const channel = await newDialer().dial(endpoint({ serverName: "localhost", address: undefined }), never);
    expect(stub.requests[0]?.serverName).toBe("localhost");
    channel.destroy();
  });

  test("accepts any certificate when it should not verify", async () => {
    const dialer = newDialer({ verify: false });
    const channel = await dialer.dial(endpoint({ serverName: "example.org" }), never);
    expect(stub.requests[0]?.serverName).toBe("example.org");
    channel.destroy();
  });

  test("loses nothing that comes together with the answer to the upgrade", async () => {
    stub.onOpen = (connection) => connection.close(1000);
    const channel = await newDialer().dial(endpoint(), never);
    const sink = new RecordingSink();
    channel.attach(sink);
    await sink.until((heard) => heard.heard("close"));
    expect(sink.error).toBeUndefined();
  });
});

describe("WebSocketDialer.dial(), headers", () => {
  test("names the port in the Host header, and another host where one is given", async () => {
    const channel = await newDialer().dial(endpoint({ host: "kws4.web.telegram.org" }), never);
    const [request] = stub.requests;
    expect(request?.serverName).toBe(NAME);
    expect(request?.host).toBe(`kws4.web.telegram.org:${stub.port}`);
    channel.destroy();
  });

  test("bears the token, and no Authorization without one", async () => {
    for (const token of ["a.b-c_d~+/=", undefined]) {
      const channel = await newDialer().dial(endpoint({ token }), never);
      const expected = token === undefined ? undefined : `Bearer ${token}`;
      expect(stub.requests.at(-1)?.authorization).toBe(expected);
      channel.destroy();
    }
  });

  /** Says 101 to everybody, and picks no subprotocol. */
  async function startPlainServer(): Promise<{ port: number; heads: string[]; close(): void }> {
    const heads: string[] = [];
    const server = createTlsServer({ key: certificates.key, cert: certificates.certificate }, (socket) => {
      socket.on("error", () => {}); // the client has gone
      socket.once("data", (head: Buffer) => {
        heads.push(head.toString("latin1"));
        const key = /^sec-websocket-key: (.+)\r$/im.exec(head.toString("latin1"))?.[1] ?? "";
        socket.write(
          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
            `Sec-WebSocket-Accept: ${acceptKey(key)}\r\n\r\n`,
        );
      });
    });
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("The server does not listen");
    return { port: address.port, heads, close: () => void server.close() };
  }

  test("asks for no subprotocol when it should not, and accepts a server that picks none", async () => {
    const server = await startPlainServer();
    const channel = await newDialer().dial(endpoint({ port: server.port, subprotocol: false }), never);
    expect(channel.open).toBe(true);
    expect(server.heads.join("")).not.toMatch(/sec-websocket-protocol/i);
    channel.destroy();
    server.close();
  });

  test("throws PROTOCOL when it has asked for a subprotocol and the server picks none", async () => {
    const server = await startPlainServer();
    const error = await refusal(newDialer().dial(endpoint({ port: server.port }), never));
    expect(error.code).toBe("PROTOCOL");
    server.close();
  });
});

describe("WebSocketDialer.dial(), behind a front", () => {
  const fronted = (changes: Partial<WebSocketEndpoint> = {}): WebSocketEndpoint =>
    endpoint({ serverName: "front.example", host: NAME, ...changes });

  test.each([
    ["the front", ["front.example"]],
    ["the host behind it", [NAME]],
    ["the host behind it, as a wildcard", ["*.web.telegram.org"]],
    ["both", ["front.example", NAME]],
  ])("accepts a certificate for %s", async (_, names) => {
    const certificate = await (await testAuthority()).issue(names);
    stub.certificateFor = () => certificate;
    const channel = await newDialer().dial(fronted(), never);
    expect(stub.requests[0]).toMatchObject({ serverName: "front.example", host: `${NAME}:${stub.port}` });
    channel.destroy();
  });

  test.each([
    ["another name", ["other.example"]],
    ["a name below the front", ["www.front.example"]],
    ["a name above the host", ["telegram.org"]],
  ])("throws TLS on a certificate for %s, before it asks for anything", async (_, names) => {
    const certificate = await (await testAuthority()).issue(names);
    stub.certificateFor = () => certificate;
    const error = await refusal(newDialer().dial(fronted(), never));
    expect(error.code).toBe("TLS");
    expect(error.message).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    expect(stub.requests).toEqual([]);
  });

  test("throws TLS on the right names from a CA that is not trusted", async () => {
    const certificate = await (await Authority.create()).issue(["front.example", NAME]);
    stub.certificateFor = () => certificate;
    expect((await refusal(newDialer().dial(fronted(), never))).code).toBe("TLS");
    expect(stub.requests).toEqual([]);
  });

  test("keeps the hosts behind one front apart", async () => {
    const certificate = await (await testAuthority()).issue([NAME]);
    stub.certificateFor = () => certificate;
    const dialer = newDialer();
    const channel = await dialer.dial(fronted(), never);
    const other = fronted({ host: "kws4.web.telegram.org" });
    expect((await refusal(dialer.dial(other, never))).code).toBe("TLS");
    channel.destroy();
  });

  test("accepts no certificate of the front for the host without it, by the same dialer", async () => {
    const certificate = await (await testAuthority()).issue(["front.example"]);
    stub.certificateFor = () => certificate;
    const dialer = newDialer();
    const channel = await dialer.dial(fronted(), never);
    expect((await refusal(dialer.dial(endpoint(), never))).code).toBe("TLS");
    channel.destroy();
  });

  test("accepts any certificate when it should not verify", async () => {
    const certificate = await (await testAuthority()).issue(["other.example"]);
    stub.certificateFor = () => certificate;
    const channel = await newDialer({ verify: false }).dial(fronted(), never);
    channel.destroy();
  });
});

describe("WebSocketDialer.dial(), through a proxy", () => {
  const credentials = { username: "user", password: "secret" };
  let proxy: StubHttpProxy;

  beforeAll(async () => {
    proxy = await StubHttpProxy.start({ credentials });
  });
  afterEach(() => proxy.reset());
  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
  });

  test("asks it for the address and the name, and opens the WebSocket with TLS inside", async () => {
    const asked: [readonly string[], number][] = [];
    const dialer = newDialer({
      proxyFor: (names, port) => {
        asked.push([names, port]);
        return proxy.url;
      },
    });
    const channel = await dialer.dial(endpoint(), never);
    expect(asked).toEqual([[["127.0.0.1", "kws2.web.telegram.org"], stub.port]]);
    expect(proxy.requests).toEqual([{ host: "127.0.0.1", port: stub.port, credentials }]);
    expect(stub.requests[0]?.serverName).toBe(NAME);
    channel.destroy();
  });

  test("asks it for the name where there is no address", async () => {
    const asked: (readonly string[])[] = [];
    const dialer = newDialer({
      proxyFor: (names) => {
        asked.push(names);
        return proxy.url;
      },
    });
    const channel = await dialer.dial(endpoint({ serverName: "localhost", address: undefined }), never);
    expect(asked).toEqual([["localhost", "localhost"]]);
    expect(proxy.requests[0]?.host).toBe("localhost");
    channel.destroy();
  });

  test("goes straight where there is none for the host", async () => {
    const channel = await newDialer({ proxyFor: () => undefined }).dial(endpoint(), never);
    expect(proxy.accepted).toBe(0);
    channel.destroy();
  });

  test.each([
    ["407 Proxy Authentication Required", "PROXY", "the outbound proxy says 407"],
    ["403 Forbidden", "PROXY", "the outbound proxy says 403"],
    ["502 Bad Gateway", "PROXY", "the outbound proxy says 502"],
    ["502 REFUSED connection refused", "REFUSED", "connection refused"],
    ["502 TIMEOUT no connection within 4 s", "TIMEOUT", "no connection within 4 s"],
  ] as const)("tells what it means that the proxy says %s", async (status, code, message) => {
    proxy.behave = () => ({ kind: "status", status });
    const error = await refusal(newDialer({ proxyFor: () => proxy.url }).dial(endpoint(), never));
    expect(error.code).toBe(code);
    expect(error.message).toStartWith(message);
    expect(error.status).toBeUndefined();
    expect(stub.requests).toEqual([]);
  });

  test("throws PROXY when the credentials are wrong, and does not tell them", async () => {
    const wrong = proxy.url.replace("secret", "guess");
    const error = await refusal(newDialer({ proxyFor: () => wrong }).dial(endpoint(), never));
    expect(error.code).toBe("PROXY");
    expect(error.message).not.toContain("guess");
  });

  test("throws TIMEOUT when the proxy does not answer", async () => {
    proxy.accept = () => "hang";
    const dialer = newDialer({ proxyFor: () => proxy.url, timeoutMs: 100 });
    expect((await refusal(dialer.dial(endpoint(), never))).code).toBe("TIMEOUT");
  });

  // TcpDialer says PROXY; REFUSED makes every endpoint wait longer for what only the proxy has done.
  test("throws PROXY when nobody listens where the proxy should be", async () => {
    const gone = await StubHttpProxy.start();
    const { url } = gone;
    await gone[Symbol.asyncDispose]();
    const error = await refusal(newDialer({ proxyFor: () => url }).dial(endpoint(), never));
    expect(error.code).toBe("PROXY");
    expect(error.message).toStartWith("the outbound proxy cannot be reached: ");
  });

  // CLOSED of the endpoint: it may as well be what is behind the proxy that closed.
  test.each(["close", "reset"] as const)("throws CLOSED when the proxy does that: %s", async (behaviour) => {
    proxy.accept = () => behaviour;
    const error = await refusal(newDialer({ proxyFor: () => proxy.url }).dial(endpoint(), never));
    expect(error.code).toBe("CLOSED");
  });
});

describe("WebSocketDialer.dial(), refused", () => {
  test.each(["301 Moved", "302 Found", "307 Temporary Redirect"])(
    "throws REDIRECT on HTTP %s",
    async (status) => {
      stub.upgrade = () => ({ kind: "status", status, headers: { Location: "https://example.org/" } });
      const error = await refusal(newDialer().dial(endpoint(), never));
      expect(error.code).toBe("REDIRECT");
      expect(error.status).toBe(Number(status.slice(0, 3)));
    },
  );

  test.each(["200 OK", "400 Bad Request", "404 Not Found", "429 Too Many Requests", "502 Bad Gateway"])(
    "throws STATUS on HTTP %s",
    async (status) => {
      stub.upgrade = () => ({ kind: "status", status });
      const error = await refusal(newDialer().dial(endpoint(), never));
      expect(error.code).toBe("STATUS");
      expect(error.status).toBe(Number(status.slice(0, 3)));
      expect(error.cause).toBeDefined();
    },
  );

  test("throws PROTOCOL when the answer proves nothing", async () => {
    stub.upgrade = () => ({ kind: "wrong-accept-key" });
    expect((await refusal(newDialer().dial(endpoint(), never))).code).toBe("PROTOCOL");
  });

  test("throws CLOSED when the connection ends before the answer", async () => {
    stub.upgrade = () => ({ kind: "end" });
    expect((await refusal(newDialer().dial(endpoint(), never))).code).toBe("CLOSED");
  });

  test("throws REFUSED when nobody listens", async () => {
    const gone = await StubDc.start();
    const { port } = gone;
    await gone[Symbol.asyncDispose]();
    expect((await refusal(newDialer().dial(endpoint({ port }), never))).code).toBe("REFUSED");
  });

  test("throws DNS on a name that does not exist", async () => {
    const dialing = newDialer().dial(endpoint({ serverName: "nonexist.invalid", address: undefined }), never);
    expect((await refusal(dialing)).code).toBe("DNS");
  });

  test("throws TLS when the server answers an alert", async () => {
    stub.accept = () => "alert";
    expect((await refusal(newDialer().dial(endpoint(), never))).code).toBe("TLS");
  });

  test("throws TLS when the server does not speak it", async () => {
    stub.accept = () => "garbage";
    expect((await refusal(newDialer().dial(endpoint(), never))).code).toBe("TLS");
  });

  test("throws CLOSED or TLS when the connection is reset during the handshake", async () => {
    stub.accept = () => "reset";
    expect(["CLOSED", "TLS"]).toContain((await refusal(newDialer().dial(endpoint(), never))).code);
  });

  test("throws TLS on a certificate of a CA that is not trusted", async () => {
    const other = await (await Authority.create()).issue();
    const error = await refusal(newDialer({ ca: [other.ca] }).dial(endpoint(), never));
    expect(error.code).toBe("TLS");
    expect(stub.requests).toEqual([]);
  });

  test("throws TLS on a certificate that none of the built-in roots has signed", async () => {
    expect((await refusal(newDialer({ ca: undefined }).dial(endpoint(), never))).code).toBe("TLS");
    expect(stub.requests).toEqual([]);
  });

  test("throws TLS on a self-signed certificate", async () => {
    const selfSigned = await StubDc.start(await selfSignedCertificate());
    const error = await refusal(newDialer().dial(endpoint({ port: selfSigned.port }), never));
    expect(error.code).toBe("TLS");
    expect(error.message).toContain("DEPTH_ZERO_SELF_SIGNED_CERT");
    await selfSigned[Symbol.asyncDispose]();
  });

  test("throws TLS on a certificate for another name", async () => {
    const error = await refusal(newDialer().dial(endpoint({ serverName: "example.org" }), never));
    expect(error.code).toBe("TLS");
    expect(error.message).toContain("ERR_TLS_CERT_ALTNAME_INVALID");
    expect(stub.requests).toEqual([]);
  });
});

describe("WebSocketDialer.dial(), not answered", () => {
  test("throws TIMEOUT after its time when the server never answers the upgrade", async () => {
    stub.upgrade = () => ({ kind: "hang" });
    const error = await refusal(newDialer({ timeoutMs: 200 }).dial(endpoint(), never));
    expect(error.code).toBe("TIMEOUT");
    expect(error.message).toContain("0.2 s");
  });

  test("throws TIMEOUT after its time when TLS hangs, and drops the connection", async () => {
    const server = await startSilentServer();
    const error = await refusal(newDialer({ timeoutMs: 50 }).dial(endpoint({ port: server.port }), never));
    expect(error.code).toBe("TIMEOUT");
    await eventually(() => server.accepted === 1 && server.open === 0);
    server.close();
  });

  test("throws ABORTED when the caller gives up, and drops the connection", async () => {
    const server = await startSilentServer();
    const caller = new AbortController();
    const dialing = newDialer().dial(endpoint({ port: server.port }), caller.signal);
    await eventually(() => server.open === 1);
    caller.abort();
    expect((await refusal(dialing)).code).toBe("ABORTED");
    await eventually(() => server.open === 0);
    server.close();
  });

  test("throws ABORTED for a caller who has given up before, and asks nothing of the server", async () => {
    expect((await refusal(newDialer().dial(endpoint(), AbortSignal.abort()))).code).toBe("ABORTED");
    expect(stub.requests).toEqual([]);
  });

  test("leaves an open channel alone when the caller aborts later", async () => {
    const caller = new AbortController();
    const channel = await newDialer().dial(endpoint(), caller.signal);
    caller.abort();
    await Bun.sleep(0);
    expect(channel.open).toBe(true);
    channel.destroy();
  });
});

describe("routeErrorOf()", () => {
  const withCode = (code: string): Error => Object.assign(new Error("text"), { code });

  test.each([
    ["ECONNREFUSED", "REFUSED"],
    ["ECONNRESET", "CLOSED"],
    ["EPIPE", "CLOSED"],
    ["ETIMEDOUT", "TIMEOUT"],
    ["EHOSTUNREACH", "UNREACHABLE"],
    ["ENETUNREACH", "UNREACHABLE"],
    ["ENOTFOUND", "DNS"],
    ["EAI_AGAIN", "DNS"],
    ["EMFILE", "LOCAL"],
    ["ENFILE", "LOCAL"],
    ["ENOMEM", "LOCAL"],
    ["ENOBUFS", "LOCAL"],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", "TLS"],
    ["SELF_SIGNED_CERT_IN_CHAIN", "TLS"],
    ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "TLS"],
    ["CERT_HAS_EXPIRED", "TLS"],
    ["ERR_TLS_CERT_ALTNAME_INVALID", "TLS"],
  ] as const)("maps the code %s to %s", (code, expected) => {
    expect(routeErrorOf("WebSocket connection to 'wss://x/' failed: text", withCode(code)).code).toBe(
      expected,
    );
  });

  test.each([
    [
      "authentication required: 407 Proxy Authentication Required",
      "PROXY",
      "the outbound proxy says 407 Proxy Authentication Required: it wants another user and password",
    ],
    ["connection failed: 502 Bad Gateway", "PROXY", "the outbound proxy says 502 Bad Gateway"],
    ["connection failed: 502", "PROXY", "the outbound proxy says 502"],
    ["connection failed: 502 NOPE and so on", "PROXY", "the outbound proxy says 502 NOPE and so on"],
    ["connection failed: 502 REFUSED connection refused", "REFUSED", "connection refused"],
    ["connection failed: 502 DNS the name has no address", "DNS", "the name has no address"],
    [
      "connection failed: 502 PROXY the proxy's rules do not allow it",
      "PROXY",
      "the proxy's rules do not allow it",
    ],
  ] as const)("reads what a proxy says: Proxy %s", (text, code, message) => {
    const cause = new Error("text");
    const error = routeErrorOf(
      `WebSocket connection to 'wss://192.0.2.1/apiws' failed: Proxy ${text}`,
      cause,
    );
    expect(error).toMatchObject({ code, message, status: undefined, cause });
  });

  test("keeps the whole reason of a bridge in which the code's word comes twice", () => {
    const text = "Proxy connection failed: 502 PROXY the proxy says PROXY again";
    expect(routeErrorOf(text, undefined).message).toBe("the proxy says PROXY again");
  });

  test("quotes what it does not know, without the address before it", () => {
    const cause = withCode("ESOMETHING");
    const error = routeErrorOf("WebSocket connection to 'wss://149.154.167.220/apiws' failed: odd", cause);
    expect(error.code).toBe("UNKNOWN");
    expect(error.message).toBe("odd");
    expect(error.cause).toBe(cause);
  });

  test("has no status where there was none", () => {
    expect(routeErrorOf("odd", undefined).status).toBeUndefined();
  });
});
