import type { Channel } from "../channel/channel.ts";
import type { Cancel } from "../core/cancel.ts";
import type { CoverProfile } from "../protocol/tls/cover-profile.ts";
import { describeNotes, type SiteReport } from "./cover-report.ts";
import { CoverSite, type CoverSiteDeps } from "./cover-site.ts";

/** What a {@link Cover} needs; all of its sites share it. */
export interface CoverDeps extends CoverSiteDeps {
  /** Lower case; the first is shown to whoever asks for none of them. */
  readonly domains: readonly string[];
  /** Hears what the user should know: once while it lasts. */
  readonly warn: (text: string) => void;
}

/** The web sites that strangers are shown, and how they look. */
export class Cover {
  readonly #sites = new Map<string, CoverSite>();
  readonly #first: CoverSite;
  readonly #closing = new AbortController();
  readonly #warn: (text: string) => void;
  /** What was found last, by site. */
  readonly #reports = new Map<string, SiteReport>();
  /** Sites whose notes were said. */
  readonly #noted = new Set<string>();

  constructor(deps: CoverDeps) {
    this.#warn = deps.warn;
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
    for (const site of this.#sites.values()) {
      void site.keepSurveyed(this.#closing.signal, (report) => {
        this.#sayProblems(report);
        this.#reports.set(report.domain, report);
        this.#sayNotes();
      });
    }
  }

  close(): void {
    this.#closing.abort();
  }

  /** Says of which kind it is once, until a survey does not find it; what is true of several sites alike, for one. */
  #sayProblems({ domain, problems }: SiteReport): void {
    const before = this.#reports.get(domain)?.problems ?? [];
    const ofOthers = [...this.#reports.values()].filter((other) => other.domain !== domain);
    for (const { kind, text } of problems) {
      const known = before.some((problem) => problem.kind === kind);
      const said = ofOthers.some((other) => other.problems.some((problem) => problem.text === text));
      if (!known && !said) this.#warn(text);
    }
  }

  /** When the last site was surveyed, and of those whose notes are new then or later. */
  #sayNotes(): void {
    if (this.#reports.size < this.#sites.size) return;
    const fresh: SiteReport[] = [];
    for (const report of this.#reports.values()) {
      const { domain, usable, notes } = report;
      if (notes.length > 0 && !this.#noted.has(domain)) fresh.push(report);
      if (notes.length > 0) this.#noted.add(domain);
      else if (usable) this.#noted.delete(domain); // a site that is down answers in no records at all
    }
    for (const text of describeNotes(fresh)) this.#warn(text);
  }

  #siteOf(serverName: string | undefined): CoverSite {
    return this.#sites.get(serverName?.toLowerCase() ?? "") ?? this.#first;
  }
}
