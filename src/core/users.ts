/** One who may use the proxy, and how much. What is `undefined` has no limit. */
export interface UserPolicy {
  /** 1-32 letters, digits, dots, dashes or underscores; in logs and metrics. */
  readonly name: string;
  /** 16 bytes. */
  readonly key: Uint8Array;
  readonly enabled: boolean;
  /** Connections at a time. An app has a dozen or two. */
  readonly maxConnections: number | undefined;
  /** Different IP addresses at a time. */
  readonly maxAddresses: number | undefined;
  /** Up and down together, since the count was last set to zero. */
  readonly quotaBytes: number | undefined;
  /** From then on it is not served: milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  /** Bytes per second, up and down together, over all connections. */
  readonly rateBytes: number | undefined;
}

/** A user without limits. */
export function unlimitedUser(name: string, key: Uint8Array): UserPolicy {
  return {
    name,
    key,
    enabled: true,
    maxConnections: undefined,
    maxAddresses: undefined,
    quotaBytes: undefined,
    expiresAt: undefined,
    rateBytes: undefined,
  };
}

/** How one user stands: what metrics and `tgws users list` show. Everything is JSON. */
export interface UserFigures {
  readonly name: string;
  readonly enabled: boolean;
  /** Right now. */
  readonly connections: number;
  /** Different ones, right now. */
  readonly addresses: number;
  /** Bytes from the user, since the count was last set to zero where it is kept, else since the start. */
  readonly up: number;
  readonly down: number;
  readonly maxConnections: number | undefined;
  readonly maxAddresses: number | undefined;
  readonly quotaBytes: number | undefined;
  /** Milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  readonly rateBytes: number | undefined;
  /** Connections that were refused, by the reason; since the start. */
  readonly refused: Readonly<Record<string, number>>;
}
