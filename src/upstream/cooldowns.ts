import type { RouteErrorCode } from "../core/errors.ts";

/**
 * How long an endpoint that failed is tried last, by reason, in milliseconds.
 *
 * A redirect says that this address does not serve this data centre, which changes rarely but does change;
 * the rest may be over soon. 30 s is the seed's `DC_FAIL_COOLDOWN`.
 */
const COOLDOWN_MS: Readonly<Record<RouteErrorCode, number>> = {
  REDIRECT: 10 * 60_000,
  STATUS: 60_000,
  PROTOCOL: 60_000,
  TLS: 60_000,
  REFUSED: 30_000,
  UNREACHABLE: 10_000,
  TIMEOUT: 30_000,
  DNS: 10_000,
  CLOSED: 30_000,
  ABORTED: 0,
  UNKNOWN: 30_000,
};

/** Remembers which endpoints failed lately. Keys come from routes, so there are a few dozen at most. */
export class Cooldowns {
  readonly #until = new Map<string, number>();
  readonly #now: () => number;

  /** @param now Milliseconds, monotonic. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  failed(endpoint: string, code: RouteErrorCode): void {
    const duration = COOLDOWN_MS[code];
    if (duration === 0) return;
    this.#until.set(endpoint, Math.max(this.#until.get(endpoint) ?? 0, this.#now() + duration));
  }

  succeeded(endpoint: string): void {
    this.#until.delete(endpoint);
  }

  /** Whether `endpoint` failed so lately that others should be tried before it. */
  cooling(endpoint: string): boolean {
    const until = this.#until.get(endpoint);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    this.#until.delete(endpoint);
    return false;
  }
}
