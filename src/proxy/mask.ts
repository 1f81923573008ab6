import type { Channel } from "../channel/channel.ts";
import { type ByteCounts, Splice } from "../channel/splice.ts";
import { PASS } from "../channel/transform.ts";

/** Longer than sites keep a quiet connection, so that it is the site that ends it, in milliseconds. */
const IDLE_MS = 20 * 60_000;

/** A stranger and the cover site, joined byte for byte. */
export class Mask implements SiteUser {
  readonly ended: Promise<unknown>;
  /** How long nothing has crossed it, in milliseconds. */
  quietMs = 0;
  readonly #client: Channel;
  readonly #splice: Splice;
  readonly #counts: ByteCounts;
  #lastTotal = 0;
  #lastQueued = 0;

  /**
   * @param early What the stranger has sent so far, and what the site has, if it spoke first.
   * @param counts Counts what crosses it.
   */
  constructor(
    client: Channel,
    site: Channel,
    early: { readonly fromClient: Uint8Array; readonly fromSite: Uint8Array },
    counts: ByteCounts,
  ) {
    this.#client = client;
    this.#counts = counts;
    counts.up += early.fromClient.length;
    counts.down += early.fromSite.length;
    if (early.fromClient.length > 0) site.write(early.fromClient);
    if (early.fromSite.length > 0) client.write(early.fromSite);
    this.#splice = new Splice({
      client,
      upstream: site,
      link: { up: PASS, down: PASS },
      counts,
      passResets: true,
    });
    this.ended = this.#splice.ended;
  }

  /** Bytes that wait to be sent, on both sides. */
  get queuedBytes(): number {
    return this.#splice.queuedBytes;
  }

  /** Ends it when nothing crossed it for too long. @param elapsedMs Since the last look. */
  look(elapsedMs: number): void {
    const { up, down } = this.#counts;
    const { queuedBytes: queued } = this.#splice;
    const quiet = up + down === this.#lastTotal && queued === this.#lastQueued;
    this.quietMs = quiet ? this.quietMs + elapsedMs : 0;
    this.#lastTotal = up + down;
    this.#lastQueued = queued;
    if (this.quietMs >= IDLE_MS) this.destroy();
  }

  /** Ends it as a server ends a connection that it does not want to keep: with a FIN. */
  destroy(): void {
    this.#client.end();
    this.#splice.destroy();
  }
}

/** Who has a connection to a cover site, or makes one. */
export interface SiteUser {
  /** How long it has been of no use to anybody, in milliseconds. */
  readonly quietMs: number;
  /** Ends it. */
  destroy(): void;
}

/** All connections to cover sites, of which there are not more than `most`. */
export class SiteUsers {
  readonly #all = new Set<SiteUser>();
  /** How many there may be; fewer than there are takes effect as they leave. */
  most: number;

  constructor(most: number) {
    this.most = most;
  }

  get size(): number {
    return this.#all.size;
  }

  get full(): boolean {
    return this.#all.size >= this.most;
  }

  /** Full, it makes room by ending the one that has been quiet for longest, and of those the oldest. */
  add(user: SiteUser): void {
    if (this.#all.has(user)) return;
    if (this.full) {
      let quietest: SiteUser | undefined;
      for (const other of this.#all) if (other.quietMs > (quietest?.quietMs ?? -1)) quietest = other;
      if (quietest !== undefined) {
        this.#all.delete(quietest);
        quietest.destroy();
      }
    }
    this.#all.add(user);
  }

  delete(user: SiteUser): void {
    this.#all.delete(user);
  }
}
