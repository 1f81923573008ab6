import { createHash, createHmac } from "node:crypto";
import type { Socket } from "node:net";
import { ClientStream, type ClientStreamOptions, openTcp } from "./client-stream.ts";
import {
  type BuiltHello,
  buildHello,
  GROUPS,
  type HelloOptions,
  isGrease,
  ML_KEM,
} from "./fake-tls-hello.ts";
import { concat } from "./packets.ts";
import { nextTurn } from "./waiting.ts";

/** What TDLib and its descendants put into a record at most, in bytes. */
export const TDLIB_RECORD_SIZE = 2878;
/** The longest record that TLS 1.3 allows, in bytes. @see RFC 8446, section 5.2 */
export const MAX_RECORD_SIZE = 16_640;

const RECORD_HEADER = 5;
const CHANGE_CIPHER_SPEC = Uint8Array.of(0x14, 3, 3, 0, 1, 1);
const FLIGHT_START = "160303";
/** TDLib compares these 9 bytes as one: the record of one byte, and the head of the only one after it. */
const FLIGHT_MIDDLE = "140303000101170303";
const DATA_START = "170303";
/** In a ServerHello's handshake message. */
const MESSAGE_RANDOM = 4 + 2;
/** How long a server has to stay silent after its first flight, in milliseconds. */
const SILENCE_MS = 50;

/** How a {@link FakeTlsClient} introduces itself. */
export interface FakeTlsClientOptions extends ClientStreamOptions {
  readonly port: number;
  /** The ClientHello; its secret is the client's. */
  readonly hello?: Omit<HelloOptions, "secret">;
  /** The address of this machine to come from, such as 127.0.0.2. */
  readonly localAddress?: string;
  /** The sizes of the segments that the hello is sent in, the last one repeated. Without: one. */
  readonly segments?: readonly [number, ...number[]];
  /** Whether the ChangeCipherSpec goes out by itself or in one write with the first data. */
  readonly changeCipherSpec?: "alone" | "joined";
  /** The most that goes into a record, in bytes. Without: TDLib's. */
  readonly recordSize?: number;
}

/** What a server answers a ClientHello with, all of it checked. */
export interface ServerFlight {
  readonly bytes: Uint8Array;
  /** Without headers: of the ServerHello, the ChangeCipherSpec and the one of data. */
  readonly recordSizes: readonly [number, number, number];
  readonly cipherSuite: number;
  /** In their order. */
  readonly extensions: readonly number[];
  /** The group of the key share. */
  readonly group: number;
  readonly keyShare: Uint8Array;
}

/** A client of fake TLS as strict as Telegram's own, and stricter; padded intermediate, unless said, as real ones. */
export class FakeTlsClient extends ClientStream {
  readonly hello: BuiltHello;
  /** The server's answer, from {@link FakeTlsClient.readFlight} on. */
  flight: ServerFlight | undefined;
  /** The sizes of the data records after the flight, without headers. */
  readonly recordSizes: number[] = [];
  readonly #options: FakeTlsClientOptions;
  /** Bytes as they came that are not a whole record yet, or of the flight. */
  #raw: Uint8Array[] = [];
  #rawBytes = 0;

  private constructor(socket: Socket, options: FakeTlsClientOptions) {
    super(socket, { ...options, transport: options.transport ?? "padded" });
    this.#options = options;
    this.hello = buildHello({ ...options.hello, secret: options.secret });
  }

  /** Connects, and sends nothing yet. */
  static async connect(options: FakeTlsClientOptions): Promise<FakeTlsClient> {
    const { port, localAddress } = options;
    return new FakeTlsClient(await openTcp(port, { localAddress }), options);
  }

