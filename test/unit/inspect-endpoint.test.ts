import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { type InspectedEndpoint, type Inspection, inspectEndpoint } from "../../src/net/inspect-endpoint.ts";
import { type Certificates, testCertificates } from "../support/certificates.ts";
import { acceptKey } from "../support/websocket-frames.ts";
import { eventually } from "./frame-server.ts";

const NAME = "kws2.web.telegram.org";
const never = new AbortController().signal;
const fileDescriptors = (): number => readdirSync("/proc/self/fd").length;

/** A server on loopback, with TLS or without. */
interface Server {
  readonly port: number;
  readonly requests: string[];
  readonly sockets: Set<Socket>;
  /** Called with each whole request and its Sec-WebSocket-Key. */
  answer: (socket: Socket, key: string) => void;
  onConnect: (socket: Socket) => void;
  close(): void;
}

async function serve(certificates?: Certificates): Promise<Server> {
  const sockets = new Set<Socket>();
  const onSocket = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => sockets.delete(socket));
    let head = "";
    socket.on("data", (chunk: Buffer) => {
      head += chunk.toString("latin1");
      if (!head.endsWith("\r\n\r\n")) return;
      started.requests.push(head);
      started.answer(socket, /^sec-websocket-key: (.*)\r$/im.exec(head)?.[1] ?? "");
    });
    started.onConnect(socket);
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
    onConnect: () => {},
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
    server.answer = () => {};
    server.onConnect = () => {};
    for (const socket of server.sockets) socket.destroy();
  }
});
afterAll(() => {
  secure.close();
  plain.close();
});

type WebSocketDetails = NonNullable<InspectedEndpoint["webSocket"]>;

function inspect(
  changes: Partial<InspectedEndpoint> & { details?: Partial<WebSocketDetails> } = {},
  options: {
    verify?: boolean;
    ca?: readonly string[] | undefined;
    timeoutMs?: number;
    signal?: AbortSignal;
  } = {},
): Promise<Inspection> {
  const { details, ...rest } = changes;
  return inspectEndpoint(
    {
      host: "127.0.0.1",
      port: secure.port,
      webSocket: { serverName: NAME, hostHeader: NAME, path: "/apiws", subprotocol: true, ...details },
      ...rest,
    },
    { verify: true, ca: [certificates.ca], timeoutMs: 3_000, signal: never, ...options },
  );
}

const namesOf = ({ stages }: Inspection): string[] => stages.map(({ name }) => name);
const upgrade = (key: string, protocol = "Sec-WebSocket-Protocol: binary\r\n"): string =>
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  `Sec-WebSocket-Accept: ${acceptKey(key)}\r\n${protocol}\r\n`;

