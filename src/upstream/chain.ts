import type { Cancel } from "../core/cancel.ts";
import { NoRouteError, type RouteAttempt, RouteError } from "../core/errors.ts";
import { describeTarget, type Target } from "../protocol/mtproto/dc.ts";
import type { Cooldowns } from "./cooldowns.ts";
import type { Route, Upstream } from "./route.ts";

/**
 * How long an attempt has the field to itself before the next one starts, in milliseconds.
 *
 * Android clients give up after about 5 s, so a serial chain with long timeouts looks dead to them.
 *
 * @see RFC 8305 section 8, whose 250 ms is meant for TCP alone; this covers TCP, TLS and the upgrade.
 */
const HEAD_START_MS = 1_000;

/** The route that opened, and what it opened. */
export interface OpenedRoute {
  readonly route: Route;
  readonly upstream: Upstream;
}

/** Hears about every attempt that failed, also when another one won. */
export type AttemptListener = (attempt: RouteAttempt) => void;

/**
 * Opens the first route that can be opened, in the order of `routes`; those that failed lately go last.
 *
 * An attempt that has not answered after a head start gets company by the next. The first to open wins;
 * the others are given up, and one that opens all the same is closed.
 *
 * @throws {NoRouteError} With every refusal, when all have failed or `signal` aborts.
 */
export function openFirst(
  routes: readonly Route[],
  target: Target,
  cooldowns: Cooldowns,
  signal: Cancel,
  onFailed: AttemptListener,
): Promise<OpenedRoute> {
  const candidates = orderCandidates(routes, target, cooldowns);
  const { promise, resolve, reject } = Promise.withResolvers<OpenedRoute>();
  const losers = new AbortController();
  const refused: RouteAttempt[] = [];
  let next = 0;
  /** Attempts under way, and when each began. */
  const running = new Map<Candidate, number>();
  let settled = false;
  let headStart: ReturnType<typeof setTimeout> | undefined;

  const finish = (): boolean => {
    if (settled) return false;
    settled = true;
    clearTimeout(headStart);
    signal.removeEventListener("abort", giveUp);
    return true;
  };
  const giveUp = (): void => {
    if (!finish()) return;
    reject(new NoRouteError(describeTarget(target), refused));
    losers.abort();
  };
  const startNext = (): void => {
    clearTimeout(headStart);
    const candidate = candidates[next++];
    if (candidate === undefined) {
      if (running.size === 0) giveUp();
      return;
    }
    running.set(candidate, performance.now());
    if (next < candidates.length) headStart = setTimeout(startNext, HEAD_START_MS);
    attempt(candidate);
  };
  const attempt = async (candidate: Candidate): Promise<void> => {
    const { route, endpoint } = candidate;
    try {
      const upstream = await route.open(target, losers.signal);
      cooldowns.succeeded(endpoint);
      running.delete(candidate);
      if (finish()) {
        // One that was overtaken in spite of its head start is slow at best: not first the next time.
        for (const [slow, startedAt] of running) {
          if (performance.now() - startedAt >= HEAD_START_MS) cooldowns.failed(slow.endpoint, "TIMEOUT");
        }
        resolve({ route, upstream });
        losers.abort();
      } else {
        upstream.channel.destroy();
      }
    } catch (error) {
      if (!(error instanceof RouteError)) {
        if (finish()) reject(error);
        losers.abort();
        return;
      }
      running.delete(candidate);
      if (settled) return;
      const failed = { route: route.id, endpoint, error };
      refused.push(failed);
      cooldowns.failed(endpoint, error.code);
      onFailed(failed);
      startNext();
    }
  };

  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  else startNext();
  return promise;
}

interface Candidate {
  readonly route: Route;
  readonly endpoint: string;
}

function orderCandidates(routes: readonly Route[], target: Target, cooldowns: Cooldowns): Candidate[] {
  const fresh: Candidate[] = [];
  const cooling: Candidate[] = [];
  for (const route of routes) {
    const endpoint = route.endpoint(target);
    if (endpoint === undefined) continue;
    (cooldowns.cooling(endpoint) ? cooling : fresh).push({ route, endpoint });
  }
  return [...fresh, ...cooling];
}
