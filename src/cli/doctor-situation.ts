import type { NetworkInterfaceInfo } from "node:os";
import { RouteError, type RouteErrorCode } from "../core/errors.ts";
import type { OutboundProxy } from "../core/outbound-proxy.ts";
import type { SiteReport } from "../proxy/cover-report.ts";
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

/** What is known besides the diagnoses. */
export interface Circumstances {
  /** The configured routes, in the order of trying. Without: those of the diagnoses. */
  readonly routes?: readonly RouteId[] | undefined;
  /** What ways go through, unless they bypass it. */
  readonly proxy?: OutboundProxy | undefined;
  /** Whether this computer is in any network, see {@link hasNetwork}. Without: it is. */
  readonly online?: boolean | undefined;
  /** What strangers are shown. Without: nothing. */
  readonly sites?: readonly SiteReport[] | undefined;
}

/** What advice is drawn from. */
export interface Situation {
  readonly routes: readonly RouteId[];
  readonly proxy: OutboundProxy | undefined;
  /** This computer is in no network, and nothing that came speaks against it. */
  readonly offline: boolean;
  readonly targets: readonly TargetDiagnosis[];
  readonly all: readonly WayDiagnosis[];
  readonly failures: readonly Failure[];
  /** Targets without a working way. */
  readonly dead: readonly TargetDiagnosis[];
  readonly sites: readonly SiteReport[];
}

/** Looks for one kind of trouble, and returns a line for each case of it that there is. */
export type Rule = (situation: Situation) => string[];

/** Routes to Telegram's own addresses. */
const DIRECT: readonly RouteId[] = ["direct-ws", "fronted-ws", "direct-tcp"];
/** `ABORTED`: not tried any more, since earlier attempts at the same address still hang. */
const BLOCKED: readonly RouteErrorCode[] = ["TIMEOUT", "REFUSED", "UNREACHABLE", "CLOSED", "ABORTED"];

/** What comes where there is no network. Bun says ECONNREFUSED where it should say ENETUNREACH. */
const OFFLINE: readonly RouteErrorCode[] = ["DNS", "REFUSED", "UNREACHABLE", "TIMEOUT", "ABORTED"];
/** What a server sent, so that its address is not blocked. */
const ANSWERED: readonly RouteErrorCode[] = ["REDIRECT", "STATUS", "PROTOCOL", "STALLED"];

/** Puts together what advice is drawn from. */
export function situationOf(
  targets: readonly TargetDiagnosis[],
  { routes, proxy, online = true, sites = [] }: Circumstances = {},
): Situation {
  const all = targets.flatMap(({ ways }) => ways);
  const failures = failuresOf(all);
  const silent = failures.every(({ codes }) => codes.every((code) => OFFLINE.includes(code)));
  return {
    routes: routes ?? [...new Set(all.map(({ route }) => route))],
    proxy,
    offline: !online && all.length > 0 && failures.length === all.length && silent,
    targets,
    all,
    failures,
    dead: targets.filter(({ ways }) => !ways.some(works)),
    sites,
  };
}

/**
 * Whether any address leads out of this computer: loopback does not, nor do those that an interface gives
 * itself when nobody else does.
 *
 * @param interfaces What `os.networkInterfaces()` returns.
 */
export function hasNetwork(interfaces: NodeJS.Dict<readonly NetworkInterfaceInfo[]>): boolean {
  const addresses = Object.values(interfaces).flatMap((found) => found ?? []);
  return addresses.some(({ internal, address }) => !internal && !/^(?:169\.254\.|fe[89ab])/i.test(address));
}

/** The failures with one of `codes`. */
export function having(failures: readonly Failure[], ...codes: readonly RouteErrorCode[]): Failure[] {
  return failures.filter((failure) => failure.codes.some((code) => codes.includes(code)));
}

/** Whether a way leads to Telegram's own addresses, without Cloudflare in between. */
export function isDirect({ route }: WayDiagnosis): boolean {
  return DIRECT.includes(route);
}

/**
 * Whether every direct way fails as on a network that blocks Telegram's addresses; one whose name has no
 * address is neither for it nor against it.
 */
export function directIsBlocked({ all, failures }: Situation): boolean {
  const direct = all.filter((way) => isDirect(way) && !viaProxy(way));
  const nameless = failures.filter(isNameless);
  const blocked = failures.filter(
    (failure) => BLOCKED.includes(failure.error.code) && !nameless.includes(failure),
  );
  const either = new Set([...nameless, ...blocked].map(({ way }) => way));
  return blocked.some(({ way }) => direct.includes(way)) && direct.every((way) => either.has(way));
}

/** Whether an outbound proxy is in between, so that there are no stages to see. */
export function viaProxy({ inspection }: WayDiagnosis): boolean {
  return inspection === undefined;
}

/** Whether no address was found for the name. */
export function isNameless({ way, codes }: Failure): boolean {
  return codes.includes("DNS") || failedStage(way)?.name === "dns";
}

/** Whether a server answered in any way. */
export function gotAnswer(way: WayDiagnosis): boolean {
  return works(way) || failureOf(way).some(({ codes }) => codes.some((code) => ANSWERED.includes(code)));
}

/** Whether `host` is an IP address: names have no colon, and their last label is not a number. */
export function isAddress(host: string): boolean {
  return host.includes(":") || /^\d+(?:\.\d+){3}$/.test(host);
}

/** `direct-ws and cf-domain`. */
export function listRoutes(ways: readonly WayDiagnosis[]): string {
  return joinWith([...new Set(ways.map(({ route }) => route))], "and");
}

/** What failed of `ways`. */
export function failuresOf(ways: readonly WayDiagnosis[]): Failure[] {
  return ways.flatMap(failureOf);
}

function failureOf(way: WayDiagnosis): Failure[] {
  const { outcome } = way;
  if (!(outcome instanceof RouteError)) return [];
  const stage = failedStage(way)?.error;
  return [{ way, error: outcome, codes: stage === undefined ? [outcome.code] : [outcome.code, stage.code] }];
}
