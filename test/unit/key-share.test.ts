import { describe, expect, test } from "bun:test";
import { createHash, createPublicKey, diffieHellman, generateKeyPairSync } from "node:crypto";
import { ml_kem768 as mlKem } from "@noble/post-quantum/ml-kem.js";
import { answerKeyShare, makeX25519Key } from "../../src/crypto/key-share.ts";
import { GROUP, type KeyShare } from "../../src/protocol/tls/client-hello.ts";

const P = 2n ** 255n - 19n;

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = base % P, left = exponent; left > 0n; left >>= 1n) {
    if ((left & 1n) === 1n) result = (result * square) % P;
    square = (square * square) % P;
  }
  return result;
}

/** Whether 32 bytes are the u of a point of Curve25519 (Euler's criterion), as opposed to one of its twist. */
function isOnCurve(key: Uint8Array): boolean {
  const u = BigInt(`0x${key.toReversed().toHex()}`) & (2n ** 255n - 1n);
  const square = (((u * u) % P) * u + 486_662n * u * u + u) % P;
  return power(square, (P - 1n) / 2n) === 1n;
}

/** Whether 32 bytes are a key that node:crypto agrees on a secret with. */
function isUsable(key: Uint8Array): boolean {
  const jwk = { kty: "OKP", crv: "X25519", x: key.toBase64({ alphabet: "base64url", omitPadding: true }) };
  const publicKey = createPublicKey({ key: jwk, format: "jwk" });
  return diffieHellman({ privateKey: generateKeyPairSync("x25519").privateKey, publicKey }).length === 32;
}

/** A client's share for X25519MLKEM768, with the secret half of its ML-KEM key. */
function makeHybridShare(): { share: KeyShare; secretKey: Uint8Array } {
  const { publicKey, secretKey } = mlKem.keygen();
  const key = new Uint8Array(1_216);
  key.set(publicKey);
  key.set(makeX25519Key(), 1_184);
  return { share: { group: GROUP.x25519MlKem768, key }, secretKey };
}

/** What decapsulation returns for a ciphertext that nobody has encapsulated. @see FIPS 203, algorithm 18 */
const rejection = (cipherText: Uint8Array, secretKey: Uint8Array): string =>
  createHash("shake256", { outputLength: 32 })
    .update(secretKey.subarray(-32))
    .update(cipherText)
    .digest("hex");

describe("makeX25519Key()", () => {
  test("makes points of the curve, each another one", () => {
    const keys = Array.from({ length: 24 }, makeX25519Key);
    expect(keys.filter((key) => key.length === 32 && isOnCurve(key))).toHaveLength(24);
    expect(new Set(keys.map((key) => key.toHex())).size).toBe(24);
    expect(keys.every(isUsable)).toBe(true);
  });

  test("would not, if it took random bytes: half of them are points of the twist", () => {
    const points = Array.from({ length: 64 }, () => crypto.getRandomValues(new Uint8Array(32)));
    expect(points.every(isOnCurve)).toBe(false);
  });
});

describe("answerKeyShare()", () => {
  test("answers X25519 with a fresh point of the curve", async () => {
    const share = { group: GROUP.x25519, key: makeX25519Key() };
    const answers = [await answerKeyShare(share), await answerKeyShare(share)];
    for (const answer of answers) {
      expect(answer?.group).toBe(GROUP.x25519);
      expect(answer?.key).toHaveLength(32);
      expect(answer !== undefined && isOnCurve(answer.key)).toBe(true);
    }
    expect(answers[0]?.key).not.toEqual(answers[1]?.key);
  });

  test("answers X25519MLKEM768 with what the client can decapsulate, and a point of the curve", async () => {
    const { share, secretKey } = makeHybridShare();
    const before = share.key.slice();
    const answer = await answerKeyShare(share);
    expect(answer?.group).toBe(GROUP.x25519MlKem768);
    const key = answer?.key ?? new Uint8Array(0);
    expect(key).toHaveLength(1_120);
    const cipherText = key.slice(0, 1_088);
    expect(mlKem.decapsulate(cipherText, secretKey).toHex()).not.toBe(rejection(cipherText, secretKey));
    const spoilt = cipherText.with(5, (cipherText[5] ?? 0) ^ 1);
    expect(mlKem.decapsulate(spoilt, secretKey).toHex()).toBe(rejection(spoilt, secretKey));
    expect(isOnCurve(key.subarray(1_088))).toBe(true);
    expect(share.key).toEqual(before);
  });

  test("encapsulates anew for every connection", async () => {
    const { share } = makeHybridShare();
    const [one, other] = [await answerKeyShare(share), await answerKeyShare(share)];
    expect(one?.key.subarray(0, 1_088)).not.toEqual(other?.key.subarray(0, 1_088));
    expect(one?.key.subarray(1_088)).not.toEqual(other?.key.subarray(1_088));
  });

  test("returns undefined for a key whose coefficients are no residues", async () => {
    const { share } = makeHybridShare();
    const group = GROUP.x25519MlKem768;
    expect(await answerKeyShare({ group, key: share.key.slice().fill(0xff, 0, 3) })).toBeUndefined();
    // 3329, the modulus itself, as the first coefficient of 12 bits.
    const modulus = share.key.with(0, 3_329 & 0xff).with(1, ((share.key[1] ?? 0) & 0xf0) | (3_329 >> 8));
    expect(await answerKeyShare({ group, key: modulus })).toBeUndefined();
  });

  test.each([0, 32, 1_183])("returns undefined for a key of %i bytes", async (length) => {
    const key = makeHybridShare().share.key.slice(0, length);
    expect(await answerKeyShare({ group: GROUP.x25519MlKem768, key })).toBeUndefined();
  });

  test.each([
    ["secp256r1", GROUP.secp256r1],
    ["secp384r1", GROUP.secp384r1],
    ["a draft's X25519Kyber768", 0x6399],
    ["GREASE", 0x0a0a],
  ])("returns undefined for %s", async (_, group) => {
    expect(await answerKeyShare({ group, key: new Uint8Array(65).fill(4) })).toBeUndefined();
  });
});
