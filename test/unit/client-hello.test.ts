import { describe, expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { BaseTelegramClient, BunCryptoProvider, MemoryStorage, MtProxyTcpTransport } from "@mtcute/bun";
import { HandshakeError } from "../../src/core/errors.ts";
import {
  type ClientHello,
  EXTENSION,
  GROUP,
  isGrease,
  parseClientHello,
} from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import { within } from "../support/waiting.ts";

type Bytes = readonly number[];
const u16 = (value: number): Bytes => [value >> 8, value & 0xff];
const list8 = (...parts: readonly Bytes[]): Bytes => [parts.flat().length, ...parts.flat()];
const list16 = (...parts: readonly Bytes[]): Bytes => [...u16(parts.flat().length), ...parts.flat()];
const ascii = (text: string): Bytes => [...text].map((character) => character.charCodeAt(0));
const extension = (type: number, ...data: readonly Bytes[]): Bytes => [...u16(type), ...list16(...data)];
const zeros = (length: number): Bytes => new Array<number>(length).fill(0);

const RANDOM = Array.from({ length: 32 }, (_, at) => 0xa0 + at);
const SESSION_ID = Array.from({ length: 32 }, (_, at) => at);
const sni = (...names: readonly Bytes[]): Bytes =>
  extension(0, list16(...names.map((name) => [0, ...list16(name)])));
const share = (group: number, length: number): Bytes => [...u16(group), ...list16(zeros(length))];
const shares = (...list: readonly Bytes[]): Bytes => extension(51, list16(...list));

/** The fields of a hello as they stand on the wire; any of them can be replaced. */
interface Fields {
  readonly type?: Bytes;
  readonly sessionId?: Bytes;
  readonly ciphers?: Bytes;
  readonly compression?: Bytes;
  /** The extensions block, with its length. */
  readonly block?: Bytes;
  readonly after?: Bytes;
}

function hello(fields: Fields): Uint8Array {
  const body = [
    ...[3, 3],
    ...RANDOM,
    ...(fields.sessionId ?? list8(SESSION_ID)),
    ...(fields.ciphers ?? list16([0x13, 0x01])),
    ...(fields.compression ?? list8([0])),
    ...(fields.block ?? []),
  ];
  return Uint8Array.of(...(fields.type ?? [1]), 0, ...u16(body.length), ...body, ...(fields.after ?? []));
}

const helloWith = (...extensions: readonly Bytes[]): Uint8Array => hello({ block: list16(...extensions) });

function expectRefused(message: Uint8Array): void {
  expect(() => parseClientHello(message)).toThrow(HandshakeError);
  expect(() => parseClientHello(message)).toThrow(expect.objectContaining({ code: "BAD_CLIENT_HELLO" }));
}

describe("parseClientHello()", () => {
  test("takes a GREASE extension that comes twice: it means nothing", () => {
    const { extensions } = parseClientHello(helloWith(extension(0x1a1a), extension(0x1a1a)));
    expect(extensions.map(({ type }) => type)).toEqual([0x1a1a, 0x1a1a]);
  });

  test("reads every field of a browser's hello", () => {
    const message = hello({
      ciphers: list16([0x2a, 0x2a, 0x13, 0x01, 0xc0, 0x2b]),
      block: list16(
        extension(0x3a3a),
        sni(ascii("Example.com")),
        extension(10, list16([0x4a, 0x4a, 0x11, 0xec, 0x00, 0x1d])),
        extension(16, list16(list8(ascii("h2")), list8(ascii("http/1.1")))),
        shares(share(0x4a4a, 1), share(0x11ec, 1_216), share(0x001d, 32)),
        extension(43, list8([0x5a, 0x5a, 3, 4, 3, 3])),
        extension(0xfe0d, zeros(200)),
        extension(0x6a6a, [0]),
      ),
    });
    const parsed = parseClientHello(message);
    expect(parsed).toMatchObject({
      legacyVersion: 0x0303,
      cipherSuites: [0x2a2a, 0x1301, 0xc02b],
      compressionMethods: [0],
      serverName: "Example.com",
      supportedVersions: [0x5a5a, 0x0304, 0x0303],
      supportedGroups: [0x4a4a, GROUP.x25519MlKem768, GROUP.x25519],
      alpn: ["h2", "http/1.1"],
    });
    expect([...parsed.random]).toEqual(RANDOM);
    expect([...parsed.sessionId]).toEqual(SESSION_ID);
    expect(parsed.extensions.map(({ type }) => type)).toEqual([
      ...[0x3a3a, EXTENSION.serverName, EXTENSION.supportedGroups, EXTENSION.alpn, EXTENSION.keyShare],
      ...[EXTENSION.supportedVersions, EXTENSION.encryptedClientHello, 0x6a6a],
    ]);
    expect(parsed.keyShares.map(({ group, key }) => [group, key.length])).toEqual([
      [0x4a4a, 1],
      [GROUP.x25519MlKem768, 1_216],
      [GROUP.x25519, 32],
    ]);
    expect(parsed.random.buffer).toBe(message.buffer);
  });

  test("reads a hello of old TLS, without an extensions block or with an empty one", () => {
    for (const message of [hello({ sessionId: [0] }), hello({ sessionId: [0], block: [0, 0] })]) {
      expect(parseClientHello(message)).toMatchObject({
        ...{ extensions: [], serverName: undefined, supportedVersions: [], supportedGroups: [] },
        ...{ keyShares: [], alpn: [], sessionId: new Uint8Array(0) },
      });
    }
  });

  test("reads a view into the middle of a larger buffer", () => {
    const message = helloWith(sni(ascii("a.b")));
    const larger = Uint8Array.of(7, 7, ...message, 7);
    expect(parseClientHello(larger.subarray(2, -1))).toEqual(parseClientHello(message));
  });

  test("takes session ids of up to 32 bytes", () => {
    for (const length of [0, 1, 31, 32]) {
      expect(parseClientHello(hello({ sessionId: list8(zeros(length)) })).sessionId.length).toBe(length);
    }
    expectRefused(hello({ sessionId: list8(zeros(33)) }));
  });

  test("takes 128 extensions, not 129", () => {
    const many = (count: number): readonly Bytes[] =>
      Array.from({ length: count }, (_, at) => extension(1_000 + at));
    expect(parseClientHello(helloWith(...many(128))).extensions.length).toBe(128);
    expectRefused(helloWith(...many(129)));
  });

  test("takes the first host name of the SNI", () => {
    const other = [7, ...list16([1, 2])];
    const names = [other, [0, ...list16(ascii("a.example"))], [0, ...list16(ascii("b.example"))]];
    expect(parseClientHello(helloWith(extension(0, list16(...names)))).serverName).toBe("a.example");
    expect(parseClientHello(helloWith(extension(0, list16(other)))).serverName).toBeUndefined();
  });

  test("takes an empty list of key shares, and other groups' shares of any size", () => {
    expect(parseClientHello(helloWith(shares())).keyShares).toEqual([]);
    const parsed = parseClientHello(
      helloWith(shares(share(0x17, 65), share(0x6399, 1_216), share(0x1a1a, 1))),
    );
    expect(parsed.keyShares.map(({ group }) => group)).toEqual([0x17, 0x6399, 0x1a1a]);
  });

  test("reads protocols that are no text byte by byte", () => {
    expect(parseClientHello(helloWith(extension(16, list16(list8([0x8a, 0x8a]))))).alpn).toEqual([
      "\x8a\x8a",
    ]);
  });

  test.each<[string, Uint8Array]>([
    ["a ServerHello", hello({ type: [2] })],
    ["a byte after the message", hello({ after: [0] })],
    ["no cipher suites", hello({ ciphers: [0, 0] })],
    ["half a cipher suite", hello({ ciphers: list16([0x13, 1, 0x13]) })],
    ["no compression method", hello({ compression: [0] })],
    ["one byte of an extensions block", hello({ block: [0] })],
    ["an extensions block that is longer than the message", hello({ block: [0, 5, 0, 1, 0, 0] })],
    ["a byte after the extensions", hello({ block: [0, 4, 0, 1, 0, 0, 0] })],
    ["half an extension's header", hello({ block: [0, 3, 0, 1, 0] })],
    ["an extension that is longer than the block", hello({ block: [0, 4, 0, 1, 0, 1] })],
    ["an extension that comes twice", helloWith(extension(23), extension(5), extension(23))],
    ["an SNI without a list", helloWith(extension(0))],
    ["an SNI with an empty list", helloWith(extension(0, [0, 0]))],
    ["an empty server name", helloWith(sni([]))],
    ["a server name that is not ASCII", helloWith(sni([0x61, 0xe9]))],
    ["a server name with a space", helloWith(sni(ascii("a b")))],
    ["a server name with DEL", helloWith(sni([0x61, 0x7f]))],
    ["a server name with a line break", helloWith(sni(ascii("a\n")))],
    ["a byte after the SNI's list", helloWith(extension(0, list16([0, ...list16(ascii("a"))]), [0]))],
    ["a server name that is longer than its list", helloWith(extension(0, list16([0, 0, 2, 0x61])))],
    ["an empty list of versions", helloWith(extension(43, [0]))],
    ["half a version", helloWith(extension(43, [3, 3, 4, 3]))],
    ["a byte after the versions", helloWith(extension(43, [2, 3, 4, 0]))],
    ["an empty list of groups", helloWith(extension(10, [0, 0]))],
    ["half a group", helloWith(extension(10, [0, 1, 0]))],
    ["a byte after the groups", helloWith(extension(10, [0, 2, 0, 0x1d, 0]))],
    ["an X25519 share of 31 bytes", helloWith(shares(share(0x1d, 31)))],
    ["an X25519 share of 33 bytes", helloWith(shares(share(0x1d, 33)))],
    ["an X25519MLKEM768 share of 1,215 bytes", helloWith(shares(share(0x11ec, 1_215)))],
    ["an X25519MLKEM768 share of 1,217 bytes", helloWith(shares(share(0x11ec, 1_217)))],
    ["an empty share", helloWith(shares(share(0x17, 0)))],
    ["two shares of a group", helloWith(shares(share(0x1d, 32), share(0x1d, 32)))],
    ["a share that is longer than its list", helloWith(extension(51, [0, 5, 0, 0x17, 0, 2, 1]))],
    ["a byte after the shares", helloWith(extension(51, [0, 0, 0]))],
    ["an empty list of protocols", helloWith(extension(16, [0, 0]))],
    ["a protocol without a name", helloWith(extension(16, [0, 1, 0]))],
    ["a protocol that is longer than its list", helloWith(extension(16, [0, 2, 2, 0x68]))],
    ["a byte after the protocols", helloWith(extension(16, [0, 3, 2, 0x68, 0x32, 0]))],
  ])("throws BAD_CLIENT_HELLO on %s", (_, message) => expectRefused(message));

  test("throws BAD_CLIENT_HELLO on every other length of a message", () => {
    const message = helloWith(sni(ascii("example.com")), shares(share(0x1d, 32)));
    for (let length = 0; length < message.length; length += 1) {
      const cut = message.slice(0, length);
      expectRefused(cut);
      if (length < 4) continue;
      cut.set([0, ...u16(length - 4)], 1); // the header agrees, the rest does not
      // Cut where the extensions begin, it is a whole hello.
      if (length !== 4 + 2 + 32 + 33 + 4 + 2) expectRefused(cut);
    }
  });
});

describe("isGrease()", () => {
  test("knows the 16 values of RFC 8701, and no others", () => {
    const found = Array.from({ length: 0x1_0000 }, (_, value) => value).filter(isGrease);
    expect(found).toEqual(Array.from({ length: 16 }, (_, at) => 0x0a0a + at * 0x1010));
  });
});

const NAME = "cover.example";

/** Lets a client connect to a port that answers nothing, and returns the records of its hello. */
async function capture(start: (port: number) => unknown): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let held = new Uint8Array(0);
    socket.on("error", () => undefined); // the client is killed
    socket.on("data", (chunk: Buffer) => {
      held = Uint8Array.of(...held, ...chunk);
      try {
        const progress = measureClientHello(held);
        if (progress.kind === "whole") resolve(held.subarray(0, progress.length));
      } catch (error) {
        reject(error);
      }
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const stop = start(address.port);
  try {
    return await within(promise, "a ClientHello");
  } finally {
    if (typeof stop === "function") stop();
    for (const socket of sockets) socket.destroy();
    server.close();
  }
}

function parseBytewise(bytes: Uint8Array): ClientHello {
  for (let length = 0; length < bytes.length; length += 1) {
    expect(measureClientHello(bytes.subarray(0, length)).kind).toBe("partial");
  }
  const progress = measureClientHello(bytes);
  if (progress.kind !== "whole") throw new Error("it is not whole");
  return parseClientHello(progress.message);
}

const spawn = (command: readonly string[]) => (): (() => void) => {
  const program = Bun.spawn([...command], { stdin: "pipe", stdout: "ignore", stderr: "ignore" });
  return () => program.kill();
};

describe("a hello of real clients", () => {
  test("of node:tls in Bun is read", async () => {
    const parsed = parseBytewise(
      await capture((port) => {
        const socket = connectTls({ host: "127.0.0.1", port, servername: NAME, ALPNProtocols: ["h2"] });
        socket.on("error", () => undefined); // nobody answers
        return () => socket.destroy();
      }),
    );
    expect(parsed).toMatchObject({ serverName: NAME, alpn: ["h2"] });
    expect(parsed.supportedVersions).toContain(0x0304);
    expect(parsed.keyShares.some(({ group }) => group === GROUP.x25519)).toBe(true);
  });

  test("of Bun's WebSocket is read", async () => {
    const parsed = parseBytewise(
      await capture((port) => {
        const socket = new WebSocket(`wss://localhost:${port}/`);
        return () => socket.terminate();
      }),
    );
    expect(parsed.serverName).toBe("localhost");
    expect(parsed.keyShares.length).toBeGreaterThan(0);
  });

  test("of mtcute with an ee secret is read", async () => {
    const parsed = parseBytewise(
      await capture((port) => {
        const secret = `ee${"5a".repeat(16)}${Buffer.from(NAME).toString("hex")}`;
        const transport = new MtProxyTcpTransport({ host: "127.0.0.1", port, secret });
        const { log } = new BaseTelegramClient({ apiId: 1, apiHash: "", storage: new MemoryStorage() });
        transport.setup(new BunCryptoProvider(), log);
        transport.connect().catch(() => undefined); // nobody answers
      }),
    );
    expect(parsed).toMatchObject({ serverName: NAME, alpn: ["h2", "http/1.1"] });
    expect(parsed.sessionId.length).toBe(32);
    expect(parsed.cipherSuites.slice(1, 4)).toEqual([0x1301, 0x1302, 0x1303]);
    expect(parsed.extensions.filter(({ type }) => isGrease(type)).length).toBe(2);
    expect(parsed.keyShares.some(({ group }) => group === GROUP.x25519)).toBe(true);
  });

  const programs: readonly (readonly [name: string, args: (port: number) => readonly string[]])[] = [
    ["openssl", (port) => ["s_client", "-connect", `127.0.0.1:${port}`, "-servername", NAME]],
    ["curl", (port) => ["--noproxy", "*", "--connect-to", `::127.0.0.1:${port}`, `https://${NAME}/`]],
    ["node", (port) => ["-e", `require("tls").connect({ port: ${port}, servername: "${NAME}" })`]],
  ];
  for (const [name, args] of programs) {
    const program = Bun.which(name);
    if (program === null) console.warn(`${name}'s ClientHello is not tested: it is not installed`);
    test.skipIf(program === null)(`of ${name} is read`, async () => {
      const parsed = parseBytewise(await capture((port) => spawn([program ?? "", ...args(port)])()));
      expect(parsed.serverName).toBe(NAME);
      expect(parsed.supportedVersions).toContain(0x0304);
      expect(parsed.supportedGroups).toContain(GROUP.x25519);
      expect(parsed.keyShares.length).toBeGreaterThan(0);
    });
  }

  test.skipIf(Bun.which("openssl") === null)("of openssl with TLS 1.2 alone is read", async () => {
    const parsed = parseBytewise(
      await capture((port) =>
        spawn(["openssl", "s_client", "-tls1_2", "-noservername", "-connect", `127.0.0.1:${port}`])(),
      ),
    );
    expect(parsed).toMatchObject({ serverName: undefined, supportedVersions: [], keyShares: [] });
  });
});
