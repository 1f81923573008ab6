import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ask } from "../support/asking.ts";
import { testAuthority } from "../support/certificates.ts";
import {
  DomainListServer,
  encodeDomain,
  type ListAnswer,
  respondWith,
} from "../support/domain-list-server.ts";
import { Gate } from "../support/gate.ts";
import { Home, poll } from "../support/home.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { StubDc } from "../support/stub-dc.ts";

const DOMAINS = ["alphaone.co.uk", "bravo-two.co.uk", "Charlie3.co.uk", "deltafour.co.uk"];
const OTHERS = ["echofive.co.uk", "foxtrot.co.uk", "golfseven.co.uk"];
const LIST = listOf(DOMAINS);
/** Nobody listens there. */
const NOBODY = "127.0.0.78";
/** The list is fetched 2 s after the start. */
const FETCH_LIMIT_MS = 20_000;
/** What one fetch may take: 10 s. */
const TIMEOUT_LIMIT_MS = 30_000;
/** When nothing opens, a client is let go. */
const DROP_LIMIT_MS = 20_000;
const TEST_LIMIT_MS = 240_000; // those that wait for their turn, too
/** What the proxy reads of a list that does not end, and what the kernel holds between both. */
const READ_LIMIT_BYTES = 16 * 1024 * 1024;
const HTTPS_PORT = 443;
const gate = new Gate(10);

/** Runs beside the others, but not beside too many. */
function concurrently(name: string, test: () => Promise<void>): void {
  it.concurrent(name, () => gate.pass(test), TEST_LIMIT_MS);
}

function listOf(domains: readonly string[]): string {
  return `# names\r\n\r\n${domains.map(encodeDomain).join("\r\n")}\n`;
}

/** What a proxy uses. */
interface Setting {
  readonly home: Home;
  readonly url: string;
  /** Where the listed names lead. */
  readonly address?: string;
}

async function withProxy(
  { home, url, address = NOBODY }: Setting,
  use: (proxy: ProxyProcess) => Promise<void>,
): Promise<void> {
  const args = ["--route", "cf-domain", "--resolve", `*.co.uk=${address}`, "--cfproxy-list", url, "-v"];
  await using proxy = await ProxyProcess.start({ home: home.path, args });
  try {
    await use(proxy);
    expect(await proxy.stop()).toBe(0);
    expect(proxy.stderr).not.toContain("a bug");
  } catch (error) {
    throw new Error(`the log is:\n${proxy.stderr}`, { cause: error });
  }
}

/** The list files in a folder. */
function keptFiles(home: Home): string[] {
  return readdirSync(home.path).filter((name) => name.startsWith("cf-domains"));
}

function keptText(home: Home): string | undefined {
  const [name] = keptFiles(home);
  return name === undefined ? undefined : readFileSync(join(home.path, name), "utf8");
}

/** Waits until a list has been taken: it is kept in the same moment. */
function taken(home: Home, text: string, limitMs = FETCH_LIMIT_MS): Promise<string> {
  return poll(() => (keptText(home) === text ? text : undefined), "a kept list", limitMs);
}

/** Has a client come that no domain serves, and returns the domains that were tried for it. */
async function domainsTried(proxy: ProxyProcess): Promise<Set<string>> {
  const { port, secret } = proxy;
  const before = proxy.stderr.length;
  using client = await RawClient.open({ port, secret });
  client.sendPacket(new Uint8Array(8));
  await client.until(() => client.ended || client.closed, "the client is dropped", DROP_LIMIT_MS);
  const printed = (): string | undefined => {
    const text = proxy.stderr.slice(before);
    return text.includes("reason=no-route") ? text : undefined;
  };
  const log = await poll(printed, "the end in the log", DROP_LIMIT_MS);
  const tried = log.matchAll(/opening kws2(?:-1)?\.(\S+) session=/g);
  return new Set([...tried].map(([, domain = ""]) => domain));
}

/** The domains that are tried are some of the list. */
function expectFrom(tried: ReadonlySet<string>, domains: readonly string[]): void {
  const known = new Set(domains.map((domain) => domain.toLowerCase()));
  expect(tried.size).toBeGreaterThan(0);
  expect([...tried].filter((domain) => !known.has(domain))).toEqual([]);
}

