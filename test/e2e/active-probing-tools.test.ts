import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { COVER_PAGES, CoverSite, coverPage } from "../support/cover-site.ts";
import { COVER_DOMAIN, Pair } from "../support/look.ts";
import { findProgram } from "../support/real-proxies.ts";
import { within } from "../support/waiting.ts";

const OPENSSL = findProgram("openssl");
const CURL = findProgram("curl");
const CHROMIUM = findProgram("chromium") ?? findProgram("google-chrome");
for (const [name, path] of Object.entries({ openssl: OPENSSL, curl: CURL, chromium: CHROMIUM })) {
  if (path === undefined) console.warn(`what ${name} sees is not tested: it is not installed`);
}
if (CoverSite.missing !== undefined) console.warn(`what tools see is not tested: ${CoverSite.missing}`);

const TEST_LIMIT_MS = 60_000;
const TOOL_LIMIT_MS = 40_000;
const GET = `GET / HTTP/1.1\r\nHost: ${COVER_DOMAIN}\r\nConnection: close\r\n\r\n`;

let pair: Pair;
let folder: string;

beforeAll(async () => {
  if (CoverSite.missing !== undefined) return;
  folder = mkdtempSync(join(tmpdir(), "tgws-tools-"));
  pair = await Pair.start({ site: { clientHeaderTimeoutMs: 3_000, keepaliveTimeoutMs: 2_000 } });
}, TEST_LIMIT_MS);

afterAll(async () => {
  await pair?.[Symbol.asyncDispose]();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

/** What a program printed, and how it ended. */
interface Outcome {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number | null;
}

async function run(command: readonly string[], input = ""): Promise<Outcome> {
  const child = Bun.spawn([...command], {
    stdin: new TextEncoder().encode(input),
    stdout: "pipe",
    stderr: "pipe",
    env: { PATH: process.env["PATH"] ?? "", HOME: folder, LANG: "C" },
    timeout: TOOL_LIMIT_MS,
  });
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr), child.exited]);
  return { stdout, stderr, exitCode: child.exitCode };
}

async function read(stream: ReadableStream<Uint8Array>): Promise<string> {
  return new TextDecoder("latin1").decode(await new Response(stream).arrayBuffer());
}

/** Runs the same command against both, and expects the same of both but for what differs every time. */
async function expectSame(
  command: (port: number, side: "site" | "tgws") => readonly string[],
  input?: string,
): Promise<Outcome> {
  const [site, tgws] = await Promise.all([
    run(command(pair.site.port, "site"), input),
    run(command(pair.proxy.port, "tgws"), input),
  ]);
  const ofSite = withoutChance(site);
  expect(withoutChance(tgws)).toEqual(ofSite);
  return ofSite;
}

/** Takes out of what a tool printed what is another for each connection. */
function withoutChance({ stdout, stderr, exitCode }: Outcome): Outcome {
  return { stdout: maskChance(stdout), stderr: maskChance(stderr), exitCode };
}

function maskChance(text: string): string {
  // Where the site sends somebody who has come through the proxy, it names its own port.
  return [pair.site.port, pair.proxy.port]
    .reduce((masked, port) => masked.replaceAll(String(port), "PORT"), text)
    .replace(/\b(date: ).*$/gim, "$1...")
    .replace(/^ {4}(Session-ID|Resumption PSK|Master-Key|Start Time): ?\S*$/gm, "    $1: ...")
    .replace(/^ {4}[0-9a-f]{4} - .*$/gm, "    ....")
    .replace(/(?: {4}\.{4}\n)+/g, "    ....\n") // a ticket's length depends on nothing that matters
    .replace(/^SSL handshake has read \d+ bytes/gm, "SSL handshake has read ... bytes")
    .replace(/^[0-9A-F]{8,16}:error/gm, "error")
    .replace(/^[{}] \[\d+ bytes data\]\r?\n/gm, "") // a signature's length
    .replace(/Using Stream ID: \d+ \(easy handle 0x[0-9a-f]+\)/g, "Using Stream ID")
    .replace(/^\* (We are completely uploaded and fine|HTTP error before end of send, stop sending)\n/gm, "")
    .replace(/local port \d+/g, "local port ...")
    .replace(/after \d+ ms/g, "after ... ms")
    .replace(/0x[0-9a-f]{6,}/g, "0x...");
}

