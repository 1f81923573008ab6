import type { RouteErrorCode } from "../core/errors.ts";

/**
 * How long what failed goes last, by reason, in milliseconds: at first, and at most.
 *
 * Each further failure doubles the time. A redirect says that this address does not serve this data centre,
 * which changes rarely but does change; a flow that stalled may have met a pause of the user's own network, so
 * it begins with a minute, until probes that move much know better; the rest may be over soon. 30 s is the seed's `DC_FAIL_COOLDOWN`.
 */
export const COOLDOWN_MS: Readonly<Record<RouteErrorCode, readonly [first: number, most: number]>> = {
  REDIRECT: [10 * 60_000, 60 * 60_000],
  STATUS: [60_000, 30 * 60_000],
  PROTOCOL: [60_000, 30 * 60_000],
  TLS: [60_000, 30 * 60_000],
  REFUSED: [30_000, 10 * 60_000],
  UNREACHABLE: [10_000, 5 * 60_000],
  TIMEOUT: [30_000, 10 * 60_000],
  DNS: [10_000, 5 * 60_000],
  CLOSED: [30_000, 10 * 60_000],
  PROXY: [10_000, 60_000],
  SILENT: [60_000, 30 * 60_000],
  STALLED: [60_000, 2 * 60 * 60_000],
  ABORTED: [0, 0],
  LOCAL: [0, 0],
  UNKNOWN: [30_000, 10 * 60_000],
};

/** Nothing is put off for longer than this, whatever a server or a file says. */
export const LONGEST_COOLDOWN_MS = 2 * 60 * 60_000;
