import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "node:tls";
import {
  EXTENSION,
  GROUP,
  isGrease,
  type KeyShare,
  parseClientHello,
} from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import { encodeClientHello, type HelloPlan } from "../../src/protocol/tls/client-hello-writer.ts";
import { parseServerFlight, type ServerFlight } from "../../src/protocol/tls/server-flight.ts";
import { testCertificates } from "../support/certificates.ts";
import { within } from "../support/waiting.ts";

const PLAN: HelloPlan = {
  serverName: "cover.example",
  random: new Uint8Array(32).fill(0xaa),
  sessionId: new Uint8Array(32).fill(0x5e),
  cipherSuites: [0x1301, 0x1302, 0x1303],
  keyShares: [
    { group: GROUP.x25519MlKem768, key: new Uint8Array(1_216) },
    { group: GROUP.x25519, key: new Uint8Array(32).fill(9) },
  ],
  alpn: ["h2", "http/1.1"],
  grease: Uint8Array.of(0x00, 0x15, 0x2a, 0x3f, 0x44, 0xff),
  ech: undefined,
};

const encode = (changes: Partial<HelloPlan> = {}): Uint8Array => encodeClientHello({ ...PLAN, ...changes });

function parse(record: Uint8Array) {
  const progress = measureClientHello(record);
  if (progress.kind !== "whole" || progress.length !== record.length) throw new Error("it is not one hello");
  return parseClientHello(progress.message);
}

