import type { ChannelSink } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError } from "../core/errors.ts";
import type { WebSocketChannel } from "../net/websocket-channel.ts";
import type { DcTarget, Target } from "../protocol/mtproto/dc.ts";
import type { Route, RouteId, Upstream, Way, WayAddress } from "./route.ts";

/** A way whose opening falls into a slow part that can be done ahead of time, and a part per client. */
export interface WarmableWay extends Way {
  /** Ways with the same key share their warm connections. */
  readonly key: string;
  /** The slow part: connection, TLS, upgrade. @throws {RouteError} */
  dial(signal: Cancel): Promise<WebSocketChannel>;
  /** The rest: sends the init for one client over an open channel. */
  start(channel: WebSocketChannel, target: Target, origin: { readonly warm: boolean }): Upstream;
}

/** A route all of whose ways can be warmed. */
export interface WarmableRoute extends Route {
  ways(target: DcTarget): readonly WarmableWay[];
}

/** What a pool counts; the seed's `pool_hits` and `pool_misses`, or `cf_pool_hits` and `cf_pool_misses`. */
export interface PoolCounts {
  hits: number;
  misses: number;
}

/** Limits of a pool. */
export interface PoolOptions {
  /** Warm connections kept per way. */
  readonly size: number;
  /** A warm connection is not used when it is older, in milliseconds. */
  readonly maxAgeMs: number;
  /** A data centre that no client asked for during this time is no longer kept warm, in milliseconds. */
  readonly wantedForMs: number;
}

/** The seed's figures: connections up to 120 s old; a data centre stays warm for ten minutes after its last use. */
export const POOL_AGES = { maxAgeMs: 120_000, wantedForMs: 600_000 } as const;

/** Between two connections that are opened ahead for the same shelf, so that refills do not come as a burst. */
const REFILL_GAP_MS = 150;
/** After a refill failed: doubled each time, up to the last. */
const FIRST_BACK_OFF_MS = 5_000;
const LAST_BACK_OFF_MS = 120_000;
/** How often warm connections are pinged, and the old ones dropped. */
const UPKEEP_MS = 15_000;

/**
 * Puts a pool of warm connections before a route.
 *
 * A client gets one that is open already; its place is refilled in the background. Only data centres that
 * clients have used lately are kept warm. Connections that the other side has closed, that no longer
 * answer pings or that are too old are never handed out.
 */
export class PooledRoute implements Route {
  readonly id: RouteId;
  readonly #route: WarmableRoute;
  readonly #options: PoolOptions;
  readonly #counts: PoolCounts;
  /** By the key of their ways; those that nobody wants any more are dropped. */
  readonly #shelves = new Map<string, Shelf>();
  readonly #ways = new WeakMap<WarmableWay, Way>();
  /** Telegram answers pings: from then on, a connection that does not is dead. */
  #pongs = false;
  readonly #closing = new AbortController();
  readonly #upkeep: ReturnType<typeof setInterval>;

  constructor(route: WarmableRoute, options: PoolOptions, counts: PoolCounts) {
    this.id = route.id;
    this.#route = route;
    this.#options = options;
    this.#counts = counts;
    this.#upkeep = setInterval(() => this.#keepUp(), UPKEEP_MS);
    this.#upkeep.unref();
  }

  ways(target: DcTarget): readonly Way[] {
    return this.#route.ways(target).map((way) => this.#pooled(way));
  }

  /** Drops every warm connection: the network has changed under them. */
  drop(): void {
    for (const shelf of this.#shelves.values()) {
      this.#empty(shelf);
      shelf.backOffMs = 0;
      this.#scheduleRefill(shelf, REFILL_GAP_MS);
    }
  }

  /** Drops every warm connection, and opens others only after a while: others need their place now. */
  relieve(): void {
    for (const shelf of this.#shelves.values()) {
      this.#empty(shelf);
      shelf.backOffMs = Math.max(shelf.backOffMs, FIRST_BACK_OFF_MS);
      this.#scheduleRefill(shelf, REFILL_GAP_MS);
    }
  }

  /** Drops every warm connection and stops refilling. */
  close(): void {
    clearInterval(this.#upkeep);
    this.#closing.abort();
    for (const shelf of this.#shelves.values()) this.#empty(shelf);
    this.#shelves.clear();
  }

  #pooled(way: WarmableWay): Way {
    let pooled = this.#ways.get(way);
    if (pooled === undefined) {
      pooled = new PooledWay(way, {
        open: (target, signal) => this.#open(way, target, signal),
        served: () => this.#want(way),
        failed: () => this.#unwant(way),
      });
      this.#ways.set(way, pooled);
    }
    return pooled;
  }

  /** Only what has served a client is worth being kept warm: what merely opens may carry nothing. */
  #want(way: WarmableWay): void {
    const shelf = this.#shelf(way);
    shelf.wantedUntil = Date.now() + this.#options.wantedForMs;
    this.#scheduleRefill(shelf, REFILL_GAP_MS);
  }