/** Those of the list that is built in are none of ours. */
function expectBuiltIn(tried: ReadonlySet<string>): void {
  expect(tried.size).toBeGreaterThan(0);
  const ours = [...DOMAINS, ...OTHERS].map((domain) => domain.toLowerCase());
  expect([...tried].filter((domain) => ours.includes(domain))).toEqual([]);
}

describe("the list of domains", () => {
  concurrently("is fetched soon after the start, used, and kept for its owner only", async () => {
    await using server = await DomainListServer.start(respondWith(LIST));
    using home = new Home();
    await withProxy({ home, url: server.url }, async (proxy) => {
      await server.asked(1, FETCH_LIMIT_MS);
      await taken(home, LIST);
      expectFrom(await domainsTried(proxy), DOMAINS);
    });
    const [name = ""] = keptFiles(home);
    expect(name).toMatch(/^cf-domains\.[0-9a-f]{8}\.txt$/);
    if (process.platform !== "win32") expect(statSync(join(home.path, name)).mode & 0o777).toBe(0o600);
  });

  concurrently("is not waited for by the first client", async () => {
    await using server = await DomainListServer.start({ bytes: undefined, hangs: true });
    using home = new Home();
    await withProxy({ home, url: server.url }, async (proxy) => {
      expectBuiltIn(await domainsTried(proxy)); // whether it has been asked for already or not
    });
  });

  concurrently("is used at the next start when its server is down", async () => {
    using home = new Home();
    const server = await DomainListServer.start(respondWith(LIST));
    const { url } = server;
    try {
      await withProxy({ home, url }, async () => void (await taken(home, LIST)));
    } finally {
      await server[Symbol.asyncDispose]();
    }
    await withProxy({ home, url }, async (proxy) => {
      expectFrom(await domainsTried(proxy), DOMAINS);
      await proxy.logged(/debug .*the list of domains stays as it is/, FETCH_LIMIT_MS);
      expectFrom(await domainsTried(proxy), DOMAINS);
    });
    expect(keptText(home)).toBe(LIST);
  });

  concurrently("of one address does not serve for another address", async () => {
    await using server = await DomainListServer.start(respondWith(LIST));
    await using down = await DomainListServer.start(respondWith("", "503 Service Unavailable"));
    using home = new Home();
    await withProxy({ home, url: server.url }, async () => void (await taken(home, LIST)));
    await withProxy({ home, url: down.url }, async (proxy) => {
      expectBuiltIn(await domainsTried(proxy));
    });
  });

  concurrently("takes the place of the one from before", async () => {
    await using server = await DomainListServer.start(respondWith(LIST));
    using home = new Home();
    await withProxy({ home, url: server.url }, async () => void (await taken(home, LIST)));
    const next = listOf(OTHERS);
    server.answer = respondWith(next);
    await withProxy({ home, url: server.url }, async (proxy) => {
      await taken(home, next);
      expectFrom(await domainsTried(proxy), OTHERS);
    });
  });

  concurrently("is read with mistakes in it", async () => {
    const mistakes = [
      "127.0.0.1",
      "[::1]",
      "localhost",
      "../../etc/passwd",
      "a b.com",
      "user@example.com",
      "example.com:80",
      "http://example.com/",
      "-.com",
      "x".repeat(300),
      "\u0000.com",
      "💥.com",
    ];
    const text = [...mistakes, ...DOMAINS.map(encodeDomain), ...DOMAINS.map(encodeDomain)].join("\n");
    await using server = await DomainListServer.start(respondWith(text));
    using home = new Home();
    await withProxy({ home, url: server.url }, async (proxy) => {
      await taken(home, text);
      expectFrom(await domainsTried(proxy), DOMAINS);
    });
  });
});

