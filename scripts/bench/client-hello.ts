import { createHmac, generateKeyPairSync, randomBytes, timingSafeEqual } from "node:crypto";

/**
 * The ClientHellos that Telegram's clients send through fake TLS, written without anything of `src`: what both
 * misread alike would not be found otherwise.
 *
 * `short` has 517 bytes, as older clients', with a key share for X25519. `hybrid` has about 1,750, as current ones',
 * with one for X25519MLKEM768 before it and something in the place of ECH.
 */
export type HelloShape = "short" | "hybrid";

/** What a ClientHello is signed with, and the name that it asks for. */
export interface HelloSigner {
  readonly key: Uint8Array;
  readonly domain: string;
  readonly shape: HelloShape;
}

/** Where the random is, in hellos and in the answer. */
const RANDOM_OFFSET = 11;
const RANDOM_END = 43;
const SESSION_ID_OFFSET = 44;
const SESSION_ID_END = 76;
/** Bytes of the random that are the digest as it is; the others hold the time besides. */
const TIME_OFFSET = 28;
const SHORT_LENGTH = 517;

/** One for each name and shape: only random and session id differ between hellos, and the proxy does not mind. */
const templates = new Map<string, Buffer>();

/**
 * Makes a hello that a proxy accepts once.
 *
 * @param timeS What the client's clock says, in seconds since 1970.
 */
export function makeHello({ key, domain, shape }: HelloSigner, timeS = Date.now() / 1000): Buffer {
  const name = `${shape} ${domain}`;
  const template = templates.get(name) ?? encodeTemplate(domain, shape);
  templates.set(name, template);
  const hello = Buffer.from(template);
  hello.set(randomBytes(SESSION_ID_END - SESSION_ID_OFFSET), SESSION_ID_OFFSET);
  const digest = createHmac("sha256", key).update(hello).digest();
  digest.writeUInt32LE((digest.readUInt32LE(TIME_OFFSET) ^ Math.floor(timeS)) >>> 0, TIME_OFFSET);
  hello.set(digest, RANDOM_OFFSET);
  return hello;
}

/** Makes a hello of the same shape that nobody has signed. */
export function makeForeignHello(signer: HelloSigner): Buffer {
  const hello = makeHello(signer);
  hello.set(randomBytes(RANDOM_END - RANDOM_OFFSET), RANDOM_OFFSET);
  return hello;
}

/** Whether `flight` is the answer of somebody who has the key, not of a web site. */
export function isSigned(flight: Buffer, hello: Buffer, key: Uint8Array): boolean {
  if (flight.length < RANDOM_END) return false;
  const zeroed = Buffer.from(flight).fill(0, RANDOM_OFFSET, RANDOM_END);
  const digest = createHmac("sha256", key).update(hello.subarray(RANDOM_OFFSET, RANDOM_END)).update(zeroed);
  return timingSafeEqual(digest.digest(), flight.subarray(RANDOM_OFFSET, RANDOM_END));
}

function encodeTemplate(domain: string, shape: HelloShape): Buffer {
  const before = encodeRecord(domain, shape, []);
  const missing = SHORT_LENGTH - before.length - 4;
  if (shape === "hybrid" || missing < 0) return before;
  return encodeRecord(domain, shape, extension(21, Buffer.alloc(missing)));
}

function encodeRecord(domain: string, shape: HelloShape, padding: readonly number[]): Buffer {
  const x25519 = generateKeyPairSync("x25519")
    .publicKey.export({ format: "der", type: "spki" })
    .subarray(-32);
  const shares = [
    ...u16(0x0a0a),
    ...vector16([0]),
    ...share(HYBRID, hybridKey(x25519)),
    ...share(X25519, x25519),
  ];
  const short = [...share(X25519, x25519)];
  const groups = [X25519, 0x17, 0x18];
  const extensions = [
    ...extension(0, vector16([0, ...vector16([...Buffer.from(domain)])])),
    ...extension(23, []),
    ...extension(0xff01, [0]),
    ...extension(10, vector16((shape === "hybrid" ? [0x0a0a, HYBRID, ...groups] : groups).flatMap(u16))),
    ...extension(11, [1, 0]),
    ...extension(35, []),
    ...extension(
      16,
      vector16([...vector8([...Buffer.from("h2")]), ...vector8([...Buffer.from("http/1.1")])]),
    ),
    ...extension(5, [1, 0, 0, 0, 0]),
    ...extension(13, vector16([0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601].flatMap(u16))),
    ...extension(18, []),
    ...extension(51, vector16(shape === "hybrid" ? shares : short)),
    ...extension(45, [1, 1]),
    ...extension(43, vector8([0x0304, 0x0303].flatMap(u16))),
    ...(shape === "hybrid"
      ? extension(0xfe0d, [0, 0, 1, 0, 1, 7, ...vector16(noise(32)), ...vector16(noise(208))])
      : []),
    ...padding,
  ];
  const suites = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x9c, 0x9d, 0x2f, 0x35,
  ];
  const body = [
    ...[3, 3, ...Buffer.alloc(32)],
    ...vector8([...Buffer.alloc(32)]),
    ...vector16(suites.flatMap(u16)),
    ...vector8([0]),
    ...vector16(extensions),
  ];
  return Buffer.from([0x16, 3, 1, ...vector16([1, 0, ...vector16(body)])]);
}

const X25519 = 0x1d;
const HYBRID = 0x11ec;

/** An encapsulation key of ML-KEM-768, and an X25519 key after it. */
function hybridKey(x25519: Uint8Array): Uint8Array {
  const { publicKey } = generateKeyPairSync("ml-kem-768" as "x25519"); // its types do not know it yet
  return Buffer.concat([publicKey.export({ format: "der", type: "spki" }).subarray(-1184), x25519]);
}

function share(group: number, key: Uint8Array): readonly number[] {
  return [...u16(group), ...vector16([...key])];
}

function noise(length: number): readonly number[] {
  return [...randomBytes(length)];
}

function extension(type: number, data: Iterable<number>): readonly number[] {
  return [...u16(type), ...vector16([...data])];
}

function vector8(bytes: readonly number[]): readonly number[] {
  return [bytes.length, ...bytes];
}

function vector16(bytes: readonly number[]): readonly number[] {
  return [...u16(bytes.length), ...bytes];
}

function u16(value: number): readonly number[] {
  return [value >> 8, value & 0xff];
}
