import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { type Certificates, testAuthority } from "../support/certificates.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { HELLO_SHAPES } from "../support/fake-tls-hello.ts";
import { poll } from "../support/home.ts";
import {
  getPage,
  haproxyMissing,
  nginxMissing,
  nginxSite,
  openTlsFrom,
  type Path,
  startHaproxy,
  startNginx,
  Visitor,
} from "../support/load-balancers.ts";
import { ProxyProcess } from "../support/proxy.ts";
import type { Daemon } from "../support/real-proxies.ts";
import { StubDc } from "../support/stub-dc.ts";
import { nextTurn } from "../support/waiting.ts";

const TEST_LIMIT_MS = 60_000;
const DEADLINE_MS = 10_000;
/** What is refused is refused before, and does not wait for the deadline. */
const EARLY_MS = DEADLINE_MS - 1_500;
/** Health checks of all seven kinds are among so many connections. Of more than 50, the log tells by numbers. */
const CHECKS = 40;
const FLAGS = ["--proxy-protocol", "-v"] as const;
const COVER = "cover.example";
const OTHER = "other.example";

let stub: StubDc;
let certificates: Certificates;
let lastHost = 1;

beforeAll(async () => {
  stub = await StubDc.start();
  stub.onPacket = ({ payload }) => [payload];
  certificates = await (await testAuthority()).issue([COVER, OTHER]);
});

afterAll(async () => {
  await stub[Symbol.asyncDispose]();
});

for (const [name, missing] of [
  ["haproxy", haproxyMissing],
  ["nginx", nginxMissing],
]) {
  if (missing !== undefined) console.warn(`${name} as a load balancer is not tested: ${missing}`);
}

/** An address of this machine that no test has connected from. */
function freshAddress(): string {
  lastHost += 1;
  return `127.0.0.${lastHost}`;
}

/** Has packets go both ways. */
async function expectServed(visitor: Visitor, { secret }: ProxyProcess, header = ""): Promise<void> {
  const init = visitor.makeInit(secret);
  const small = new Uint8Array(randomBytes(40));
  visitor.write(Buffer.concat([Buffer.from(header, "latin1"), init, visitor.encrypt(small)]));
  expect((await visitor.readPacket()).toHex()).toBe(small.toHex());
  const large = new Uint8Array(randomBytes(256 * 1024));
  visitor.write(visitor.encrypt(large));
  expect(Buffer.compare(await visitor.readPacket(), large)).toBe(0);
}

/** The same for fake TLS, whose packets may be padded. */
async function expectEchoes(client: FakeTlsClient): Promise<void> {
  for (const size of [40, 64 * 1024]) {
    const payload = new Uint8Array(randomBytes(size));
    client.sendPacket(payload);
    const { payload: echo } = await client.readPacket();
    expect(Buffer.compare(echo.subarray(0, size), payload)).toBe(0);
  }
}

/** The same through a balancer, and says what the log was when not. */
async function expectCarried(proxy: ProxyProcess, path: Path): Promise<void> {
  try {
    using visitor = await Visitor.connect(path);
    await expectServed(visitor, proxy);
  } catch (error) {
    throw new Error(`Not carried; the log is:\n${proxy.stderr}`, { cause: error });
  }
}

/** The client's address stands in the log once its header is read. */
async function expectNamed(proxy: ProxyProcess, address: string): Promise<void> {
  await proxy.logged(new RegExp(`client="?${RegExp.escape(address)}"?(?:\\s|$)`, "m"));
}

/** Nothing in the log is for the operator to worry about. */
function expectCalm(proxy: ProxyProcess): void {
  expect(proxy.stderr).not.toMatch(/\b(?:warn|error)\b|bad-proxy-header/);
}

/** What HAProxy can send, as written behind a `server`. */
const SENDS = [
  "send-proxy",
  "send-proxy-v2",
  "send-proxy-v2 proxy-v2-options crc32c",
  "send-proxy-v2 proxy-v2-options crc32c,unique-id",
] as const;

