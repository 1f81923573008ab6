import { HandshakeError, type HandshakeErrorCode } from "../../core/errors.ts";

/** What is read, and what is thrown when it cannot be. */
export interface CursorSubject {
  readonly code: HandshakeErrorCode;
  /** Stands in messages: "Cannot parse <name>: ...". */
  readonly name: string;
}

/**
 * Reads the fields of a TLS message one after the other, and never beyond its end.
 *
 * All numbers are big-endian. What it returns are views of the bytes it was given, not copies.
 *
 * @see https://www.rfc-editor.org/rfc/rfc8446#section-3
 */
export class ByteCursor {
  readonly #bytes: Uint8Array;
  readonly #subject: CursorSubject;
  #at = 0;

  /** @param bytes Borrowed for as long as the cursor, or what it returned, is used. */
  constructor(bytes: Uint8Array, subject: CursorSubject) {
    this.#bytes = bytes;
    this.#subject = subject;
  }

  /** How many bytes have not been read. */
  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** @throws {HandshakeError} The subject's code when no byte is left. */
  u8(): number {
    return this.#number(1);
  }

  /** @throws {HandshakeError} The subject's code when fewer than 2 bytes are left. */
  u16(): number {
    return this.#number(2);
  }

  /** @throws {HandshakeError} The subject's code when fewer than 3 bytes are left. */
  u24(): number {
    return this.#number(3);
  }

  /**
   * Reads `length` bytes as they are.
   *
   * @throws {HandshakeError} The subject's code when fewer are left.
   */
  take(length: number): Uint8Array {
    if (length > this.left) throw this.error(`${length} bytes claimed where ${this.left} are left`);
    const from = this.#at;
    this.#at += length;
    return this.#bytes.subarray(from, this.#at);
  }

  /**
   * Reads a vector whose length stands before it in one byte.
   *
   * @throws {HandshakeError} The subject's code when it is longer than what is left.
   */
  vector8(): Uint8Array {
    return this.take(this.u8());
  }

  /**
   * Reads a vector whose length stands before it in two bytes.
   *
   * @throws {HandshakeError} The subject's code when it is longer than what is left.
   */
  vector16(): Uint8Array {
    return this.take(this.u16());
  }

  /**
   * Starts reading within a vector that takes up all that is left, its two length bytes included.
   *
   * @param what Names the vector in messages.
   * @throws {HandshakeError} The subject's code when its length does not fit exactly.
   */
  last16(what: string): ByteCursor {
    const inner = this.within(this.vector16());
    this.finish(what);
    return inner;
  }

  /** Starts reading within `bytes`, which came from this cursor. */
  within(bytes: Uint8Array): ByteCursor {
    return new ByteCursor(bytes, this.#subject);
  }

  /**
   * Reads all that is left as numbers of two bytes.
   *
   * @param what Names the list in messages.
   * @throws {HandshakeError} The subject's code unless there is at least one, and no half one.
   */
  u16List(what: string): readonly number[] {
    if (this.left === 0 || this.left % 2 !== 0) throw this.error(`${what} has ${this.left} bytes`);
    const list: number[] = [];
    while (this.left > 0) list.push(this.u16());
    return list;
  }

  /**
   * Declares that this is the end.
   *
   * @param what Names what ends here in messages.
   * @throws {HandshakeError} The subject's code when bytes are left.
   */
  finish(what: string): void {
    if (this.left > 0) throw this.error(`${this.left} bytes are left after ${what}`);
  }

  /** Makes the error for something that this reader cannot see. */
  error(why: string): HandshakeError {
    return new HandshakeError(this.#subject.code, `Cannot parse ${this.#subject.name}: ${why}`);
  }

  #number(length: number): number {
    let value = 0;
    for (const byte of this.take(length)) value = value * 256 + byte;
    return value;
  }
}
