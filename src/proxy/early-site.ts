import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import { RouteError } from "../core/errors.ts";
import type { Cover } from "./cover.ts";
import type { SiteUser, SiteUsers } from "./mask.ts";

/**
 * A client that has not said who it is by then may be a stranger, in milliseconds. Clients send their hello with
 * the packet that completes the connection; by so much the site's own clock is behind for who says nothing.
 */
const PATIENCE_MS = 100;

/**
 * A site that closes sooner than this has not waited in vain: it may be down behind its load balancer, or have enough of
 * us. A client that is just slow has until then, in milliseconds.
 */
const TELLING_MS = 700;

/** A connection to the cover site, and what the site said before it was used. */
interface TakenSite {
  readonly channel: Channel;
  readonly bytes: Uint8Array;
  /** The site will say nothing more, and would answer with a reset to whatever it is sent now. */
  readonly ended: boolean;
}

/**
 * The connection to the cover site of one client that is a stranger, or is slow to say who it is.
 *
 * Sites end a connection on which nothing comes after a time of their own. So that it takes the same time here, the
 * connection to the site is opened soon after the client's, and when the site is the first to say something, or to
 * close, {@link EarlySite.spoke} aborts. Where there are as many connections as may be, it is not opened early.
 */
export class EarlySite implements SiteUser {
  readonly #cover: Cover;
  readonly #users: SiteUsers;
  readonly #spoke = new AbortController();
  /** Gives up what is being made. */
  #closing = new AbortController();
  #timer: ReturnType<typeof setTimeout>;
  #open: OpenSite | undefined;
  /** Settles when it is open, or cannot be. */
  #opening: Promise<void> | undefined;
  #taken = false;

  constructor(cover: Cover, users: SiteUsers) {
    this.#cover = cover;
    this.#users = users;
    this.#timer = setTimeout(() => {
      this.#opening = this.#connect();
    }, PATIENCE_MS);
  }

  /** The first to go when others need its place, as long as nobody waits for it. */
  get quietMs(): number {
    return this.#taken ? 0 : Number.MAX_VALUE;
  }

  /** The site has said something, or has closed. */
  get spoke(): AbortSignal {
    return this.#spoke.signal;
  }

  /**
   * Returns a connection to the site of a name: this one, if it is open and leads there.
   *
   * @throws {RouteError} `ABORTED` when it is {@link EarlySite.destroy}ed meanwhile.
   */
  async take(serverName: string | undefined): Promise<TakenSite> {
    clearTimeout(this.#timer);
    this.#taken = true;
    const fits = this.#cover.nameFor(serverName) === this.#cover.nameFor(undefined);
    if (fits) await this.#opening;
    const open = this.#open;
    this.#open = undefined;
    if (open !== undefined && fits) {
      open.reader.onEnded = undefined;
      return { channel: open.channel, bytes: open.reader.rest(), ended: open.reader.ended };
    }
    dropSite(open);
    this.#closing.abort(); // what is made for the wrong site, or has lost its place
    this.#closing = new AbortController();
    this.#users.add(this);
    const { signal } = this.#closing;
    const channel = await this.#cover.connect(serverName, signal).catch((error: unknown) => {
      if (signal.aborted || !(error instanceof RouteError) || error.code !== "ABORTED") throw error;
      throw new RouteError("UNREACHABLE", error.message); // not given up, but not tried either
    });
    return { channel, bytes: new Uint8Array(0), ended: false };
  }

  /** Drops the connection, unless it was taken, and gives up the one that is being made. */
  destroy(): void {
    clearTimeout(this.#timer);
    this.#closing.abort();
    dropSite(this.#open);
    this.#open = undefined;
    this.#users.delete(this);
  }

  async #connect(): Promise<void> {
    if (this.#users.full) return;
    this.#users.add(this);
    const closing = this.#closing.signal;
    try {
      const channel = await this.#cover.connect(undefined, closing);
      if (closing.aborted) {
        channel.destroy();
        return;
      }
      const reader = new ByteReader(channel);
      this.#open = { channel, reader };
      const openedAt = performance.now();
      reader.onEnded = () => {
        const early = reader.heldBytes > 0 ? 0 : TELLING_MS - (performance.now() - openedAt);
        clearTimeout(this.#timer);
        this.#timer = setTimeout(() => this.#spoke.abort(), Math.max(0, early));
      };
      reader.peek(1, closing).then(
        () => this.#spoke.abort(),
        () => {}, // the end is heard above
      );
    } catch (error) {
      if (!this.#taken) this.#users.delete(this);
      if (!(error instanceof RouteError)) throw error; // who needs the site finds out again
    }
  }
}

interface OpenSite {
  readonly channel: Channel;
  readonly reader: ByteReader;
}

/** Without having it said that the site has closed. */
function dropSite(open: OpenSite | undefined): void {
  if (open === undefined) return;
  open.reader.onEnded = undefined;
  open.channel.destroy();
}
