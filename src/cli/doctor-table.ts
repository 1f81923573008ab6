import { formatBytes } from "../core/bytes.ts";
import { RouteError } from "../core/errors.ts";
import type { Inspection, Stage } from "../net/inspect-endpoint.ts";
import type { RouteId } from "../upstream/route.ts";
import {
  failedStage,
  failedStatus,
  type TargetDiagnosis,
  type WayDiagnosis,
  works,
} from "./doctor-diagnosis.ts";
import { groupByDc } from "./doctor-summary.ts";
import { type ReportStyle, shorten } from "./doctor-text.ts";
import { toLine } from "./routes-report.ts";

/** How the stages of opening a way are called, in their order. */
export const STAGE_TITLES: Readonly<Record<Stage["name"], string>> = {
  dns: "DNS",
  tcp: "TCP",
  tls: "TLS",
  upgrade: "upgrade",
};

const STAGE_NAMES = ["dns", "tcp", "tls", "upgrade"] as const;
const STAGE_WIDTHS = { dns: 5, tcp: 5, tls: 5, upgrade: 8 } as const;
const STAGES_WIDTH = STAGE_NAMES.reduce((sum, name) => sum + STAGE_WIDTHS[name], 0);
const ANSWER_WIDTHS = { messages: 7, media: 6 } as const;
const SHORTEST_ENDPOINT = 20;
/** A longer verdict sticks out, rather than that it costs every line the ends of its endpoint. */
const USUAL_VERDICT = 15;
/** A deep probe moves more than this. */
const DEEP_BYTES = 64 * 1024;
const COLORS = { good: 32, mixed: 33, bad: 31 } as const;

/** One way to a data centre; both its targets when they go the same way, since the stages are the same. */
interface Row {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly inspection: Inspection | undefined;
  messages: WayDiagnosis | undefined;
  media: WayDiagnosis | undefined;
}

/**
 * Draws the table: data centres, under each its ways, for each way the milliseconds of its stages and of the
 * data centre's answers.
 */
export function formatTable(targets: readonly TargetDiagnosis[], style: ReportStyle): string[] {
  const dcs = [...groupByDc(targets)].map(([name, group]) => ({ name, group, rows: rowsOf(group) }));
  const rows = dcs.flatMap((dc) => dc.rows);
  const kinds = targets.some(({ target }) => target.media)
    ? (["messages", "media"] as const)
    : (["messages"] as const);
  const answersWidth = kinds.reduce((sum, kind) => sum + ANSWER_WIDTHS[kind], 0);
  const routeWidth = Math.max(0, ...rows.map(({ route }) => route.length));
  const verdictWidth = Math.max(0, ...rows.map((row) => describeVerdict(row).length));
  const rest = 2 + routeWidth + 2 + STAGES_WIDTH + answersWidth + 2 + Math.min(USUAL_VERDICT, verdictWidth);
  const wanted = Math.max(0, ...rows.map(({ endpoint }) => endpoint.length));
  const endpointWidth = Math.min(wanted, Math.max(SHORTEST_ENDPOINT, style.width - rest));

  const lines: string[] = [];
  if (rows.length > 0) {
    const stages = STAGE_NAMES.map((name) => STAGE_TITLES[name].padStart(STAGE_WIDTHS[name])).join("");
    const titles = { messages: "answer", media: "media" } as const;
    const answers = kinds.map((kind) => titles[kind].padStart(ANSWER_WIDTHS[kind])).join("");
    lines.push(`${"".padEnd(2 + routeWidth + 2 + endpointWidth)}${stages}${answers}`);
  }
  for (const { name, group, rows } of dcs) {
    lines.push(name);
    const leftOut = leftOutOf(group);
    for (const route of new Set([...rows.map((row) => row.route), ...leftOut.keys()])) {
      const start = `  ${route.padEnd(routeWidth)}  `;
      for (const row of rows.filter((row) => row.route === route)) {
        const endpoint = shorten(row.endpoint, endpointWidth).padEnd(endpointWidth);
        const answers = kinds.map((kind) => formatAnswer(row[kind]).padStart(ANSWER_WIDTHS[kind])).join("");
        lines.push(`${start}${endpoint}${formatStages(row)}${answers}  ${paintVerdict(row, style)}`);
      }
      const more = leftOut.get(route);
      if (more !== undefined) lines.push(`${start}${more} more, not tried here`);
    }
    lines.push(...describeGaps(group));
  }
  return lines;
}

