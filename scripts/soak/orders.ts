/** How a route to the data centre can fail, for new connections; those that are open go on. */
export const DOOR_FAILURES = {
  ws: ["302", "403", "429", "refused", "hang", "reset", "closes", "silent"],
  tcp: ["refused", "hang", "reset", "closes", "silent"],
} as const;

/** A kind of route. */
export type DoorKind = keyof typeof DOOR_FAILURES;

/** `serve`, or one of {@link DOOR_FAILURES}. */
export type DoorState = "serve" | (typeof DOOR_FAILURES)[DoorKind][number];

/** What the data centre is told. */
export type DcOrder =
  /** What the second data centre's door of a kind does from now on. */
  | { readonly type: "door"; readonly door: DoorKind; readonly state: DoorState }
  /** Breaks off a share of the connections. Answered with `dropped`. */
  | { readonly type: "drop"; readonly share: number };

/** What the data centre tells. */
export type DcReport =
  | { readonly type: "ready"; readonly ports: DcPorts }
  | { readonly type: "door" }
  /** The sessions whose connections were broken off. */
  | { readonly type: "dropped"; readonly sessions: readonly number[] }
  /** What no client of the soak has sent. */
  | { readonly type: "trouble"; readonly message: string; readonly corruption: boolean };

/** Where the doors of both data centres are. */
export interface DcPorts {
  /** Of the data centre whose routes never fail. */
  readonly calm: Readonly<Record<DoorKind, number>>;
  /** Of the one whose routes do. */
  readonly rough: Readonly<Record<DoorKind, number>>;
}

/** Somebody who uses the proxy. */
export interface Identity {
  readonly user: string;
  /** 16 bytes, hexadecimal. */
  readonly secret: string;
}

/** What the load is told. */
export type LoadOrder =
  | {
      readonly type: "start";
      readonly port: number;
      /** Of the proxy, to end it should the soak itself be killed. */
      readonly proxyPid: number;
      readonly seed: number;
      readonly sessions: number;
      /** New ones per second while the load grows. */
      readonly ramp: number;
      /** How long the longest-lived sessions stay, in milliseconds. */
      readonly longestLifeMs: number;
      /** The web site that the proxy looks like; `undefined` without fake TLS. */
      readonly domain: string | undefined;
      readonly identities: readonly Identity[];
      /** Sessions that stop reading, or whose data centre does. */
      readonly stalls: boolean;
      /** New strangers per second. */
      readonly strangers: number;
    }
  /** These users must not come from now on. */
  | { readonly type: "absent"; readonly users: readonly string[] }
  /** Opens `attempts` sessions of a user at once. Answered with `limit`. */
  | { readonly type: "limit"; readonly identity: Identity; readonly attempts: number }
  /** Ends everything. Answered with `stopped`. */
  | { readonly type: "stop" };

/** Why a session of the load, or a stranger, did not go as it should. */
export interface Failure {
  /** 0 for a stranger. */
  readonly session: number;
  readonly who: string;
  /** The client's own port; 0 when it never had one. */
  readonly port: number;
  /** `Date.now()`. */
  readonly startedAt: number;
  readonly failedAt: number;
  readonly doing: string;
  readonly message: string;
  readonly corruption: boolean;
}

/** What the load has done so far. */
export interface LoadFigures {
  readonly live: number;
  readonly started: number;
  readonly finished: number;
  readonly failed: number;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly messages: number;
  /** The longest that an answer took that was not held up on purpose, since the last report; milliseconds. */
  readonly slowestMs: number;
  readonly strangers: Readonly<Record<string, number>>;
  /** Live sessions. */
  readonly habits: Readonly<Record<string, number>>;
  readonly users: Readonly<Record<string, number>>;
}

/** What the load tells. */
export type LoadReport =
  | { readonly type: "figures"; readonly figures: LoadFigures }
  | { readonly type: "failure"; readonly failure: Failure }
  | { readonly type: "limit"; readonly served: number; readonly refused: number }
  | { readonly type: "stopped"; readonly figures: LoadFigures };
