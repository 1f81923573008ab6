import type { Channel } from "../channel/channel.ts";
import type { Link } from "../channel/transform.ts";
import type { Cancel } from "../core/cancel.ts";
import type { InspectedEndpoint } from "../net/inspect-endpoint.ts";
import type { DcTarget, Target } from "../protocol/mtproto/dc.ts";

/** The kinds of route, as flags, stats and logs name them. */
export type RouteId = "direct-ws" | "fronted-ws" | "cf-worker" | "cf-domain" | "direct-tcp";

/** An open way to a data centre: its channel, and what bytes go through on the way to it and back. */
export interface Upstream {
  readonly channel: Channel;
  readonly link: Link;
  /** It was opened ahead of time. */
  readonly warm: boolean;
}

/** Where a way leads, for those who look at its stages one by one. */
export type WayAddress = InspectedEndpoint;

/** One way to reach a target: one address of one route. The same object every time, so it can be a key. */
export interface Way {
  readonly route: RouteId;
  /** What fails together, as text for people too. */
  readonly endpoint: string;
  /** Ways of one route in the same group lead past the same things: what stalls on one, stalls on the others. */
  readonly group: string;
  readonly address: WayAddress;
  /**
   * Opens the way and sends what Telegram needs to hear first.
   *
   * @throws {RouteError} Try the next way; anything else is a bug.
   */
  open(target: Target, signal: Cancel): Promise<Upstream>;
  /** The same way without connections that were opened ahead, for those who want to know how it is now. */
  readonly cold?: Way;
  /** Tells it that a client got an answer over it: others will come. */
  served?(): void;
  /** Tells it that it opened and did not carry. */
  failed?(): void;
  /**
   * After a 429 or 503: asks for how long, in milliseconds; `undefined` when nobody says. Takes a request,
   * since Bun shows no headers of a refused upgrade.
   */
  readRetryAfter?(): Promise<number | undefined>;
}

/** One kind of way to reach a target. */
export interface Route {
  readonly id: RouteId;
  /** The ways that there are at this moment, the first to be tried first; empty when it cannot serve `target`. */
  ways(target: DcTarget): readonly Way[];
}

/** The ways of a route, made once for each of the 24 targets that there can be. */
export class WaysByTarget<W extends Way> {
  readonly #ways = new Map<number, readonly W[]>();

  of(target: DcTarget, make: () => readonly W[]): readonly W[] {
    const index = target.dc * 4 + (target.media ? 2 : 0) + (target.test ? 1 : 0);
    let ways = this.#ways.get(index);
    if (ways === undefined) {
      ways = make();
      this.#ways.set(index, ways);
    }
    return ways;
  }

  clear(): void {
    this.#ways.clear();
  }
}
