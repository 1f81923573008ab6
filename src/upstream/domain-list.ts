import { TgwsError } from "../core/errors.ts";
import { MIN_DOMAINS, parseDomainList } from "../protocol/cf-domains.ts";

/**
 * Why a fetched list was not taken.
 *
 * - `TOO_FEW` it has fewer than three names, like an error page
 * - `TIMEOUT` it did not come in time
 */
export type DomainListErrorCode = "TOO_FEW" | "TIMEOUT";

/** A list of domains that was not taken; the one from before stays. */
export class DomainListError extends TgwsError<DomainListErrorCode> {}

/** What {@link CfDomainList} needs. */
export interface CfDomainListOptions {
  /** The text of the list to begin with when none is kept. */
  readonly fallback: string;
  /** Gets the text of the list. The signal says that nobody waits for it any more. */
  readonly fetch: (signal: AbortSignal) => Promise<string>;
  /** Where the last good text is kept from one start to the next. */
  readonly kept: { read(): string | undefined; write(text: string): void };
  /** From a good list to the next look. Default: 1 h. */
  readonly refreshMs?: number;
  /** From a failure to the next look. Default: 5 min. */
  readonly retryMs?: number;
  /** From `start` to the first look. Default: 2 s, so that the first clients go first. */
  readonly startMs?: number;
  /** How long one fetch may take. Default: 30 s. */
  readonly timeoutMs?: number;
  /** Hears the new list when its domains are others than before. */
  readonly onChange?: (domains: readonly string[]) => void;
  /** Hears why a list could not be fetched, used or kept. */
  readonly onFailed?: (error: unknown) => void;
  /** From 0 to below 1, like `Math.random`, which is the default. */
  readonly random?: () => number;
}

/**
 * The public domains of the route cf-domain, kept up to date.
 *
 * Their order is drawn once, so that not everybody uses the first; a domain that stays in the list keeps its
 * place when others change, since connections and what was learned about it hang on it. Nothing here throws.
 */
export class CfDomainList {
  readonly #options: CfDomainListOptions;
  readonly #random: () => number;
  #domains: readonly string[] | undefined;
  /** The text that is kept already, so that an hour without news costs no write. */
  #keptText: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #aborter: AbortController | undefined;
  #running: Promise<void> | undefined;
  #started = false;
  #closed = false;

  constructor(options: CfDomainListOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  /** Lower-case names, the one to try first first. Another array once the list has changed. */
  get domains(): readonly string[] {
    // Not before somebody asks: reading the list is enough work to wake the compiler, which costs 2.5 MiB.
    this.#domains ??= shuffle(
      this.#readKept() ?? lowerCase(parseDomainList(this.#options.fallback)),
      this.#random,
    );
    return this.#domains;
  }

  /** Begins to look for newer lists, until `close`. Its timers do not keep the program running. */
  start(): void {
    if (this.#started || this.#closed) return;
    this.#started = true;
    if (this.#running === undefined) this.#schedule(this.#options.startMs ?? 2_000);
  }

  /** Looks for a newer list now; joins a look that is under way. Never rejects. */
  refresh(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#running ??= this.#refresh().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  /** Gives up a look that is under way, and looks no more. The list stays as it is. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#aborter?.abort();
  }

  async #refresh(): Promise<void> {
    clearTimeout(this.#timer);
    let next = this.#options.retryMs ?? 5 * 60_000;
    try {
      const text = await this.#fetch();
      if (this.#closed) return;
      const old = this.domains; // read before anything new is kept
      const domains = lowerCase(parseDomainList(text));
      if (domains.length < MIN_DOMAINS) {
        const found = `${domains.length} of its lines are domains`;
        throw new DomainListError(
          "TOO_FEW",
          `Cannot use the list of domains: ${found}, ${MIN_DOMAINS} at least`,
        );
      }
      next = this.#options.refreshMs ?? 60 * 60_000;
      this.#keep(text);
      this.#replace(old, domains);
    } catch (error) {
      if (!this.#closed) this.#failed(error);
    } finally {
      if (this.#started && !this.#closed) this.#schedule(next);
    }
  }

  /** Waits no longer than allowed, even for a fetch that does not heed its signal. */
  async #fetch(): Promise<string> {
    const aborter = new AbortController();
    this.#aborter = aborter;
    const { signal } = aborter;
    const timeoutMs = this.#options.timeoutMs ?? 30_000;
    const timer = setTimeout(() => {
      aborter.abort(
        new DomainListError("TIMEOUT", `Cannot fetch the list of domains: nothing within ${timeoutMs} ms`),
      );
    }, timeoutMs);
    timer.unref();
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener("abort", onAbort);
    try {
      return await Promise.race([this.#options.fetch(signal), aborted]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  #schedule(ms: number): void {
    this.#timer = setTimeout(() => void this.refresh(), ms);
    this.#timer.unref();
  }

  #readKept(): readonly string[] | undefined {
    try {
      const text = this.#options.kept.read();
      const domains = text === undefined ? [] : lowerCase(parseDomainList(text));
      if (domains.length < MIN_DOMAINS) return undefined;
      this.#keptText = text;
      return domains;
    } catch (error) {
      this.#failed(error);
      return undefined;
    }
  }

  /** A list that cannot be kept serves as well until the program ends. */
  #keep(text: string): void {
    if (text === this.#keptText) return;
    try {
      this.#options.kept.write(text);
      this.#keptText = text;
    } catch (error) {
      this.#failed(error);
    }
  }

  #replace(old: readonly string[], fetched: readonly string[]): void {
    const before = new Set(old);
    const now = new Set(fetched);
    const added = shuffle([...now.difference(before)], this.#random);
    if (added.length === 0 && before.isSubsetOf(now)) return;
    // Newcomers take the places of those that left: always at the end, they would never be tried.
    const places = old.map((domain) => (now.has(domain) ? domain : added.shift()));
    this.#domains = [...places.filter((domain) => domain !== undefined), ...added];
    try {
      this.#options.onChange?.(this.#domains);
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    try {
      this.#options.onFailed?.(error);
    } catch {
      // Whoever should hear of failures fails: nobody is left to tell, and the next look must still come.
    }
  }
}

function lowerCase(domains: readonly string[]): string[] {
  return [...new Set(domains.map((domain) => domain.toLowerCase()))];
}

/** Returns the items in a random order, each order as likely as any other. */
function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const left = [...items];
  const shuffled: T[] = [];
  while (left.length > 0) {
    const at = Math.floor(random() * left.length) % left.length;
    shuffled.push(...left.splice(at, 1));
  }
  return shuffled;
}
