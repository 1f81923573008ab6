import { type HelloSigner, isSigned, makeHello } from "./client-hello.ts";

/** The record types of a first flight, in their order: clients refuse any other. */
const FLIGHT = [0x16, 0x14, 0x17];
const APPLICATION_DATA = 0x17;
const HEADER_LENGTH = 5;
const MAX_FRAGMENT = 16_384 + 256;
/** TDLib's records are never longer. */
const RECORD_LENGTH = 2_878;
const CHANGE_CIPHER_SPEC = Uint8Array.of(0x14, 3, 3, 0, 1, 1);

/** Whole records at the start of a stream. */
export interface FlightShape {
  readonly types: readonly number[];
  /** Of the fragments of type 17, headers not included. */
  readonly encryptedLengths: readonly number[];
  /** Bytes that they take, headers included. */
  readonly length: number;
}

/** Returns which whole records `bytes` begins with. @throws {Error} On what is no record. */
export function measureFlight(bytes: Buffer): FlightShape {
  const types: number[] = [];
  const encryptedLengths: number[] = [];
  let at = 0;
  while (bytes.length - at >= HEADER_LENGTH) {
    const length = recordLength(bytes, at);
    if (bytes.length - at - HEADER_LENGTH < length) break;
    const type = bytes.readUInt8(at);
    types.push(type);
    if (type === APPLICATION_DATA) encryptedLengths.push(length);
    at += HEADER_LENGTH + length;
  }
  return { types, encryptedLengths, length: at };
}

/** A client's side of fake TLS, as TDLib does it: the hello, the answer to it, and records both ways. */
export class FakeTlsStream {
  /** What the connection begins with. */
  readonly hello: Buffer;
  readonly #key: Uint8Array;
  readonly #onFragment: (fragment: Buffer) => void;
  readonly #answered = Promise.withResolvers<void>();
  /** As much as there is of the first flight; `undefined` after it. */
  #flight: Buffer | undefined = Buffer.alloc(0);
  readonly #header = Buffer.alloc(HEADER_LENGTH);
  #headerBytes = 0;
  /** Bytes of the current record that have not come. */
  #left = 0;
  #changedCipher = false;

  /** @param onFragment Hears what records hold, in pieces that end where chunks and records do. */
  constructor(signer: HelloSigner, onFragment: (fragment: Buffer) => void) {
    this.hello = makeHello(signer);
    this.#key = signer.key;
    this.#onFragment = onFragment;
    this.#answered.promise.catch(() => {});
  }

  /** Resolves when the server has answered as somebody who has the key. */
  get answered(): Promise<void> {
    return this.#answered.promise;
  }

  /** Whoever waits for the answer will not get it. */
  fail(error: Error): void {
    this.#answered.reject(error);
  }

  /** @throws {Error} When the server is none, or does not go on as one. */
  push(chunk: Buffer): void {
    if (this.#flight !== undefined) {
      this.#readFlight(Buffer.concat([this.#flight, chunk]));
      return;
    }
    let at = 0;
    while (at < chunk.length) {
      if (this.#left === 0) {
        at = this.#readHeader(chunk, at);
        continue;
      }
      const end = Math.min(at + this.#left, chunk.length);
      this.#left -= end - at;
      this.#onFragment(chunk.subarray(at, end));
      at = end;
    }
  }

  /** Returns `bytes` as records, with the change_cipher_spec before the first. */
  wrap(bytes: Buffer): Buffer {
    const before = this.#changedCipher ? 0 : CHANGE_CIPHER_SPEC.length;
    const records = Math.ceil(bytes.length / RECORD_LENGTH);
    const wrapped = Buffer.allocUnsafe(before + records * HEADER_LENGTH + bytes.length);
    if (before > 0) wrapped.set(CHANGE_CIPHER_SPEC);
    this.#changedCipher = true;
    let to = before;
    for (let from = 0; from < bytes.length; from += RECORD_LENGTH) {
      const length = Math.min(RECORD_LENGTH, bytes.length - from);
      wrapped.writeUIntBE(0x17_03_03, to, 3);
      wrapped.writeUInt16BE(length, to + 3);
      bytes.copy(wrapped, to + HEADER_LENGTH, from, from + length);
      to += HEADER_LENGTH + length;
    }
    return wrapped;
  }

  #readFlight(bytes: Buffer): void {
    const { types, length } = measureFlight(bytes);
    if (types.length < FLIGHT.length) {
      this.#flight = bytes;
      return;
    }
    if (!FLIGHT.every((type, at) => types[at] === type) || length !== bytes.length) {
      throw new Error(`Cannot accept first flight: records of types ${types}, ${bytes.length} bytes`);
    }
    if (!isSigned(bytes, this.hello, this.#key))
      throw new Error("Cannot accept first flight: it is not signed");
    this.#flight = undefined;
    this.#answered.resolve();
  }

  /** @returns Where the fragment starts, or the end of `chunk`. */
  #readHeader(chunk: Buffer, from: number): number {
    const end = Math.min(from + HEADER_LENGTH - this.#headerBytes, chunk.length);
    this.#headerBytes += chunk.copy(this.#header, this.#headerBytes, from, end);
    if (this.#headerBytes < HEADER_LENGTH) return end;
    this.#headerBytes = 0;
    this.#left = recordLength(this.#header, 0);
    if (this.#header.readUInt8(0) === APPLICATION_DATA) return end;
    throw new Error(`Cannot read record: its header is ${this.#header.toString("hex")}`);
  }
}

function recordLength(bytes: Buffer, at: number): number {
  const length = bytes.readUInt16BE(at + 3);
  if (bytes.readUInt16BE(at + 1) === 0x0303 && length > 0 && length <= MAX_FRAGMENT) return length;
  throw new Error(
    `Cannot read record: its header is ${bytes.subarray(at, at + HEADER_LENGTH).toString("hex")}`,
  );
}
