import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { BaseTelegramClient, BunCryptoProvider, MemoryStorage, MtProxyTcpTransport } from "@mtcute/bun";
import { addPublicKey } from "@mtcute/bun/utils.js";
import bigInt from "big-integer";
import { TelegramClient } from "telegram";
import { _serverKeys } from "telegram/crypto/RSA.js";
import { Logger, LogLevel } from "telegram/extensions/Logger.js";
import { StringSession } from "telegram/sessions/index.js";
import { testServerKey } from "../support/mtproto-crypto.ts";
import { MtprotoServer, STUB_ERROR } from "../support/mtproto-server.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { StubDc } from "../support/stub-dc.ts";
import { within } from "../support/waiting.ts";

const API = { apiId: 1, apiHash: "0123456789abcdef0123456789abcdef" } as const;
/** Factorizing and exponentiation in JavaScript take seconds on a small machine. */
const CLIENT_LIMIT_MS = 20_000;
/** Repeated once: of 256 keys one begins with a zero, which these clients drop. */
const TEST_OPTIONS = { timeout: 60_000, retry: 1 } as const;

let stub: StubDc;
let proxy: ProxyProcess;
let server: MtprotoServer;

beforeAll(async () => {
  stub = await StubDc.start();
  proxy = await ProxyProcess.start({ stub });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

beforeEach(() => {
  stub.reset();
  server = new MtprotoServer();
  stub.onPacket = server.onPacket;
});

const FORMS = [
  ["a plain secret", ""],
  ["a dd secret", "dd"],
] as const;

describe("mtcute", () => {
  beforeAll(async () => {
    const crypto = new BunCryptoProvider();
    await crypto.initialize();
    addPublicKey(crypto, testServerKey().publicPem);
  });

  for (const [name, prefix] of FORMS) {
    it(
      `agrees on a key and makes a call through ${name}`,
      async () => {
        const secret = prefix + proxy.secret.toHex();
        const client = new BaseTelegramClient({
          ...API,
          storage: new MemoryStorage(),
          transport: new MtProxyTcpTransport({ host: "127.0.0.1", port: proxy.port, secret }),
          disableUpdates: true,
          logLevel: 0,
        });
        try {
          await client.connect();
          const call = within(client.call({ _: "help.getNearestDc" }), "an answer", CLIENT_LIMIT_MS);
          await expect(call).rejects.toThrow(STUB_ERROR);
          expect(server.progress.keys).toBeGreaterThan(0);
          expectCleanPackets(prefix === "dd" ? "padded" : "intermediate");
        } finally {
          await client.disconnect();
          await client.destroy();
        }
      },
      TEST_OPTIONS,
    );
  }
});

describe("GramJS", () => {
  beforeAll(() => {
    const { fingerprint, modulus } = testServerKey();
    const n = bigInt(modulus.toHex(), 16);
    _serverKeys.set(BigInt.asIntN(64, fingerprint).toString(), { n, e: 65_537 });
  });

  for (const [name, prefix] of FORMS) {
    it(
      `agrees on a key and makes a call through ${name}`,
      async () => {
        const secret = prefix + proxy.secret.toHex();
        const client = new TelegramClient(new StringSession(""), API.apiId, API.apiHash, {
          proxy: { ip: "127.0.0.1", port: proxy.port, MTProxy: true, secret },
          baseLogger: new Logger(LogLevel.NONE),
          connectionRetries: 1,
          requestRetries: 1,
          autoReconnect: false,
        });
        try {
          // Its connecting ends with a first call.
          const connected = within(client.connect(), "an answer", CLIENT_LIMIT_MS);
          await expect(connected).rejects.toThrow(STUB_ERROR);
          expect(server.progress.keys).toBeGreaterThan(0);
          expectCleanPackets("abridged");
        } finally {
          await client.destroy();
        }
      },
      TEST_OPTIONS,
    );
  }
});

function expectCleanPackets(transport: string): void {
  expect(stub.connections.length).toBeGreaterThan(0);
  for (const connection of stub.connections) {
    expect(connection.init?.transport ?? transport).toBe(transport);
    expect(connection.violations).toEqual([]);
  }
}
