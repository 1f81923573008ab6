import { release } from "../core/bytes.ts";

/** Takes one message; the bytes are only borrowed for the call. */
export type Emit = (message: Uint8Array) => void;

/**
 * Synchronous bytes -> messages: decryption, encryption, splitting, record layers.
 *
 * A chunk gives any number of messages, none included. Both are borrowed: whoever made a buffer
 * releases it, and whoever needs bytes after the call copies them.
 */
export interface Transform {
  push(chunk: Uint8Array, emit: Emit): void;
}

/** What a channel's bytes go through in each direction. */
export interface Link {
  /** Client to Telegram. */
  readonly up: Transform;
  /** Telegram to client. */
  readonly down: Transform;
}

/** A running stream cipher: `update` returns as many new bytes as it was given. */
export interface StreamCipher {
  update(bytes: Uint8Array): Uint8Array;
}

/** Runs every chunk through `cipher`. */
export class CipherTransform implements Transform {
  readonly #cipher: StreamCipher;

  constructor(cipher: StreamCipher) {
    this.#cipher = cipher;
  }

  push(chunk: Uint8Array, emit: Emit): void {
    const message = this.#cipher.update(chunk);
    emit(message);
    release(message);
  }
}

/** Puts the client's link before the upstream's: up through both, down through both the other way round. */
export function joinLinks(client: Link, upstream: Link): Link {
  return {
    up: new Sequence(client.up, upstream.up),
    down: new Sequence(upstream.down, client.down),
  };
}

class Sequence implements Transform {
  readonly #first: Transform;
  readonly #second: Transform;
  #emit: Emit | undefined;
  /** Made once per `emit`, which is one per splice: not once per chunk. */
  #between: Emit = () => {};

  constructor(first: Transform, second: Transform) {
    this.#first = first;
    this.#second = second;
  }

  push(chunk: Uint8Array, emit: Emit): void {
    if (emit !== this.#emit) {
      this.#emit = emit;
      this.#between = (message) => this.#second.push(message, emit);
    }
    this.#first.push(chunk, this.#between);
  }
}
