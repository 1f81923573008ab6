/**
 * Captures the ClientHellos of the clients that are installed here: bun run scripts/capture-hellos.ts
 *
 * Writes test/vectors/client-hellos.json anew, but for those of clients that it cannot run. A listener on
 * loopback takes each hello and closes: nothing leaves the machine.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { BaseTelegramClient, BunCryptoProvider, MemoryStorage, MtProxyTcpTransport } from "@mtcute/bun";
import { peekServerName } from "../test/support/client-hello.ts";
import { readTimestamp } from "../test/support/fake-tls-hello.ts";
import { formatSecret } from "../test/support/real-clients.ts";
import { Tdlib } from "../test/support/tdlib.ts";
import { portOf } from "../test/support/upgrade-server.ts";
import { within } from "../test/support/waiting.ts";

/** A ClientHello as it stands in the file. */
interface Vector {
  readonly client: string;
  readonly version: string;
  readonly domain: string;
  /** Of Telegram's clients: 16 bytes, hexadecimal. Made for this file. */
  readonly secret?: string;
  /** Unix time in seconds, as it stands in the digest. */
  readonly time?: number;
  /** All its records, hexadecimal. */
  readonly hello: string;
}

/** Has a client connect to `port`; it may fail in its own way afterwards. */
interface Client {
  readonly name: string;
  readonly count: number;
  /** Whether it is Telegram's, and knows the secret. */
  readonly telegram: boolean;
  version(): string | Promise<string>;
  connect(port: number): unknown;
}

const FILE = join(import.meta.dir, "../test/vectors/client-hellos.json");
const DOMAIN = "cover.example";
const SECRET = Uint8Array.fromHex("000102030405060708090a0b0c0d0e0f");
const LIMIT_MS = 20_000;
const RECORD_HEADER = 5;

const CLIENTS: readonly Client[] = [
  {
    name: "mtcute",
    count: 2,
    telegram: true,
    version: () => versionOf("@mtcute/bun"),
    connect: async (port) => {
      const crypto = new BunCryptoProvider();
      await crypto.initialize();
      const secret = formatSecret("ee", SECRET, DOMAIN);
      const transport = new MtProxyTcpTransport({ host: "127.0.0.1", port, secret });
      const { log } = new BaseTelegramClient({
        apiId: 1,
        apiHash: "0".repeat(32),
        storage: new MemoryStorage(),
        logLevel: 0,
      });
      transport.setup(crypto, log);
      await transport.connect();
    },
  },
  {
    name: "TDLib",
    count: 5,
    telegram: true,
    version: async () => {
      await using tdlib = await Tdlib.start();
      return tdlib.version;
    },
    connect: async (port) => {
      await using tdlib = await Tdlib.start();
      await tdlib.ping({ port, secret: formatSecret("ee", SECRET, DOMAIN) });
    },
  },
  {
    name: "Chromium",
    count: 2,
    telegram: false,
    version: () => lastWord(["chromium", "--version"], /Chromium (\S+)/),
    connect: async (port) => {
      const profile = mkdtempSync(join(tmpdir(), "tgws-chromium-"));
      const flags =
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run " +
        "--disable-background-networking --disable-component-update --disable-sync --timeout=3000 --dump-dom";
      await run([
        "chromium",
        ...flags.split(" "),
        `--user-data-dir=${profile}`,
        `--host-resolver-rules=MAP * 127.0.0.1:${port}`,
        `https://${DOMAIN}/`,
      ]);
      rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
    },
  },
  {
    name: "curl",
    count: 1,
    telegram: false,
    version: () => lastWord(["curl", "--version"], /curl (\S+).*?(OpenSSL\/\S+)/),
    connect: (port) =>
      run(["curl", "-s", "--resolve", `${DOMAIN}:${port}:127.0.0.1`, `https://${DOMAIN}:${port}/`]),
  },
  {
    name: "openssl s_client",
    count: 1,
    telegram: false,
    version: () => lastWord(["openssl", "version"], /OpenSSL (\S+)/),
    connect: (port) => run(["openssl", "s_client", "-connect", `127.0.0.1:${port}`, "-servername", DOMAIN]),
  },
  {
    name: "Bun",
    count: 1,
    telegram: false,
    version: () => Bun.version,
    connect: (port) => {
      connectTls({ host: "127.0.0.1", port, servername: DOMAIN }).on("error", () => {});
    },
  },
  {
    name: "Node.js",
    count: 1,
    telegram: false,
    version: () => lastWord(["node", "--version"], /v(\S+)/),
    connect: (port) => {
      const options = JSON.stringify({ host: "127.0.0.1", port, servername: DOMAIN });
      return run(["node", "-e", `require("tls").connect(${options}).on("error", () => {})`]);
    },
  },
];

/** Listens, has the client connect, and returns the first hello that asks for the domain. */
async function capture(client: Client): Promise<Uint8Array> {
  const { promise, resolve } = Promise.withResolvers<Uint8Array>();
  const server = createServer((socket) => collect(socket, resolve));
  await listen(server);
  try {
    const done = Promise.resolve(client.connect(portOf(server))).catch(() => {}); // it is closed on
    const hello = await within(promise, `a hello of ${client.name}`, LIMIT_MS);
    await within(done, `the end of ${client.name}`, LIMIT_MS);
    return hello;
  } finally {
    server.close();
  }
}

function collect(socket: Socket, resolve: (hello: Uint8Array) => void): void {
  let all = new Uint8Array();
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    all = new Uint8Array(Buffer.concat([all, chunk]));
    const end = RECORD_HEADER + (((all[3] ?? 0) << 8) | (all[4] ?? 0));
    if (all.length < RECORD_HEADER || all.length < end) return;
    if (peekServerName(all)?.serverName === DOMAIN) resolve(all.subarray(0, end));
    socket.destroy();
  });
}

function listen(server: Server): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  return promise;
}

async function run(command: readonly string[]): Promise<void> {
  const process = Bun.spawn([...command], { stdin: "ignore", stdout: "ignore", stderr: "ignore" });
  await process.exited;
}

function lastWord(command: readonly string[], pattern: RegExp): string {
  const { stdout } = Bun.spawnSync([...command]);
  const match = pattern.exec(stdout.toString());
  if (match === null) throw new Error(`${command.join(" ")} does not tell its version`);
  return match.slice(1).join(" ");
}

function versionOf(name: string): string {
  const manifest: { version: string } = JSON.parse(
    readFileSync(Bun.resolveSync(`${name}/package.json`, import.meta.dir), "utf8"),
  );
  return manifest.version;
}

function readVectors(): readonly Vector[] {
  try {
    return JSON.parse(readFileSync(FILE, "utf8"));
  } catch {
    return []; // there is none yet
  }
}

const kept = readVectors().filter(({ client }) => CLIENTS.every(({ name }) => name !== client));
const made: Vector[] = [];
for (const client of CLIENTS) {
  const version = await client.version();
  for (let index = 0; index < client.count; index += 1) {
    const hello = await capture(client);
    const time = client.telegram ? readTimestamp(hello, SECRET) : undefined;
    if (client.telegram && time === undefined) throw new Error(`The digest of ${client.name} is wrong`);
    const proof = time === undefined ? {} : { secret: SECRET.toHex(), time };
    made.push({ client: client.name, version, domain: DOMAIN, ...proof, hello: hello.toHex() });
    console.log(`${client.name} ${version}: ${hello.length} bytes`);
  }
}
writeFileSync(FILE, `${JSON.stringify([...made, ...kept], undefined, 2)}\n`);
process.exit(0);