describe("inspectEndpoint()", () => {
  test("goes through TCP, TLS and the upgrade, and leaves nothing behind", async () => {
    secure.answer = (socket, key) => void socket.write(upgrade(key));
    const before = fileDescriptors();
    const inspection = await inspect();
    expect(namesOf(inspection)).toEqual(["tcp", "tls", "upgrade"]);
    expect(inspection.stages.map(({ error }) => error)).toEqual([undefined, undefined, undefined]);
    expect(inspection.stages.map(({ detail }) => detail)).toEqual([
      `127.0.0.1:${secure.port}`,
      "TLSv1.3",
      "HTTP/1.1 101 Switching Protocols",
    ]);
    for (const { ms } of inspection.stages) expect(ms).toBeWithin(0, 3_000);
    const [request = ""] = secure.requests;
    expect(request).toStartWith("GET /apiws HTTP/1.1\r\nHost: kws2.web.telegram.org\r\n");
    expect(request).toContain("\r\nSec-WebSocket-Protocol: binary\r\n");
    await eventually(() => secure.sockets.size === 0 && fileDescriptors() <= before);
  });

  test("looks a name up first, and says so when it has no address", async () => {
    secure.answer = (socket, key) => void socket.write(upgrade(key, ""));
    const inspection = await inspect({ host: "localhost", details: { subprotocol: false } });
    expect(namesOf(inspection)).toEqual(["dns", "tcp", "tls", "upgrade"]);
    expect(inspection.stages[0]?.detail).toContain("127.0.0.1");
    expect(inspection.stages.at(-1)?.error).toBeUndefined();
    expect(secure.requests[0]).not.toContain("Sec-WebSocket-Protocol");
    const nowhere = await inspect({ host: "no.such.name.invalid" });
    expect(namesOf(nowhere)).toEqual(["dns"]);
    expect(nowhere.stages[0]?.error?.code).toBe("DNS");
  });

  test("stops after TCP without a WebSocket, and when nobody listens", async () => {
    expect(namesOf(await inspect({ webSocket: undefined }))).toEqual(["tcp"]);
    const refused = await inspect({ host: "127.0.0.2" });
    expect(namesOf(refused)).toEqual(["tcp"]);
    expect(refused.stages[0]?.error?.code).toBe("REFUSED");
    await eventually(() => secure.sockets.size === 0);
  });

  test.each([
    ["says something else", (socket: Socket) => void socket.write("220 mail.example.org ready\r\n"), "TLS"],
    ["closes", (socket: Socket) => void socket.end(), "CLOSED"],
    ["resets", (socket: Socket) => void socket.resetAndDestroy(), "CLOSED"],
    ["is silent", () => {}, "TIMEOUT"],
  ])("fails at TLS when the server %s", async (_, onConnect, code) => {
    plain.onConnect = onConnect;
    const before = fileDescriptors();
    const inspection = await inspect({ port: plain.port }, { timeoutMs: 100 });
    expect(namesOf(inspection)).toEqual(["tcp", "tls"]);
    expect(inspection.stages[1]?.error?.code).toBe(code as never);
    await eventually(() => plain.sockets.size === 0 && fileDescriptors() <= before);
  });

  test("shows a certificate that is for another name, or that nobody vouches for", async () => {
    secure.answer = (socket, key) => void socket.write(upgrade(key));
    const elsewhere = { serverName: "example.org", hostHeader: "example.net:8443" };
    const named = await inspect({ details: elsewhere });
    expect(named.stages.at(-1)).toMatchObject({ name: "tls", error: { code: "TLS" } });
    expect(named.stages.at(-1)?.error?.message).toContain("than example.org or example.net");
    expect(named.stages.at(-1)?.detail).toContain("subject CN=tgws test data centre");
    expect(named.stages.at(-1)?.detail).toContain("issuer CN=tgws test CA");
    const unknown = await inspect({}, { ca: undefined });
    expect(unknown.stages.at(-1)?.error?.message).toContain("UNABLE_TO_VERIFY_LEAF_SIGNATURE");
    const both = await inspect({ details: elsewhere }, { ca: undefined });
    expect(both.stages.at(-1)?.error?.code).toBe("TLS");
    // A name that fits does not make up for a chain that does not.
    const half = await inspect({ details: { serverName: "example.org" } }, { ca: undefined });
    expect(half.stages.at(-1)?.error?.message).toContain("UNABLE_TO_VERIFY_LEAF_SIGNATURE");
    const trusting = await inspect({ details: elsewhere }, { verify: false, ca: undefined });
    expect(trusting.stages.at(-1)).toMatchObject({ name: "upgrade", error: undefined });
    await eventually(() => secure.sockets.size === 0);
  });

  test.each([
    { serverName: "example.org", hostHeader: `${NAME}:8443` },
    { serverName: NAME, hostHeader: "example.org" },
    { serverName: "", hostHeader: NAME },
    { serverName: "127.0.0.1", hostHeader: "127.0.0.1" },
  ])("accepts a certificate for either name: %p", async (details) => {
    secure.answer = (socket, key) => void socket.write(upgrade(key));
    const inspection = await inspect({ details });
    expect(inspection.stages.at(-1)).toMatchObject({ name: "upgrade", error: undefined });
  });

  test.each([
    [
      "HTTP/1.1 302 Found\r\nLocation: https://web.telegram.org/\r\n\r\n",
      "REDIRECT",
      302,
      "https://web.telegram.org/",
    ],
    ["HTTP/1.1 404 Not Found\r\n\r\n", "STATUS", 404, undefined],
    ["HTTP/1.1 200\r\n\r\n", "STATUS", 200, undefined],
    ["220 mail.example.org", "PROTOCOL", undefined, undefined],
    ["HTTP/1.1 101 Switching Protocols\r\n\r\n", "PROTOCOL", undefined, undefined],
    [`HTTP/1.1 200 ${"x".repeat(20_000)}`, "PROTOCOL", undefined, undefined],
  ])("fails at the upgrade on %p", async (answer, code, status, location) => {
    secure.answer = (socket) => void socket.write(answer);
    const inspection = await inspect();
    const last = inspection.stages.at(-1);
    expect(last?.name).toBe("upgrade");
    expect(last?.error?.code).toBe(code as never);
    expect(last?.error?.status).toBe(status as never);
    expect(inspection.location).toBe(location as never);
    await eventually(() => secure.sockets.size === 0);
  });

  test("reads Retry-After, and an answer that comes byte by byte", async () => {
    secure.answer = async (socket) => {
      for (const byte of Buffer.from("HTTP/1.1 429 Slow\r\nRETRY-AFTER:  9 \r\n\r\n")) {
        socket.write(Uint8Array.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const inspection = await inspect();
    expect(inspection.retryAfterMs).toBe(9_000);
    expect(inspection.stages.at(-1)).toMatchObject({ error: { status: 429 }, detail: "HTTP/1.1 429 Slow" });
  });

  test("insists on the subprotocol that it asked for", async () => {
    secure.answer = (socket, key) => void socket.write(upgrade(key, ""));
    expect((await inspect()).stages.at(-1)?.error?.code).toBe("PROTOCOL");
  });

  test.each([
    ["closes", (socket: Socket) => void socket.end(), "CLOSED"],
    ["is silent", () => {}, "TIMEOUT"],
  ])("fails at the upgrade when the server %s", async (_, answer, code) => {
    secure.answer = answer;
    const inspection = await inspect({}, { timeoutMs: 200 });
    expect(inspection.stages.at(-1)).toMatchObject({ name: "upgrade", error: { code } });
    await eventually(() => secure.sockets.size === 0);
  });

  test("ends with ABORTED when it is given up, before and in the middle", async () => {
    const early = await inspect({}, { signal: AbortSignal.abort() });
    expect(early.stages).toHaveLength(1);
    expect(early.stages[0]).toMatchObject({ name: "tcp", error: { code: "ABORTED" } });
    const stop = new AbortController();
    secure.answer = () => stop.abort();
    const late = await inspect({}, { signal: stop.signal });
    expect(late.stages.at(-1)).toMatchObject({ name: "upgrade", error: { code: "ABORTED" } });
    await eventually(() => secure.sockets.size === 0);
  });
});
