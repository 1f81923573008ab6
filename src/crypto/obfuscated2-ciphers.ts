import { createHash, randomBytes } from "node:crypto";
import {
  INIT_LENGTH,
  type Init,
  isReservedStart,
  KEY_LENGTH,
  KEY_MATERIAL_LENGTH,
  KEY_MATERIAL_OFFSET,
  parseInit,
  TAG_OFFSET,
  writeInit,
} from "../protocol/mtproto/obfuscated2.ts";
import { type AesCtr, createAesCtr } from "./aes-ctr.ts";

/** The two running ciphers of one obfuscated2 stream, named from the side that sent the init. */
export interface Obfuscated2Ciphers {
  /** For what the sender of the init sends; already advanced past the init. */
  readonly outbound: AesCtr;
  /** For what the sender of the init receives. */
  readonly inbound: AesCtr;
}

/** An init that was understood, and the ciphers that go on from it. */
export interface OpenedInit extends Obfuscated2Ciphers {
  readonly init: Init;
}

/**
 * Opens a client's init with a proxy secret.
 *
 * Keys: SHA-256 of 32 key bytes and the secret; the way back uses bytes 8-55 reversed.
 *
 * @param bytes The 64 bytes as received; not changed.
 * @throws {HandshakeError} `BAD_TRANSPORT_TAG` when this is not the secret that it was made with.
 * @see https://core.telegram.org/mtproto/mtproto-transports#transport-obfuscation
 */
export function openClientInit(bytes: Uint8Array, secret: Uint8Array): OpenedInit {
  const forward = keyMaterial(bytes);
  const outbound = createAesCtr(hashKey(forward, secret), forward.subarray(KEY_LENGTH));
  const init = parseInit(outbound.update(bytes));
  const backward = forward.toReversed();
  const inbound = createAesCtr(hashKey(backward, secret), backward.subarray(KEY_LENGTH));
  return { init, outbound, inbound };
}

/** An init of our own, ready to be sent, and the ciphers that go on from it. */
export interface SealedInit extends Obfuscated2Ciphers {
  /** 64 bytes. */
  readonly bytes: Uint8Array;
}

/** Makes the init that opens a stream towards Telegram: keys are used raw, without a secret. */
export function sealServerInit(init: Init): SealedInit {
  const bytes = randomInit();
  writeInit(bytes, init);
  const forward = keyMaterial(bytes);
  const backward = forward.toReversed();
  const outbound = createAesCtr(forward.subarray(0, KEY_LENGTH), forward.subarray(KEY_LENGTH));
  const inbound = createAesCtr(backward.subarray(0, KEY_LENGTH), backward.subarray(KEY_LENGTH));
  bytes.set(outbound.update(bytes).subarray(TAG_OFFSET), TAG_OFFSET);
  return { bytes, outbound, inbound };
}

function randomInit(): Uint8Array {
  for (;;) {
    const bytes = randomBytes(INIT_LENGTH);
    if (!isReservedStart(bytes)) return bytes;
  }
}

function keyMaterial(init: Uint8Array): Uint8Array {
  return init.subarray(KEY_MATERIAL_OFFSET, KEY_MATERIAL_OFFSET + KEY_MATERIAL_LENGTH);
}

function hashKey(material: Uint8Array, secret: Uint8Array): Uint8Array {
  return createHash("sha256").update(material.subarray(0, KEY_LENGTH)).update(secret).digest();
}
