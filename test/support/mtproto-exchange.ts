import { createDiffieHellman, type DiffieHellman, randomBytes } from "node:crypto";
import { decryptIge, encryptIge, openRsaPad, type ServerKey, sha1, temporaryKey } from "./mtproto-crypto.ts";
import { concat } from "./packets.ts";
import { TlReader, tlBytes, tlInt, tlLong } from "./tl.ts";

/** How far a client has come. */
export interface MtprotoProgress {
  /** Clients asked for `resPQ`. */
  started: number;
  /** Authorization keys that were agreed on. */
  keys: number;
  /** Encrypted calls that were answered, pings included. */
  calls: number;
}

/** The numbers of the TL constructors that are needed here. */
const TL = {
  reqPq: 0x60469778,
  reqPqMulti: 0xbe7e8ef1,
  resPq: 0x05162463,
  reqDhParams: 0xd712e4be,
  serverDhParamsOk: 0xd0e8075c,
  serverDhInnerData: 0xb5890dba,
  setClientDhParams: 0xf5045f1f,
  dhGenOk: 0x3bcbf734,
  vector: 0x1cb5c415,
} as const;

/** Telegram's own prime, which clients know to be safe. */
const DH_PRIME = Uint8Array.fromHex(
  "c71caeb9c6b1c9048e6c522f70f13f73980d40238e3e21c14934d037563d930f" +
    "48198a0aa7c14058229493d22530f4dbfa336f6e0ac925139543aed44cce7c37" +
    "20fd51f69458705ac68cd4fe6b6b13abdc9746512969328454f18faf8c595f64" +
    "2477fe96bb2a941d5bcd1d4ac8cc49880708fa9b378e3c4f3a9060bee67cf9a4" +
    "a4a695811051907e162753b56b0f6b410dba74d8a84b2a14b3144e0ef1284754" +
    "fd17ed950d5965b4b9dd46582db1178d169c6bc465b0d6ff9ca3928fef5b9ae4" +
    "e418fc15e83ebea0f87fa9ff5eed70050ded2849f47bf959d956850ce929851f" +
    "0d8115f635b105ee2e4e15d04b2454bf6f4fadf034b10403119cd8e3b92fcc5b",
);
const GENERATOR = 3;
/** 1229739323 * 1402015859. */
const PQ = Uint8Array.fromHex("17ed48941a08f981");

/** The server's side of one client's key exchange. @see https://core.telegram.org/mtproto/auth_key */
export class KeyExchange {
  readonly #serverKey: ServerKey;
  readonly #progress: MtprotoProgress;
  readonly #onKey: (key: Uint8Array) => void;
  readonly #serverNonce = new Uint8Array(randomBytes(16));
  #newNonce: Uint8Array = new Uint8Array(32);
  #dh: DiffieHellman | undefined;

  constructor(serverKey: ServerKey, progress: MtprotoProgress, onKey: (key: Uint8Array) => void) {
    this.#serverKey = serverKey;
    this.#progress = progress;
    this.#onKey = onKey;
  }

  /** Returns the answer to a message of the client. @throws {Error} On anything that is not the next step. */
  answer(body: Uint8Array): Uint8Array {
    const reader = new TlReader(body);
    const kind = reader.int();
    const nonce = reader.raw(16);
    if (kind === TL.reqPq || kind === TL.reqPqMulti) return this.#sendPq(nonce);
    if (reader.raw(16).toHex() !== this.#serverNonce.toHex()) throw new Error("The server nonce is another");
    if (kind === TL.reqDhParams) return this.#sendParameters(nonce, reader);
    if (kind === TL.setClientDhParams) return this.#agree(nonce, reader);
    throw new Error(`A key exchange has no ${kind.toString(16)}`);
  }

  #sendPq(nonce: Uint8Array): Uint8Array {
    this.#progress.started += 1;
    const fingerprints = concat(tlInt(TL.vector), tlInt(1), tlLong(this.#serverKey.fingerprint));
    return concat(tlInt(TL.resPq), nonce, this.#serverNonce, tlBytes(PQ), fingerprints);
  }

  #sendParameters(nonce: Uint8Array, reader: TlReader): Uint8Array {
    reader.bytes(); // p
    reader.bytes(); // q
    reader.long(); // fingerprint
    const inner = new TlReader(openRsaPad(reader.bytes(), this.#serverKey));
    inner.int();
    for (let field = 0; field < 3; field += 1) inner.bytes(); // pq, p, q
    inner.raw(32); // both nonces
    this.#newNonce = inner.raw(32);
    this.#dh = createDiffieHellman(Buffer.from(DH_PRIME), GENERATOR);
    const ours = leftPad(this.#dh.generateKeys());
    const time = tlInt(Math.floor(Date.now() / 1000));
    const parameters = concat(tlInt(GENERATOR), tlBytes(DH_PRIME), tlBytes(ours), time);
    const answer = concat(tlInt(TL.serverDhInnerData), nonce, this.#serverNonce, parameters);
    const hashed = concat(sha1(answer), answer);
    const { key, iv } = temporaryKey(this.#newNonce, this.#serverNonce);
    const encrypted = encryptIge(concat(hashed, randomBytes(-hashed.length & 15)), key, iv);
    return concat(tlInt(TL.serverDhParamsOk), nonce, this.#serverNonce, tlBytes(encrypted));
  }

  #agree(nonce: Uint8Array, reader: TlReader): Uint8Array {
    if (this.#dh === undefined) throw new Error("Parameters come before their answer");
    const { key, iv } = temporaryKey(this.#newNonce, this.#serverNonce);
    const inner = new TlReader(decryptIge(reader.bytes(), key, iv));
    inner.raw(20 + 4 + 32); // hash, constructor, both nonces
    inner.long(); // retry id
    const authKey = leftPad(this.#dh.computeSecret(inner.bytes()));
    this.#onKey(authKey);
    const hash = sha1(this.#newNonce, Uint8Array.of(1), sha1(authKey).subarray(0, 8)).subarray(4);
    return concat(tlInt(TL.dhGenOk), nonce, this.#serverNonce, hash);
  }
}

function leftPad(number: Uint8Array): Uint8Array {
  return concat(new Uint8Array(256 - number.length), number);
}
