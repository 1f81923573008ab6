import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { openTcp } from "../support/client-stream.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { StubDc } from "../support/stub-dc.ts";
import { within } from "../support/waiting.ts";

const DEADLINE_MS = 10_000;
/** A stranger is dropped no earlier than the deadline, give or take this. */
const TOLERANCE_MS = 1_500;
const TEST_LIMIT_MS = 60_000;

let stub: StubDc;
let proxy: ProxyProcess;

beforeAll(async () => {
  stub = await StubDc.start();
  proxy = await ProxyProcess.start({ stub });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

/** What a stranger got to see. */
interface Experience {
  readonly received: number;
  readonly lastedMs: number;
}

/** Connects, lets `speak` talk, and waits until the proxy has had enough. */
async function visit(
  speak: (write: (bytes: Uint8Array | string) => void) => () => void,
): Promise<Experience> {
  const startedAt = performance.now();
  const socket = await openTcp(proxy.port);
  let received = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("data", (chunk: Buffer) => {
    received += chunk.length;
  });
  socket.on("end", resolve);
  socket.on("error", () => resolve()); // a reset is a way to be dropped, too
  socket.on("close", () => resolve());
  const stop = speak((bytes) => socket.write(bytes));
  try {
    await within(promise, "the stranger is dropped");
    return { received, lastedMs: performance.now() - startedAt };
  } finally {
    stop();
    socket.destroy();
  }
}

function once(bytes: Uint8Array | string) {
  return (write: (bytes: Uint8Array | string) => void): (() => void) => {
    write(bytes);
    return () => {};
  };
}

function every(periodMs: number, next: () => Uint8Array) {
  return (write: (bytes: Uint8Array | string) => void): (() => void) => {
    write(next());
    const timer = setInterval(() => write(next()), periodMs);
    return () => clearInterval(timer);
  };
}

function expectNothingUntilDeadline({ received, lastedMs }: Experience): void {
  expect(received).toBe(0);
  expect(lastedMs).toBeGreaterThan(DEADLINE_MS - TOLERANCE_MS);
}

describe.concurrent("a stranger gets no byte and is dropped at the handshake deadline", () => {
  const cases: readonly (readonly [string, Parameters<typeof visit>[0]])[] = [
    ["that says nothing", () => () => {}],
    ["that sends half an init", once(new Uint8Array(32).fill(7))],
    ["that sends garbage", once(new Uint8Array(500).fill(0x5a))],
    ["that sends more garbage than is read", once(new Uint8Array(4 * 1024 * 1024).fill(0x5a))],
    ["that sends zeros", once(new Uint8Array(64))],
    [
      "that speaks HTTP",
      once(`GET / HTTP/1.1\r\nHost: example.org\r\nUser-Agent: ${"x".repeat(80)}\r\n\r\n`),
    ],
    ["that speaks TLS", once(Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...randomBytes(512)))],
    ["that sends one byte a second", every(1_000, () => Uint8Array.of(0x42))],
    ["that never stops sending", every(50, () => new Uint8Array(randomBytes(2_000)))],
  ];
  for (const [name, speak] of cases) {
    it(name, async () => expectNothingUntilDeadline(await visit(speak)), TEST_LIMIT_MS);
  }

  it(
    "whose secret is wrong",
    async () => {
      const startedAt = performance.now();
      const secret = new Uint8Array(randomBytes(16));
      using client = await RawClient.open({ port: proxy.port, secret });
      client.sendPacket(new Uint8Array(40));
      await client.until(() => client.ended || client.closed, "it is dropped");
      expectNothingUntilDeadline({ received: client.received, lastedMs: performance.now() - startedAt });
    },
    TEST_LIMIT_MS,
  );

  it(
    "while clients with the right secret are served",
    async () => {
      const secret = proxy.secret;
      using client = await RawClient.open({ port: proxy.port, secret });
      client.sendPacket(Uint8Array.of(1, 2, 3, 4));
      const connection = await stub.next();
      await connection.until(() => connection.packets.length === 1, "the packet arrives");
      connection.sendPacket(Uint8Array.of(5, 6, 7, 8));
      expect((await client.readPacket()).payload.toHex()).toBe("05060708");
    },
    TEST_LIMIT_MS,
  );
});

describe("a visit of strangers", () => {
  it("opens no connection to a data centre and leaves the proxy running", () => {
    expect(stub.connections.length).toBe(1);
    expect(proxy.running).toBe(true);
  });

  it("is no error in the log", () => {
    expect(proxy.stderr).not.toMatch(/\berror\b/i);
  });
});