describe.skipIf(haproxyMissing !== undefined)("behind haproxy", () => {
  function start(proxy: ProxyProcess, sends: string, bind?: string): Promise<Daemon> {
    return startHaproxy({
      ...(bind === undefined ? {} : { bind, certificates }),
      frontend: ["unique-id-format %{+X}o%ci:%cp_%ts_%rt"],
      backends: { tgws: [`server tgws 127.0.0.1:${proxy.port} ${sends}`] },
    });
  }

  for (const sends of SENDS) {
    it(
      `clients are served with ${sends}`,
      async () => {
        await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
        await using daemon = await start(proxy, sends, "FOLDER/in.sock,:::PORT v4v6");
        const { port } = daemon;
        const paths: readonly Path[] = [
          ...Array.from({ length: 5 }, () => ({ port, from: freshAddress() })),
          { port, host: "::1" },
          { socket: join(daemon.folder, "in.sock") },
        ];
        await Promise.all(paths.map((path) => expectCarried(proxy, path)));
        expect(proxy.stderr).not.toContain("bad-proxy-header");
      },
      TEST_LIMIT_MS,
    );

    it(
      `the log names clients over IPv4 and IPv6 with ${sends}`,
      async () => {
        await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
        await using daemon = await start(proxy, sends, ":::PORT v4v6");
        const from = freshAddress();
        await expectCarried(proxy, { port: daemon.port, from });
        await expectNamed(proxy, from);
        await expectCarried(proxy, { port: daemon.port, host: "::1" });
        await expectNamed(proxy, "::1");
      },
      TEST_LIMIT_MS,
    );
  }

  it(
    "the log names clients whose TLS it ends, and of whom it tells all that it knows",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      const all = "crc32c,unique-id,authority,ssl,cert-cn,ssl-cipher,cert-sig,cert-key";
      const sends = `send-proxy-v2 proxy-v2-options ${all}`;
      await using daemon = await start(proxy, sends, "127.0.0.1:PORT ssl crt FOLDER/cert.pem");
      const from = freshAddress();
      using visitor = new Visitor(await openTlsFrom({ port: daemon.port, from }, OTHER, certificates));
      await expectServed(visitor, proxy);
      await expectNamed(proxy, from);
    },
    TEST_LIMIT_MS,
  );

  it(
    "the log names clients that come through another haproxy",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      await using inner = await start(proxy, "send-proxy-v2", "127.0.0.1:PORT accept-proxy");
      await using outer = await startHaproxy({
        backends: { inner: [`server inner 127.0.0.1:${inner.port} send-proxy`] },
      });
      const from = freshAddress();
      await expectCarried(proxy, { port: outer.port, from });
      await expectNamed(proxy, from);
    },
    TEST_LIMIT_MS,
  );

  it(
    "health checks of every kind do no harm",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      const { port } = proxy;
      const server = `server tgws 127.0.0.1:${port}`;
      const checked = (sends: string): string => `${server} ${sends} check inter 100ms`;
      const ended = (connect: string): readonly string[] => [
        "option tcp-check",
        `tcp-check connect ${connect} linger`,
        checked("send-proxy-v2"),
      ];
      await using daemon = await startHaproxy({
        backends: {
          served: [`${server} send-proxy-v2`],
          // Without "linger" a check ends with a reset, which is often there before tgws accepts the connection.
          local: [checked("send-proxy-v2")],
          checksum: [checked("send-proxy-v2 proxy-v2-options crc32c")],
          line: [checked("send-proxy")],
          bare: [checked(`send-proxy-v2 port ${port}`)],
          "local-end": ended("send-proxy"),
          "bare-end": ended(`port ${port}`),
        },
      });
      const connected = (): number => proxy.countLogged(/debug +connected/g);
      await poll(() => (connected() > CHECKS ? true : undefined), "health checks");
      await expectCarried(proxy, { port: daemon.port, from: freshAddress() });
      expect(daemon.output).not.toMatch(/is DOWN/);
      expectCalm(proxy);
    },
    TEST_LIMIT_MS,
  );
});