describe("a list that cannot be used keeps the one from before, and does no harm:", () => {
  const gzipped = gzipSync(listOf(OTHERS));
  const long = listOf(Array.from({ length: 60_000 }, (_, at) => `name${at}.co.uk`));
  const endless = new TextEncoder().encode("abcdefghij.com\n".repeat(4_096));
  const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
  const cases: readonly (readonly [string, ListAnswer])[] = [
    ["two names", respondWith(listOf(OTHERS.slice(0, 2)))],
    ["one name three times", respondWith(listOf(["golf.co.uk", "golf.co.uk", "GOLF.co.uk"]))],
    ["nothing", respondWith("")],
    ["a page", respondWith("<!doctype html>\n<title>Log in</title>\n<p>Please log in.\n")],
    ["garbage", respondWith(new Uint8Array(randomBytes(64 * 1024)))],
    ["more than 256 KiB", respondWith(long)],
    ["more and more", { bytes: `${head}\r\n`, endless }],
    ["more than it said, compressed", respondWith(gzipped, "200 OK", "Content-Encoding: gzip\r\n")],
    ["an error", respondWith(listOf(OTHERS), "500 Internal Server Error")],
    ["a redirect to itself", respondWith("", "302 Found", "Location: /list\r\n")],
    ["a redirect to a file", respondWith("", "302 Found", "Location: file:///etc/passwd\r\n")],
    ["what is not HTTP", { bytes: "220 mail.example.org ready\r\n" }],
    ["an end at once", { bytes: undefined }],
    ["an end in the middle", { bytes: `${head}Content-Length: 1000\r\n\r\n${listOf(OTHERS)}` }],
    ["a head that does not end", { bytes: head, hangs: true }],
    ["silence", { bytes: undefined, hangs: true }],
  ];
  for (const [name, answer] of cases) {
    concurrently(name, async () => {
      await using server = await DomainListServer.start(respondWith(LIST));
      using home = new Home();
      await withProxy({ home, url: server.url }, async () => void (await taken(home, LIST)));
      server.answer = answer;
      await withProxy({ home, url: server.url }, async (proxy) => {
        await server.asked(2, FETCH_LIMIT_MS);
        expectFrom(await domainsTried(proxy), DOMAINS);
        await proxy.logged(/debug .*the list of domains stays as it is: \S/, TIMEOUT_LIMIT_MS);
        expectFrom(await domainsTried(proxy), DOMAINS);
        expect(server.requests).toBeLessThanOrEqual(2);
      });
      expect(server.sent).toBeLessThan(READ_LIMIT_BYTES);
      expect(keptText(home)).toBe(LIST);
    });
  }
});

/** Listed domains are reached on port 443, which not everybody may open. */
async function listenOnHttpsPort(to: number): Promise<{ server: Server; address: string } | undefined> {
  for (let host = 80; host < 90; host += 1) {
    const server = createServer({ noDelay: true }, (socket) => {
      const upstream = connect({ host: "127.0.0.1", port: to, noDelay: true });
      socket.on("error", () => upstream.destroy()).on("close", () => upstream.destroy());
      upstream.on("error", () => socket.destroy()).on("close", () => socket.destroy());
      socket.pipe(upstream);
      upstream.pipe(socket);
    });
    const address = `127.0.0.${host}`;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    server.once("error", () => resolve(false));
    server.listen(HTTPS_PORT, address, () => resolve(true));
    if (await promise) return { server, address };
  }
  return undefined;
}

describe("a domain of the list", () => {
  concurrently("serves clients", async () => {
    const names = DOMAINS.map((domain) => `*.${domain.toLowerCase()}`);
    await using stub = await StubDc.start(await (await testAuthority()).issue(names));
    stub.onPacket = ({ payload }) => [payload];
    const door = await listenOnHttpsPort(stub.port);
    if (door === undefined) {
      console.warn(`that listed domains serve is not tested: port ${HTTPS_PORT} cannot be opened`);
      return;
    }
    await using server = await DomainListServer.start(respondWith(LIST));
    using home = new Home();
    try {
      await withProxy({ home, url: server.url, address: door.address }, async (proxy) => {
        await taken(home, LIST);
        for (const dcId of [2, -4, 203]) {
          await ask(proxy, { dcId });
          const { request, init, violations } = await stub.next();
          const suffix = dcId < 0 ? "-1" : "";
          const [, label] = /^(kws\d+(?:-1)?)\.(.+)$/.exec(request.serverName ?? "") ?? [];
          expect(label).toBe(`kws${Math.abs(dcId)}${suffix}`);
          expect(request.host).toBe(request.serverName);
          expect(init?.dcId).toBe(dcId);
          expect(violations).toEqual([]);
        }
      });
    } finally {
      door.server.close();
    }
  });
});
