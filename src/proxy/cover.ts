import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import { RouteError, TgwsError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { isPublicAddress } from "../core/ip-network.ts";
import type { TcpEndpoint } from "../net/tcp-dial.ts";
import { type CoverProfile, defaultProfile } from "../protocol/tls/cover-profile.ts";
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

/** What a {@link Cover} needs. */
export interface CoverDeps {
  /** Lower case; the first is shown to whoever asks for none of them. */
  readonly domains: readonly string[];
  /** Where all of them are; without, at their addresses, port 443. */
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
  /** Hears what the user should know; once for each text. */
  readonly warn: (text: string) => void;
  readonly debug: (text: string) => void;
}

/** What a look at a site has found. */
export interface SiteReport {
  readonly domain: string;
  /** How it answers clients; `undefined` when that could not be measured. */
  readonly look: string | undefined;
  /** What a prober could notice; for a person. */
  readonly problems: readonly string[];
}

/** The web sites that strangers are shown, and how they look. */
export class Cover {
  readonly #sites = new Map<string, CoverSite>();
  readonly #first: CoverSite;
  readonly #closing = new AbortController();

  constructor(deps: CoverDeps) {
    for (const domain of deps.domains) this.#sites.set(domain, new CoverSite(domain, deps));
    const [first] = this.#sites.values();
    if (first === undefined) throw new RangeError("a cover without a site");
    this.#first = first;
  }

  /** How the site of a name looks; `undefined` for a name that is none of ours. */
  readonly profileOf = (serverName: string): CoverProfile | undefined => {
    return this.#sites.get(serverName.toLowerCase())?.profile;
  };

  /** Resolves when it is known how the site of a name looks, soon after the start. */
  readonly measured = (serverName: string): Promise<void> => this.#siteOf(serverName).measured;

  /** A hello that came in: one that we sent out to measure a site means that the site is we ourselves. */
  readonly onHello = (random: Uint8Array): void => {
    for (const site of this.#sites.values()) site.onHello(random);
  };

  /**
   * Connects to the site of a name; to the first one for any other name, as a server with a default site does.
   *
   * @throws {RouteError} When it cannot be reached, or must not be.
   */
  connect(serverName: string | undefined, signal: Cancel): Promise<Channel> {
    return this.#siteOf(serverName).connect(signal);
  }

  /** Whose site is shown to somebody who asks for `serverName`. */
  nameFor(serverName: string | undefined): string {
    return this.#siteOf(serverName).domain;
  }

  /** Measures every site once. */
  survey(): Promise<readonly SiteReport[]> {
    return Promise.all([...this.#sites.values()].map((site) => site.survey(this.#closing.signal)));
  }

  /** Measures the sites, now and again every few hours. */
  start(): void {
    for (const site of this.#sites.values()) void site.keepSurveyed(this.#closing.signal);
  }

  close(): void {
    this.#closing.abort();
  }

  #siteOf(serverName: string | undefined): CoverSite {
    return this.#sites.get(serverName?.toLowerCase() ?? "") ?? this.#first;
  }
}

/** One site. */
class CoverSite {
  profile: CoverProfile;
  /** The first survey is over, or takes too long. */
  measured: Promise<void> = Promise.resolve();
  readonly domain: string;
  readonly #deps: CoverDeps;
  readonly #said = new Set<string>();
  #known: { readonly addresses: readonly string[]; readonly at: number } | undefined;
  /** Randoms of the hellos that measured it last. */
  readonly #sent = new Set<string>();
  /** A connection to it came back to us. */
  #loops = false;

  constructor(domain: string, deps: CoverDeps) {
    this.domain = domain;
    this.#deps = deps;
    this.profile = defaultProfile(domain);
  }

  onHello(random: Uint8Array): void {
    if (this.#sent.size > 0 && this.#sent.has(random.toHex())) this.#loops = true;
  }

  async connect(signal: Cancel): Promise<Channel> {
    if (this.#loops) throw refusal(LOOP);
    return this.#dial(signal);
  }

  async #dial(signal: Cancel): Promise<Channel> {
    let failure: unknown;
    for (const endpoint of (await this.#endpoints()).slice(0, MOST_ADDRESSES)) {
      try {
        return await this.#deps.dial(endpoint, signal);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  async keepSurveyed(closing: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.measured = promise;
    const timer = setTimeout(resolve, FIRST_LOOK_MS);
    while (!closing.aborted) {
      const { look, problems } = await this.survey(closing);
      clearTimeout(timer);
      resolve();
      if (closing.aborted) return;
      if (look !== undefined) this.#deps.debug(`the cover site ${this.domain} is measured: ${look}`);
      for (const text of problems.filter((problem) => !this.#said.has(problem))) {
        this.#said.add(text);
        this.#deps.warn(text);
      }
      await sleep(look === undefined ? SURVEY_AGAIN_MS : SURVEY_MS, closing);
    }
  }

  async survey(closing: AbortSignal): Promise<SiteReport> {
    const name = this.domain;
    this.#sent.clear();
    const problems = await this.#checkDns();
    try {
      const { profile, shortcomings } = await surveyCover(
        name,
        () => this.#dial(closing),
        (random) => this.#sent.add(random.toHex()),
      );
      this.profile = profile;
      this.#loops = false; // whoever sees our hellos on their way can send us one, too
      for (const text of shortcomings)
        problems.push(`the cover site ${name} cannot be imitated in full: ${text}`);
      return { domain: name, look: describeProfile(profile), problems };
    } catch (error) {
      if (!(error instanceof TgwsError)) throw error;
      problems.push(
        `the cover site ${name} cannot be measured: ${this.#loops ? LOOP : error.message}. Clients are served all ` +
          "the same; strangers may see that something is odd",
      );
      return { domain: name, look: undefined, problems };
    } finally {
      this.#sent.clear();
    }
  }

  /** Whoever looks the name up and finds another address here knows that something is odd. */
  async #checkDns(): Promise<string[]> {
    const name = this.domain;
    try {
      const addresses = (await this.#deps.lookUp(name)).toSorted();
      if (addresses.length === 0) throw new RouteError("DNS", "no address");
      if (addresses.some((address) => this.#deps.isHere(address))) return [];
      return [
        `${name} leads to ${addresses.slice(0, 2).join(", ")} and not to this machine, which is fine only behind a ` +
          "router that has that address: whoever looks the name up can tell",
      ];
    } catch {
      return [`${name} has no address in DNS: whoever looks the name up can tell`];
    }
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
    if (others.length === 0) throw refusal(LOOP);
    // What the user names may be anywhere; what DNS says of a public name must not open the inside to the outside.
    if (host !== undefined || given !== undefined) return others;
    const open = others.filter((endpoint) => isPublicAddress(endpoint.host));
    if (open.length === 0) throw refusal(PRIVATE);
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

const LOOP = "it leads back to this proxy; say where the site is: --mask-host <host:port>";
const PRIVATE = "it leads to a private address; if that is meant, name it: --mask-host <host:port>";

function refusal(why: string): RouteError {
  return new RouteError("UNREACHABLE", why);
}

/** IPv4 first: a machine without IPv6 would try in vain what is listed first. */
function byVersion(one: string, other: string): number {
  return ipVersion(one) - ipVersion(other);
}

function describeProfile({ suites, groups, flightSizes }: CoverProfile): string {
  const hex = (value: number): string => value.toString(16).padStart(4, "0");
  const order = suites === "client" ? "the client's order" : suites.map(hex).join(" ");
  return `suites in ${order}, groups ${groups.map(hex).join(" ")}, ${flightSizes.join("/")} bytes encrypted`;
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  signal.addEventListener("abort", () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(timer));
}
