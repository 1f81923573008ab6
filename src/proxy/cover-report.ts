import { RouteError, type TgwsError } from "../core/errors.ts";
import { formatHostPort } from "../net/outbound-proxy.ts";
import type { TcpEndpoint } from "../net/tcp-dial.ts";
import { GROUP } from "../protocol/tls/client-hello.ts";
import type { CoverProfile } from "../protocol/tls/cover-profile.ts";
import { type Shortcoming, type Survey, SurveyError, type SurveyFault } from "./cover-survey.ts";

/** Addresses of a name that are named to the user. */
const MOST_NAMED = 2;

/** What a look at a site has found. */
export interface SiteReport {
  readonly domain: string;
  /** It was reached, and answers as clients can be answered. */
  readonly usable: boolean;
  /** Where it was reached, `host:port`. */
  readonly address: string | undefined;
  /** How it answers clients, for a person; `undefined` when that could not be measured. */
  readonly look: string | undefined;
  readonly problems: readonly SiteProblem[];
  readonly notes: readonly SiteNote[];
}

/** What a prober or a network could notice; for a person. */
export interface SiteProblem {
  readonly kind: "nameless" | "elsewhere" | RefusalReason | "unreachable" | SurveyFault | Shortcoming["kind"];
  /** What is wrong and what to do, without a full stop. */
  readonly text: string;
  /** The first half of `text`. */
  readonly cause: string;
  /** The second half of `text`, as it goes on after a colon. */
  readonly action: string;
}

/** What cannot be helped, and hardly hurts: its encrypted answer comes in several records, where ours is one. */
export interface SiteNote {
  readonly kind: "records";
  readonly count: number;
}

/** Says what there is to know of `sites`, and nothing to do about: one text, without a full stop, for all together. */
export function describeNotes(sites: readonly Pick<SiteReport, "domain" | "notes">[]): string[] {
  const noted = sites.filter(({ notes }) => notes.length > 0);
  if (noted.length === 0) return [];
  const names = noted.map(({ domain }) => domain);
  const counts = [...new Set(noted.flatMap(({ notes }) => notes.map(({ count }) => count)))];
  const last = names.length > 1 ? ` and ${names.at(-1)}` : "";
  const who = `${names.slice(0, Math.max(1, names.length - 1)).join(", ")}${last}`;
  const several = counts.length > 1 ? `${Math.min(...counts)} to ${Math.max(...counts)}` : counts.join("");
  return [
    `${who} ${names.length > 1 ? "answer" : "answers"} in ${several} TLS records, where Telegram's apps take one: ours ` +
      "is one of the same length, which a close look at a served connection can tell. A server with BoringSSL " +
      "answers in one",
  ];
}

/**
 * Why a site is not connected to.
 *
 * - `loop` it is this proxy
 * - `private` DNS says a private address for it, and the user has not named it
 */
export type RefusalReason = "loop" | "private";

const REFUSALS: Readonly<Record<RefusalReason, string>> = {
  loop: "it leads back to this proxy",
  private: "it leads to a private address",
};

/** `UNREACHABLE`: a site that must not be connected to. */
export class SiteRefusal extends RouteError {
  readonly why: RefusalReason;
  /** What DNS says. */
  readonly endpoint: TcpEndpoint | undefined;

  constructor(why: RefusalReason, endpoint?: TcpEndpoint) {
    super("UNREACHABLE", REFUSALS[why]);
    this.why = why;
    this.endpoint = endpoint;
  }
}

/** Where a site was looked for. */
export interface Trail {
  tried: TcpEndpoint | undefined;
  reached: TcpEndpoint | undefined;
}

/** What is known of a site that could not be measured, or reached. */
export interface Failure extends Trail {
  /** Where the user says it is. */
  readonly host: TcpEndpoint | undefined;
  /** A connection to it came back to us. */
  readonly loops: boolean;
}

/** Says why a site could not be measured, and what to do. */
export function problemOfFailure(
  domain: string,
  error: TgwsError,
  { host, loops, tried, reached }: Failure,
): SiteProblem {
  if (loops || (error instanceof SiteRefusal && error.why === "loop")) {
    if (host === undefined) return makeProblem("loop", `${domain} leads back to this proxy`, ". ", SAY_WHERE);
    const given = `--mask-host ${formatHostPort(host.host, host.port)}`;
    const action = "give the web server's own address and port";
    return makeProblem("loop", `${given} leads back to this proxy`, ": ", action);
  }
  if (error instanceof SiteRefusal) {
    const where = formatEndpoint(error.endpoint);
    const cause = `${domain} leads to a private address (${where}), where strangers are led only if you say so`;
    return makeProblem("private", cause, ". ", `if that is meant, name it: --mask-host ${where}`);
  }
  if (error instanceof SurveyError) return faultOf(domain, error, formatEndpoint(reached));
  if (isUnnamed(error, host)) {
    return makeProblem(
      "unreachable",
      `${namelessText(domain)}. ${upperFirst(SHOWS_NOTHING)}`,
      ". ",
      SAY_WHERE,
    );
  }
  const where = formatEndpoint(tried ?? host);
  const why = where === undefined ? error.message : `${where}: ${error.message}`;
  const remedy = error.code === "PROXY" ? "check --upstream-proxy" : "start the site";
  const cause = `${domain} cannot be reached (${why}): ${SHOWS_NOTHING}`;
  return makeProblem("unreachable", cause, ". ", `${remedy}, or ${SAY_WHERE}`);
}