describe
  .skipIf(CoverSite.missing !== undefined || OPENSSL === undefined)
  .concurrent("openssl s_client", () => {
    const client = (port: number, ...flags: readonly string[]): string[] => {
      const { caFile } = pair.site.certificates;
      const name = flags.some((flag) => flag === "-noservername" || flag === "-servername");
      const connect = [
        "s_client",
        "-connect",
        `127.0.0.1:${port}`,
        "-CAfile",
        caFile,
        "-showcerts",
        "-ign_eof",
      ];
      return [OPENSSL ?? "", ...connect, ...(name ? [] : ["-servername", COVER_DOMAIN]), ...flags];
    };

    const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
      ["with TLS 1.3", ["-tls1_3"], /New, TLSv1\.3, Cipher is TLS_[\s\S]*HTTP\/1\.1 200 OK/],
      ["with TLS 1.2", ["-tls1_2"], /New, TLSv1\.2, Cipher is ECDHE-[\s\S]*HTTP\/1\.1 200 OK/],
      ["without a name", ["-noservername"], /HTTP\/1\.1 200 OK/],
      ["with another name", ["-servername", "other.example"], /HTTP\/1\.1 200 OK/],
      ["with ALPN", ["-alpn", "h2,http/1.1"], /ALPN protocol: h2/],
      ["with ALPN for HTTP/1.1", ["-alpn", "http/1.1"], /ALPN protocol: http\/1\.1[\s\S]*HTTP\/1\.1 200 OK/],
      ["with an ALPN that nobody speaks", ["-alpn", "gopher"], /no application protocol|No ALPN/],
      ["with TLS 1.1", ["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], /alert protocol version/],
      ["with a cipher that does not fit", ["-tls1_2", "-cipher", "AES128-SHA"], /alert handshake failure/],
      [
        "with ChaCha20",
        ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
        /TLS_CHACHA20_POLY1305/,
      ],
      [
        "with AES-128 first",
        ["-ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"],
        /New, TLSv1\.3/,
      ],
      ["with P-256", ["-tls1_3", "-groups", "P-256"], /Server Temp Key: ECDH, prime256v1/],
      ["with a HelloRetryRequest", ["-tls1_3", "-groups", "ffdhe2048:P-384"], /New, TLSv1\.3/],
      [
        "with signatures that do not fit",
        ["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
        /alert handshake failure/,
      ],
      ["that asks for OCSP", ["-status"], /OCSP response: no response sent/],
      ["with short fragments", ["-tls1_3", "-max_send_frag", "512"], /HTTP\/1\.1 200 OK/],
    ];
    for (const [name, flags, shown] of cases) {
      it(
        `${name} sees the same`,
        async () => {
          const { stdout, stderr } = await expectSame((port) => client(port, ...flags), GET);
          expect(stdout + stderr).toMatch(shown);
        },
        TEST_LIMIT_MS,
      );
    }

    it(
      "is left by both when it asks for nothing more",
      async () => {
        const startedAt = performance.now();
        await expectSame((port) => client(port), GET.replace("Connection: close\r\n", ""));
        expect(performance.now() - startedAt).toBeGreaterThan(1_900);
      },
      TEST_LIMIT_MS,
    );

    it(
      "sees the same certificate",
      async () => {
        const { stdout } = await expectSame((port) => client(port), GET);
        const certificate = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/.exec(stdout)?.[0];
        expect(certificate?.replace(/\s/g, "")).toBe(pair.site.certificates.certificate.replace(/\s/g, ""));
        expect(stdout).toContain("Verify return code: 0 (ok)");
      },
      TEST_LIMIT_MS,
    );

    for (const version of ["-tls1_2", "-tls1_3"]) {
      it(
        `resumes what one has begun with the other: ${version}`,
        async () => {
          const session = (side: string): string => join(folder, `session${version}-${side}`);
          await expectSame((port, side) => client(port, version, "-sess_out", session(side)), GET);
          const other = { site: "tgws", tgws: "site" } as const;
          const again = (port: number, side: "site" | "tgws"): string[] =>
            client(port, version, "-sess_in", session(other[side]));
          const { stdout } = await expectSame(again, GET);
          expect(stdout).toMatch(/^Reused, TLSv1\.[23]/m);
        },
        TEST_LIMIT_MS,
      );
    }

    it(
      "has its early data refused by both",
      async () => {
        const early = join(folder, "early");
        await Bun.write(early, GET);
        const session = (side: string): string => join(folder, `early-${side}`);
        await expectSame((port, side) => client(port, "-tls1_3", "-sess_out", session(side)), GET);
        const again = (port: number, side: string): string[] =>
          client(port, "-tls1_3", "-sess_in", session(side), "-early_data", early);
        const { stdout } = await expectSame(again, GET);
        expect(stdout).toMatch(/^Reused/m);
      },
      TEST_LIMIT_MS,
    );
  });

describe.skipIf(CoverSite.missing !== undefined || CURL === undefined).concurrent("curl", () => {
  /** The name and the port of the URL are the same for both, and so is all that the site makes of them. */
  const curl = (port: number, ...args: readonly string[]): string[] => {
    const { caFile } = pair.site.certificates;
    const target = ["--connect-to", `${COVER_DOMAIN}:443:127.0.0.1:${port}`, "--cacert", caFile];
    return [CURL ?? "", "-sS", "-v", "-i", "--max-time", "15", "--noproxy", "*", ...target, ...args];
  };
  const url = (path: string): string => `https://${COVER_DOMAIN}${path}`;

  const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["over HTTP/1.1", ["--http1.1", url("/")], /^HTTP\/1\.1 200 OK/m],
    ["over HTTP/2", ["--http2", url("/")], /^HTTP\/2 200/m],
    ["over HTTP/1.0", ["--http1.0", url("/")], /^HTTP\/1\.1 200/m],
    ["that does not exist", [url("/nothing-here")], /^HTTP\/2 404/m],
    ["that has moved", [url(COVER_PAGES.moved.path)], /^HTTP\/2 301[\s\S]*^location: https:/m],
    ["with HEAD", ["--head", url("/")], /^HTTP\/2 200/m],
    ["with POST", ["--data", "a=b", url("/")], /^HTTP\/2 405/m],
    ["with a body of 100 KB", ["--http1.1", "--data", "x".repeat(100_000), url("/")], /^HTTP\/1\.1 405/m],
    ["in part", ["--range", "100-299", url(COVER_PAGES.big.path)], /^HTTP\/2 206/m],
    ["in a part that is not there", ["--range", "9999999-", url(COVER_PAGES.big.path)], /^HTTP\/2 416/m],
    ["with an unknown method", ["-X", "BREW", url("/")], /^HTTP\/2 405/m],
    [
      "three times over a connection",
      ["--http1.1", url("/"), url("/nothing-here"), url("/")],
      /Re-using existing/,
    ],
    ["three times over HTTP/2", [url("/"), url("/nothing-here"), url("/")], /Re-using existing/],
    ["with a header of 20 KB", ["--http1.1", "-H", `X: ${"y".repeat(20_000)}`, url("/")], /^HTTP\/1\.1 400/m],
    ["for another host", ["-H", "Host: other.example", url("/")], /^HTTP\/2 200/m],
    ["with a WebSocket upgrade", ["--http1.1", ...upgradeHeaders(), url("/apiws")], /^HTTP\/1\.1 404/m],
    ["with TLS 1.2", ["--tls-max", "1.2", url("/")], /^HTTP\/2 200[\s\S]*TLSv1\.2 \/ ECDHE/m],
  ];
  for (const [name, args, shown] of cases) {
    it(
      `sees the same page ${name}`,
      async () => {
        const { stdout, stderr } = await expectSame((port) => curl(port, ...args));
        expect(stdout + stderr).toMatch(shown);
      },
      TEST_LIMIT_MS,
    );
  }

  for (const version of ["--http1.1", "--http2"]) {
    it(
      `gets a big page byte for byte: ${version}`,
      async () => {
        const file = (side: string): string => join(folder, `big${version}-${side}`);
        await expectSame((port, side) => [
          ...curl(port, version, "-o", file(side)),
          url(COVER_PAGES.big.path),
        ]);
        const [site, tgws] = await Promise.all(["site", "tgws"].map((side) => hashOfPage(file(side))));
        expect(tgws).toBe(createHash("sha256").update(COVER_PAGES.big.body).digest("hex"));
        expect(site).toBe(tgws ?? "");
      },
      TEST_LIMIT_MS,
    );
  }

  const plain: readonly (readonly [string, (port: number) => readonly string[]])[] = [
    ["plain HTTP", (port) => [`http://127.0.0.1:${port}/`]],
    ["plain HTTP/0.9", (port) => ["--http0.9", "--http1.0", `http://127.0.0.1:${port}/`]],
    ["plain HTTP/2", (port) => ["--http2-prior-knowledge", `http://127.0.0.1:${port}/`]],
    ["an HTTP proxy", (port) => ["-x", `http://127.0.0.1:${port}`, "http://example.com/"]],
    ["an HTTP proxy with CONNECT", (port) => ["-x", `http://127.0.0.1:${port}`, "https://example.com/"]],
    [
      "an HTTPS proxy",
      (port) => ["--proxy-insecure", "-x", `https://127.0.0.1:${port}`, "http://example.com/"],
    ],
    ["a SOCKS5 proxy", (port) => ["-x", `socks5h://127.0.0.1:${port}`, "http://example.com/"]],
    ["a SOCKS4 proxy", (port) => ["-x", `socks4a://127.0.0.1:${port}`, "http://example.com/"]],
    ["TLS for an address", (port) => ["-k", `https://127.0.0.1:${port}/`]],
    ["TLS without trusting it", (port) => [`https://127.0.0.1:${port}/`]],
    ["FTP", (port) => [`ftp://127.0.0.1:${port}/`]],
    ["telnet", (port) => [`telnet://127.0.0.1:${port}/`]],
  ];
  for (const [name, args] of plain) {
    it(
      `sees the same through ${name}`,
      async () => {
        const command = (port: number): string[] => [
          CURL ?? "",
          "-sS",
          "-v",
          "-i",
          "--max-time",
          "8",
          ...args(port),
        ];
        await expectSame(command, "QUIT\r\n");
      },
      TEST_LIMIT_MS,
    );
  }
});

function upgradeHeaders(): string[] {
  const headers = { Connection: "Upgrade", Upgrade: "websocket", "Sec-WebSocket-Version": "13" };
  const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
  return [...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), key].flatMap((h) => [
    "-H",
    h,
  ]);
}

