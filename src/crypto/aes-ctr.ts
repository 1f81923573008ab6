import { createCipheriv } from "node:crypto";

/** A running AES-256-CTR keystream; encryption and decryption are the same. */
export interface AesCtr {
  /** Returns as many bytes as given, in a buffer of their own, and moves the counter on. */
  update(bytes: Uint8Array): Uint8Array;
}

/** Starts AES-256-CTR. @param key 32 bytes. @param iv 16 bytes, the first counter block. */
export function createAesCtr(key: Uint8Array, iv: Uint8Array): AesCtr {
  return createCipheriv("aes-256-ctr", key, iv);
}
