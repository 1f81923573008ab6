import type { Channel } from "../channel/channel.ts";
import { Splice } from "../channel/splice.ts";
import { PASS } from "../channel/transform.ts";

/** Longer than sites keep a quiet connection, so that it is the site that ends it, in milliseconds. */
const IDLE_MS = 5 * 60_000;
/** One side has ended, and the other does not take what is left, in milliseconds. */
const CLOSING_MS = 30_000;

/** A stranger and the cover site, joined byte for byte. */
export class Mask {
  readonly ended: Promise<unknown>;
  /** How long nothing has crossed it, in milliseconds. */
  quietMs = 0;
  readonly #splice: Splice;
  readonly #counts = { up: 0, down: 0 };
  #lastTotal = 0;
  #lastQueued = 0;

  /**
   * @param early What the stranger has sent so far, and what the site has, if it spoke first.
   */
  constructor(
    client: Channel,
    site: Channel,
    early: { readonly fromClient: Uint8Array; readonly fromSite: Uint8Array },
  ) {
    if (early.fromClient.length > 0) site.write(early.fromClient);
    if (early.fromSite.length > 0) client.write(early.fromSite);
    this.#splice = new Splice({
      client,
      upstream: site,
      link: { up: PASS, down: PASS },
      counts: this.#counts,
      passResets: true,
    });
    this.ended = this.#splice.ended;
  }

  /** Ends it when nothing crossed it for too long. @param elapsedMs Since the last look. */
  look(elapsedMs: number): void {
    const { up, down } = this.#counts;
    const { queuedBytes: queued, closing } = this.#splice;
    const quiet = up + down === this.#lastTotal && queued === this.#lastQueued;
    this.quietMs = quiet ? this.quietMs + elapsedMs : 0;
    this.#lastTotal = up + down;
    this.#lastQueued = queued;
    if (this.quietMs >= (closing ? CLOSING_MS : IDLE_MS)) this.destroy();
  }

  destroy(): void {
    this.#splice.destroy();
  }
}

/** The masks that there are. Full, it makes room by ending the one that has been quiet for longest. */
export class Masks {
  readonly #all = new Set<Mask>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#all.size;
  }

  add(mask: Mask): void {
    if (this.#all.size >= this.#most) {
      let quietest: Mask | undefined;
      for (const other of this.#all) if (other.quietMs > (quietest?.quietMs ?? -1)) quietest = other;
      if (quietest !== undefined) {
        this.#all.delete(quietest);
        quietest.destroy();
      }
    }
    this.#all.add(mask);
  }

  delete(mask: Mask): void {
    this.#all.delete(mask);
  }
}
