/** One line of the text format that has a value. */
export interface Series {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A metric of the text format. */
export interface Family {
  readonly type: string;
  readonly help: string;
  readonly series: readonly Series[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const SERIES = /^(?<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?<labels>.*)\})? (?<value>\S+)$/;
const LABEL = /^(?<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?<text>(?:[^"\\]|\\["\\n])*)"(?:,|$)/;

/**
 * Reads Prometheus' text format strictly, for tests: each metric has its HELP, its TYPE and at least one series,
 * in one piece, and no series comes twice.
 */
export function parseMetrics(text: string): ReadonlyMap<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line has no end");
  const families = new Map<string, { type: string; help: string; series: Series[] }>();
  const seen = new Set<string>();
  let current: { name: string; type: string; series: Series[] } | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const [, kind, about = "", rest = ""] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? [];
    if (kind === "HELP") {
      if (families.has(about) || !NAME.test(about)) throw new Error(`bad or second HELP: ${line}`);
      current = { name: about, type: "", series: [] };
      families.set(about, { type: "", help: unescaped(rest), series: current.series });
    } else if (kind === "TYPE") {
      const family = families.get(about);
      if (family === undefined || current?.name !== about)
        throw new Error(`a TYPE without its HELP: ${line}`);
      if (!["counter", "gauge", "histogram"].includes(rest)) throw new Error(`a strange type: ${line}`);
      family.type = rest;
      current.type = rest;
    } else {
      const series = parseSeries(line);
      if (current === undefined || !belongs(series.name, current)) throw new Error(`out of place: ${line}`);
      const key = JSON.stringify([series.name, Object.entries(series.labels).sort()]);
      if (seen.has(key)) throw new Error(`comes twice: ${line}`);
      seen.add(key);
      current.series.push(series);
    }
  }
  for (const [name, { series, type }] of families) {
    if (series.length === 0 || type === "") throw new Error(`nothing of ${name}`);
  }
  return families;
}

function belongs(name: string, { name: family, type }: { name: string; type: string }): boolean {
  if (type !== "histogram") return name === family;
  return ["_bucket", "_sum", "_count"].some((end) => name === family + end);
}

function parseSeries(line: string): Series {
  const { name = "", labels: written = "", value = "" } = SERIES.exec(line)?.groups ?? {};
  if (name === "") throw new Error(`not a series: ${line}`);
  const labels: Record<string, string> = {};
  let rest = written;
  while (rest !== "") {
    const match = LABEL.exec(rest);
    const { name: label = "", text = "" } = match?.groups ?? {};
    if (match === null || label in labels) throw new Error(`bad labels: ${line}`);
    labels[label] = unescaped(text);
    rest = rest.slice(match[0].length);
  }
  const number = Number(value);
  if (Number.isNaN(number)) throw new Error(`not a number: ${line}`);
  return { name, labels, value: number };
}

function unescaped(text: string): string {
  return text.replaceAll(/\\(.)/g, (_, letter: string) => (letter === "n" ? "\n" : letter));
}
