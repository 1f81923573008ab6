import type { RouteErrorCode } from "../core/errors.ts";
import { DEFAULT_DC_IPS, webSocketDc } from "../protocol/mtproto/dc-addresses.ts";
import { failedStatus, works } from "./doctor-diagnosis.ts";
import {
  type Failure,
  having,
  isAddress,
  isDirect,
  listRoutes,
  type Rule,
  type Situation,
} from "./doctor-situation.ts";
import { listTargets } from "./doctor-text.ts";
import { formatDuration, toLine } from "./routes-report.ts";

const FROZEN: readonly RouteErrorCode[] = ["SILENT", "STALLED"];

/** Returns what is worth saying even when every data centre has a route. */
export function adviseOnFaults(situation: Situation): string[] {
  return [onProxy, onCertificates, onRedirects, onLimits, onFreezes].flatMap((rule) => rule(situation));
}

const onProxy: Rule = ({ failures }) =>
  having(failures, "PROXY").length === 0
    ? []
    : ["The outbound proxy refuses: check the address, the name and the password in --upstream-proxy."];

const onCertificates: Rule = ({ failures }) => {
  const found = having(failures, "TLS");
  if (found.length === 0) return [];
  return [
    `The certificate or the TLS handshake is not what it should be on ${routesOf(found)}: somebody is in ` +
      "between. If that is a filter that you trust, give its certificate with --tls-ca; otherwise " +
      "use another network.",
  ];
};

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

const onFreezes: Rule = ({ failures, all }) => {
  const byRoute = Map.groupBy(having(failures, ...FROZEN), ({ way }) => way.route);
  return [...byRoute].map(([route, found]) => {
    const healthy = all.find((way) => works(way) && !byRoute.has(way.route));
    const example = healthy === undefined ? "" : `, for example --route ${healthy.route},${route}`;
    const first = `name another first with --route${example}`;
    const where = targetsOf(found);
    const stalled = found.find(({ codes }) => codes.includes("STALLED"));
    if (stalled !== undefined) {
      return `The network freezes flows on ${route} (${where}: ${toLine(stalled.error.message)}): ${first}.`;
    }
    if (route === "cf-worker") {
      const worker = `The Worker opens, but nothing comes back from Telegram (${where})`;
      return `${worker}: check its code and its log, and ${first}.`;
    }
    return `${route} opens, but nothing comes back (${where}): the network swallows it; ${first}.`;
  });
};

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