/** Whether `error` is that a site's own name has no address. */
export function isUnnamed(error: TgwsError, host: TcpEndpoint | undefined): boolean {
  return host === undefined && error instanceof RouteError && error.code === "DNS";
}

/** What whoever looks a name up can tell whose `addresses` are not here, or that has none. */
export function problemOfName(domain: string, addresses: readonly string[]): SiteProblem {
  if (addresses.length === 0) {
    return makeProblem("nameless", namelessText(domain), ". ", "let it have an address in DNS");
  }
  const named = addresses.toSorted().slice(0, MOST_NAMED).join(", ");
  const more = addresses.length - MOST_NAMED;
  const rest = more > 0 ? ` and ${more} more,` : "";
  const which = addresses.length > 1 ? "one of these addresses" : "that address";
  const cause = `${domain} leads to ${named}${rest} and not to this machine: whoever looks the name up can tell`;
  const action = `let DNS lead the name here, unless a router in front of this machine has ${which}`;
  return makeProblem("elsewhere", cause, ". ", action);
}

const SAY_WHERE = "say where it is: --mask-host <host:port>";
const SHOWS_NOTHING = "whoever opens this address sees that no web site is here";

/** @param joint What goes between the two; after a full stop `action` begins with a capital letter. */
function makeProblem(
  kind: SiteProblem["kind"],
  cause: string,
  joint: ". " | ": " | "; ",
  action: string,
): SiteProblem {
  return { kind, text: `${cause}${joint}${joint === ". " ? upperFirst(action) : action}`, cause, action };
}

function upperFirst(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function namelessText(domain: string): string {
  return `${domain} cannot be looked up from here; if nobody can look it up, it does not pass for a web site`;
}

/** @param where The address that answers so. */
function faultOf(domain: string, { why, message }: SurveyError, where = "its address"): SiteProblem {
  const says = `${domain} (${where})`;
  switch (why) {
    case "old-tls": {
      const cause = `${domain} does not speak TLS 1.3, but apps are answered with it: networks can tell`;
      return makeProblem(why, cause, ". ", "turn TLS 1.3 on there, or name another site");
    }
    case "not-tls": {
      const action = `is that its port for http? Give the one for https: --mask-host <host:port>`;
      return makeProblem(why, `${domain} does not answer with TLS at ${where}`, ": ", action);
    }
    case "closed": {
      const action = 'a port with "proxy_protocol" needs one without it for tgws';
      return makeProblem(why, `${says} did not answer with a ServerHello before it closed`, "; ", action);
    }
    case "refused": {
      const action = "let it serve this name there, with TLS 1.3, or name another site";
      return makeProblem(why, `${says} takes no hello like those of apps: ${message}`, ". ", action);
    }
    case "silent":
    case "garbled": {
      const action = `see that a web site with TLS 1.3 answers there, or ${SAY_WHERE}`;
      return makeProblem(why, `${says} does not answer like a web site: ${message}`, ". ", action);
    }
  }
}

/** A site that answers in several records is none: see {@link SiteNote}. */
export function problemsOf(domain: string, shortcoming: Shortcoming): SiteProblem[] {
  const { kind } = shortcoming;
  const start = `${domain} cannot be imitated in full`;
  if (kind === "too-long") {
    const cause = `${start}: its certificates are longer than the one TLS record that apps take`;
    return [makeProblem(kind, cause, ". ", "give it a shorter chain of certificates, or name another site")];
  }
  if (kind === "records") return [];
  const { group } = shortcoming;
  const which = group === undefined ? "" : ` (${groupName(group)})`;
  const cause = `${start}: it asks for a key exchange that apps do not offer${which}, so networks can tell`;
  return [makeProblem(kind, cause, ". ", "turn X25519 on there: ssl_ecdh_curve X25519:prime256v1 in nginx")];
}

/** `host:port`. */
export function formatEndpoint(endpoint: TcpEndpoint | undefined): string | undefined {
  return endpoint && formatHostPort(endpoint.host, endpoint.port);
}

/** For the log. */
export function describeProfile({ suites, groups, flightSizes }: CoverProfile): string {
  const hex = (value: number): string => value.toString(16).padStart(4, "0");
  const order = suites === "client" ? "the client's order" : suites.map(hex).join(" ");
  const sizes = [...new Set(flightSizes)].toSorted((one, other) => one - other).join("/");
  return `suites in ${order}, groups ${groups.map(hex).join(" ")}, ${sizes} bytes encrypted`;
}

/** For a person. */
export function describeLook({ profile, shortcomings }: Survey): string {
  const foreign = shortcomings.find((shortcoming) => shortcoming.kind === "key-exchange");
  // Nothing of its answer was seen: it would have come after another hello.
  if (foreign !== undefined) return `TLS 1.3, ${groupName(foreign.group)}`;
  const sizes = profile.flightSizes.toSorted((one, other) => one - other);
  const size = sizes[Math.floor(sizes.length / 2)] ?? 0;
  return `TLS 1.3, ${groupName(profile.groups[0])}, an answer of about ${size.toLocaleString("en-US")} bytes`;
}

/** @see https://www.iana.org/assignments/tls-parameters/tls-parameters.xhtml#tls-parameters-8 */
const GROUP_NAMES: Readonly<Record<number, string>> = {
  [GROUP.secp256r1]: "P-256",
  [GROUP.secp384r1]: "P-384",
  25: "P-521",
  [GROUP.x25519]: "X25519",
  [GROUP.x25519MlKem768]: "X25519MLKEM768",
};

function groupName(group: number | undefined): string {
  return group === undefined ? "an unknown key exchange" : (GROUP_NAMES[group] ?? `the group ${group}`);
}
