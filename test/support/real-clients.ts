import { BaseTelegramClient, BunCryptoProvider, MemoryStorage, MtProxyTcpTransport } from "@mtcute/bun";
import { addPublicKey } from "@mtcute/bun/utils.js";
import bigInt from "big-integer";
import { TelegramClient } from "telegram";
import { _serverKeys } from "telegram/crypto/RSA.js";
import { Logger, LogLevel } from "telegram/extensions/Logger.js";
import { StringSession } from "telegram/sessions/index.js";
import { testServerKey } from "./mtproto-crypto.ts";
import { within } from "./waiting.ts";

const API = { apiId: 1, apiHash: "0123456789abcdef0123456789abcdef" } as const;
/** Factorizing and exponentiation in JavaScript take seconds on a small machine. */
const CLIENT_LIMIT_MS = 20_000;

/** Writes a secret as links do. @param domain The name of the site that an `ee` secret hides behind. */
export function formatSecret(form: SecretForm, key: Uint8Array, domain = ""): string {
  if (form === "ee") return `ee${key.toHex()}${new TextEncoder().encode(domain).toHex()}`;
  return (form === "dd" ? "dd" : "") + key.toHex();
}

/** Where a client finds the proxy; the secret is written as in a link. */
export interface ProxyEndpoint {
  readonly port: number;
  readonly secret: string;
}

/** The forms of a secret. */
export type SecretForm = "plain" | "dd" | "ee";

/** A client of others, from its start to the answer of its first call; rejects with the answer's error. */
export interface RealClient {
  readonly name: string;
  /** The forms of secrets that it knows. GramJS has no fake TLS: it takes `ee` secrets for wrong ones. */
  readonly forms: readonly SecretForm[];
  /** The transport that it speaks with a secret of this form. */
  transport(form: SecretForm): string;
  call(endpoint: ProxyEndpoint): Promise<unknown>;
}

/** The clients that tests use; both agree on a key with the test server's RSA key first. */
export const REAL_CLIENTS: readonly RealClient[] = [
  {
    name: "mtcute",
    forms: ["plain", "dd", "ee"],
    transport: (form) => (form === "plain" ? "intermediate" : "padded"),
    async call({ port, secret }) {
      const crypto = new BunCryptoProvider();
      await crypto.initialize();
      addPublicKey(crypto, testServerKey().publicPem);
      const client = new BaseTelegramClient({
        ...API,
        storage: new MemoryStorage(),
        transport: new MtProxyTcpTransport({ host: "127.0.0.1", port, secret }),
        disableUpdates: true,
        logLevel: 0,
      });
      try {
        await client.connect();
        return await within(client.call({ _: "help.getNearestDc" }), "an answer", CLIENT_LIMIT_MS);
      } finally {
        await client.disconnect();
        await client.destroy();
      }
    },
  },
  {
    name: "GramJS",
    forms: ["plain", "dd"],
    transport: () => "abridged",
    async call({ port, secret }) {
      const { fingerprint, modulus } = testServerKey();
      const n = bigInt(modulus.toHex(), 16);
      _serverKeys.set(BigInt.asIntN(64, fingerprint).toString(), { n, e: 65_537 });
      const client = new TelegramClient(new StringSession(""), API.apiId, API.apiHash, {
        proxy: { ip: "127.0.0.1", port, MTProxy: true, secret },
        baseLogger: new Logger(LogLevel.NONE),
        connectionRetries: 1,
        requestRetries: 1,
        autoReconnect: false,
      });
      try {
        // Its connecting ends with a first call.
        return await within(client.connect(), "an answer", CLIENT_LIMIT_MS);
      } finally {
        await client.destroy();
      }
    },
  },
];
