import { RouteError } from "../core/errors.ts";
import { type DcTarget, describeTarget } from "../protocol/mtproto/dc.ts";
import { type TargetDiagnosis, works } from "./doctor-diagnosis.ts";
import { formatDuration } from "./routes-report.ts";

/** `DC 4`, for both its targets. */
export function dcName(target: DcTarget): string {
  return describeTarget({ ...target, media: false });
}

/** Puts the targets of a data centre together, under its {@link dcName}. */
export function groupByDc(targets: readonly TargetDiagnosis[]): Map<string, TargetDiagnosis[]> {
  return Map.groupBy(targets, ({ target }) => dcName(target));
}

/** One line for each data centre: its fastest way for messages and for media. */
export function formatSummary(targets: readonly TargetDiagnosis[]): string[] {
  const groups = groupByDc(targets);
  const nameWidth = Math.max(0, ...[...groups.keys()].map((name) => name.length));
  return [...groups].map(([name, group]) => `${name.padEnd(nameWidth)}  ${describeBest(group)}`);
}

/** `messages direct-ws 45 ms, media no working route` for the targets of one data centre. */
export function describeBest(targets: readonly TargetDiagnosis[]): string {
  if (!targets.some(({ ways }) => ways.some(works))) return "no working route";
  return targets
    .map((diagnosis) => `${diagnosis.target.media ? "media" : "messages"} ${describeFastest(diagnosis)}`)
    .join(", ");
}

function describeFastest({ ways }: TargetDiagnosis): string {
  let best: { readonly route: string; readonly rttMs: number } | undefined;
  for (const { route, outcome } of ways) {
    if (outcome instanceof RouteError) continue;
    if (best === undefined || outcome.rttMs < best.rttMs) best = { route, rttMs: outcome.rttMs };
  }
  return best === undefined ? "no working route" : `${best.route} ${formatDuration(best.rttMs)}`;
}