describe("encodeClientHello()", () => {
  test("is one record of version 3.1", () => {
    const record = encode();
    const view = new DataView(record.buffer);
    expect(record.subarray(0, 3).toHex()).toBe("160301");
    expect(view.getUint16(3)).toBe(record.length - 5);
    expect(view.getUint32(5)).toBe(0x0100_0000 + record.length - 9);
    expect(record.subarray(9, 11).toHex()).toBe("0303");
    expect(record.subarray(11, 43)).toEqual(PLAN.random);
    expect(record.subarray(44, 76)).toEqual(PLAN.sessionId);
  });

  test("offers what changes the length of an answer as Telegram's clients do", () => {
    const find = (plan: Partial<HelloPlan>, type: number): string | undefined =>
      parse(encode(plan))
        .extensions.find((one) => one.type === type)
        ?.data.toHex();
    expect(find({}, 27)).toBe("020002");
    expect([find({}, 0xfe0d), find({}, 0x44cd)]).toEqual([undefined, undefined]);
    const ech = { configId: 0xa5, enc: new Uint8Array(32).fill(1), payload: new Uint8Array(144).fill(2) };
    expect(find({ ech }, 0x44cd)).toBe("0003026832");
    expect(find({ ech }, 0xfe0d)).toBe(`0000010001a50020${"01".repeat(32)}0090${"02".repeat(144)}`);
  });

  test("says what the plan says, in the order of browsers", () => {
    const hello = parse(encode());
    expect(hello).toMatchObject({
      legacyVersion: 0x0303,
      random: PLAN.random,
      sessionId: PLAN.sessionId,
      compressionMethods: [0],
      serverName: "cover.example",
      supportedVersions: [0x2a2a, 0x0304, 0x0303],
      supportedGroups: [0x1a1a, 0x11ec, 0x001d, 0x0017, 0x0018],
      alpn: ["h2", "http/1.1"],
    });
    expect(hello.cipherSuites.slice(0, 6)).toEqual([0x0a0a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f]);
    expect(hello.keyShares).toEqual([{ group: 0x1a1a, key: new Uint8Array(1) }, ...PLAN.keyShares]);
    const types = [0x3a3a, 0, 23, 0xff01, 10, 11, 35, 16, 5, 13, 18, 51, 45, 43, 27, 0x4a4a];
    expect(hello.extensions.map(({ type }) => type)).toEqual(types);
  });

  test("leaves ALPN and the key shares out when there are none", () => {
    const hello = parse(encode({ alpn: [], keyShares: [] }));
    expect(hello.extensions.some(({ type }) => type === EXTENSION.alpn)).toBe(false);
    expect(hello.keyShares.map(({ group }) => isGrease(group))).toEqual([true]);
  });

  test("offers X25519MLKEM768 only with a share of it, since servers would ask for one", () => {
    const [, x25519] = PLAN.keyShares;
    const hello = parse(encode({ keyShares: x25519 === undefined ? [] : [x25519] }));
    expect(hello.supportedGroups).toEqual([0x1a1a, 0x001d, 0x0017, 0x0018]);
  });

  test("never repeats an extension, whatever the GREASE", () => {
    for (let high = 0; high < 16; high += 1) {
      const hello = parse(encode({ grease: new Uint8Array(6).fill(high << 4) }));
      const grease = hello.extensions.map(({ type }) => type).filter(isGrease);
      expect(grease.length).toBe(2);
      expect(grease[0]).toBe(0x0a0a + 0x1010 * high);
      expect(grease[1]).not.toBe(grease[0]);
    }
  });

  test("is the same for the same plan", () => {
    expect(encode()).toEqual(encode());
  });

  test.each<[string, Partial<HelloPlan>]>([
    ["a random of 31 bytes", { random: new Uint8Array(31) }],
    ["a session id of 33 bytes", { sessionId: new Uint8Array(33) }],
    ["5 bytes for GREASE", { grease: new Uint8Array(5) }],
    ["no name", { serverName: "" }],
    ["a name that is not ASCII", { serverName: "пример.example" }],
    ["a name with a space", { serverName: "a b" }],
    ["a name of 254 characters", { serverName: "a".repeat(254) }],
    ["a protocol without a name", { alpn: [""] }],
    ["a protocol of 256 characters", { alpn: ["a".repeat(256)] }],
    ["a suite of TLS 1.2", { cipherSuites: [0xc02b] }],
    ["a share of another group", { keyShares: [{ group: 0x6399, key: new Uint8Array(1_216) }] }],
    ["more than a record", { keyShares: [{ group: GROUP.secp256r1, key: new Uint8Array(16_384) }] }],
  ])("throws RangeError on %s", (_, changes) => {
    expect(() => encode(changes)).toThrow(RangeError);
  });

  test("takes names of 1 and of 253 characters", () => {
    for (const serverName of ["a", "a".repeat(253)])
      expect(parse(encode({ serverName })).serverName).toBe(serverName);
  });
});

function x25519Share(): KeyShare {
  const { publicKey } = generateKeyPairSync("x25519");
  const key = new Uint8Array(publicKey.export({ type: "spki", format: "der" }).subarray(-32));
  return { group: GROUP.x25519, key };
}

/** Sends `hello` to `port` of 127.0.0.1, and reads until `enough`. */
async function ask(
  port: number,
  hello: Uint8Array,
  enough: (flight: ServerFlight) => boolean,
): Promise<ServerFlight> {
  const { promise, resolve, reject } = Promise.withResolvers<ServerFlight>();
  let held = Buffer.alloc(0);
  const socket = connect({ port, host: "127.0.0.1" });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error(`it closed after ${held.toString("hex")}`)));
  socket.on("data", (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    try {
      const flight = parseServerFlight(held);
      if (flight !== undefined && enough(flight)) resolve(flight);
    } catch (error) {
      reject(error);
    }
  });
  socket.write(hello);
  try {
    return await within(promise, "the server's flight");
  } finally {
    socket.destroy();
  }
}

const fresh = (): Partial<HelloPlan> => ({
  serverName: "localhost",
  random: new Uint8Array(randomBytes(32)),
  sessionId: new Uint8Array(randomBytes(32)),
  grease: new Uint8Array(randomBytes(6)),
  ech: { configId: 7, enc: new Uint8Array(32).fill(9), payload: new Uint8Array(randomBytes(144)) },
  keyShares: [x25519Share()],
});