describe.skipIf(nginxMissing !== undefined)("behind nginx", () => {
  function start(proxy: ProxyProcess, listen: string): Promise<Daemon> {
    const to = `proxy_pass 127.0.0.1:${proxy.port};`;
    return startNginx({ stream: ["server {", `listen ${listen};`, "proxy_protocol on;", to, "}"] });
  }

  it(
    "clients are served",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      await using daemon = await start(proxy, "[::]:PORT ipv6only=off; listen unix:FOLDER/in.sock");
      const { port } = daemon;
      const paths: readonly Path[] = [
        ...Array.from({ length: 5 }, () => ({ port, from: freshAddress() })),
        { port, host: "::1" },
        { socket: join(daemon.folder, "in.sock") },
      ];
      await Promise.all(paths.map((path) => expectCarried(proxy, path)));
      expect(proxy.stderr).not.toContain("bad-proxy-header");
    },
    TEST_LIMIT_MS,
  );

  it(
    "the log names clients over IPv4 and IPv6",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      await using daemon = await start(proxy, "[::]:PORT ipv6only=off");
      const from = freshAddress();
      await expectCarried(proxy, { port: daemon.port, from }); // nginx takes it for ::ffff:127.0.0.x
      await expectNamed(proxy, from);
      await expectCarried(proxy, { port: daemon.port, host: "::1" });
      await expectNamed(proxy, "::1");
    },
    TEST_LIMIT_MS,
  );
});

/** A router that passes connections on by the name in their TLS handshake: the cover's to tgws, all else to a site. */
interface Router {
  readonly name: string;
  readonly missing: string | undefined;
  start(tgwsPort: number, sitePort: number): Promise<Daemon>;
}

const ROUTERS: readonly Router[] = [
  {
    name: "nginx",
    missing: nginxMissing,
    start: (tgwsPort, sitePort) =>
      startNginx({
        stream: [
          "map $ssl_preread_server_name $backend {",
          `${COVER} 127.0.0.1:${tgwsPort};`,
          `default 127.0.0.1:${sitePort};`,
          "}",
          "server {",
          "listen 127.0.0.1:PORT;",
          "ssl_preread on;",
          "proxy_protocol on;",
          "proxy_pass $backend;",
          "}",
        ],
      }),
  },
  {
    name: "haproxy",
    missing: haproxyMissing ?? nginxMissing, // the sites are nginx's
    start: (tgwsPort, sitePort) =>
      startHaproxy({
        frontend: [
          "tcp-request inspect-delay 5s",
          "tcp-request content accept if { req.ssl_hello_type 1 }",
          `use_backend tgws if { req.ssl_sni -i ${COVER} }`,
        ],
        backends: {
          site: [`server site 127.0.0.1:${sitePort} send-proxy-v2`],
          tgws: [`server tgws 127.0.0.1:${tgwsPort} send-proxy-v2 proxy-v2-options crc32c,authority`],
        },
      }),
  },
];

