import { RouteError, type RouteErrorCode } from "../core/errors.ts";
import { formatHostPort } from "../net/outbound-proxy.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import { DEFAULT_DC_IPS, webSocketDc } from "../protocol/mtproto/dc-addresses.ts";
import type { RouteId } from "../upstream/route.ts";
import {
  failedStage,
  failedStatus,
  type TargetDiagnosis,
  type WayDiagnosis,
  works,
} from "./doctor-diagnosis.ts";
import {
  type Failure,
  failuresOf,
  having,
  isAddress,
  isDirect,
  listRoutes,
  type Rule,
  type Situation,
  viaProxy,
} from "./doctor-situation.ts";
import { listSome, listTargets } from "./doctor-text.ts";
import { formatDuration, toLine } from "./routes-report.ts";

const FROZEN: readonly RouteErrorCode[] = ["SILENT", "STALLED"];

/** Returns what is worth saying even when every data centre has a route. */
export function adviseOnFaults(situation: Situation): string[] {
  return [onProxy, onCertificates, onRedirects, onLimits, onFreezes].flatMap((rule) => rule(situation));
}

const onProxy: Rule = ({ failures, all, proxy }) => {
  const found = failures.filter(({ error }) => error.code === "PROXY" || isUnreachableProxy(error));
  const where = proxy === undefined ? "" : ` at ${formatHostPort(proxy.host, proxy.port)}`;
  const behind = all.filter(viaProxy);
  const lines: string[] = [];
  if (found.some(({ error }) => isUnreachableProxy(error))) {
    lines.push(
      `The outbound proxy${where} cannot be reached: is it running? Check the address in --upstream-proxy.`,
    );
  } else if (proxy !== undefined && behind.length > 0 && behind.every(timesOut)) {
    lines.push(
      `Nothing comes through the outbound proxy${where}: is it running? Check the address in --upstream-proxy.`,
    );
  }
  const refusals = found.filter(({ error }) => !isUnreachableProxy(error));
  const login = refusals.filter(({ error }) => wantsLogin(error));
  if (login.length > 0) {
    const status = proxy?.kind === "socks5" ? "" : " (407)";
    lines.push(
      proxy !== undefined && proxy.username === undefined
        ? `The outbound proxy asks for a name and a password${status}: give them in --upstream-proxy.`
        : `The outbound proxy refuses the name and password${status}: check them in --upstream-proxy.`,
    );
  }
  const others = refusals.filter((failure) => !login.includes(failure));
  if (others.length > 0) {
    const words = listSome(others.map(({ error }) => toLine(error.message)));
    lines.push(`The outbound proxy does not do what it is asked for (${words}): check --upstream-proxy.`);
  }
  return lines;
};

function timesOut({ outcome }: WayDiagnosis): boolean {
  return outcome instanceof RouteError && outcome.code === "TIMEOUT" && !isUnreachableProxy(outcome);
}

/** What cannot be connected to: codes of our own errors, and of Bun's below them. */
const UNREACHABLE: readonly string[] = [
  ...(["REFUSED", "UNREACHABLE", "DNS", "CLOSED", "TIMEOUT", "UNKNOWN"] satisfies RouteErrorCode[]),
  ...["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EADDRNOTAVAIL", "EAI_AGAIN", "ENOTFOUND"],
];

/** Whether `error` is about the connection to the outbound proxy, rather than about what the proxy says. */
function isUnreachableProxy({ code, cause, message }: RouteError): boolean {
  if (cause instanceof RouteError) {
    return (code === "PROXY" || code === "TIMEOUT") && UNREACHABLE.includes(cause.code);
  }
  if (code !== "PROXY") return false;
  if (cause instanceof Error && "code" in cause && UNREACHABLE.includes(String(cause.code))) return true;
  return message.includes("cannot be reached: "); // the bridge to a SOCKS5 proxy hands on no more than words
}

/** The status is lost on a WebSocket's way through a proxy, and SOCKS5 has none: there the words must do. */
function wantsLogin({ status, message }: RouteError): boolean {
  if (status !== undefined) return status === 407 || status === 401;
  return /\b40[17]\b|\buser and (?:a |the )?password\b/.test(message);
}

const onCertificates: Rule = ({ failures }) => {
  const found = having(failures, "TLS");
  const untimely = found.filter(isUntimely);
  const others = found.filter((failure) => !untimely.includes(failure));
  const lines: string[] = [];
  if (untimely.length > 0) {
    const time = new Date().toISOString().slice(0, 16).replace("T", " ");
    lines.push(
      `The certificates on ${routesOf(untimely)} are not valid at the time that this machine's clock shows, ` +
        `${time} UTC. If that is wrong, set the clock: timedatectl shows whether it sets itself. If it is ` +
        "right, somebody is in between.",
    );
  }
  if (others.length > 0) {
    lines.push(
      `The certificate or the TLS handshake is not what it should be on ${routesOf(others)}: somebody is in ` +
        "between. If that is a filter that you trust, give its certificate with --tls-ca; otherwise " +
        "use another network.",
    );
  }
  return lines;
};

/** Whether a certificate is too young or too old; a machine without a clock of its own starts in the past. */
function isUntimely({ way, error }: Failure): boolean {
  const text = `${error.message} ${failedStage(way)?.error?.message ?? ""}`; // the WebSocket's error has no more than words
  return /\bCERT_(?:NOT_YET_VALID|HAS_EXPIRED)\b/.test(text);
}

