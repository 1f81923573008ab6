import { BUCKET_ENDS_MS, type Histogram } from "./histogram.ts";

/** What a metric can be. */
export type MetricType = "counter" | "gauge" | "histogram";

/** One series of a metric: its labels and its value. */
export interface Sample {
  readonly labels?: Readonly<Record<string, string | number>>;
  /** In base units: seconds, bytes. A {@link Histogram} for a metric of that type. */
  readonly value: number | Histogram;
}

/** A metric with its series. */
export interface Metric {
  readonly name: string;
  readonly type: MetricType;
  /** One sentence. */
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** What goes with {@link formatMetrics} in an answer. */
export const METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/**
 * Formats metrics in Prometheus' text format, version 0.0.4. A metric without series is left out.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export function formatMetrics(metrics: readonly Metric[]): string {
  const lines: string[] = [];
  for (const { name, type, help, samples } of metrics) {
    if (samples.length === 0) continue;
    lines.push(`# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}`);
    lines.push(`# TYPE ${name} ${type}`);
    for (const { labels = {}, value } of samples) {
      const pairs = Object.entries(labels).map(([label, text]) => formatLabel(label, text));
      if (typeof value === "number") lines.push(formatSample(name, pairs, value));
      else lines.push(...formatHistogram(name, pairs, value));
    }
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** Buckets of the format include all that are below them. */
function formatHistogram(name: string, pairs: readonly string[], histogram: Histogram): string[] {
  const lines: string[] = [];
  let total = 0;
  for (const [bucket, count] of histogram.counts.entries()) {
    total += count;
    const end = BUCKET_ENDS_MS[bucket];
    const le = end === undefined ? "+Inf" : String(end / 1_000);
    lines.push(formatSample(`${name}_bucket`, [...pairs, formatLabel("le", le)], total));
  }
  lines.push(formatSample(`${name}_sum`, pairs, histogram.sumMicros / 1_000_000));
  lines.push(formatSample(`${name}_count`, pairs, total));
  return lines;
}

function formatSample(name: string, pairs: readonly string[], value: number): string {
  return pairs.length === 0 ? `${name} ${value}` : `${name}{${pairs.join(",")}} ${value}`;
}

function formatLabel(name: string, value: string | number): string {
  const text = String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
  return `${name}="${text}"`;
}
