/** The kinds of route, in the order in which they are tried by default. */
export const ROUTES = ["direct-ws", "fronted-ws", "cf-worker", "cf-domain", "direct-tcp"] as const;

/** One of {@link ROUTES}. */
export type RouteName = (typeof ROUTES)[number];

/**
 * What can be wrong with a route.
 *
 * - `302`, `403`, `429` the upgrade is refused; 429 with a Retry-After of {@link RETRY_AFTER_S}
 * - `tls-alert`, `wrong-certificate` the TLS handshake fails, at the server or at the client
 * - `accept-and-hang` TCP, and nothing more
 * - `101-then-close`, `101-then-silence` the WebSocket opens, and is closed or says nothing at all
 * - `stall-16k` 16 KiB of answers come, and nothing after them
 * - `reset` a TCP reset instead of TLS, or right after TCP
 * - `reset-after-init` a TCP reset once the init has come; of a Worker, at the data centre behind it
 * - `half-open` a FIN without an answer after the 101 or right after TCP; the server goes on reading
 * - `nxdomain` the name does not exist
 */
export type Failure =
  | "302"
  | "403"
  | "429"
  | "tls-alert"
  | "wrong-certificate"
  | "accept-and-hang"
  | "101-then-close"
  | "101-then-silence"
  | "stall-16k"
  | "reset"
  | "reset-after-init"
  | "half-open"
  | "nxdomain";

const WEBSOCKET_FAILURES: readonly Failure[] = [
  "403",
  "429",
  "tls-alert",
  "wrong-certificate",
  "accept-and-hang",
  "101-then-close",
  "101-then-silence",
  "stall-16k",
  "reset",
  "reset-after-init",
  "half-open",
];

/** What can be wrong with which route. Addresses that are given as such need no DNS. */
export const FAILURES_OF: Readonly<Record<RouteName, readonly Failure[]>> = {
  "direct-ws": ["302", ...WEBSOCKET_FAILURES],
  "fronted-ws": ["302", ...WEBSOCKET_FAILURES],
  "cf-worker": [...WEBSOCKET_FAILURES, "nxdomain"],
  "cf-domain": ["302", ...WEBSOCKET_FAILURES, "nxdomain"],
  "direct-tcp": ["accept-and-hang", "stall-16k", "reset", "reset-after-init", "half-open"],
};

/** What a refusal with 429 says in Retry-After, in seconds. */
export const RETRY_AFTER_S = 120;
/** How much of its answers a route with `stall-16k` carries. */
export const STALL_BYTES = 16 * 1024;
