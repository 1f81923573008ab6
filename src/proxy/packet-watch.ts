import type { Output, Transform } from "../channel/transform.ts";
import { PacketBoundaries } from "../protocol/mtproto/packet-boundaries.ts";
import type { Transport } from "../protocol/mtproto/transport.ts";

/** Networks that freeze flows do so after 16 to 20 KB; what is beyond this got through. */
const WATCHED_BYTES = 64 * 1024;

/** Passes on what Telegram says, decrypted, and knows for its first 64 KiB whether it stopped within a packet. */
export class PacketWatch implements Transform {
  readonly #boundaries: PacketBoundaries;
  #left = WATCHED_BYTES;

  constructor(transport: Transport) {
    this.#boundaries = new PacketBoundaries(transport, "down");
  }

  /** The rest of a packet is still to come, early in the connection. */
  get withinPacket(): boolean {
    return this.#left > 0 && !this.#boundaries.broken && !this.#boundaries.atBoundary;
  }

  push(plain: Uint8Array, output: Output): void {
    if (this.#left > 0) this.#walk(plain);
    output.write(plain);
  }

  #walk(plain: Uint8Array): void {
    this.#left -= plain.length;
    for (let at = 0; at < plain.length; ) at = this.#boundaries.advance(plain, at);
  }
}
