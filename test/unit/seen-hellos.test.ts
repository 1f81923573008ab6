import { describe, expect, test } from "bun:test";
import { type HelloStore, SeenHellos } from "../../src/proxy/seen-hellos.ts";

/** A random that no other number has. */
function randomOf(number: number): Uint8Array {
  const random = new Uint8Array(32).fill(0xab);
  new DataView(random.buffer).setUint32(12, number);
  return random;
}

describe("SeenHellos.claim()", () => {
  test("gives a hello to the first who asks, and to nobody after that", () => {
    const seen = new SeenHellos();
    expect(seen.claim(randomOf(1), 0)).toBe(true);
    expect(seen.claim(randomOf(1), 0)).toBe(false);
    expect(seen.claim(randomOf(1), 239)).toBe(false);
    expect(seen.size).toBe(1);
  });

  test("tells hellos apart", () => {
    const seen = new SeenHellos();
    const taken = Array.from({ length: 1_000 }, (_, number) => seen.claim(randomOf(number), 0));
    expect(taken.every((claimed) => claimed)).toBe(true);
    expect(seen.size).toBe(1_000);
  });

  test("keeps no view of the random, whose buffer may be gone later", () => {
    const seen = new SeenHellos();
    const buffer = new Uint8Array(10_000);
    const random = buffer.subarray(100, 132);
    random.set(randomOf(7));
    expect(seen.claim(random, 0)).toBe(true);
    buffer.buffer.transfer(0);
    expect(seen.claim(randomOf(7), 1)).toBe(false);
  });

  test("remembers a hello for four minutes while others come", () => {
    const seen = new SeenHellos();
    seen.claim(randomOf(0), 1_000);
    for (let second = 1; second < 240; second += 1) seen.claim(randomOf(second), 1_000 + second);
    expect(seen.claim(randomOf(0), 1_239.9)).toBe(false);
  });

  // A hello from a clock 120 s ahead is in time until ours, which counts whole seconds, shows 241 s more.
  test("remembers a hello to the end of the last second in which its time is near enough", () => {
    const seen = new SeenHellos();
    expect(seen.claim(randomOf(0), 1_000)).toBe(true);
    seen.claim(randomOf(1), 1_240.5);
    expect(seen.claim(randomOf(0), 1_240.9)).toBe(false);
  });

  // The random's last 4 bytes are under no digest: whoever has a hello can move its time on.
  test("refuses a copy whose time was moved on, however much later", () => {
    const seen = new SeenHellos();
    expect(seen.claim(randomOf(0), 1_000)).toBe(true);
    seen.claim(randomOf(1), 11_000);
    expect(seen.claim(randomOf(0).fill(0x77, 28), 11_001)).toBe(false);
  });

  test("knows a hello by what cannot be changed: all but the time", () => {
    const seen = new SeenHellos();
    expect(seen.claim(randomOf(0), 1_000)).toBe(true);
    expect(seen.claim(randomOf(0).fill(0x77, 28), 1_001)).toBe(false);
  });

  test("forgets the oldest, one for one, when it is full", () => {
    const seen = new SeenHellos({ most: 3 });
    for (const number of [1, 2, 3, 4]) expect(seen.claim(randomOf(number), number)).toBe(true);
    expect(seen.size).toBe(3);
    for (const number of [2, 3, 4]) expect(seen.claim(randomOf(number), 5)).toBe(false);
    expect(seen.claim(randomOf(1), 6)).toBe(true);
    expect(seen.size).toBe(3);
    expect(seen.claim(randomOf(2), 7)).toBe(true);
  });

  test("makes no room for a hello that it refuses", () => {
    const seen = new SeenHellos({ most: 2 });
    seen.claim(randomOf(1), 0);
    seen.claim(randomOf(2), 0);
    for (let again = 0; again < 10; again += 1) seen.claim(randomOf(2), 1);
    expect(seen.claim(randomOf(1), 2)).toBe(false);
    expect(seen.size).toBe(2);
  });

  test("stays within its bound under a flood", () => {
    const seen = new SeenHellos({ most: 1_000 });
    for (let number = 0; number < 20_000; number += 1) seen.claim(randomOf(number), number / 10_000);
    expect(seen.size).toBe(1_000);
  });
});

/** What is kept, in memory. */
class MemoryStore implements HelloStore {
  bytes: Uint8Array = new Uint8Array(0);
  replaced = 0;
  /** Nothing can be written. */
  full = false;

  read(): Uint8Array {
    return this.bytes;
  }

  append(key: Uint8Array): boolean {
    if (!this.full) this.bytes = Buffer.concat([this.bytes, key]);
    return !this.full;
  }

  replace(keys: Uint8Array): boolean {
    this.replaced += 1;
    if (!this.full) this.bytes = Uint8Array.from(keys);
    return !this.full;
  }
}

describe("SeenHellos with a store", () => {
  const hello = (number: number): Uint8Array => new Uint8Array(32).fill(number);

  test("knows after a restart what was answered before it, before the answer goes out", () => {
    const store = new MemoryStore();
    new SeenHellos({ store }).claim(hello(1), 5);
    const again = new SeenHellos({ store });
    expect([again.claim(hello(1), 0), again.claim(hello(2), 0), again.size]).toEqual([false, true, 2]);
  });

  test("keeps no more than there may be, the newest, and mends an end that a crash has cut", () => {
    const store = new MemoryStore();
    const seen = new SeenHellos({ store });
    for (const number of [1, 2, 3]) seen.claim(hello(number), 0);
    store.append(new Uint8Array(7));
    const again = new SeenHellos({ most: 2, store });
    expect([again.size, store.bytes.length, store.replaced]).toEqual([2, 32, 1]);
    expect([again.claim(hello(2), 0), again.claim(hello(3), 0)]).toEqual([false, false]);
  });

  test("does not grow for ever while it runs", () => {
    const store = new MemoryStore();
    const seen = new SeenHellos({ most: 3, store });
    for (let number = 0; number < 50; number += 1) {
      seen.claim(hello(number), 0);
      expect(store.bytes.length).toBeLessThanOrEqual(6 * 16);
    }
    expect(new SeenHellos({ store }).claim(hello(49), 0)).toBe(false);
  });

  test("writes all of them again some time after they could not be kept, and not at every hello", () => {
    const store = new MemoryStore();
    const seen = new SeenHellos({ store });
    seen.claim(hello(1), 0);
    store.full = true;
    for (let number = 2; number < 9; number += 1) seen.claim(hello(number), number);
    expect([store.bytes.length, store.replaced]).toEqual([16, 0]);
    seen.claim(hello(9), 70); // it is tried, and in vain
    store.full = false;
    seen.claim(hello(10), 71);
    expect([store.bytes.length, store.replaced]).toEqual([16, 1]);
    seen.claim(hello(11), 140);
    expect([store.bytes.length, store.replaced]).toEqual([11 * 16, 2]);
    seen.claim(hello(12), 141);
    const again = new SeenHellos({ store });
    expect(again.size).toBe(12);
    for (let number = 1; number < 13; number += 1) expect(again.claim(hello(number), 0)).toBe(false);
  });
});