/** Of the body alone, without the headers that `-i` puts before it. */
async function hashOfPage(path: string): Promise<string> {
  const text = await Bun.file(path).text();
  return createHash("sha256")
    .update(text.slice(text.indexOf("\r\n\r\n") + 4))
    .digest("hex");
}

describe.skipIf(CoverSite.missing !== undefined).concurrent("a TLS client", () => {
  /** Asks for the big page, and does `then` with the socket; returns what came, and how it ended. */
  async function ask(port: number, then: (socket: TLSSocket) => void): Promise<string> {
    const socket = connectTls({
      host: "127.0.0.1",
      port,
      servername: COVER_DOMAIN,
      rejectUnauthorized: false,
    });
    const hash = createHash("sha256");
    let received = 0;
    let past = false;
    const { promise, resolve } = Promise.withResolvers<string>();
    socket.on("data", (chunk: Buffer) => {
      // The headers hold the date; only what comes after them is compared.
      const body = past ? 0 : chunk.indexOf("\r\n\r\n") + 4;
      past = true;
      received += chunk.length - body;
      hash.update(chunk.subarray(body));
    });
    let end = "open";
    socket.on("end", () => {
      end = "ended";
    });
    socket.on("error", (error) => {
      end = "code" in error ? String(error.code) : error.message;
    });
    socket.on("close", () => resolve(`${received} bytes, ${hash.digest("hex")}, ${end}`));
    socket.write(GET.replace("/ ", `${COVER_PAGES.big.path} `));
    socket.once("secureConnect", () => then(socket));
    return within(promise, "the end of the answer", TOOL_LIMIT_MS);
  }

  const ways: readonly (readonly [string, (socket: TLSSocket) => void])[] = [
    ["that reads slowly", (socket) => readSlowly(socket)],
    ["that just reads", () => {}],
  ];
  for (const [name, then] of ways) {
    it(
      `${name} gets all of a big answer from both`,
      async () => {
        const [site, tgws] = await Promise.all(
          [pair.site.port, pair.proxy.port].map((port) => ask(port, then)),
        );
        expect(site).toStartWith(`${COVER_PAGES.big.body.length} bytes`);
        expect(tgws).toBe(site ?? "");
      },
      TEST_LIMIT_MS,
    );
  }

  function readSlowly(socket: TLSSocket): void {
    socket.pause();
    let times = 0;
    const timer = setInterval(() => {
      times += 1;
      if (times % 2 === 1) socket.resume();
      else socket.pause();
      if (times > 20) clearInterval(timer);
    }, 50);
    socket.once("close", () => clearInterval(timer));
  }
});

