import "reflect-metadata";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import * as x509 from "@peculiar/x509";
import { RouteError } from "../../src/core/errors.ts";
import { DrainPoller } from "../../src/net/drain-poller.ts";
import type { WebSocketChannel } from "../../src/net/websocket-channel.ts";
import { routeErrorOf, WebSocketDialer, type WebSocketEndpoint } from "../../src/net/websocket-dial.ts";
import { Authority, type Certificates, testCertificates } from "../support/certificates.ts";
import { RecordingSink } from "../support/memory-channel.ts";
import { StubDc } from "../support/stub-dc.ts";
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
  options: { verify?: boolean; ca?: string[] | undefined; timeoutMs?: number } = {},
): WebSocketDialer {
  return new WebSocketDialer({
    trust: { verify: options.verify ?? true, ca: "ca" in options ? options.ca : [certificates.ca] },
    poller: new DrainPoller(),
    highWater: 64 * 1024,
    timeoutMs: options.timeoutMs ?? 4_000,
  });
}

const endpoint = (changes: Partial<WebSocketEndpoint> = {}): WebSocketEndpoint => ({
  serverName: NAME,
  address: "127.0.0.1",
  port: stub.port,
  path: "/apiws",
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