  #unwant(way: WarmableWay): void {
    const shelf = this.#shelves.get(way.key);
    if (shelf === undefined) return;
    shelf.wantedUntil = 0;
    this.#empty(shelf);
  }

  #open(way: WarmableWay, target: Target, signal: Cancel): Promise<Upstream> {
    const shelf = this.#shelves.get(way.key);
    const channel = shelf && this.#take(shelf);
    if (shelf !== undefined) this.#scheduleRefill(shelf, REFILL_GAP_MS);
    if (channel === undefined) {
      this.#counts.misses += 1;
      return way.open(target, signal);
    }
    this.#counts.hits += 1;
    return Promise.resolve(way.start(channel, target, { warm: true }));
  }

  #shelf(way: WarmableWay): Shelf {
    let shelf = this.#shelves.get(way.key);
    if (shelf === undefined) {
      shelf = { way, warm: [], refilling: false, timer: undefined, wantedUntil: 0, backOffMs: 0 };
      this.#shelves.set(way.key, shelf);
    }
    return shelf;
  }

  /** The oldest connection that is fit for use; drops the others it meets. */
  #take(shelf: Shelf): WebSocketChannel | undefined {
    for (;;) {
      const channel = shelf.warm.pop();
      if (channel === undefined) return undefined;
      if (this.#fit(channel)) return channel;
      channel.destroy();
    }
  }

  #fit(channel: WebSocketChannel): boolean {
    // The wall clock also runs while a laptop sleeps; set back, it makes ages negative.
    const age = Date.now() - channel.openedAt;
    if (channel.pongSeen) this.#pongs = true;
    const dead = !channel.open || (channel.pongMissing && this.#pongs);
    return !dead && age >= 0 && age <= this.#options.maxAgeMs;
  }

  #scheduleRefill(shelf: Shelf, delayMs: number): void {
    if (shelf.timer !== undefined || shelf.refilling || this.#closing.signal.aborted) return;
    shelf.timer = setTimeout(
      () => {
        shelf.timer = undefined;
        void this.#refill(shelf);
      },
      Math.max(delayMs, shelf.backOffMs),
    );
    shelf.timer.unref();
  }

  /** Opens one connection, and plans the next while places are free. */
  async #refill(shelf: Shelf): Promise<void> {
    if (shelf.warm.length >= this.#options.size || Date.now() > shelf.wantedUntil) return;
    shelf.refilling = true;
    try {
      const channel = await shelf.way.dial(this.#closing.signal);
      shelf.backOffMs = 0;
      this.#store(shelf, channel);
    } catch (error) {
      if (!(error instanceof RouteError)) throw error;
      shelf.backOffMs = Math.min(Math.max(shelf.backOffMs * 2, FIRST_BACK_OFF_MS), LAST_BACK_OFF_MS);
    } finally {
      shelf.refilling = false;
    }
    this.#scheduleRefill(shelf, REFILL_GAP_MS);
  }

  #store(shelf: Shelf, channel: WebSocketChannel): void {
    if (this.#closing.signal.aborted || Date.now() > shelf.wantedUntil) {
      channel.destroy();
      return;
    }
    shelf.warm.unshift(channel);
    channel.attach(new WarmSink(channel, () => this.#lost(shelf, channel)));
    if (!this.#pongs) channel.ping(); // later ones wait for the upkeep: a ping costs a tenth of a dial
  }

  #lost(shelf: Shelf, channel: WebSocketChannel): void {
    const place = shelf.warm.indexOf(channel);
    if (place < 0) return;
    shelf.warm.splice(place, 1);
    this.#scheduleRefill(shelf, UPKEEP_MS);
  }

  #keepUp(): void {
    for (const [key, shelf] of this.#shelves) {
      if (Date.now() > shelf.wantedUntil) {
        this.#empty(shelf);
        this.#shelves.delete(key);
        continue;
      }
      for (const channel of [...shelf.warm]) {
        if (this.#fit(channel)) channel.ping();
        else channel.destroy();
      }
      this.#scheduleRefill(shelf, REFILL_GAP_MS);
    }
  }

  #empty(shelf: Shelf): void {
    clearTimeout(shelf.timer);
    shelf.timer = undefined;
    const { warm } = shelf;
    shelf.warm = [];
    for (const channel of warm) channel.destroy();
  }
}

/** The warm connections of one way. */
interface Shelf {
  readonly way: WarmableWay;
  /** Oldest last. */
  warm: WebSocketChannel[];
  refilling: boolean;
  timer: ReturnType<typeof setTimeout> | undefined;
  wantedUntil: number;
  backOffMs: number;
}

/** A way that looks on its shelf first. */
class PooledWay implements Way {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly group: string;
  readonly cold: Way;
  readonly open: Way["open"];
  readonly served: () => void;
  readonly failed: () => void;

  constructor(
    way: Way,
    pool: { readonly open: Way["open"]; readonly served: () => void; readonly failed: () => void },
  ) {
    this.route = way.route;
    this.endpoint = way.endpoint;
    this.group = way.group;
    this.cold = way;
    this.open = pool.open;
    this.served = pool.served;
    this.failed = pool.failed;
  }

  get address(): WayAddress {
    return this.cold.address;
  }

  readRetryAfter(): Promise<number | undefined> {
    return this.cold.readRetryAfter?.() ?? Promise.resolve(undefined);
  }
}

/** Listens to a connection that waits for a client: nothing but its end is expected. */
class WarmSink implements ChannelSink {
  readonly #channel: WebSocketChannel;
  readonly #onLost: () => void;

  constructor(channel: WebSocketChannel, onLost: () => void) {
    this.#channel = channel;
    this.#onLost = onLost;
  }

  onChunk(): void {
    // Telegram says nothing before the init: whatever this is, it must not reach a client.
    this.#channel.destroy();
  }

  onEnd(): void {}

  onDrain(): void {}

  onClose(): void {
    this.#onLost();
  }
}