/** What Chromium writes down of its connections. */
interface NetLog {
  readonly constants: { readonly logEventTypes: Readonly<Record<string, number>> };
  readonly events: readonly { readonly type: number; readonly params?: Readonly<Record<string, unknown>> }[];
}

describe.skipIf(CoverSite.missing !== undefined || CHROMIUM === undefined)("Chromium", () => {
  const FLAGS =
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking " +
    "--disable-component-update --disable-sync --ignore-certificate-errors";

  async function browse(port: number, side: string, path: string) {
    const home = join(folder, `chromium-${side}-${path.length}`);
    const log = join(folder, `netlog-${side}-${path.length}.json`);
    const { stdout, exitCode } = await run([
      CHROMIUM ?? "",
      ...FLAGS.split(" "),
      `--user-data-dir=${home}`,
      `--log-net-log=${log}`,
      `--host-resolver-rules=MAP ${COVER_DOMAIN}:443 127.0.0.1:${port}`,
      "--dump-dom",
      `https://${COVER_DOMAIN}${path}`,
    ]);
    return { stdout, exitCode, connection: readNetLog(await Bun.file(log).text()) };
  }

  for (const [path, shown] of [
    ["/", coverPage(COVER_DOMAIN).slice(-40, -25)],
    ["/nothing-here", "404 Not Found"],
  ] as const) {
    it(
      `shows the same page at ${path}, over the same kind of connection`,
      async () => {
        const [site, tgws] = await Promise.all([
          browse(pair.site.port, "site", path),
          browse(pair.proxy.port, "tgws", path),
        ]);
        expect(site.stdout).toContain(shown);
        expect(site.connection.certificates.length).toBeGreaterThan(0);
        expect(site.connection.handshakes).not.toEqual([]);
        expect(tgws).toEqual(site);
      },
      TEST_LIMIT_MS,
    );
  }
});

/** The fingerprints of the certificates that Chromium got for the site, and what it agreed on. */
function readNetLog(text: string) {
  const { constants, events } = JSON.parse(
    text.endsWith("}\n") ? text : `${text.replace(/,\s*$/, "")}]}`,
  ) as NetLog;
  const of = (name: string) => events.filter(({ type }) => type === constants.logEventTypes[name]);
  const certificates = of("SSL_CERTIFICATES_RECEIVED").map(({ params }) =>
    createHash("sha256").update(JSON.stringify(params?.["certificates"])).digest("hex"),
  );
  const handshakes = of("SSL_CONNECT").flatMap(({ params }) =>
    params?.["version"] === undefined
      ? []
      : [["version", "cipher_suite", "next_proto", "key_exchange_group"].map((key) => params[key])],
  );
  const errors = of("SSL_HANDSHAKE_ERROR").length;
  return { certificates: [...new Set(certificates)], handshakes: handshakes.slice(0, 1), errors };
}
