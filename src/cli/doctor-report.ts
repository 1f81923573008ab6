import { RouteError } from "../core/errors.ts";
import { describeNotes, type SiteReport } from "../proxy/cover-report.ts";
import { failedStage, type TargetDiagnosis, type WayDiagnosis } from "./doctor-diagnosis.ts";
import { formatSummary } from "./doctor-summary.ts";
import { formatTable, STAGE_TITLES } from "./doctor-table.ts";
import { indent, listTargets, type ReportStyle, wrap } from "./doctor-text.ts";
import { formatRoutes, type TargetRoutes, toLine } from "./routes-report.ts";

/** A terminal that says it is narrower than this does not know its width. */
const LEAST_WIDTH = 40;
const USUAL_WIDTH = 100;
/** Ways of the learned order that are shown for a target: `tgws routes` has all of them. */
const LEARNED_SHOWN = 3;

/** Everything that a diagnosis gave. */
export interface Findings {
  readonly targets: readonly TargetDiagnosis[];
  /** Every data centre has a working route, and nothing was left out by stopping. */
  readonly ok: boolean;
  /** It was not stopped before the end. */
  readonly complete: boolean;
  readonly advice: readonly string[];
  /** The learned order; empty when there is none. */
  readonly learned: readonly TargetRoutes[];
  /** What strangers are shown; empty without fake TLS. */
  readonly sites: readonly SiteReport[];
}

/**
 * Formats what was found for a person, without the last line break.
 *
 * What works and what to do come last: that is what is still on the screen.
 */
export function formatFindings(
  { targets, advice, learned, sites }: Findings,
  { color, width }: ReportStyle,
): string {
  const style = { color, width: width < LEAST_WIDTH ? USUAL_WIDTH : width };
  const wrapped = { width: style.width, first: "  ", others: "  " };
  const parts: [title: string, lines: readonly string[]][] = [
    [
      "Milliseconds for each step, x where it failed; answer and media: the data centre's own answers",
      formatTable(targets, style),
    ],
    ["Why ways failed", formatReasons(targets, style)],
    [
      "The order in which clients' connections try them (tgws routes shows all)",
      indent(formatLearned(learned)),
    ],
    ["What strangers are shown", formatSites(sites, style)],
    ["What works, by the fastest route", indent(formatSummary(targets))],
    ["What to do", advice.flatMap((line) => wrap(line, wrapped))],
  ];
  return parts
    .filter(([, lines]) => lines.length > 0)
    .map(([title, lines]) => [title, ...lines].join("\n"))
    .join("\n\n");
}

/** A line for each site, under it one for each thing that a prober could notice; then what cannot be helped. */
export function formatSites(sites: readonly SiteReport[], { width }: ReportStyle): string[] {
  const nameWidth = Math.max(0, ...sites.map(({ domain }) => domain.length));
  const found = sites.flatMap(({ domain, usable, look, problems }) => {
    const state = usable && look !== undefined ? look : "cannot be used";
    return [
      `  ${domain.padEnd(nameWidth)}  ${state}`,
      ...problems.flatMap(({ cause }) => wrap(`${toLine(cause)}.`, { width, first: "    ", others: "    " })),
    ];
  });
  const notes = describeNotes(sites).flatMap((note) =>
    wrap(`${note}. There is nothing to do about it.`, { width, first: "  ", others: "  " }),
  );
  return [...found, ...notes];
}

/** Lists why ways failed, each reason once, with what a stage of one of them adds to it. */
export function formatReasons(targets: readonly TargetDiagnosis[], { width }: ReportStyle): string[] {
  const groups = new Map<string, { readonly ways: WayDiagnosis[]; readonly details: Set<string> }>();
  for (const way of targets.flatMap((target) => target.ways)) {
    if (!(way.outcome instanceof RouteError)) continue;
    const { code, message } = way.outcome;
    const reason = `${code.padEnd(11)}  ${way.route}: ${toLine(message)}`;
    const group = groups.get(reason) ?? { ways: [], details: new Set() };
    groups.set(reason, group);
    group.ways.push(way);
    group.details.add(describeDetails(way, message));
  }
  return [...groups].flatMap(([reason, { ways, details }]) => {
    const [detail] = [...details].filter((text) => text !== "");
    const example = details.size > 1 ? "for example " : "";
    const where = listTargets(ways.map(({ target }) => target));
    const text = `${reason} (${where})${detail === undefined ? "" : `; ${example}${detail}`}`;
    return wrap(text, { width, first: "  ", others: "               " });
  });
}

function formatLearned(learned: readonly TargetRoutes[]): string[] {
  const first = learned.map(({ target, ways }) => ({ target, ways: ways.slice(0, LEARNED_SHOWN) }));
  return formatRoutes(first, Date.now());
}

/** What the stage that failed adds to the probe's message. */
function describeDetails(way: WayDiagnosis, message: string): string {
  const parts: string[] = [];
  const stage = failedStage(way);
  if (stage?.error !== undefined && stage.error.message !== message) {
    parts.push(`${STAGE_TITLES[stage.name]}: ${stage.error.message}`);
  }
  if (stage?.detail !== undefined) parts.push(stage.detail);
  if (way.inspection?.location !== undefined) parts.push(`it leads to ${way.inspection.location}`);
  return toLine(parts.join("; "));
}
