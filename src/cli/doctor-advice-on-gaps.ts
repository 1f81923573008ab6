import { TransportError } from "../protocol/mtproto/req-pq.ts";
import { failedStatus } from "./doctor-diagnosis.ts";
import {
  directIsBlocked,
  type Failure,
  gotAnswer,
  having,
  isAddress,
  isDirect,
  isNameless,
  listRoutes,
  type Rule,
  type Situation,
} from "./doctor-situation.ts";
import { joinWith, listSome, listTargets } from "./doctor-text.ts";
import { toLine } from "./routes-report.ts";

/** Telegram's transport error for too many connections. */
const FLOOD = -429;
/** Cloudflare's own statuses for an origin that it cannot reach or whose TLS it does not like. */
const ORIGIN_STATUS = { from: 520, to: 530 } as const;

/** Returns what may help when a data centre has no working route. */
export function adviseOnGaps(situation: Situation): string[] {
  return [onRoutes, onNames, onBlocks, onStrangers, onStatuses, onElsewhere, onTheRest].flatMap((rule) =>
    rule(situation),
  );
}

const onRoutes: Rule = ({ dead }) => {
  const without = dead.filter(({ ways }) => ways.length === 0);
  if (without.length === 0) return [];
  return [`No route serves ${listTargets(without.map(({ target }) => target))}: see --route.`];
};

const onNames: Rule = ({ all, failures }) => {
  const unresolved = failures.filter(isNameless);
  if (unresolved.length === 0) return [];
  const [literal, resolvable] = [all.filter(isLiteral), all.filter((way) => !isLiteral(way))];
  const telegram = unresolved.some(({ way }) => isDirect(way));
  if (telegram && unresolved.length === resolvable.length) {
    if (literal.length > 0 && !literal.some(gotAnswer)) {
      return ["This network resolves no names, and what has an address does not answer, either."];
    }
    return [
      "This network does not resolve Telegram's names: use --dc-ip or --resolve to give their " +
        "addresses, or another DNS server.",
    ];
  }
  const names = listSome(unresolved.map(({ way }) => toLine(way.address.host)));
  return [`No address is found for ${names}: check the name, or give its address with --resolve.`];
};

function isLiteral({ address }: Failure["way"]): boolean {
  return isAddress(address.host);
}

const onBlocks: Rule = (situation) => {
  if (!directIsBlocked(situation)) return [];
  const { routes, all } = situation;
  const cfDomain = routes.includes("cf-domain") || all.some(({ route }) => route === "cf-domain");
  const allow = cfDomain ? [] : ["allow the route cf-domain (--route, and no --no-cfproxy)"];
  const ways = joinWith([...allow, ...waysOut(situation)], "or");
  return [`This network blocks Telegram's own addresses: ${ways}.`];
};

/** Returns what may help when nothing works at all, whatever the reasons are. */
export const adviseOnWayOut: Rule = (situation) => {
  const { targets, dead, failures } = situation;
  if (dead.length < targets.length || directIsBlocked(situation)) return [];
  // What an outbound proxy keeps back needs that proxy first.
  if (having(failures, "PROXY").length > 0) return [];
  return [`A way out may be to ${joinWith(waysOut(situation), "or")}.`];
};

function waysOut({ all, proxy }: Situation): string[] {
  const worker = all.some(({ route }) => route === "cf-worker");
  return [
    ...(worker ? [] : ["use a Worker of your own with --cfproxy-worker-domain"]),
    `go through ${proxy === undefined ? "a" : "another"} proxy with --upstream-proxy`,
  ];
}

const onStrangers: Rule = ({ failures }) => {
  const found = having(failures, "PROTOCOL");
  const isFlood = ({ error: { cause } }: Failure): boolean =>
    cause instanceof TransportError && cause.answer === FLOOD;
  const answers = found.filter(({ error }) => error.cause instanceof TransportError);
  const refusals = answers.filter((failure) => !isFlood(failure));
  const strangers = found.filter((failure) => !answers.includes(failure));
  const lines: string[] = [];
  if (answers.some(isFlood)) {
    lines.push("Telegram gets too many connections from this address: wait some minutes, then run it again.");
  }
  if (refusals.length > 0) {
    lines.push(`Telegram refuses what comes over ${routesOf(refusals)}: it may lead to another data centre.`);
  }
  if (strangers.length > 0) {
    lines.push(
      `What answers on ${routesOf(strangers)} is not Telegram: a page to log in to this network, ` +
        "or a filter. Open any web page, or use another network.",
    );
  }
  return lines;
};

const onStatuses: Rule = ({ failures }) => {
  const found = failures.filter(({ error, way }) => error.code === "STATUS" && failedStatus(way) !== 429);
  return [...Map.groupBy(found, ({ way }) => way.route)].map(([route, group]) => {
    const statuses = [...new Set(group.map(({ way }) => failedStatus(way) ?? 0))];
    const said = `HTTP ${listSome(statuses.map(String))} from ${route}`;
    const refused = statuses.some((status) => status === 401 || status === 403);
    const origin = statuses.some((status) => status >= ORIGIN_STATUS.from && status <= ORIGIN_STATUS.to);
    if (route === "cf-worker" && refused) {
      const given = group.some(({ way }) => way.address.webSocket?.token !== undefined);
      return given
        ? `${said}: it refuses the token, check --cfproxy-worker-token.`
        : `${said}: it asks for a token: give it with --cfproxy-worker-token.`;
    }
    if (route === "cf-worker") return `${said}: check that the Worker is deployed there, and its log.`;
    if (route === "cf-domain" && origin) {
      return `${said}: the domain's records or its SSL mode, which must be Flexible, are wrong.`;
    }
    return `${said}: that server does not pass WebSockets on.`;
  });
};

/** Of names that lead elsewhere. Redirects of Telegram's own servers are among the faults. */
const onElsewhere: Rule = ({ failures }) => {
  const redirects = having(failures, "REDIRECT").filter(({ way }) => !isDirect(way));
  return [...Map.groupBy(redirects, ({ way }) => way.route)].map(([route, group]) => {
    const names = listSome(
      group.map(({ way }) => toLine(way.address.webSocket?.serverName ?? way.address.host)),
    );
    const flag = route === "cf-worker" ? "--cfproxy-worker-domain" : "--cfproxy-domain";
    return `HTTP redirect from ${names}: that is no way to Telegram, check ${flag}.`;
  });
};

const onTheRest: Rule = (situation) => {
  const { targets, all, dead } = situation;
  if (dead.length === targets.length || directIsBlocked(situation)) return [];
  const where = listTargets(dead.map(({ target }) => target));
  const worker = all.some(({ route }) => route === "cf-worker")
    ? ""
    : ", or use a Worker of your own (--cfproxy-worker-domain), which serves every data centre";
  return [`For ${where}, give other addresses with --dc-ip or --dc-tcp${worker}.`];
};

function routesOf(failures: readonly Failure[]): string {
  return listRoutes(failures.map(({ way }) => way));
}