  /** Connects, shakes hands, and sends the init. */
  static async open(options: FakeTlsClientOptions): Promise<FakeTlsClient> {
    const client = await FakeTlsClient.connect(options);
    try {
      await client.sendHello();
      await client.readFlight();
      await client.begin();
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /** What has come that is neither of the flight nor a whole record: all of it, before the flight. */
  get raw(): Uint8Array {
    return this.#joinRaw();
  }

  /** Sends the ClientHello, in the segments of the options. */
  async sendHello(): Promise<void> {
    const { bytes } = this.hello;
    await this.writeSegments(bytes, ...(this.#options.segments ?? [bytes.length]));
  }

  /**
   * Reads the server's first flight, and that nothing follows it.
   *
   * @throws {Error} What a strict client finds fault with.
   */
  async readFlight(limitMs?: number): Promise<ServerFlight> {
    const size = (): number | undefined => flightSize(this.#joinRaw());
    await this.until(() => size() !== undefined || this.ended, "the server's first flight", limitMs);
    const end = size();
    if (end === undefined) throw new Error(`The server ends after ${this.raw.toHex().slice(0, 200)}`);
    await Bun.sleep(SILENCE_MS);
    const all = this.#joinRaw();
    if (all.length > end) throw new Error(`${all.length - end} bytes follow the first flight`);
    this.#setRaw(new Uint8Array());
    this.flight = checkFlight(all, this.hello);
    return this.flight;
  }

  /** Sends the ChangeCipherSpec and the init; with `payload`, a first packet in the same records. */
  async begin(payload?: Uint8Array): Promise<void> {
    const packet = payload === undefined ? new Uint8Array() : this.encryptPacket(payload);
    const records = this.encodeRecords(concat(this.init, packet));
    if (this.#options.changeCipherSpec === "joined") {
      this.write(concat(CHANGE_CIPHER_SPEC, records));
      return;
    }
    this.write(CHANGE_CIPHER_SPEC);
    await nextTurn();
    this.write(records);
  }

  /** Puts bytes into records of data. @param size The most for one; without: that of the options. */
  encodeRecords(bytes: Uint8Array, size = this.#options.recordSize ?? TDLIB_RECORD_SIZE): Uint8Array {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      const part = bytes.subarray(at, at + size);
      parts.push(Uint8Array.of(0x17, 3, 3, part.length >> 8, part.length & 0xff), part);
    }
    return concat(...parts);
  }

  /** Encrypts `payload` and sends it as one packet. @returns Whether there is room for more. */
  sendPacket(payload: Uint8Array, options?: { readonly quickAck?: boolean }): boolean {
    return this.write(this.encodeRecords(this.encryptPacket(payload, options)));
  }

  protected override onData(chunk: Uint8Array): void {
    this.#raw.push(chunk);
    this.#rawBytes += chunk.length;
    if (this.flight !== undefined) this.#takeRecords();
  }

  #takeRecords(): void {
    if (this.error !== undefined || this.#rawBytes < RECORD_HEADER) return;
    const all = this.#joinRaw();
    let at = 0;
    while (at + RECORD_HEADER <= all.length) {
      const start = all.subarray(at, at + 3).toHex();
      const size = ((all[at + 3] ?? 0) << 8) | (all[at + 4] ?? 0);
      if (start !== DATA_START || size === 0 || size > MAX_RECORD_SIZE) {
        this.error = new Error(`Not a record of data: ${all.subarray(at, at + RECORD_HEADER).toHex()}`);
        this[Symbol.dispose]();
        return;
      }
      const end = at + RECORD_HEADER + size;
      if (end > all.length) break;
      this.recordSizes.push(size);
      this.decrypt(all.subarray(at + RECORD_HEADER, end));
      at = end;
    }
    this.#setRaw(all.subarray(at));
  }

  #joinRaw(): Uint8Array {
    const all = concat(...this.#raw);
    this.#setRaw(all);
    return all;
  }

  #setRaw(bytes: Uint8Array): void {
    this.#raw = [bytes];
    this.#rawBytes = bytes.length;
  }
}

/**
 * Checks the server's answer to `hello`, as the strictest clients and observers do.
 *
 * @throws {Error} What is wrong with it.
 */
export function checkFlight(bytes: Uint8Array, hello: BuiltHello): ServerFlight {
  const end = flightSize(bytes);
  if (end !== bytes.length) throw new Error(`The flight is ${end} bytes long, there are ${bytes.length}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const size = view.getUint16(3);
  const message = bytes.subarray(RECORD_HEADER, RECORD_HEADER + size);
  const dataSize = bytes.length - RECORD_HEADER - size - CHANGE_CIPHER_SPEC.length - RECORD_HEADER;
  const random = message.slice(MESSAGE_RANDOM, MESSAGE_RANDOM + 32);
  const zeroed = bytes.slice();
  zeroed.fill(0, RECORD_HEADER + MESSAGE_RANDOM, RECORD_HEADER + MESSAGE_RANDOM + 32);
  const expected = createHmac("sha256", hello.secret).update(hello.random).update(zeroed).digest();
  if (random.toHex() !== expected.toString("hex")) throw new Error("The server's random is not the digest");
  if (dataSize === 0 || dataSize > MAX_RECORD_SIZE) throw new Error(`A record of ${dataSize} bytes`);
  return { bytes, recordSizes: [size, 1, dataSize], ...checkServerHello(message, hello) };
}

/** Whether 32 bytes are the X25519 key of somebody: a point of the curve, written the only way it can be. */
export function isX25519Key(bytes: Uint8Array): boolean {
  const prime = 2n ** 255n - 19n;
  const u = BigInt(`0x${bytes.toReversed().toHex()}`);
  if (bytes.length !== 32 || u >= prime) return false;
  // Euler: a square to the power of (p - 1) / 2 is one.
  let base = (u * ((u * (u + 486_662n) + 1n) % prime)) % prime;
  let power = 1n;
  for (let exponent = (prime - 1n) / 2n; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) power = (power * base) % prime;
    base = (base * base) % prime;
  }
  return power === 1n;
}

/** The length of the three records, or `undefined` while bytes are missing. @throws {Error} On others. */
function flightSize(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  expectStart(bytes, FLIGHT_START);
  if (bytes.length < RECORD_HEADER) return undefined;
  const middle = RECORD_HEADER + view.getUint16(3);
  expectStart(bytes.subarray(middle), FLIGHT_MIDDLE);
  const length = middle + FLIGHT_MIDDLE.length / 2;
  if (bytes.length < length + 2) return undefined;
  const end = length + 2 + view.getUint16(length);
  return bytes.length < end ? undefined : end;
}

function expectStart(bytes: Uint8Array, expected: string): void {
  const start = bytes.subarray(0, expected.length / 2).toHex();
  if (!expected.startsWith(start)) throw new Error(`The server sends ${start} where ${expected} belongs`);
}

/** Reads a ServerHello front to back. */
function checkServerHello(
  message: Uint8Array,
  hello: BuiltHello,
): Pick<ServerFlight, "cipherSuite" | "extensions" | "group" | "keyShare"> {
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  if (view.getUint32(0) !== ((2 << 24) | (message.length - 4))) {
    throw new Error("The first record is not one ServerHello");
  }
  if (view.getUint16(4) !== 0x0303) throw new Error("The version of the ServerHello is not TLS 1.2's");
  let at = MESSAGE_RANDOM + 32;
  const idLength = view.getUint8(at);
  const sessionId = message.subarray(at + 1, at + 1 + idLength);
  if (sessionId.toHex() !== hello.sessionId.toHex()) throw new Error("The session id is not echoed");
  at += 1 + idLength;
  const cipherSuite = view.getUint16(at);
  if (!hello.cipherSuites.includes(cipherSuite)) throw new Error(`Not offered: ${cipherSuite.toString(16)}`);
  if (isGrease(cipherSuite)) throw new Error("A GREASE value is chosen as the cipher suite");
  if (cipherSuite >> 8 !== 0x13) throw new Error(`Not of TLS 1.3: ${cipherSuite.toString(16)}`);
  if (view.getUint8(at + 2) !== 0) throw new Error("The ServerHello compresses");
  at += 3;
  if (view.getUint16(at) !== message.length - at - 2)
    throw new Error("The extensions do not end the message");
  at += 2;
  const bodies = new Map<number, Uint8Array>();
  while (at < message.length) {
    const type = view.getUint16(at);
    if (bodies.has(type)) throw new Error(`The extension ${type} comes twice`);
    const from = at + 4;
    at = from + view.getUint16(at + 2);
    if (at > message.length) throw new Error(`The extension ${type} is too long`);
    bodies.set(type, message.subarray(from, at));
  }
  if (bodies.get(0x2b)?.toHex() !== "0304") throw new Error("The version that is chosen is not TLS 1.3");
  for (const type of bodies.keys()) {
    if (type !== 0x2b && type !== 0x33)
      throw new Error(`The extension ${type} has no place in a ServerHello`);
  }
  return { cipherSuite, extensions: [...bodies.keys()], ...checkKeyShare(bodies.get(0x33), hello) };
}

function checkKeyShare(
  body: Uint8Array | undefined,
  hello: BuiltHello,
): Pick<ServerFlight, "group" | "keyShare"> {
  if (body === undefined || body.length < 4) throw new Error("There is no key share");
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const group = view.getUint16(0);
  const keyShare = body.slice(4);
  if (!hello.groups.includes(group))
    throw new Error(`No share was offered of the group ${group.toString(16)}`);
  if (view.getUint16(2) !== keyShare.length) throw new Error("The key share does not end its extension");
  const hybrid = group === GROUPS.x25519MlKem768;
  const cipherLength = hybrid ? ML_KEM.cipherText : 0;
  if (keyShare.length !== cipherLength + 32) throw new Error(`A key share of ${keyShare.length} bytes`);
  const point = keyShare.subarray(cipherLength);
  if (!isX25519Key(point)) throw new Error("The X25519 share is not a point of the curve");
  hello.keys.agree(point);
  if (hybrid) checkCipherText(keyShare.subarray(0, cipherLength), hello);
  return { group, keyShare };
}

/** ML-KEM never fails: of a ciphertext that was not made with the key, the secret is a hash of its own. */
function checkCipherText(cipherText: Uint8Array, hello: BuiltHello): void {
  const shared = hello.keys.decapsulate(cipherText);
  const refused = createHash("shake256", { outputLength: 32 })
    .update(hello.keys.rejection)
    .update(cipherText);
  if (shared.toHex() === refused.digest("hex")) throw new Error("The ciphertext was not made with our key");
}
