import { randomBytes } from "node:crypto";
import {
  type BuiltHello,
  buildHello,
  GROUPS,
  type HelloExtension,
  type HelloOptions,
} from "./fake-tls-hello.ts";
import type { Visit, Visitor } from "./look.ts";
import { makeInit } from "./obfuscated2.ts";
import { concat, encodePacket } from "./packets.ts";

/** What whoever probes knows, or does not. */
export interface ProbeTarget {
  /** The proxy's, which the probes use only where somebody could who has recorded a client. */
  readonly secret: Uint8Array;
  readonly serverName: string;
}

/** Something that a censor sends to find out what a server is. */
export interface Probe {
  readonly name: string;
  /** Makes the bytes; what it returns is done to both sides. */
  readonly prepare: (target: ProbeTarget) => PreparedProbe;
  /** How long it stays when nobody ends the connection, in milliseconds. Without: {@link PATIENCE_MS}. */
  readonly patienceMs?: number;
}

/** What is done to both sides. */
export interface PreparedProbe {
  readonly visit: Visit;
  /** Of the hello that was sent, if there is one whose answer could give a proxy away. */
  readonly random?: Uint8Array;
}

/** Longer than the site's own limits. */
export const PATIENCE_MS = 6_000;

const CHANGE_CIPHER_SPEC = Uint8Array.of(0x14, 3, 3, 0, 1, 1);
const RECORD_HEADER = 5;
/** Where the random is in a hello of one record. */
const RANDOM = RECORD_HEADER + 4 + 2;
const GET = "GET / HTTP/1.1\r\nHost: cover.example\r\n\r\n";
const PROXY_V2_SIGNATURE = Uint8Array.fromHex("0d0a0d0a000d0a515549540a");
const EXTENSION = { serverName: 0x00, groups: 0x0a, padding: 0x15, versions: 0x2b, keyShare: 0x33 } as const;
/** Never when the site's patience ends, so that it does not depend on chance which comes first. */
const BYTE_PERIOD_MS = 1_100;

/** All of them. */
export const PROBES: readonly Probe[] = makeProbes();

