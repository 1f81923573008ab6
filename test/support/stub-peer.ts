import { createHash } from "node:crypto";
import { type InitFields, openInit, type Streams } from "./obfuscated2.ts";
import { encodePacket, type Packet } from "./packets.ts";
import type { SendOptions } from "./server-websocket.ts";
import { Condition } from "./waiting.ts";

/** What a {@link StubPeer} tells the stub that owns it. */
export interface PeerListener {
  onInit(): void;
  /** Returns payloads to answer with. */
  onPacket(packet: Packet): Iterable<Uint8Array>;
  onClosed(): void;
}

/** Starts that tell an observer, or Telegram itself, that a stream is something else. */
const RESERVED_STARTS = /^(?:ef|48454144|504f5354|47455420|4f505449|dddddddd|eeeeeeee|16030102|.{8}00000000)/;

/** A data centre's end of one obfuscated2 stream, whatever carries it. */
export abstract class StubPeer {
  listener: PeerListener = { onInit: ignore, onPacket: () => [], onClosed: ignore };
  /** What the init said, once it has come. */
  init: InitFields | undefined;
  /** The decrypted bytes after the init as they came, unless they are only counted. */
  readonly messages: Uint8Array[] = [];
  readonly packets: Packet[] = [];
  /** What a Telegram data centre would not have accepted. */
  readonly violations: string[] = [];
  /** Decrypted bytes after the init. */
  received = 0;
  readonly #keepMessages: boolean;
  readonly #hash = createHash("sha256");
  readonly #changes = new Condition();
  #streams: Streams | undefined;

  /** @param keepMessages Whether messages and packets are kept, or only counted and hashed. */
  constructor(keepMessages: boolean) {
    this.#keepMessages = keepMessages;
  }

  /** The connection is gone, both ways. */
  abstract get closed(): boolean;
  /** More than a little of what was sent is still in this process. */
  abstract get full(): boolean;
  /** Sends `bytes` more, and nothing at all from then on. */
  abstract stallAfter(bytes: number): void;
  abstract stopReading(): void;
  abstract startReading(): void;
  /** Sends a FIN, and goes on reading. */
  abstract end(): void;
  /** Breaks the connection with a TCP reset. */
  abstract reset(): void;
  /** Drops the connection. */
  abstract destroy(): void;
  protected abstract transmit(bytes: Uint8Array, options: SendOptions): boolean;

  /** The SHA-256 of the decrypted bytes so far. */
  get digest(): string {
    return this.#hash.copy().digest("hex");
  }

  /** Waits until `holds()`, looking whenever something has happened here. */
  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  /** Encrypts `plain` and sends it, as one message where there are messages. @returns Whether there is room. */
  send(plain: Uint8Array, options: SendOptions = {}): boolean {
    if (this.#streams === undefined) throw new Error("Nothing can be sent before the init");
    return this.transmit(this.#streams.down.update(plain), options);
  }

  /** Sends `payload` as one packet. */
  sendPacket(payload: Uint8Array, options?: SendOptions): boolean {
    if (this.init === undefined) throw new Error("Nothing can be sent before the init");
    return this.send(encodePacket(this.init.transport, payload), options);
  }

  /** Waits until what was sent is out of this process. */
  async drained(limitMs?: number): Promise<void> {
    await this.until(() => this.closed || !this.full, "the stub's queue drains", limitMs);
  }

  /** Looks again at what is waited for. */
  protected changed(): void {
    this.#changes.changed();
  }

  protected onInit(bytes: Uint8Array): void {
    if (RESERVED_STARTS.test(bytes.toHex())) this.violations.push("an init with a reserved start");
    const opened = openInit(bytes, undefined);
    this.#streams = opened;
    this.init = { transport: opened.transport, dcId: opened.dcId };
    this.listener.onInit();
  }

  /** Decrypts what came after the init, and counts it. */
  protected decrypt(bytes: Uint8Array): Uint8Array {
    if (this.#streams === undefined) throw new Error("Nothing can be read before the init");
    const plain = this.#streams.up.update(bytes);
    this.received += plain.length;
    this.#hash.update(plain);
    if (this.#keepMessages) this.messages.push(plain);
    return plain;
  }

  protected onPacket(packet: Packet): void {
    if (this.#keepMessages) this.packets.push(packet);
    for (const reply of this.listener.onPacket(packet)) this.sendPacket(reply);
  }
}

function ignore(): void {}
