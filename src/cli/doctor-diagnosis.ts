import { RouteError } from "../core/errors.ts";
import type { Inspection, Stage } from "../net/inspect-endpoint.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import type { ProbeResult } from "../upstream/probe.ts";
import type { RouteId, WayAddress } from "../upstream/route.ts";

/** What was found out about one way to one data centre. */
export interface WayDiagnosis {
  readonly target: DcTarget;
  readonly route: RouteId;
  readonly endpoint: string;
  /** Not for printing as a whole: there may be a token in it. */
  readonly address: WayAddress;
  /** `undefined` when an outbound proxy is in between: then there are no stages to look at. */
  readonly inspection: Inspection | undefined;
  /** Whether the data centre answered. This alone decides: an inspection ends before anything is asked. */
  readonly outcome: ProbeResult | RouteError;
}

/** What was found out about one data centre. */
export interface TargetDiagnosis {
  readonly target: DcTarget;
  /** In the order of the routes. */
  readonly ways: readonly WayDiagnosis[];
  /** Ways of a route that were not tried since the route has so many. */
  readonly leftOut: ReadonlyMap<RouteId, number>;
  /** Ways that would have been tried, had nobody stopped it. */
  readonly missing: number;
}

/** Whether every data centre can be reached, for messages and for media. */
export function allReachable(targets: readonly TargetDiagnosis[]): boolean {
  return targets.every(({ ways }) => ways.some(works));
}

/** Whether the data centre answered on this way. */
export function works({ outcome }: WayDiagnosis): boolean {
  return !(outcome instanceof RouteError);
}

/** The stage at which the inspection ended early, when it did. */
export function failedStage({ inspection }: Pick<WayDiagnosis, "inspection">): Stage | undefined {
  return inspection?.stages.find(({ error }) => error !== undefined);
}

/** The HTTP status that `way` failed with: Bun's WebSocket does not always tell, the inspection does. */
export function failedStatus(way: WayDiagnosis): number | undefined {
  const { outcome } = way;
  if (!(outcome instanceof RouteError)) return undefined;
  return outcome.status ?? failedStage(way)?.error?.status;
}