for (const { name, missing, start } of ROUTERS) {
  describe.skipIf(missing !== undefined)(`behind ${name}, which passes TLS on by its name`, () => {
    /** Everything that runs, until the end of a test. */
    async function startAll(stack: AsyncDisposableStack): Promise<{ proxy: ProxyProcess; port: number }> {
      const cover = nginxSite("127.0.0.1:PORT ssl", COVER, "this is the cover");
      const site = nginxSite("127.0.0.1:PORT ssl proxy_protocol", OTHER, "hello $proxy_protocol_addr");
      const coverSite = stack.use(await startNginx({ http: cover, certificates }));
      const otherSite = stack.use(await startNginx({ http: site, certificates }));
      const disguise = ["--fake-tls-domain", COVER, "--mask-host", `127.0.0.1:${coverSite.port}`];
      const proxy = stack.use(await ProxyProcess.start({ stub, args: [...FLAGS, ...disguise] }));
      const router = stack.use(await start(proxy.port, otherSite.port));
      return { proxy, port: router.port };
    }

    it(
      "strangers that ask for the cover's name see it, and the log names them",
      async () => {
        await using stack = new AsyncDisposableStack();
        const { proxy, port } = await startAll(stack);
        const from = freshAddress();
        expect(await getPage({ port, from }, COVER, certificates)).toEndWith("this is the cover");
        await proxy.logged(new RegExp(`cover site.*client=${RegExp.escape(from)}(?:\\s|$)`, "m"));
      },
      TEST_LIMIT_MS,
    );

    it(
      "every other name is answered by another site, and does not get to tgws",
      async () => {
        await using stack = new AsyncDisposableStack();
        const { proxy, port } = await startAll(stack);
        const connections = (): number => proxy.countLogged(/debug +connected/g);
        const before = connections();
        const from = freshAddress();
        expect(await getPage({ port, from }, OTHER, certificates)).toEndWith(`hello ${from}`);
        expect(connections()).toBe(before);
      },
      TEST_LIMIT_MS,
    );

    for (const shape of HELLO_SHAPES) {
      it(
        `clients with fake TLS (${shape}) are served`,
        async () => {
          await using stack = new AsyncDisposableStack();
          const { proxy, port } = await startAll(stack);
          const hello = { shape, serverName: COVER };
          const { secret } = proxy;
          using client = await FakeTlsClient.open({ port, secret, hello, localAddress: freshAddress() });
          await expectEchoes(client);
          expect(proxy.countLogged(/shown the cover site/g)).toBe(0);
        },
        TEST_LIMIT_MS,
      );
    }

    it(
      "clients with fake TLS whose hello comes in many segments are served",
      async () => {
        await using stack = new AsyncDisposableStack();
        const { proxy, port } = await startAll(stack);
        const hello = { shape: "tdlib", serverName: COVER } as const;
        const { secret } = proxy;
        using client = await FakeTlsClient.open({ port, secret, hello, segments: [1, 4, 40, 300] });
        await expectEchoes(client);
      },
      TEST_LIMIT_MS,
    );

    it(
      "the log names clients with fake TLS",
      async () => {
        await using stack = new AsyncDisposableStack();
        const { proxy, port } = await startAll(stack);
        const localAddress = freshAddress();
        const { secret } = proxy;
        using client = await FakeTlsClient.open({ port, secret, hello: { serverName: COVER }, localAddress });
        await expectEchoes(client);
        await expectNamed(proxy, localAddress);
      },
      TEST_LIMIT_MS,
    );
  });
}