function makeProbes(): Probe[] {
  return [
    ...[1, 2, 5, 16, 63, 64, 65, 100, 517, 4_096, 16_384, 70_000].map((size) =>
      plainly(`${size} bytes of garbage`, () => garbage(size)),
    ),
    plainly("64 KiB of 0x16", () => new Uint8Array(65_536).fill(0x16)),
    plainly("4 MiB of zeros", () => new Uint8Array(4 * 1024 * 1024)),
    plainly("plain HTTP", () => text(GET)),
    plainly("an HTTP request of 18 bytes", () => text("GET / HTTP/1.0\r\n\r\n")),
    plainly("HTTP with LF alone", () => text("GET / HTTP/1.0\n\n")),
    plainly("an unknown HTTP method", () => text("BREW /pot HTCPCP/1.0\r\n\r\n")),
    plainly("an HTTP proxy request", () =>
      text("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n"),
    ),
    plainly("CONNECT", () => text("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")),
    plainly("a WebSocket upgrade", () =>
      text(
        "GET /apiws HTTP/1.1\r\nHost: cover.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
      ),
    ),
    plainly("half an HTTP request", () => text("GET / HTTP/1.1\r\nHost: cov")),
    plainly("a header line of 60 KiB", () => text(`GET / HTTP/1.1\r\nX: ${"y".repeat(60_000)}\r\n\r\n`)),
    plainly("the HTTP/2 preface", () => text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")),
    plainly("an SSLv2 hello", () => sslv2Hello()),
    plainly("HELO", () => text("EHLO example.com\r\n")),
    plainly("an SSH banner", () => text("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")),
    plainly("SOCKS5", () => Uint8Array.of(5, 1, 0)),
    plainly("SOCKS5 with a request", () =>
      concat(Uint8Array.of(5, 1, 0, 5, 1, 0, 3, 11), text("example.com"), Uint8Array.of(1, 187)),
    ),
    plainly("SOCKS4", () => Uint8Array.of(4, 1, 0, 80, 127, 0, 0, 1, 0)),
    plainly("RDP", () =>
      Uint8Array.fromHex("0300002c27e00000000000436f6f6b69653a206d737473686173683d610d0a0100080003000000"),
    ),
    plainly("PROXY, version 1", ({ secret, serverName }) =>
      concat(text("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"), hello({ secret, serverName }).bytes),
    ),
    plainly("PROXY, version 2", ({ secret, serverName }) =>
      concat(
        PROXY_V2_SIGNATURE,
        Uint8Array.fromHex("2111000cc0000201c0000202000101bb"),
        hello({ secret, serverName }).bytes,
      ),
    ),
    plainly("an MTProto init without fake TLS", ({ secret }) => mtproto(secret, "padded")),
    plainly("an abridged MTProto init without fake TLS", ({ secret }) => mtproto(secret, "abridged")),

    plainly("an alert first", () => Uint8Array.of(0x15, 3, 1, 0, 2, 2, 40)),
    plainly("an alert of a byte first", () => Uint8Array.of(0x15, 3, 3, 0, 1, 1)),
    plainly("a change_cipher_spec first", () => CHANGE_CIPHER_SPEC),
    plainly("application data first", () => record(0x17, garbage(100))),
    plainly("a heartbeat first", () => Uint8Array.fromHex("1803020003014000")),
    plainly("a record of type 0", () => record(0, garbage(40))),
    plainly("a record of type 25", () => record(25, garbage(40))),
    plainly("a record of no bytes", () => Uint8Array.of(0x16, 3, 1, 0, 0)),
    plainly("40 records of no bytes", () =>
      concat(...Array.from({ length: 40 }, () => record(0x16, garbage(0)))),
    ),
    plainly("a record of 65,535 bytes", () => Uint8Array.of(0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff)),
    plainly("a record of 65,535 bytes that come", () =>
      concat(Uint8Array.of(0x16, 3, 1, 0xff, 0xff), garbage(65_535)),
    ),
    plainly("a record of 16,385 bytes", () =>
      concat(Uint8Array.of(0x16, 3, 1, 0x40, 0x01, 1), garbage(16_384)),
    ),
    plainly("half a record header", () => Uint8Array.of(0x16, 3, 1)),
    plainly("a record header alone", () => Uint8Array.of(0x16, 3, 1, 2, 0)),
    plainly("a byte of TLS", () => Uint8Array.of(0x16)),
    ...[0x0000, 0x0200, 0x0300, 0x0302, 0x0303, 0x0304, 0x0305, 0x03ff, 0x0401, 0xfeff].map((version) =>
      mangled(`a record of version ${version.toString(16).padStart(4, "0")}`, (bytes) => {
        bytes[1] = version >> 8;
        bytes[2] = version & 0xff;
      }),
    ),
    ...[0, 2, 4, 11, 16, 20, 24, 255].map((type) =>
      mangled(`a handshake message of type ${type}`, (bytes) => {
        bytes[RECORD_HEADER] = type;
      }),
    ),
    mangled("a hello that claims 16 MiB", (bytes) => bytes.fill(0xff, 6, 9)),
    mangled("a hello that claims 64 KiB", (bytes) => bytes.set([1, 0, 0], 6)),
    mangled("a hello that claims no byte", (bytes) => bytes.fill(0, 6, 9)),
    mangled("a hello that claims a byte too few", (bytes) => {
      bytes[8] = ((bytes[8] ?? 0) - 1) & 0xff;
    }),
    mangled("a hello that claims a byte too many", (bytes) => {
      bytes[8] = ((bytes[8] ?? 0) + 1) & 0xff;
    }),
    ...[0x0000, 0x0200, 0x0300, 0x0301, 0x0304, 0x7f1c, 0xffff].map((version) =>
      mangled(`a hello of version ${version.toString(16).padStart(4, "0")}`, (bytes) => {
        bytes[9] = version >> 8;
        bytes[10] = version & 0xff;
      }),
    ),
    mangled("a session id of 33 bytes", (bytes) => {
      bytes[RANDOM + 32] = 33;
    }),
    mangled("no cipher suite", (bytes) => bytes.fill(0, RANDOM + 65, RANDOM + 67)),
    mangled("an odd list of cipher suites", (bytes) => {
      bytes[RANDOM + 66] = 3;
    }),
    mangled("cipher suites that nobody knows", (bytes) => bytes.fill(0xfe, RANDOM + 67, RANDOM + 69)),

    telling("a hello with a wrong digest", {}, { wrong: true }),
    telling("a hello of TDLib's shape with a wrong digest", { shape: "tdlib" }, { wrong: true }),
    telling("a hello of 517 bytes with a wrong digest", { shape: "desktop-517" }, { wrong: true }),
    telling("a hello in 2 records", { records: 2 }, { wrong: true }),
    telling("a hello in 40 records", { records: 40 }, { wrong: true }),
    telling("a hello in records of a byte", { records: 150 }, { wrong: true }),
    telling("a hello with a right digest, 121 s old", { timestamp: -121 }),
    telling("a hello with a right digest, 121 s early", { timestamp: 122 }), // a second may pass
    telling("a hello with a right digest and the time 0", { timestamp: 0 }, { absolute: true }),
    telling(
      "a hello with a right digest and the last time there is",
      { timestamp: 0xffff_ffff },
      { absolute: true },
    ),
    telling("a right digest for another name", { serverName: "other.example" }),
    telling("a right digest for a name beneath", { serverName: "www.cover.example" }),
    telling("a right digest for a name with a dot at its end", { serverName: "cover.example." }),
    telling("a right digest for an address", { serverName: "127.0.0.1" }),
    telling("a right digest for a name with a zero in it", { serverName: "cover.example\0.org" }),
    telling("a right digest for an empty name", { serverName: "" }),
    telling("a right digest for no name", {}, { nameless: true }),
    telling("a right digest for a name of 255 bytes", { serverName: `${"a".repeat(250)}.test` }),
    telling("a right digest and TLS 1.2 alone", {
      cipherSuites: [0xc02b, 0xc02f],
      editExtensions: (all) =>
        all.filter(({ type }) => type !== EXTENSION.versions && type !== EXTENSION.keyShare),
    }),
    telling("a right digest and no suite of TLS 1.3", { cipherSuites: [0xc02b, 0xc02f] }),
    telling("a right digest, 1-byte segments, 121 s old", { timestamp: -121 }, { segment: 1 }),
    telling("a wrong digest in 1-byte segments", {}, { wrong: true, segment: 1 }),
    telling("a wrong digest, and a FIN", {}, { wrong: true, after: (visitor) => visitor.finish() }),
    telling("a wrong digest, and two of it at once", {}, { wrong: true, copies: 2 }),
    telling("a wrong digest, and plain HTTP after it", {}, { wrong: true, trailing: text(GET) }),
    telling("a wrong digest, and early data", {}, { wrong: true, trailing: record(0x17, garbage(100)) }),
    telling("a wrong digest, and garbage", {}, { wrong: true, trailing: garbage(300) }),
    telling("a wrong digest, and 100 KB of garbage", {}, { wrong: true, trailing: garbage(100_000) }),
    telling("a wrong digest, and change_cipher_spec", {}, { wrong: true, trailing: CHANGE_CIPHER_SPEC }),
    telling(
      "a wrong digest, and an alert",
      {},
      { wrong: true, trailing: Uint8Array.of(0x15, 3, 3, 0, 2, 1, 0) },
    ),
    telling(
      "a wrong digest, and a Finished that is none",
      {},
      { wrong: true, trailing: concat(CHANGE_CIPHER_SPEC, record(0x17, garbage(53))) },
    ),
    telling("a wrong digest and no key share of X25519", { editExtensions: withoutShare }, { wrong: true }),
    telling("a wrong digest and no key share at all", { editExtensions: withoutShares }, { wrong: true }),
    telling(
      "a wrong digest and a key share of small order",
      { editExtensions: withZeroShare },
      { wrong: true },
    ),
    telling("a wrong digest and an extension twice", { editExtensions: twice }, { wrong: true }),
    telling("a wrong digest and GREASE alone", { cipherSuites: [0x1a1a] }, { wrong: true }),
    telling("a right digest in a hello of 30 KB", { editExtensions: padded(30_000), records: 3 }),
    telling("a right digest in 100 records", { shape: "desktop-517", records: 100 }),
    telling("half a hello", {}, { wrong: true, cut: 60 }),
    telling("half a hello, and a FIN", {}, { wrong: true, cut: 60, after: (visitor) => visitor.finish() }),
    telling("half a hello with a right digest", {}, { cut: 90 }),
    telling(
      "half a hello with a right digest, and a FIN",
      {},
      { cut: 90, after: (visitor) => visitor.finish() },
    ),
    telling("all of a hello but its last byte", { shape: "tdlib" }, { wrong: true, cut: -1 }),

    acting("silence", async () => {}),
    acting("a FIN at once", (visitor) => visitor.finish()),
    acting("a reset at once", (visitor) => visitor.reset()),
    acting("a byte, and a FIN", (visitor) => {
      visitor.write(Uint8Array.of(0x16));
      visitor.finish();
    }),
    acting("plain HTTP, and a FIN", (visitor) => {
      visitor.write(GET);
      visitor.finish();
    }),
    acting("half an HTTP request, and a FIN", (visitor) => {
      visitor.write("GET / HT");
      visitor.finish();
    }),
    acting("garbage after half a second", async (visitor) => {
      await Bun.sleep(500);
      visitor.write(new Uint8Array(200).fill(0x5a));
    }),
    acting("plain HTTP, a byte at a time", (visitor) => visitor.drip(text(GET), 1, 5)),
    acting("plain HTTP, a byte a second", (visitor) => visitor.drip(text(GET), 1, BYTE_PERIOD_MS)),
    acting("zeros, a byte a second", (visitor) => visitor.drip(new Uint8Array(20), 1, BYTE_PERIOD_MS)),
    acting("writing on after the answer", async (visitor) => {
      visitor.write(GET);
      await visitor.until(() => visitor.over, "the answer");
      // A reset comes for the first of these, for all, or for none.
      for (let count = 0; count < 8 && visitor.end === "fin"; count += 1) {
        visitor.write(GET);
        await Bun.sleep(100);
      }
    }),
    {
      name: "a hello, a byte a second",
      patienceMs: 7_000,
      prepare: (target) => {
        const { bytes } = hello(target);
        return { visit: (visitor) => visitor.drip(bytes.subarray(0, 7), 1, BYTE_PERIOD_MS) };
      },
    },
  ];
}

/** Makes a hello with a digest of another secret. */
export function strangersHello(target: ProbeTarget, options: Partial<HelloOptions> = {}): BuiltHello {
  return hello({ serverName: target.serverName, ...options, secret: garbage(16) });
}

/** Sends `make`'s bytes at once. */
function plainly(name: string, make: (target: ProbeTarget) => Uint8Array): Probe {
  const prepare = (target: ProbeTarget): PreparedProbe => {
    const bytes = make(target);
    return { visit: (visitor) => visitor.write(bytes) };
  };
  return { name, prepare };
}

/** Sends a hello of a client that is not quite right, so that its digest is not, either. */
function mangled(name: string, mangle: (bytes: Uint8Array) => void): Probe {
  const prepare = ({ secret, serverName }: ProbeTarget): PreparedProbe => {
    const { bytes, random } = hello({ secret, serverName, tamper: mangle });
    return { visit: (visitor) => visitor.write(bytes), random };
  };
  return { name, prepare };
}

/** How {@link telling} sends a hello. */
interface Telling {
  /** The digest is one of another secret. */
  readonly wrong?: boolean;
  /** The time is as given; otherwise it is added to now. */
  readonly absolute?: boolean;
  readonly nameless?: boolean;
  /** Bytes of it that are sent; negative: that are not. */
  readonly cut?: number;
  readonly copies?: number;
  readonly trailing?: Uint8Array;
  /** Bytes of a segment. */
  readonly segment?: number;
  readonly after?: (visitor: Visitor) => void;
}

/** Sends a hello whose digest may be right, in a way that may be wrong. */
function telling(name: string, options: Partial<HelloOptions>, how: Telling = {}): Probe {
  const prepare = (target: ProbeTarget): PreparedProbe => {
    const { timestamp, ...rest } = options;
    const now = how.absolute === true ? 0 : Math.floor(Date.now() / 1000);
    const made = hello({
      ...(how.nameless === true ? {} : { serverName: target.serverName }),
      ...rest,
      secret: how.wrong === true ? garbage(16) : target.secret,
      ...(timestamp === undefined ? {} : { timestamp: now + timestamp }),
    });
    const { random } = made;
    const cut = made.bytes.subarray(0, how.cut ?? made.bytes.length);
    const copies = Array.from({ length: how.copies ?? 1 }, () => cut);
    const bytes = concat(...copies, how.trailing ?? garbage(0));
    const visit = async (visitor: Visitor): Promise<void> => {
      if (how.segment === undefined) visitor.write(bytes);
      else await visitor.drip(bytes, how.segment, 0);
      how.after?.(visitor);
    };
    return { visit, random };
  };
  return { name, prepare };
}

function acting(name: string, visit: Visit): Probe {
  return { name, prepare: () => ({ visit }) };
}

function hello(options: HelloOptions): BuiltHello {
  return buildHello(options);
}

/** The share is of P-256, and the group is offered. */
function withoutShare(extensions: readonly HelloExtension[]): HelloExtension[] {
  const share = Uint8Array.fromHex(
    "04" + // the generator of the curve
      "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
      "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
  );
  return extensions.map((extension) => {
    if (extension.type === EXTENSION.groups) return { ...extension, body: Uint8Array.of(0, 2, 0, 0x17) };
    if (extension.type !== EXTENSION.keyShare) return extension;
    return { ...extension, body: concat(Uint8Array.of(0, 69, 0, 0x17, 0, 65), share) };
  });
}

/** As a browser sends it to ask for the groups of a server. */
function withoutShares(extensions: readonly HelloExtension[]): HelloExtension[] {
  return extensions.map((extension) =>
    extension.type === EXTENSION.keyShare ? { ...extension, body: Uint8Array.of(0, 0) } : extension,
  );
}

function withZeroShare(extensions: readonly HelloExtension[]): HelloExtension[] {
  const body = concat(Uint8Array.of(0, 36, 0, GROUPS.x25519, 0, 32), new Uint8Array(32));
  return extensions.map((extension) =>
    extension.type === EXTENSION.keyShare ? { ...extension, body } : extension,
  );
}

function padded(length: number): (extensions: readonly HelloExtension[]) => HelloExtension[] {
  return (extensions) => [...extensions, { type: EXTENSION.padding, body: new Uint8Array(length) }];
}

function twice(extensions: readonly HelloExtension[]): HelloExtension[] {
  return [...extensions, ...extensions.slice(-1)];
}

/** A CLIENT-HELLO of SSL 2 that offers SSL 3.1. */
function sslv2Hello(): Uint8Array {
  const body = concat(Uint8Array.fromHex("010301000600000010" + "00000a00002f"), garbage(16));
  return concat(Uint8Array.of(0x80, body.length), body);
}

function mtproto(secret: Uint8Array, transport: "padded" | "abridged"): Uint8Array {
  const { bytes, up } = makeInit({ transport, dcId: 2 }, secret);
  return concat(bytes, up.update(encodePacket(transport, garbage(40))));
}

function record(type: number, fragment: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(type, 3, 1, fragment.length >> 8, fragment.length & 0xff), fragment);
}

/** Random, but nothing that another probe is for. */
function garbage(length: number): Uint8Array {
  const bytes = new Uint8Array(randomBytes(length));
  if (length > 0) bytes[0] = 0x5a;
  return bytes;
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}
