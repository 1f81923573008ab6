import { describe, expect, test } from "bun:test";
import { createAesCtr } from "../../src/crypto/aes-ctr.ts";

// NIST SP 800-38A, F.5.5 CTR-AES256.Encrypt
const KEY = Uint8Array.fromHex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
const IV = Uint8Array.fromHex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
const PLAIN = Uint8Array.fromHex(
  "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51" +
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
);
const CIPHER =
  "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5" +
  "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6";

describe("createAesCtr()", () => {
  test("agrees with NIST's example", () => {
    expect(createAesCtr(KEY, IV).update(PLAIN).toHex()).toBe(CIPHER);
  });

  test("runs on over calls of any length", () => {
    const cipher = createAesCtr(KEY, IV);
    const parts = [0, 1, 3, 20, 21, 64].map((end, at, ends) => PLAIN.subarray(ends[at - 1] ?? 0, end));
    expect(parts.map((part) => cipher.update(part).toHex()).join("")).toBe(CIPHER);
  });

  test("carries the counter over all 16 bytes", () => {
    const wrapping = createAesCtr(KEY, new Uint8Array(16).fill(0xff));
    const fromZero = createAesCtr(KEY, new Uint8Array(16));
    const [, second] = [wrapping.update(new Uint8Array(16)), wrapping.update(new Uint8Array(16))];
    expect(second).toEqual(fromZero.update(new Uint8Array(16)));
  });

  test("returns memory of its own, in which the next call does not write", () => {
    const cipher = createAesCtr(KEY, IV);
    const first = cipher.update(PLAIN.subarray(0, 32));
    const before = first.toHex();
    cipher.update(new Uint8Array(100_000));
    expect(first.toHex()).toBe(before);
  });

  test("leaves what it was given unchanged", () => {
    const given = PLAIN.slice();
    createAesCtr(KEY, IV).update(given);
    expect(given).toEqual(PLAIN);
  });
});
