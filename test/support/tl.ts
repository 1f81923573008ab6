/** Reads TL-encoded values in order. @see https://core.telegram.org/mtproto/serialize */
export class TlReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  int(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  long(): bigint {
    this.#at += 8;
    return this.#view.getBigUint64(this.#at - 8, true);
  }

  raw(length: number): Uint8Array {
    this.#at += length;
    return this.#bytes.slice(this.#at - length, this.#at);
  }

  /** A `string` or `bytes`: its length, its bytes, zeros up to a multiple of 4. */
  bytes(): Uint8Array {
    const first = this.#view.getUint8(this.#at);
    const long = first === 254;
    const length = long ? this.int() >>> 8 : first;
    if (!long) this.#at += 1;
    const value = this.raw(length);
    this.#at += -(length + (long ? 0 : 1)) & 3;
    return value;
  }
}

/** A 32-bit number: constructors, `int`, counts. */
export function tlInt(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** A 64-bit number. */
export function tlLong(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}

/** A `string` or `bytes`. */
export function tlBytes(value: Uint8Array): Uint8Array {
  const { length } = value;
  const header = length < 254 ? [length] : [254, length & 0xff, (length >> 8) & 0xff, length >> 16];
  const out = new Uint8Array((header.length + length + 3) & ~3);
  out.set(header);
  out.set(value, header.length);
  return out;
}
