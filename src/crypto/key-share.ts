import { generateKeyPairSync } from "node:crypto";
import { concatBytes } from "../core/bytes.ts";
import { GROUP, type KeyShare } from "../protocol/tls/client-hello.ts";

/** The encapsulation key at the start of a client's X25519MLKEM768 share, in bytes. */
const ENCAPSULATION_KEY_LENGTH = 1184;

/**
 * Makes the server's answer to a client's key share: what a real server sends, of which only the public half is
 * ever needed.
 *
 * X25519 is a fresh public key; X25519MLKEM768 is a shared secret that is really encapsulated for the client's key
 * (1088 bytes), and a fresh X25519 key after it.
 *
 * @returns `undefined` for a group that it cannot answer, or a key that is not one.
 * @see https://www.ietf.org/archive/id/draft-ietf-tls-ecdhe-mlkem-00.html
 */
export async function answerKeyShare({ group, key }: KeyShare): Promise<KeyShare | undefined> {
  if (group === GROUP.x25519) return { group, key: makeX25519Key() };
  if (group !== GROUP.x25519MlKem768) return undefined;
  const ciphertext = await encapsulate(key.subarray(0, ENCAPSULATION_KEY_LENGTH));
  return ciphertext && { group, key: concatBytes([ciphertext, makeX25519Key()]) };
}

/** What Bun's WebCrypto has, and its types do not. @see https://wicg.github.io/webcrypto-modern-algos/ */
interface KeyEncapsulation {
  importKey(
    format: "raw-public",
    key: Uint8Array,
    algorithm: "ML-KEM-768",
    extractable: boolean,
    usages: readonly ["encapsulateBits"],
  ): Promise<CryptoKey>;
  encapsulateBits(algorithm: "ML-KEM-768", key: CryptoKey): Promise<{ readonly ciphertext: ArrayBuffer }>;
}

/** Encapsulates a secret for an ML-KEM-768 key; `undefined` when that is none. */
async function encapsulate(encapsulationKey: Uint8Array): Promise<Uint8Array | undefined> {
  const subtle = crypto.subtle as unknown as KeyEncapsulation;
  try {
    const key = await subtle.importKey("raw-public", encapsulationKey, "ML-KEM-768", true, [
      "encapsulateBits",
    ]);
    return new Uint8Array((await subtle.encapsulateBits("ML-KEM-768", key)).ciphertext);
  } catch (error) {
    if (error instanceof DOMException) return undefined; // coefficients that are no residues: no library makes such
    throw error;
  }
}

/** Returns a fresh X25519 public key, 32 bytes: a point of the curve, as not every 32 bytes are. */
export function makeX25519Key(): Uint8Array {
  const { x = "" } = generateKeyPairSync("x25519").publicKey.export({ format: "jwk" });
  return Uint8Array.fromBase64(x, { alphabet: "base64url" });
}
