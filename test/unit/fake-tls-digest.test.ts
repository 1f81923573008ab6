import { describe, expect, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import { findSigner, signFlight } from "../../src/crypto/fake-tls-digest.ts";
import type { NamedSecret } from "../../src/protocol/mtproto/secret.ts";

const RANDOM_OFFSET = 11;
const TIME = 0x6553_f101;
const MINE: NamedSecret = { name: "mine", key: Uint8Array.from({ length: 16 }, (_, at) => at * 7 + 3) };
const OTHERS: NamedSecret[] = Array.from({ length: 15 }, (_, number) => ({
  name: `other ${number}`,
  key: new Uint8Array(16).fill(number),
}));

interface SignedHello {
  /** The record bytes, with zeros for the random. */
  readonly zeroed: Uint8Array;
  readonly random: Uint8Array;
}

/** What a Telegram client does, by the description and not by our code. */
function signHello(key: Uint8Array, time: number, length = 517): SignedHello {
  const zeroed = new Uint8Array(randomBytes(length));
  zeroed.fill(0, RANDOM_OFFSET, RANDOM_OFFSET + 32);
  const random = new Uint8Array(createHmac("sha256", key).update(zeroed).digest());
  for (const [at, shift] of [0, 8, 16, 24].entries()) {
    random[28 + at] = (random[28 + at] ?? 0) ^ ((time >>> shift) & 0xff);
  }
  return { zeroed, random };
}

describe("findSigner()", () => {
  test("finds the secret and the client's time", () => {
    const { zeroed, random } = signHello(MINE.key, TIME);
    expect(findSigner(zeroed, random, [MINE])).toEqual({ secret: MINE, time: TIME });
  });

  test.each([0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0102_0304])(
    "reads the time %i, little endian and without a sign",
    (time) => {
      const { zeroed, random } = signHello(MINE.key, time);
      expect(findSigner(zeroed, random, [MINE])?.time).toBe(time);
    },
  );

  test("finds one secret of many, wherever it is among them", () => {
    const { zeroed, random } = signHello(MINE.key, TIME, 1_817);
    for (let place = 0; place <= OTHERS.length; place += 1) {
      const secrets = OTHERS.toSpliced(place, 0, MINE);
      expect(findSigner(zeroed, random, secrets)).toEqual({ secret: MINE, time: TIME });
    }
  });

  test("returns undefined when it was another secret, or there is none", () => {
    const { zeroed, random } = signHello(MINE.key, TIME);
    expect(findSigner(zeroed, random, OTHERS)).toBeUndefined();
    expect(findSigner(zeroed, random, [])).toBeUndefined();
  });

  test("returns undefined for a random that is random", () => {
    const { zeroed } = signHello(MINE.key, TIME);
    expect(findSigner(zeroed, randomBytes(32), [MINE, ...OTHERS])).toBeUndefined();
    expect(findSigner(zeroed, new Uint8Array(32), [MINE, ...OTHERS])).toBeUndefined();
  });

  test("notices every bit of the random but those of the time", () => {
    const { zeroed, random } = signHello(MINE.key, TIME);
    for (let bit = 0; bit < 28 * 8; bit += 1) {
      const at = bit >> 3;
      const changed = random.with(at, (random[at] ?? 0) ^ (1 << (bit & 7)));
      expect(findSigner(zeroed, changed, [MINE])).toBeUndefined();
    }
    for (let bit = 0; bit < 32; bit += 1) {
      const at = 28 + (bit >> 3);
      const changed = random.with(at, (random[at] ?? 0) ^ (1 << (bit & 7)));
      expect(findSigner(zeroed, changed, [MINE])?.time).toBe((TIME ^ (1 << bit)) >>> 0);
    }
  });

  test("notices a change of any byte of the hello, and its length", () => {
    const { zeroed, random } = signHello(MINE.key, TIME, 200);
    for (const [at, byte] of zeroed.entries()) {
      expect(findSigner(zeroed.with(at, byte ^ 1), random, [MINE])).toBeUndefined();
    }
    expect(findSigner(zeroed.subarray(0, -1), random, [MINE])).toBeUndefined();
    expect(findSigner(Uint8Array.of(...zeroed, 0), random, [MINE])).toBeUndefined();
  });

  test("reads a random in the middle of a buffer, and leaves both as they are", () => {
    const { zeroed, random } = signHello(MINE.key, TIME);
    const buffer = new Uint8Array(randomBytes(101));
    buffer.set(random, 37);
    const before = { buffer: buffer.slice(), zeroed: zeroed.slice() };
    expect(findSigner(zeroed, buffer.subarray(37, 69), [MINE])?.time).toBe(TIME);
    expect({ buffer, zeroed }).toEqual(before);
  });
});

describe("signFlight()", () => {
  test("writes the digest over the client's random and the flight with zeros for the server's", () => {
    const clientRandom = new Uint8Array(randomBytes(32));
    const flight = new Uint8Array(randomBytes(3_000));
    const zeroed = flight.slice().fill(0, RANDOM_OFFSET, RANDOM_OFFSET + 32);
    const digest = createHmac("sha256", MINE.key)
      .update(Buffer.concat([clientRandom, zeroed]))
      .digest();
    signFlight(flight, clientRandom, MINE.key);
    expect(flight.subarray(RANDOM_OFFSET, RANDOM_OFFSET + 32)).toEqual(new Uint8Array(digest));
    flight.fill(0, RANDOM_OFFSET, RANDOM_OFFSET + 32);
    expect(flight).toEqual(zeroed);
  });

  test("writes the same whatever stood in its place", () => {
    const clientRandom = new Uint8Array(32).fill(9);
    const flights = [0, 0xff].map((byte) =>
      new Uint8Array(200).fill(byte, RANDOM_OFFSET, RANDOM_OFFSET + 32),
    );
    for (const flight of flights) signFlight(flight, clientRandom, MINE.key);
    expect(flights[0]).toEqual(flights[1]);
  });

  test("depends on the client's random and on the key", () => {
    const randoms = [MINE, ...OTHERS].flatMap(({ key }) =>
      [1, 2].map((byte) => {
        const flight = new Uint8Array(200);
        signFlight(flight, new Uint8Array(32).fill(byte), key);
        return flight.subarray(RANDOM_OFFSET, RANDOM_OFFSET + 32).toHex();
      }),
    );
    expect(new Set(randoms).size).toBe(32);
  });
});