describe("a hello of ours", () => {
  test("has a node:tls server answer with a flight of TLS 1.3", async () => {
    const { certificate, key } = await testCertificates();
    const server = createServer({ cert: certificate, key, ALPNProtocols: ["http/1.1"] });
    server.on("tlsClientError", () => undefined); // the test leaves in the middle
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      const { port } = server.address() as AddressInfo;
      const answer = ask(port, encode(fresh()), ({ encryptedRecords }) => encryptedRecords.length > 0);
      const flight = await answer;
      expect(flight).toMatchObject({
        version: 0x0304,
        helloRetry: false,
        group: 0x1d,
        changeCipherSpec: true,
      });
      expect(PLAN.cipherSuites).toContain(flight.cipherSuite);
      expect(flight.extensionOrder.toSorted()).toEqual([43, 51]);
    } finally {
      server.close();
    }
  });

  test("has a server take the share of X25519MLKEM768", async () => {
    const { certificate, key } = await testCertificates();
    const server = createServer({ cert: certificate, key, ecdhCurve: "X25519MLKEM768:X25519" });
    server.on("tlsClientError", () => undefined); // the test leaves in the middle
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      const { port } = server.address() as AddressInfo;
      const share = x25519Share();
      // An encapsulation key whose coefficients are all zero is useless but valid.
      const hybrid = new Uint8Array(1_216);
      hybrid.set(share.key, 1_184);
      const keyShares = [{ group: GROUP.x25519MlKem768, key: hybrid }, share];
      const flight = await ask(port, encode({ ...fresh(), keyShares }), () => true);
      expect(flight).toMatchObject({ version: 0x0304, helloRetry: false, group: GROUP.x25519MlKem768 });
    } finally {
      server.close();
    }
  });

  test("has a server that wants another group ask for it", async () => {
    const { certificate, key } = await testCertificates();
    const server = createServer({ cert: certificate, key, ecdhCurve: "P-256" });
    server.on("tlsClientError", () => undefined); // the test leaves in the middle
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      const { port } = server.address() as AddressInfo;
      const flight = await ask(port, encode(fresh()), () => true);
      expect(flight).toMatchObject({ version: 0x0304, helloRetry: true, group: GROUP.secp256r1 });
    } finally {
      server.close();
    }
  });

  for (const [version, expected] of [
    ["-tls1_3", 0x0304],
    ["-tls1_2", 0x0303],
  ] as const) {
    test.skipIf(Bun.which("openssl") === null)(`has OpenSSL answer with ${version}`, async () => {
      const { certificate, key } = await testCertificates();
      const folder = mkdtempSync(join(tmpdir(), "tgws-test-"));
      const file = join(folder, "server.pem");
      writeFileSync(file, `${certificate}\n${key}`);
      const command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", file, version];
      const program = Bun.spawn(command, { stdin: "pipe", stdout: "pipe", stderr: "ignore" });
      try {
        const port = await within(acceptedPort(program.stdout), "a port of openssl");
        const flight = await ask(port, encode(fresh()), () => true);
        expect(flight).toMatchObject({ version: expected, helloRetry: false });
      } finally {
        program.kill();
        rmSync(folder, { recursive: true });
      }
    });
  }
  if (Bun.which("openssl") === null) console.warn("openssl's answer is not tested: it is not installed");
});

/** Reads the line `ACCEPT 127.0.0.1:<port>`. */
async function acceptedPort(output: ReadableStream<Uint8Array>): Promise<number> {
  let text = "";
  for await (const chunk of output) {
    text += new TextDecoder().decode(chunk);
    const port = /^ACCEPT .*:(\d+)$/m.exec(text)?.[1];
    if (port !== undefined) return Number(port);
  }
  throw new Error(`openssl says: ${text}`);
}
