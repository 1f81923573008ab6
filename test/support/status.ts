import type { ProxyProcess } from "./proxy.ts";

/** One line of `/metrics`. */
interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What `/metrics` said. Read by itself here: tests must not share the code they test. */
export class Scrape {
  readonly text: string;
  readonly series: readonly Series[];
  /** By the name of a metric. */
  readonly types: ReadonlyMap<string, string>;

  constructor(text: string) {
    this.text = text;
    const lines = text.split("\n").filter((line) => line !== "");
    this.series = lines.filter((line) => !line.startsWith("#")).map(parseSeries);
    this.types = new Map(
      lines.flatMap((line) => {
        const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? [];
        return name === undefined || type === undefined ? [] : [[name, type]];
      }),
    );
  }

  /** The sum of all series of a metric that have these labels. */
  sum(name: string, labels: Readonly<Record<string, string>> = {}): number {
    const wanted = Object.entries(labels);
    return this.series
      .filter((one) => one.name === name && wanted.every(([label, value]) => one.labels[label] === value))
      .reduce((sum, { value }) => sum + value, 0);
  }

  /** Series that may only grow, by everything before the value. */
  get counters(): ReadonlyMap<string, number> {
    const grows = ({ name }: Series): boolean => {
      const type = this.types.get(name) ?? this.types.get(name.replace(/_(?:bucket|count|sum)$/, ""));
      return type === "counter" || type === "histogram";
    };
    return new Map(
      this.series.filter(grows).map(({ name, labels, value }) => [name + JSON.stringify(labels), value]),
    );
  }
}

/** The status server of a proxy that was started with `--status`. */
export class StatusClient {
  readonly url: string;
  readonly #headers: Readonly<Record<string, string>>;

  private constructor(url: string, token: string | undefined) {
    this.url = url;
    this.#headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
  }

  /** Reads in the log where it is. */
  static async of(proxy: ProxyProcess, token?: string): Promise<StatusClient> {
    const [, url = ""] = await proxy.logged(/metrics and health: (http:\S+\/)/);
    return new StatusClient(url, token);
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  get(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(new URL(path, this.url), { headers: this.#headers, ...init });
  }

  /** What a page says. @throws {Error} When it has none. */
  async text(path: string): Promise<string> {
    const response = await this.get(path);
    const text = await response.text();
    if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
    return text;
  }

  async scrape(): Promise<Scrape> {
    return new Scrape(await this.text("/metrics"));
  }
}

function parseSeries(line: string): Series {
  const [, name = "", inBraces = "", value = ""] = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
  const labels = [...inBraces.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label = "", text = ""]) => [
    label,
    text,
  ]);
  return { name, labels: Object.fromEntries(labels) as Record<string, string>, value: Number(value) };
}
