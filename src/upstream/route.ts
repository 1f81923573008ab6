import type { Channel } from "../channel/channel.ts";
import type { Link } from "../channel/transform.ts";
import type { Cancel } from "../core/cancel.ts";
import type { Target } from "../protocol/mtproto/dc.ts";

/** The kinds of route, as stats, logs and flags name them. */
export type RouteId = "direct-ws";

/** An open way to a data centre: its channel, and what bytes go through on the way to it and back. */
export interface Upstream {
  readonly channel: Channel;
  readonly link: Link;
  /** It was opened ahead of time. */
  readonly warm: boolean;
}

/** One way to reach a target. */
export interface Route {
  readonly id: RouteId;
  /** What fails together, as text for people too; `undefined` when this route cannot serve `target`. */
  endpoint(target: Target): string | undefined;
  /**
   * Opens the way and sends what Telegram needs to hear first.
   *
   * @throws {RouteError} Try the next route; anything else is a bug.
   */
  open(target: Target, signal: Cancel): Promise<Upstream>;
}
