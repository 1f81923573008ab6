import type { RouteAttempt } from "./errors.ts";

/**
 * Why a session ended: one closed list, the same words in logs, stats and docs.
 *
 * - `client-closed`, `upstream-closed` that side closed first
 * - `client-error`, `upstream-error` that side's connection broke
 * - `idle` nothing crossed for the idle limit
 * - `stalled` the data centre stopped in the middle of a packet, early on: the way there is bad, and the client
 *   gets the next one when it comes again
 * - `network-changed` after sleep, or a change of networks, the data centre's side gave no sign of life
 * - `stranger` the first bytes were no client's, or did not come in time
 * - `masked` the first bytes were no client's, and it was shown the cover site
 * - `bad-proxy-header` no load balancer of ours, or one that did not say whom it brings
 * - `left-early` the client left before its handshake was complete, or while a route was being opened
 * - `no-route` no route to the data centre opened
 * - `refused` over a limit of its user, of its address or of the server: see {@link RefusalReason}
 * - `revoked` its user was disabled, removed or expired, or has used up the quota, while it was connected
 * - `overload` dropped so that the others could go on: memory or file descriptors were short
 * - `shutdown` the program ended
 * - `internal-error` a bug
 */
export type EndReason =
  | "client-closed"
  | "upstream-closed"
  | "client-error"
  | "upstream-error"
  | "idle"
  | "stalled"
  | "network-changed"
  | "stranger"
  | "masked"
  | "bad-proxy-header"
  | "left-early"
  | "no-route"
  | "refused"
  | "revoked"
  | "overload"
  | "shutdown"
  | "internal-error";

/**
 * Why somebody is shown the cover site instead of being served: one closed list.
 *
 * - `not-tls` the first bytes are no ClientHello
 * - `bad-hello` a ClientHello whose parts do not fit
 * - `digest` it was made without a secret of ours
 * - `skew` it was, but by a clock more than 2 min off
 * - `server-name` it was, but asks for no name of ours
 * - `replay` it was, but it was answered before
 * - `unsupported` it was, but offers nothing that can be answered
 * - `silent` it was not complete when the client ended, the site spoke first, or time was up
 * - `refused` it is a client's, or may be, but over a limit: see {@link RefusalReason}
 */
export type MaskReason =
  | "not-tls"
  | "bad-hello"
  | "digest"
  | "skew"
  | "server-name"
  | "replay"
  | "unsupported"
  | "silent"
  | "refused";

/**
 * Why a connection that may be a client's is not served: one closed list.
 *
 * - `user-disabled`, `user-expired` its user may not connect, or not any more
 * - `user-connections`, `user-addresses` its user has as many connections, or comes from as many addresses, as may be
 * - `user-quota` its user has moved as many bytes as may be
 * - `address-denied` `--deny` names its address, or `--allow` does not
 * - `address-connections`, `address-rate` its address has too many connections, or makes new ones too fast
 * - `connections` the server has as many connections as it can have
 */
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

/** Every {@link RefusalReason}. */
export const REFUSAL_REASONS = [
  "user-disabled",
  "user-expired",
  "user-connections",
  "user-addresses",
  "user-quota",
  "address-denied",
  "address-connections",
  "address-rate",
  "connections",
] as const;

/** A session, as observers see it. The object is the same for all of its events; numbers grow while it lives. */
export interface SessionView {
  readonly id: number;
  /** The client's address, without its port. */
  readonly client: string;
  /** The name of the secret that the client used; `undefined` before its handshake. */
  readonly secret: string | undefined;
  /** For a person: `DC 4 media`. */
  readonly target: string | undefined;
  /** The number of the data centre, 0 before the handshake. */
  readonly dc: number;
  readonly route: string | undefined;
  /** Where exactly that leads. */
  readonly endpoint: string | undefined;
  readonly counts: { readonly up: number; readonly down: number };
  /** `performance.now()`. */
  readonly startedAt: number;
}

/** What happens to sessions, a handful a session. */
export type SessionEvent =
  | { readonly type: "started"; readonly session: SessionView }
  | { readonly type: "identified"; readonly session: SessionView }
  /** No client: it is shown the cover site. */
  | {
      readonly type: "masked";
      readonly session: SessionView;
      readonly why: MaskReason;
      /** For a person. */
      readonly detail: string;
    }
  /** Over a limit. Without fake TLS it ends as `refused`; with it, it may be shown the cover site. */
  | { readonly type: "refused"; readonly session: SessionView; readonly why: RefusalReason }
  /** A way to the data centre is being opened. */
  | {
      readonly type: "attempt";
      readonly session: SessionView;
      readonly route: string;
      readonly endpoint: string;
    }
  /** It did not open; or it did and then carried nothing (`SILENT`, `STALLED`, `CLOSED`). */
  | { readonly type: "route-failed"; readonly session: SessionView; readonly attempt: RouteAttempt }
  /** The first way is open. */
  | {
      readonly type: "connected";
      readonly session: SessionView;
      readonly warm: boolean;
      /** Milliseconds. */
      readonly openMs: number;
    }
  /** Another way than the first to open was the first to answer, and serves the session. */
  | {
      readonly type: "rerouted";
      readonly session: SessionView;
      readonly from: string;
      readonly warm: boolean;
      /** Milliseconds. */
      readonly openMs: number;
    }
  | {
      readonly type: "ended";
      readonly session: SessionView;
      readonly reason: EndReason;
      /** What broke; absent on a clean end. */
      readonly error: Error | undefined;
    };

/** Hears what happens to sessions. Must not throw. */
export type Observer = (event: SessionEvent) => void;
