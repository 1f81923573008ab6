import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
import type { Cover } from "./cover.ts";

/**
 * A client that has not said who it is by then may be a stranger, in milliseconds. Clients send their hello with
 * the packet that completes the connection; by so much the site's own clock is behind for who says nothing.
 */
const PATIENCE_MS = 100;

/** A connection to the cover site, and what the site said before it was used. */
interface TakenSite {
  readonly channel: Channel;
  readonly bytes: Uint8Array;
}

/**
 * A connection to the cover site for a client that is slow to say who it is.
 *
 * Sites end a connection on which nothing comes after a time of their own. So that it takes the same time here, the
 * connection to the site is opened soon after the client's, and when the site is the first to say something, or to
 * close, {@link EarlySite.spoke} aborts.
 */
export class EarlySite {
  readonly #spoke = new AbortController();
  readonly #closing = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout>;
  #open: { readonly channel: Channel; readonly reader: ByteReader } | undefined;

  constructor(cover: Cover) {
    this.#timer = setTimeout(() => void this.#connect(cover), PATIENCE_MS);
  }

  /** The site has said something, or has closed. */
  get spoke(): AbortSignal {
    return this.#spoke.signal;
  }

  /**
   * Returns a connection to the site of a name: this one, if it is open and leads there.
   *
   * @throws {RouteError}
   */
  async take(cover: Cover, serverName: string | undefined, signal: Cancel): Promise<TakenSite> {
    const open = this.#open;
    if (open === undefined || cover.nameFor(serverName) !== cover.nameFor(undefined)) {
      return { channel: await cover.connect(serverName, signal), bytes: new Uint8Array(0) };
    }
    this.#open = undefined;
    open.reader.onEnded = undefined;
    return { channel: open.channel, bytes: open.reader.rest() };
  }

  /** Drops the connection, unless it was taken. */
  close(): void {
    clearTimeout(this.#timer);
    this.#closing.abort();
    this.#open?.channel.destroy();
    this.#open = undefined;
  }

  async #connect(cover: Cover): Promise<void> {
    const closing: Cancel = this.#closing.signal;
    try {
      const channel = await cover.connect(undefined, closing);
      if (closing.aborted) return channel.destroy();
      const reader = new ByteReader(channel);
      this.#open = { channel, reader };
      const onSpoke = (): void => this.#spoke.abort();
      reader.onEnded = onSpoke;
      reader.peek(1, closing).then(onSpoke, () => {}); // the end is heard above
    } catch (error) {
      if (!(error instanceof RouteError)) throw error; // who needs the site finds out again
    }
  }
}
