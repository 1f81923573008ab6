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
    if (this.#loops) throw refusal("leads back to this proxy");
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
    while (!closing.aborted) {
      const measured = await this.#survey(closing);
      await sleep(measured ? SURVEY_MS : SURVEY_AGAIN_MS, closing);
    }
  }

  async #survey(closing: AbortSignal): Promise<boolean> {
    const name = this.domain;
    this.#loops = false;
    this.#sent.clear();
    await this.#checkDns();
    try {
      const { profile, shortcomings } = await surveyCover(
        name,
        () => this.connect(closing),
        (random) => this.#sent.add(random.toHex()),
      );
      this.profile = profile;
      this.#deps.debug(`the cover site ${name} is measured: ${describeProfile(profile)}`);
      for (const text of shortcomings)
        this.#warn(`the cover site ${name} cannot be imitated in full: ${text}`);
      return true;
    } catch (error) {
      if (closing.aborted) return false;
      if (!(error instanceof TgwsError)) throw error;
      const why = this.#loops ? "it leads back to this proxy" : error.message;
      const hint = this.#loops ? "; say where the site is: --mask-host <host:port>" : "";
      this.#warn(
        `the cover site ${name} cannot be measured: ${why}${hint}. Clients are served all the same; ` +
          "strangers may see that something is odd",
      );
      return false;
    } finally {
      if (!this.#loops) this.#sent.clear();
    }
  }

  /** Whoever looks the name up and finds another address here knows that something is odd. */
  async #checkDns(): Promise<void> {
    const name = this.domain;
    try {
      const addresses = await this.#deps.lookUp(name);
      if (addresses.some((address) => this.#deps.isHere(address))) return;
      this.#warn(
        `${name} leads to ${addresses.slice(0, 2).join(", ")} and not to this machine, which is fine only behind a ` +
          "router that has that address: whoever looks the name up can tell",
      );
    } catch {
      this.#warn(`${name} has no address in DNS: whoever looks the name up can tell`);
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
    if (others.length === 0) throw refusal("leads back to this proxy");
    // What the user names may be anywhere; what DNS says of a public name must not open the inside to the outside.
    if (host !== undefined || given !== undefined) return others;
    const open = others.filter((endpoint) => isPublicAddress(endpoint.host));
    if (open.length === 0) throw refusal("leads to a private address");
    return open;
  }

  async #addressesOf(name: string): Promise<readonly string[]> {
    const known = this.#known;
    const now = performance.now();
    if (known !== undefined && now - known.at < ADDRESS_MS) return known.addresses;
    try {
      const addresses = await this.#deps.lookUp(name);
      this.#known = { addresses, at: now };
      return addresses;
    } catch (error) {
      if (known === undefined) throw new RouteError("DNS", "the name has no address", { cause: error });
      this.#known = { addresses: known.addresses, at: now };
      return known.addresses;
    }
  }

  #warn(text: string): void {
    if (this.#said.has(text)) return;
    this.#said.add(text);
    this.#deps.warn(text);
  }
}

function refusal(why: string): RouteError {
  return new RouteError("UNREACHABLE", `the cover site ${why}`);
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
