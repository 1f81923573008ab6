import { describe, expect, test } from "bun:test";
import {
  CipherTransform,
  joinLinks,
  joinTransforms,
  type Output,
  PASS,
  type Transform,
} from "../../src/channel/transform.ts";
import { toOutput } from "../support/memory-channel.ts";

/** Emits every byte as a message of its own, with `mark` before it. */
function markEach(mark: number): Transform {
  return {
    push(chunk, output) {
      for (const byte of chunk) output.write(Uint8Array.of(mark, byte));
    },
  };
}

/** Gathers pairs of bytes; an odd one waits for the next chunk. */
class Pairs implements Transform {
  #odd: number | undefined;

  push(chunk: Uint8Array, output: Output): void {
    for (const byte of chunk) {
      if (this.#odd === undefined) this.#odd = byte;
      else {
        output.write(Uint8Array.of(this.#odd, byte));
        this.#odd = undefined;
      }
    }
  }
}

/** Everything that `transform` writes for `chunks`, copied, since messages are only borrowed. */
function run(transform: Transform, chunks: readonly Uint8Array[]): number[][] {
  const messages: number[][] = [];
  const output = toOutput((message) => messages.push([...message]));
  for (const chunk of chunks) transform.push(chunk, output);
  return messages;
}

/** Adds a running number to every byte. */
class Counter {
  #next = 0;

  update(bytes: Uint8Array): Uint8Array {
    return bytes.map((byte) => (byte + this.#next++) & 0xff);
  }
}

describe("CipherTransform", () => {
  test("writes one message per chunk, through the running cipher", () => {
    const transform = new CipherTransform(new Counter());
    expect(run(transform, [Uint8Array.of(10, 10), Uint8Array.of(10), Uint8Array.of(0, 0)])).toEqual([
      [10, 11],
      [12],
      [3, 4],
    ]);
  });

  test("gives back the memory of a large message after the call", () => {
    const transform = new CipherTransform(new Counter());
    const messages: Uint8Array[] = [];
    const lengths: number[] = [];
    const output = toOutput((message) => {
      lengths.push(message.length);
      messages.push(message);
    });
    transform.push(new Uint8Array(64 * 1024), output);
    expect(lengths).toEqual([64 * 1024]);
    expect(messages.map(({ length }) => length)).toEqual([0]);
  });

  test("leaves the chunk to its owner", () => {
    const chunk = new Uint8Array(64 * 1024).fill(1);
    new CipherTransform(new Counter()).push(
      chunk,
      toOutput(() => {}),
    );
    expect(chunk.length).toBe(64 * 1024);
    expect(chunk.every((byte) => byte === 1)).toBe(true);
  });
});

describe("PASS", () => {
  test("writes every chunk as it is, and leaves it to its owner", () => {
    const chunk = new Uint8Array(64 * 1024).fill(1);
    const messages: Uint8Array[] = [];
    const output = toOutput((message) => messages.push(message));
    PASS.push(chunk, output);
    PASS.push(Uint8Array.of(2), output);
    expect(messages).toEqual([chunk, Uint8Array.of(2)]);
    expect(messages[0]).toBe(chunk);
    expect(chunk.length).toBe(64 * 1024);
  });
});

describe("joinLinks()", () => {
  const link = joinLinks({ up: markEach(1), down: markEach(2) }, { up: markEach(3), down: markEach(4) });

  test("takes up through the client's link, then the upstream's", () => {
    expect(run(link.up, [Uint8Array.of(9)])).toEqual([
      [3, 1],
      [3, 9],
    ]);
  });

  test("takes down through the upstream's link, then the client's", () => {
    expect(run(link.down, [Uint8Array.of(9)])).toEqual([
      [2, 4],
      [2, 9],
    ]);
  });

  test("passes every message of the first on to the second, and none when there is none", () => {
    const pairs = joinLinks({ up: new Pairs(), down: new Pairs() }, { up: markEach(7), down: markEach(8) });
    expect(run(pairs.up, [Uint8Array.of(1)])).toEqual([]);
    expect(run(pairs.up, [Uint8Array.of(2, 3, 4)])).toEqual([
      [7, 1],
      [7, 2],
      [7, 3],
      [7, 4],
    ]);
  });

  test("writes to whoever pushed last", () => {
    const joined = joinLinks({ up: markEach(1), down: markEach(1) }, { up: markEach(2), down: markEach(2) });
    const first = run(joined.up, [Uint8Array.of(5)]);
    const second = run(joined.up, [Uint8Array.of(6)]);
    expect(first).toHaveLength(2);
    expect(second).toEqual([
      [2, 1],
      [2, 6],
    ]);
  });
});

describe("joinTransforms()", () => {
  test("gives every message of the first to the second, in order", () => {
    const joined = joinTransforms(new Pairs(), markEach(7));
    expect(run(joined, [Uint8Array.of(1), Uint8Array.of(2, 3)])).toEqual([
      [7, 1],
      [7, 2],
    ]);
  });

  test("leaves the chunk to its owner", () => {
    const chunk = new Uint8Array(64 * 1024).fill(1);
    const joined = joinTransforms(new CipherTransform(new Counter()), new CipherTransform(new Counter()));
    const sums: number[] = [];
    joined.push(
      chunk,
      toOutput((message) => sums.push(message[3] ?? 0)),
    );
    expect(sums).toEqual([1 + 3 + 3]);
    expect(chunk.every((byte) => byte === 1)).toBe(true);
  });
});
