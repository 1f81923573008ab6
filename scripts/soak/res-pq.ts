import { randomBytes } from "node:crypto";

/** Of the question: where its nonce is, and the shortest that has one. */
const NONCE_OFFSET = 24;
const NONCE_LENGTH = 16;

/**
 * Answers `req_pq_multi`, which the proxy asks to find out whether a way works again.
 *
 * @returns `undefined` when `payload` is another message.
 * @see https://core.telegram.org/mtproto/auth_key
 */
export function answerReqPq(payload: Uint8Array): Uint8Array | undefined {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (payload.length < NONCE_OFFSET + NONCE_LENGTH || view.getUint32(20, true) !== 0xbe7e8ef1)
    return undefined;
  const body = Buffer.concat([
    u32(0x05162463),
    payload.subarray(NONCE_OFFSET, NONCE_OFFSET + NONCE_LENGTH),
    randomBytes(NONCE_LENGTH),
    Buffer.from([8, ...randomBytes(8), 0, 0, 0]), // pq
    ...[u32(0x1cb5c415), u32(1), randomBytes(8)], // one fingerprint
  ]);
  const messageId = Buffer.alloc(8);
  messageId.writeBigUInt64LE(((BigInt(Date.now()) << 32n) / 1000n) | 1n);
  return Buffer.concat([Buffer.alloc(8), messageId, u32(body.length), body]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
