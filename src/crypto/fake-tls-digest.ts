import { createHmac, timingSafeEqual } from "node:crypto";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { SERVER_RANDOM_OFFSET } from "../protocol/tls/server-hello.ts";

/** Bytes of the random that must be the digest as it is; the last 4 hold the time besides. */
const PROVED_LENGTH = 28;
const RANDOM_LENGTH = 32;

/** Who made a ClientHello, and when. */
export interface HelloSignature {
  readonly secret: NamedSecret;
  /** The client's clock, in seconds since 1970. */
  readonly time: number;
}

/**
 * Finds the secret that a ClientHello was made with; `undefined` when it was none of them.
 *
 * The random of a hello is HMAC-SHA256 over all of it with the random zeroed, and its last 4 bytes are XORed with
 * the time, little endian. Every secret is tried in constant time, whether or not one before it fits.
 *
 * @param zeroed The record bytes as they were received, but for the random, which is zero.
 * @param random 32 bytes.
 */
export function findSigner(
  zeroed: Uint8Array,
  random: Uint8Array,
  secrets: readonly NamedSecret[],
): HelloSignature | undefined {
  const proved = random.subarray(0, PROVED_LENGTH);
  const end = new DataView(random.buffer, random.byteOffset + PROVED_LENGTH, 4).getUint32(0, true);
  let found: HelloSignature | undefined;
  for (const secret of secrets) {
    const digest = createHmac("sha256", secret.key).update(zeroed).digest();
    const time = (digest.readUInt32LE(PROVED_LENGTH) ^ end) >>> 0;
    if (timingSafeEqual(digest.subarray(0, PROVED_LENGTH), proved)) found = { secret, time };
  }
  return found;
}

/**
 * Writes the server's random into a first flight: HMAC-SHA256 over the client's random and the whole flight with
 * its own random zeroed, by which the client knows that we have the secret, too.
 *
 * @param flight As `encodeFirstFlight` makes it; changed in place.
 */
export function signFlight(flight: Uint8Array, clientRandom: Uint8Array, key: Uint8Array): void {
  flight.fill(0, SERVER_RANDOM_OFFSET, SERVER_RANDOM_OFFSET + RANDOM_LENGTH);
  flight.set(createHmac("sha256", key).update(clientRandom).update(flight).digest(), SERVER_RANDOM_OFFSET);
}
