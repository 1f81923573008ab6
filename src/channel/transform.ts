import { release } from "../core/bytes.ts";

/** Takes messages; their bytes are only borrowed for the call. A {@link Channel} is one. */
export interface Output {
  write(message: Uint8Array): void;
}

/**
 * Synchronous bytes -> messages: decryption, encryption, splitting, record layers.
 *
 * A chunk gives any number of messages, none included. Both are borrowed: whoever made a buffer
 * releases it, and whoever needs bytes after the call copies them.
 */
export interface Transform {
  push(chunk: Uint8Array, output: Output): void;
}

/** What a channel's bytes go through in each direction. */
export interface Link {
  /** Client to Telegram. */
  readonly up: Transform;
  /** Telegram to client. */
  readonly down: Transform;
}

/** Passes bytes on as they are. */
export const PASS: Transform = {
  push(chunk, output) {
    output.write(chunk);
  },
};

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

  push(chunk: Uint8Array, output: Output): void {
    const message = this.#cipher.update(chunk);
    output.write(message);
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

/** One transform after the other. */
export function joinTransforms(first: Transform, second: Transform): Transform {
  return new Sequence(first, second);
}

/** Two transforms, one after the other: the output of the first is the input of the second. */
class Sequence implements Transform, Output {
  readonly #first: Transform;
  readonly #second: Transform;
  /** Where the chunk that is being pushed goes in the end. */
  #output: Output | undefined;

  constructor(first: Transform, second: Transform) {
    this.#first = first;
    this.#second = second;
  }

  push(chunk: Uint8Array, output: Output): void {
    this.#output = output;
    this.#first.push(chunk, this);
  }

  write(message: Uint8Array): void {
    if (this.#output !== undefined) this.#second.push(message, this.#output);
  }
}