describe("with --proxy-protocol, a connection", () => {
  const V4 = "PROXY TCP4 192.0.2.7 203.0.113.5 56324 443\r\n";
  const V2 = Buffer.from("0d0a0d0a000d0a515549540a2111000cc0000207cb007105dc0401bb", "hex").toString(
    "latin1",
  );
  const LOCAL = Buffer.from("0d0a0d0a000d0a515549540a20000000", "hex").toString("latin1");

  it("is served when header, init and first packet come in one segment", async () => {
    await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
    for (const header of [V4, V2, LOCAL, "PROXY UNKNOWN\r\n"]) {
      using visitor = await Visitor.connect(proxy);
      await expectServed(visitor, proxy, header);
    }
    expectCalm(proxy);
  });

  it("is served when the header comes byte by byte", async () => {
    await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
    for (const header of [V4, V2, LOCAL, "PROXY UNKNOWN\r\n"]) {
      using visitor = await Visitor.connect(proxy);
      for (const byte of Buffer.from(header, "latin1")) {
        visitor.write(Uint8Array.of(byte));
        await nextTurn();
      }
      await expectServed(visitor, proxy);
    }
    expectCalm(proxy);
  });

  const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";
  const REFUSED: readonly (readonly [string, string | Uint8Array, "missing" | "malformed"])[] = [
    ["no header", new Uint8Array(64).fill(0x77), "missing"],
    ["a ClientHello instead", Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3), "missing"],
    ["HTTP instead", "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "missing"],
    ["a line over 107 bytes", `PROXY UNKNOWN ${"x".repeat(120)}\r\n`, "malformed"],
    ["a line without an end", `PROXY UNKNOWN ${"x".repeat(120)}`, "malformed"],
    ["an address that is none", "PROXY TCP4 192.0.2.256 203.0.113.5 56324 443\r\n", "malformed"],
    ["a port that is none", "PROXY TCP4 192.0.2.7 203.0.113.5 65536 443\r\n", "malformed"],
    ["version 3", `${SIGNATURE}\x31\x11\0\x0c`, "malformed"],
    ["an unknown command", `${SIGNATURE}\x22\x11\0\x0c`, "malformed"],
    ["a length that is too short", `${SIGNATURE}\x21\x11\0\x04\x01\x02\x03\x04`, "malformed"],
    ["a length beyond 4 KiB", `${SIGNATURE}\x21\x11\x7f\x7f`, "malformed"],
    ["a TLV that does not fit", `${SIGNATURE}\x21\x11\0\x0f${"\x01".repeat(12)}\x04\0\x09`, "malformed"],
    [
      "a wrong checksum",
      `${SIGNATURE}\x21\x11\0\x13${"\x01".repeat(12)}\x03\0\x04\x01\x02\x03\x04`,
      "malformed",
    ],
  ];
  for (const [name, bytes, why] of REFUSED) {
    it(`with ${name} is closed without a byte, and the log says ${why}`, async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      using visitor = await Visitor.connect({ port: proxy.port, from: freshAddress() });
      visitor.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes);
      expect(await visitor.untilGone()).toBeLessThan(EARLY_MS);
      expect(visitor.received).toBe(0);
      await proxy.logged(new RegExp(`client=127\\.0\\.0\\.${lastHost}\\b.*bad-proxy-header.*${why}`));
      expect(proxy.stderr).not.toMatch(/\berror {2}|internal-error/);
    });
  }

  it("from an address that is not trusted is closed without a byte, and the log says so", async () => {
    const trusting = ["--trusted-proxy", "10.0.0.0/8,127.0.1.1"];
    await using proxy = await ProxyProcess.start({ stub, args: [...FLAGS, ...trusting] });
    const from = freshAddress();
    for (const says of ["", V4, V2]) {
      using visitor = Visitor.knock({ port: proxy.port, from });
      visitor.write(Buffer.from(says, "latin1"));
      expect(await visitor.untilGone()).toBeLessThan(EARLY_MS);
      expect(visitor.received).toBe(0);
    }
    await proxy.logged(new RegExp(`client=${RegExp.escape(from)}\\b.*bad-proxy-header.*--trusted-proxy`));
    using trusted = await Visitor.connect({ port: proxy.port, from: "127.0.1.1" });
    await expectServed(trusted, proxy, V4);
  });

  it(
    "whose header is never complete is closed at the handshake deadline, without a byte",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
      const starts = ["", "P", V4.slice(0, -1), SIGNATURE, V2.slice(0, -1), V2];
      const visits = starts.map(async (start) => {
        using visitor = await Visitor.connect(proxy);
        visitor.write(Buffer.from(start, "latin1"));
        expect(await visitor.untilGone()).toBeGreaterThan(EARLY_MS);
        expect(visitor.received).toBe(0);
      });
      await Promise.all(visits);
      // The last has its header, and nothing after it.
      const late = (): number => proxy.countLogged(/reason=bad-proxy-header.*not complete in time/g);
      await poll(() => (late() === starts.length - 1 ? true : undefined), "the end of each in the log");
    },
    TEST_LIMIT_MS,
  );

  it("that ends within its header does no harm", async () => {
    await using proxy = await ProxyProcess.start({ stub, args: FLAGS });
    for (const start of ["", "PROX", V4.slice(0, -1), V4, V2.slice(0, 20), V2]) {
      const visitor = await Visitor.connect(proxy);
      visitor.write(Buffer.from(start, "latin1"));
      visitor[Symbol.dispose]();
    }
    await poll(
      () => (proxy.countLogged(/session ended/g) === 6 ? true : undefined),
      "the end of each in the log",
    );
    expectCalm(proxy);
  });
});

describe("without --proxy-protocol", () => {
  it(
    "a header is what a stranger says",
    async () => {
      await using proxy = await ProxyProcess.start({ stub, args: ["-v"] });
      using visitor = await Visitor.connect(proxy);
      const init = visitor.makeInit(proxy.secret);
      visitor.write(Buffer.concat([Buffer.from("PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n"), init]));
      expect(await visitor.untilGone()).toBeGreaterThan(EARLY_MS);
      expect(visitor.received).toBe(0);
      expect(proxy.stderr).not.toContain("192.0.2.7");
    },
    TEST_LIMIT_MS,
  );
});
