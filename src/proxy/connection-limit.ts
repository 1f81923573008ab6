import type { ProcessDescriptors } from "../net/descriptors.ts";

/** The client's and its data centre's. */
const PER_SESSION = 2;
/** For logs, DNS, warm connections, and sessions that try several ways at once. */
const RESERVE = { least: 16, part: 1 / 8, most: 256 } as const;
/** Fewer are worth a word: a few dozen people use that many. */
const FEW = 1_024;

/** How many connections there may be, and what the user should know about that. */
export interface ConnectionLimit {
  /** `undefined`: as many as come. */
  readonly maxConnections: number | undefined;
  readonly warning: string | undefined;
}

/**
 * Returns how many clients can be connected to a process at a time.
 *
 * @param wanted What the user has asked for.
 * @param descriptors What the system allows; `undefined`: everything.
 */
export function connectionLimitOf(
  wanted: number | undefined,
  descriptors: ProcessDescriptors | undefined,
): ConnectionLimit {
  if (descriptors === undefined) return { maxConnections: wanted, warning: undefined };
  const { most, open } = descriptors;
  const reserve = Math.min(Math.max(most * RESERVE.part, RESERVE.least), RESERVE.most);
  const room = Math.max(1, Math.floor((most - open - reserve) / PER_SESSION));
  const raise = "raise it: ulimit -n, LimitNOFILE= in systemd, --ulimit nofile= in Docker";
  if (wanted !== undefined && wanted > room) {
    const warning = `--max-connections ${wanted} is more than there is room for: ${room}, with ${most} open files; ${raise}`;
    return { maxConnections: room, warning };
  }
  if (wanted === undefined && room < FEW) {
    const warning = `there is room for ${room} connections only, with ${most} open files; ${raise}`;
    return { maxConnections: room, warning };
  }
  return { maxConnections: wanted ?? room, warning: undefined };
}