const onRedirects: Rule = ({ failures, dead }) => {
  const redirects = having(failures, "REDIRECT").filter(({ way }) => isDirect(way));
  const byHost = Map.groupBy(redirects, ({ way }) => `${way.address.host} ${isBuiltIn(way)}`);
  return [...byHost.values()].map((found) => {
    const host = found[0]?.way.address.host ?? "";
    const says = `${toLine(host)} does not serve ${targetsOf(found)} (HTTP redirect)`;
    if (!isAddress(host)) return `${says}: give an address with --dc-ip.`;
    if (!found.some(({ way }) => isBuiltIn(way))) return `${says}: take it out of --dc-ip for that.`;
    const stuck = found.some(({ way }) => dead.some(({ ways }) => ways.includes(way)));
    const next = stuck ? "give another with --dc-ip" : "another route is used";
    return `The built-in address ${says}: ${next}.`;
  });
};

const onLimits: Rule = ({ failures }) => {
  const found = failures.filter(({ way }) => failedStatus(way) === 429);
  const again = Math.max(0, ...found.map(({ way }) => way.inspection?.retryAfterMs ?? 0));
  const wait = again > 0 ? ` It may be asked again in ${formatDuration(again)}.` : "";
  const lines: string[] = [];
  if (found.some(({ way }) => way.route === "cf-worker")) {
    lines.push(
      "The Worker has used up its requests (100,000 a day on Cloudflare's free plan): wait until " +
        `midnight UTC, or add a second one with --cfproxy-worker-domain.${wait}`,
    );
  }
  const others = found.filter(({ way }) => way.route !== "cf-worker");
  if (others.length > 0) {
    lines.push(`Too many requests (HTTP 429) on ${routesOf(others)}: wait before the next try.${wait}`);
  }
  return lines;
};

/**
 * Of routes that open and carry nothing. Where one that works comes before them, nobody notices; where it
 * comes after them, another order saves the first try; where there is none, it is said what they do.
 */
const onFreezes: Rule = (situation) => {
  const { routes, targets, all } = situation;
  const frozen = targets.flatMap(frozenAt);
  if (frozen.length === 0) return [];
  const stuck = new Set(frozen.map(({ way }) => way.route));
  const lines = describeFrozen(frozen.filter(({ way }) => !hasWorking(situation, way.target)));
  const late = frozen.filter(({ way }) => {
    const place = routes.indexOf(way.route);
    const healthy = all.filter((other) => isSameTarget(other.target, way.target) && works(other));
    return healthy.length > 0 && !healthy.some(({ route }) => routes.indexOf(route) < place);
  });
  if (late.length === 0) return lines;
  const working = new Set(all.filter(works).map(({ route }) => route));
  const rank = (route: RouteId): number => (stuck.has(route) ? 2 : working.has(route) ? 0 : 1);
  const order = routes.toSorted((one, other) => rank(one) - rank(other));
  const saved = new Set(late.map(({ way }) => way.route)).size > 1 ? "their" : "its";
  const goes = `tgws goes past ${routesOf(late)} by itself`;
  if (order.every((route, at) => route === routes[at])) return lines;
  return [...lines, `${goes}; to save ${saved} first try: --route ${order.join(",")}`];
};

/** The ways of routes that open for a data centre, but have none there that carries anything. */
function frozenAt({ ways }: TargetDiagnosis): Failure[] {
  const carrying = new Set(ways.filter(works).map(({ route }) => route));
  return having(failuresOf(ways), ...FROZEN).filter(({ way }) => !carrying.has(way.route));
}

/** One line a route. */
function describeFrozen(frozen: readonly Failure[]): string[] {
  return [...Map.groupBy(frozen, ({ way }) => way.route)].map(([route, found]) => {
    const where = targetsOf(found);
    const stalled = found.find(({ codes }) => codes.includes("STALLED"));
    if (stalled !== undefined) {
      return `The network freezes flows on ${route} (${where}: ${toLine(stalled.error.message)}).`;
    }
    if (route !== "cf-worker") {
      return `${route} opens, but nothing comes back (${where}): the network swallows it.`;
    }
    const worker = `The Worker opens, but nothing comes back from Telegram (${where})`;
    return `${worker}: check its code and its log.`;
  });
}

function hasWorking({ dead }: Situation, target: DcTarget): boolean {
  return !dead.some((diagnosis) => isSameTarget(diagnosis.target, target));
}

function isSameTarget(one: DcTarget, other: DcTarget): boolean {
  return one.dc === other.dc && one.media === other.media && one.test === other.test;
}

/** The same address given with `--dc-ip` cannot be told from the built-in one, and needs no other advice. */
function isBuiltIn({ target: { dc }, address: { host } }: Failure["way"]): boolean {
  return (DEFAULT_DC_IPS.get(dc) ?? DEFAULT_DC_IPS.get(webSocketDc(dc))) === host;
}

function routesOf(failures: readonly Failure[]): string {
  return listRoutes(failures.map(({ way }) => way));
}

function targetsOf(failures: readonly Failure[]): string {
  return listTargets(failures.map(({ way }) => way.target));
}
