import {
  constants,
  createCipheriv,
  createDecipheriv,
  createHash,
  generateKeyPairSync,
  type KeyObject,
  privateDecrypt,
} from "node:crypto";
import { concat } from "./packets.ts";
import { tlBytes } from "./tl.ts";

const BLOCK = 16;

/** The SHA-1 of `parts`, one after the other. */
export function sha1(...parts: readonly Uint8Array[]): Uint8Array {
  return hash("sha1", parts);
}

/** The SHA-256 of `parts`, one after the other. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return hash("sha256", parts);
}

function hash(algorithm: string, parts: readonly Uint8Array[]): Uint8Array {
  const running = createHash(algorithm);
  for (const part of parts) running.update(part);
  return new Uint8Array(running.digest());
}

/**
 * AES-256 in IGE mode, which OpenSSL's ciphers do not have.
 *
 * @param iv 32 bytes: the ciphertext block before the first, then the plaintext block before the first.
 */
export function encryptIge(plain: Uint8Array, key: Uint8Array, iv: Uint8Array): Uint8Array {
  const aes = createCipheriv("aes-256-ecb", key, null).setAutoPadding(false);
  return ige(plain, iv.subarray(0, BLOCK), iv.subarray(BLOCK), (block) => aes.update(block));
}

/** The inverse of {@link encryptIge}. */
export function decryptIge(encrypted: Uint8Array, key: Uint8Array, iv: Uint8Array): Uint8Array {
  const aes = createDecipheriv("aes-256-ecb", key, null).setAutoPadding(false);
  return ige(encrypted, iv.subarray(BLOCK), iv.subarray(0, BLOCK), (block) => aes.update(block));
}

/** `out[i] = aes(in[i] ^ out[i-1]) ^ in[i-1]`, both ways. */
function ige(
  input: Uint8Array,
  lastOut: Uint8Array,
  lastIn: Uint8Array,
  aes: (block: Uint8Array) => Uint8Array,
): Uint8Array {
  const output = new Uint8Array(input.length);
  let before = lastOut;
  let beforeIn = lastIn;
  for (let at = 0; at < input.length; at += BLOCK) {
    const block = input.subarray(at, at + BLOCK);
    before = xor(aes(xor(block, before)), beforeIn);
    beforeIn = block;
    output.set(before, at);
  }
  return output;
}

/** Combines two arrays of the same length. */
export function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, at) => byte ^ (b[at] ?? 0));
}

/** The RSA key of a test data centre. */
export interface ServerKey {
  readonly privateKey: KeyObject;
  /** PKCS#1, as clients carry Telegram's keys. */
  readonly publicPem: string;
  readonly modulus: Uint8Array;
  /** The lower 64 bits of the SHA-1 of modulus and exponent, which name the key. */
  readonly fingerprint: bigint;
}

let sharedKey: ServerKey | undefined;

/** The least number of 16 hexadecimal digits: clients look keys up by text, and some drop leading zeros. */
const LEAST_FINGERPRINT = 2n ** 60n;

/** Returns the key that the stub's key exchange uses; made once per process. */
export function testServerKey(): ServerKey {
  while (sharedKey === undefined || sharedKey.fingerprint < LEAST_FINGERPRINT) sharedKey = makeServerKey();
  return sharedKey;
}

function makeServerKey(): ServerKey {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const { n = "", e = "" } = publicKey.export({ format: "jwk" });
  const modulus = new Uint8Array(Buffer.from(n, "base64url"));
  const exponent = new Uint8Array(Buffer.from(e, "base64url"));
  const digest = sha1(tlBytes(modulus), tlBytes(exponent));
  const fingerprint = new DataView(digest.buffer).getBigUint64(12, true);
  const publicPem = publicKey.export({ format: "pem", type: "pkcs1" }).toString();
  return { privateKey, publicPem, modulus, fingerprint };
}

/**
 * Undoes RSA_PAD.
 *
 * @returns The 192 bytes of padded data. @throws {Error} When they do not have the hash that came with them.
 * @see https://core.telegram.org/mtproto/auth_key#41-rsa-paddata-server-public-key-mentioned-above-is-implemented-as-follows
 */
export function openRsaPad(encrypted: Uint8Array, { privateKey }: ServerKey): Uint8Array {
  const raw = privateDecrypt({ key: privateKey, padding: constants.RSA_NO_PADDING }, encrypted);
  const aesEncrypted = new Uint8Array(raw.subarray(32));
  const key = xor(new Uint8Array(raw.subarray(0, 32)), sha256(aesEncrypted));
  const dataWithHash = decryptIge(aesEncrypted, key, new Uint8Array(32));
  const data = dataWithHash.slice(0, 192).reverse();
  if (sha256(key, data).toHex() !== dataWithHash.subarray(192).toHex()) {
    throw new Error("The data encrypted with RSA does not have its hash");
  }
  return data;
}

/** The key and iv that protect the Diffie-Hellman parameters. */
export function temporaryKey(
  newNonce: Uint8Array,
  serverNonce: Uint8Array,
): { key: Uint8Array; iv: Uint8Array } {
  const first = sha1(newNonce, serverNonce);
  const second = sha1(serverNonce, newNonce);
  const third = sha1(newNonce, newNonce);
  return {
    key: concat(first, second.subarray(0, 12)),
    iv: concat(second.subarray(12), third, newNonce.subarray(0, 4)),
  };
}

/**
 * The key and iv of an MTProto 2.0 message.
 *
 * @see https://core.telegram.org/mtproto/description#defining-aes-key-and-initialization-vector
 */
export function messageKeys(
  authKey: Uint8Array,
  messageKey: Uint8Array,
  from: "client" | "server",
): { key: Uint8Array; iv: Uint8Array } {
  const x = from === "client" ? 0 : 8;
  const a = sha256(messageKey, authKey.subarray(x, x + 36));
  const b = sha256(authKey.subarray(40 + x, 76 + x), messageKey);
  return {
    key: concat(a.subarray(0, 8), b.subarray(8, 24), a.subarray(24)),
    iv: concat(b.subarray(0, 8), a.subarray(8, 24), b.subarray(24)),
  };
}

/** The `msg_key` of a message's plaintext, padding included. */
export function messageKey(authKey: Uint8Array, plain: Uint8Array, from: "client" | "server"): Uint8Array {
  const x = from === "client" ? 0 : 8;
  return sha256(authKey.subarray(88 + x, 120 + x), plain).subarray(8, 24);
}