function rowsOf(targets: readonly TargetDiagnosis[]): Row[] {
  const rows: Row[] = [];
  for (const way of targets.flatMap(({ ways }) => ways)) {
    const { route, inspection } = way;
    const kind = way.target.media ? "media" : "messages";
    const endpoint = toLine(way.endpoint);
    let row = rows.find((row) => row[kind] === undefined && row.route === route && row.endpoint === endpoint);
    if (row === undefined) {
      row = { route, endpoint, inspection, messages: undefined, media: undefined };
      rows.push(row);
    }
    row[kind] = way;
  }
  return rows;
}

function leftOutOf(targets: readonly TargetDiagnosis[]): ReadonlyMap<RouteId, number> {
  const most = new Map<RouteId, number>();
  for (const [route, count] of targets.flatMap(({ leftOut }) => [...leftOut])) {
    most.set(route, Math.max(count, most.get(route) ?? 0));
  }
  return most;
}

/** What is to be said of a data centre besides its ways. */
function describeGaps(targets: readonly TargetDiagnosis[]): string[] {
  const missing = targets.reduce((sum, target) => sum + target.missing, 0);
  if (missing > 0) return [`  stopped before ${missing} of its ways ${missing === 1 ? "was" : "were"} tried`];
  const unserved = targets.filter(({ ways }) => ways.length === 0);
  if (unserved.length === targets.length) return ["  no route serves it"];
  return unserved.map(({ target }) => `  no route serves its ${target.media ? "media" : "messages"}`);
}

function formatStages({ inspection }: Row): string {
  if (inspection === undefined) return "via proxy".padStart(STAGES_WIDTH);
  return STAGE_NAMES.map((name) => {
    const stage = inspection.stages.find((candidate) => candidate.name === name);
    const time = stage === undefined ? "-" : `${Math.round(stage.ms)}`;
    return (stage?.error === undefined ? time : "x").padStart(STAGE_WIDTHS[name]);
  }).join("");
}

function formatAnswer(way: WayDiagnosis | undefined): string {
  if (way === undefined) return "";
  if (!(way.outcome instanceof RouteError)) return `${Math.round(way.outcome.rttMs)}`;
  return failedStage(way) === undefined ? "x" : "-";
}

function describeVerdict({ messages, media }: Row): string {
  if (messages === undefined || media === undefined) return verdictOn(messages ?? media);
  const [first, second] = [verdictOn(messages), verdictOn(media)];
  return first === second || (works(messages) && works(media)) ? first : `${first}; media ${second}`;
}

function verdictOn(way: WayDiagnosis | undefined): string {
  if (way === undefined) return "";
  const { outcome } = way;
  if (!(outcome instanceof RouteError)) {
    return outcome.bytes >= DEEP_BYTES ? `ok, ${formatBytes(outcome.bytes)}` : "ok";
  }
  const status = failedStatus(way);
  return outcome.code === "STATUS" && status !== undefined ? `STATUS HTTP ${status}` : outcome.code;
}

function paintVerdict(row: Row, { color }: ReportStyle): string {
  const text = describeVerdict(row);
  if (!color) return text;
  const ways = [row.messages, row.media].filter((way) => way !== undefined);
  const mood = ways.every(works) ? "good" : ways.some(works) ? "mixed" : "bad";
  return `\u001b[${COLORS[mood]}m${text}\u001b[39m`;
}
