/**
 * What a Worker is asked to connect to, in the path of the WebSocket upgrade:
 *
 *     GET /apiws?dst=149.154.167.51&dc=2
 *
 * The names `dst` and `dc` are fixed: deployed Workers read them, with `URL.searchParams`.
 */
export interface RelayRequest {
  /** An IPv4 or IPv6 address, without brackets. The port is always Telegram's. */
  readonly dst: string;
  /** 1-5 or 203, for the Worker's own routing and logs. */
  readonly dc: number;
}

/** Formats the path and query of a request. */
export function formatRelayPath({ dst, dc }: RelayRequest): string {
  return `/apiws?dst=${encodeURIComponent(dst)}&dc=${dc}`;
}
