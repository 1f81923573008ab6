import type { Inspection } from "../net/inspect-endpoint.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import type { Route, RouteId, Way } from "../upstream/route.ts";
import type { TargetDiagnosis, WayDiagnosis } from "./doctor-diagnosis.ts";

/** Ways of one route to one data centre that are tried: a public list has hundreds of domains. */
const WAYS_PER_ROUTE = 3;

/** The ways to try for one target, and what came out so far. */
export interface TargetPlan {
  readonly target: DcTarget;
  readonly jobs: readonly Job[];
  readonly leftOut: ReadonlyMap<RouteId, number>;
}

/** One way that is to be tried. */
export interface Job {
  readonly target: DcTarget;
  readonly way: Way;
  /** With its port: what must not get too many connections at once. */
  readonly host: string;
  /** With the name for TLS as well: what is the same server. */
  readonly server: string;
  /** `undefined` until its stages have been looked at, and where there are none to see. */
  inspection: Inspection | undefined;
  /** `undefined` until it has been tried. */
  diagnosis: WayDiagnosis | undefined;
}

/**
 * Chooses at most three ways of each route, from as many groups as there are: ways of a group often fail
 * together, so that another one tells more.
 */
export function planTarget(target: DcTarget, routes: readonly Route[]): TargetPlan {
  const jobs: Job[] = [];
  const leftOut = new Map<RouteId, number>();
  for (const route of routes) {
    const ways = route.ways(target);
    for (const way of spread(ways).slice(0, WAYS_PER_ROUTE)) {
      const host = `${way.address.host}:${way.address.port}`;
      const server = `${host} ${way.address.webSocket?.serverName ?? ""}`;
      jobs.push({ target, way, host, server, inspection: undefined, diagnosis: undefined });
    }
    if (ways.length > WAYS_PER_ROUTE) leftOut.set(route.id, ways.length - WAYS_PER_ROUTE);
  }
  return { target, jobs, leftOut };
}

/** The first way of each group, then the others: ways of a group often fail together. */
function spread(ways: readonly Way[]): Way[] {
  const firsts = new Map<string, Way>();
  for (const way of ways) if (!firsts.has(way.group)) firsts.set(way.group, way);
  return [...new Set([...firsts.values(), ...ways])];
}

/** Says what is known of a target by now. */
export function concludeTarget({ target, jobs, leftOut }: TargetPlan): TargetDiagnosis {
  const ways = jobs.flatMap(({ diagnosis }) => diagnosis ?? []);
  return { target, ways, leftOut, missing: jobs.length - ways.length };
}
