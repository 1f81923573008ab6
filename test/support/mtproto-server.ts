import { randomBytes } from "node:crypto";
import {
  decryptIge,
  encryptIge,
  messageKey,
  messageKeys,
  type ServerKey,
  sha1,
  testServerKey,
} from "./mtproto-crypto.ts";
import { KeyExchange, type MtprotoProgress } from "./mtproto-exchange.ts";
import { concat, type Packet } from "./packets.ts";
import type { StubPeer } from "./stub-peer.ts";
import { TlReader, tlBytes, tlInt, tlLong } from "./tl.ts";

/** The error that answers every call but a ping. */
export const STUB_ERROR = "STUB_DATA_CENTRE";

/** The numbers of the TL constructors that are needed here. */
const TL = {
  container: 0x73f1f8dc,
  acks: 0x62d6b459,
  ping: 0x7abe77ec,
  pingDelayDisconnect: 0xf3427b8c,
  pong: 0x347773c5,
  rpcResult: 0xf35c6d01,
  rpcError: 0x2144ca19,
  futureSalts: 0xb921bd04,
  httpWait: 0x9299359f,
  stateRequest: 0xda69fb52,
} as const;

/** Calls of the protocol itself that may stay without an answer. */
const UNANSWERED: readonly number[] = [TL.acks, TL.futureSalts, TL.httpWait, TL.stateRequest];

/**
 * The part of a Telegram data centre that clients meet first: the key exchange, and encrypted messages.
 *
 * Keys are kept for all connections, so a client may come back with one.
 *
 * @see https://core.telegram.org/mtproto/auth_key
 */
export class MtprotoServer {
  readonly progress: MtprotoProgress = { started: 0, keys: 0, calls: 0 };
  readonly #serverKey: ServerKey = testServerKey();
  /** By key id. */
  readonly #keys = new Map<bigint, Uint8Array>();
  readonly #exchanges = new WeakMap<StubPeer, KeyExchange>();
  #lastMessageId = 0n;

  /** For {@link StubDc.onPacket}. */
  readonly onPacket = ({ payload }: Packet, connection: StubPeer): Uint8Array[] => {
    if (payload.length < 20) return [];
    const reader = new TlReader(payload);
    const keyId = reader.long();
    if (keyId !== 0n) return this.#onEncrypted(keyId, payload);
    reader.long();
    const body = reader.raw(reader.int());
    return [this.#wrapPlain(this.#exchange(connection).answer(body))];
  };

  #exchange(connection: StubPeer): KeyExchange {
    let exchange = this.#exchanges.get(connection);
    if (exchange === undefined) {
      exchange = new KeyExchange(this.#serverKey, this.progress, (key) => this.#store(key));
      this.#exchanges.set(connection, exchange);
    }
    return exchange;
  }

  #store(key: Uint8Array): void {
    this.#keys.set(keyIdOf(key), key);
    this.progress.keys += 1;
  }

  #wrapPlain(body: Uint8Array): Uint8Array {
    return concat(tlLong(0n), tlLong(this.#nextMessageId()), tlInt(body.length), body);
  }

  #onEncrypted(keyId: bigint, payload: Uint8Array): Uint8Array[] {
    const authKey = this.#keys.get(keyId);
    if (authKey === undefined) return [new Uint8Array(Int32Array.of(-404).buffer)];
    const received = payload.slice(8, 24);
    const { key, iv } = messageKeys(authKey, received, "client");
    const encrypted = payload.subarray(24, payload.length - ((payload.length - 24) % 16)); // without padding
    const plain = decryptIge(encrypted, key, iv);
    if (messageKey(authKey, plain, "client").toHex() !== received.toHex()) {
      throw new Error("An encrypted message does not have its message key");
    }
    const reader = new TlReader(plain);
    const head = reader.raw(16); // salt and session id, which go back as they are
    const messageId = reader.long();
    reader.int();
    const answers = this.#answerMessage(messageId, reader.raw(reader.int()));
    // As Telegram does: what is ready at once goes in one packet.
    const [first] = answers;
    if (first === undefined) return [];
    return [this.#wrapEncrypted(authKey, head, answers.length === 1 ? first : this.#contain(answers))];
  }

  /** Puts several messages into one. */
  #contain(bodies: readonly Uint8Array[]): Uint8Array {
    const messages = bodies.map((body) =>
      concat(tlLong(this.#nextMessageId()), tlInt(1), tlInt(body.length), body),
    );
    return concat(tlInt(TL.container), tlInt(bodies.length), ...messages);
  }

  #answerMessage(messageId: bigint, body: Uint8Array): Uint8Array[] {
    const reader = new TlReader(body);
    const kind = reader.int();
    if (kind === TL.container) {
      const count = reader.int();
      return Array.from({ length: count }, () => {
        const id = reader.long();
        reader.int();
        return this.#answerMessage(id, reader.raw(reader.int()));
      }).flat();
    }
    if (UNANSWERED.includes(kind)) return [];
    this.progress.calls += 1;
    if (kind === TL.ping || kind === TL.pingDelayDisconnect) {
      return [concat(tlInt(TL.pong), tlLong(messageId), tlLong(reader.long()))];
    }
    const error = concat(tlInt(TL.rpcError), tlInt(400), tlBytes(new TextEncoder().encode(STUB_ERROR)));
    return [concat(tlInt(TL.rpcResult), tlLong(messageId), error)];
  }

  #wrapEncrypted(authKey: Uint8Array, head: Uint8Array, body: Uint8Array): Uint8Array {
    const message = concat(head, tlLong(this.#nextMessageId()), tlInt(1), tlInt(body.length), body);
    const padding = 12 + (-(message.length + 12) & 15);
    const plain = concat(message, randomBytes(padding));
    const ownKey = messageKey(authKey, plain, "server");
    const { key, iv } = messageKeys(authKey, ownKey, "server");
    return concat(tlLong(keyIdOf(authKey)), ownKey, encryptIge(plain, key, iv));
  }

  /** Unix time in the upper half; the lowest bits say that it answers a client's message. */
  #nextMessageId(): bigint {
    const now = (BigInt(Date.now()) * 2n ** 32n) / 1000n;
    const candidate = (now & ~3n) | 1n;
    this.#lastMessageId = candidate > this.#lastMessageId ? candidate : this.#lastMessageId + 4n;
    return this.#lastMessageId;
  }
}

function keyIdOf(authKey: Uint8Array): bigint {
  return new DataView(sha1(authKey).buffer).getBigUint64(12, true);
}
