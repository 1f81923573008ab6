import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError, TgwsError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { isPublicAddress } from "../core/ip-network.ts";
import type { TcpEndpoint } from "../net/tcp-dial.ts";
import { type CoverProfile, defaultProfile } from "../protocol/tls/cover-profile.ts";
import {
  describeLook,
  describeProfile,
  formatEndpoint,
  isUnnamed,
  problemOfFailure,
  problemOfName,
  problemsOf,
  type SiteProblem,
  SiteRefusal,
  type SiteReport,
  type Trail,
} from "./cover-report.ts";
import { surveyCover } from "./cover-survey.ts";

/** How long the addresses of a name are used before DNS is asked again, in milliseconds. */
const ADDRESS_MS = 5 * 60_000;
/** A site may change its certificate, or its server. */
const SURVEY_MS = 6 * 60 * 60_000;
/** The first clients wait so long for it, so that the site does not seem to change just after the start. */
const FIRST_LOOK_MS = 2_500;
/** After a survey that failed. */
const SURVEY_AGAIN_MS = 5 * 60_000;
/** Addresses of a name that are tried, one after the other. */
const MOST_ADDRESSES = 3;
const HTTPS_PORT = 443;

/** What a {@link CoverSite} needs. */
export interface CoverSiteDeps {
  /** Where it is; without, at its addresses, port 443. */
  readonly host: TcpEndpoint | undefined;
  /** Addresses that the user has given for names. */
  readonly pinned: (name: string) => string | undefined;
  /** Asks DNS. Rejects when there is none. */
  readonly lookUp: (name: string) => Promise<readonly string[]>;
  /** @throws {RouteError} */
  readonly dial: (endpoint: TcpEndpoint, signal: Cancel) => Promise<Channel>;
  /** Whether whoever connects there comes to us. */
  readonly isOwn: (endpoint: TcpEndpoint) => boolean;
  /** Whether an address is one of this machine. */
  readonly isHere: (address: string) => boolean;
  readonly debug: (text: string) => void;
}

/** One web site that strangers are shown. */
export class CoverSite {
  profile: CoverProfile;
  /** The first survey is over, or takes too long. */
  measured: Promise<void> = Promise.resolve();
  readonly domain: string;
  readonly #deps: CoverSiteDeps;
  #known: { readonly addresses: readonly string[]; readonly at: number } | undefined;
  /** Randoms of the hellos that measured it last. */
  readonly #sent = new Set<string>();
  /** A connection to it came back to us. */
  #loops = false;

  constructor(domain: string, deps: CoverSiteDeps) {
    this.domain = domain;
    this.#deps = deps;
    this.profile = defaultProfile(domain);
  }

  onHello(random: Uint8Array): void {
    if (this.#sent.size > 0 && this.#sent.has(random.toHex())) this.#loops = true;
  }

  async connect(signal: Cancel): Promise<Channel> {
    if (this.#loops) throw new SiteRefusal("loop");
    return this.#dial(signal, { tried: undefined, reached: undefined });
  }

  async #dial(signal: Cancel, trail: Trail): Promise<Channel> {
    let failure: unknown;
    for (const endpoint of (await this.#endpoints()).slice(0, MOST_ADDRESSES)) {
      trail.tried = endpoint;
      try {
        const channel = await this.#deps.dial(endpoint, signal);
        trail.reached = endpoint;
        return channel;
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async keepSurveyed(closing: AbortSignal, onReport: (report: SiteReport) => void): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.measured = promise;
    const timer = setTimeout(resolve, FIRST_LOOK_MS);
    while (!closing.aborted) {
      const report = await this.survey(closing);
      clearTimeout(timer);
      resolve();
      if (closing.aborted) return;
      onReport(report);
      await sleep(report.look === undefined ? SURVEY_AGAIN_MS : SURVEY_MS, closing);
    }
  }

  async survey(closing: AbortSignal): Promise<SiteReport> {
    const { domain } = this;
    this.#sent.clear();
    const ofName = await this.#checkDns();
    const trail: Trail = { tried: undefined, reached: undefined };
    try {
      const survey = await surveyCover(
        domain,
        () => this.#dial(closing, trail),
        (random) => this.#sent.add(random.toHex()),
      );
      const { profile, shortcomings } = survey;
      this.profile = profile;
      this.#loops = false; // whoever sees our hellos on their way can send us one, too
      this.#debug(`is measured: ${describeProfile(profile)}`, closing);
      return {
        domain,
        usable: !shortcomings.some(({ kind }) => kind === "key-exchange"),
        address: formatEndpoint(trail.reached),
        look: describeLook(survey),
        problems: [...ofName, ...shortcomings.flatMap((shortcoming) => problemsOf(domain, shortcoming))],
        notes: shortcomings.filter((shortcoming) => shortcoming.kind === "records"),
      };
    } catch (error) {
      if (!(error instanceof TgwsError)) throw error;
      this.#debug(`cannot be measured: ${error.message}`, closing);
      const { host } = this.#deps;
      const problem = problemOfFailure(domain, error, { ...trail, host, loops: this.#loops });
      // That it has no address is said once, with what comes of it.
      const others = isUnnamed(error, host) ? ofName.filter(({ kind }) => kind !== "nameless") : ofName;
      return {
        domain,
        usable: false,
        address: formatEndpoint(trail.reached),
        look: undefined,
        problems: [...others, problem],
        notes: [],
      };
    } finally {
      this.#sent.clear();
    }
  }

  #debug(text: string, closing: AbortSignal): void {
    if (!closing.aborted) this.#deps.debug(`the cover site ${this.domain} ${text}`);
  }

  async #checkDns(): Promise<SiteProblem[]> {
    const addresses = await this.#deps.lookUp(this.domain).catch(() => []);
    return addresses.some((address) => this.#deps.isHere(address))
      ? []
      : [problemOfName(this.domain, addresses)];
  }

  async #endpoints(): Promise<readonly TcpEndpoint[]> {
    const { host, pinned } = this.#deps;
    const name = host?.host ?? this.domain;
    const port = host?.port ?? HTTPS_PORT;
    const given = ipVersion(name) === 0 ? pinned(name) : name;
    const addresses = given === undefined ? await this.#addressesOf(name) : [given];
    const others = addresses
      .map((address) => ({ host: address, port }))
      .filter((endpoint) => !this.#deps.isOwn(endpoint));
    const [nearest] = others;
    if (nearest === undefined) throw new SiteRefusal("loop");
    // What the user names may be anywhere; what DNS says of a public name must not open the inside to the outside.
    if (host !== undefined || given !== undefined) return others;
    const open = others.filter((endpoint) => isPublicAddress(endpoint.host));
    if (open.length === 0) throw new SiteRefusal("private", nearest);
    return open;
  }

  async #addressesOf(name: string): Promise<readonly string[]> {
    const known = this.#known;
    const now = performance.now();
    if (known !== undefined && now - known.at < ADDRESS_MS) return known.addresses;
    try {
      const addresses = (await this.#deps.lookUp(name)).toSorted(byVersion);
      if (addresses.length === 0) throw new RouteError("DNS", "the name has no address");
      this.#known = { addresses, at: now };
      return addresses;
    } catch (error) {
      if (known === undefined) throw new RouteError("DNS", "the name has no address", { cause: error });
      this.#known = { addresses: known.addresses, at: now };
      return known.addresses;
    }
  }
}

/** IPv4 first: a machine without IPv6 would try in vain what is listed first. */
function byVersion(one: string, other: string): number {
  return ipVersion(one) - ipVersion(other);
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(timer));
}
