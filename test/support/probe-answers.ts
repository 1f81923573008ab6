import { MtprotoServer } from "./mtproto-server.ts";
import type { Packet } from "./packets.ts";
import type { StubPeer } from "./stub-peer.ts";

/** Key id, message id and length: what stands before an unencrypted message. */
const PLAIN_HEADER_LENGTH = 20;
const KEY_ID_LENGTH = 8;

/** Answers a question for a key, as probes ask it, like Telegram, and every other packet with itself. */
export function answerProbes(): (packet: Packet, peer: StubPeer) => Iterable<Uint8Array> {
  const server = new MtprotoServer();
  return (packet, peer) => (isPlain(packet) ? server.onPacket(packet, peer) : [packet.payload]);
}

/** An unencrypted message has no key id. */
function isPlain({ payload }: Packet): boolean {
  const keyId = payload.subarray(0, KEY_ID_LENGTH);
  return payload.length >= PLAIN_HEADER_LENGTH && keyId.every((byte) => byte === 0);
}
