import { RouteError, type RouteErrorCode } from "../core/errors.ts";
import type { RouteId } from "../upstream/route.ts";
import { failedStage, type TargetDiagnosis, type WayDiagnosis, works } from "./doctor-diagnosis.ts";
import { joinWith } from "./doctor-text.ts";

/** A way that does not work. */
export interface Failure {
  readonly way: WayDiagnosis;
  readonly error: RouteError;
  /** Codes of the probe and of the stage that failed. */
  readonly codes: readonly RouteErrorCode[];
}

/** What advice is drawn from. */
export interface Situation {
  readonly targets: readonly TargetDiagnosis[];
  readonly all: readonly WayDiagnosis[];
  readonly failures: readonly Failure[];
  /** Targets without a working way. */
  readonly dead: readonly TargetDiagnosis[];
}

/** Looks for one kind of trouble, and returns a line for each case of it that there is. */
export type Rule = (situation: Situation) => string[];

/** Routes to Telegram's own addresses. */
const DIRECT: readonly RouteId[] = ["direct-ws", "fronted-ws", "direct-tcp"];
const BLOCKED: readonly RouteErrorCode[] = ["TIMEOUT", "REFUSED", "UNREACHABLE", "CLOSED"];

/** Puts together what advice is drawn from. */
export function situationOf(targets: readonly TargetDiagnosis[]): Situation {
  const all = targets.flatMap(({ ways }) => ways);
  const dead = targets.filter(({ ways }) => !ways.some(works));
  return { targets, all, failures: all.flatMap(failureOf), dead };
}

/** The failures with one of `codes`. */
export function having(failures: readonly Failure[], ...codes: readonly RouteErrorCode[]): Failure[] {
  return failures.filter((failure) => failure.codes.some((code) => codes.includes(code)));
}

/** Whether a way leads to Telegram's own addresses, without Cloudflare in between. */
export function isDirect({ route }: WayDiagnosis): boolean {
  return DIRECT.includes(route);
}

/** Whether every direct way fails as on a network that blocks Telegram's addresses. */
export function directIsBlocked({ all, failures }: Situation): boolean {
  const direct = all.filter(isDirect);
  const blocked = failures.filter(({ way, error }) => isDirect(way) && BLOCKED.includes(error.code));
  return direct.length > 0 && blocked.length === direct.length;
}

/** Whether `host` is an IP address: names have no colon, and their last label is not a number. */
export function isAddress(host: string): boolean {
  return host.includes(":") || /^\d+(?:\.\d+){3}$/.test(host);
}

/** `direct-ws and cf-domain`. */
export function listRoutes(ways: readonly WayDiagnosis[]): string {
  return joinWith([...new Set(ways.map(({ route }) => route))], "and");
}

function failureOf(way: WayDiagnosis): Failure[] {
  const { outcome } = way;
  if (!(outcome instanceof RouteError)) return [];
  const stage = failedStage(way)?.error;
  return [{ way, error: outcome, codes: stage === undefined ? [outcome.code] : [outcome.code, stage.code] }];
}
