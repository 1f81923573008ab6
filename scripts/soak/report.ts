import type { LoadFigures } from "./orders.ts";
import type { Phases, Window } from "./phases.ts";
import { growthPerHour, type Sample, type Spread, spreadOver, totalCpu, totalRss } from "./samples.ts";
import type { Counted, Criterion } from "./verdict.ts";

/** Everything that a soak has found. */
export interface SoakResult {
  readonly seed: number;
  readonly phases: Phases;
  readonly figures: LoadFigures;
  /** How often each fault was injected. */
  readonly faults: Readonly<Record<string, number>>;
  /** Failed sessions by the fault that they were due to. */
  readonly excused: Readonly<Record<string, number>>;
  /** How sessions ended, as the log says it. */
  readonly endings: Readonly<Record<string, number>>;
  readonly samples: readonly Sample[];
  /** The proxy's processes without any session. */
  readonly atRest: { readonly before: readonly Counted[]; readonly after: readonly Counted[] };
  readonly criteria: readonly Criterion[];
}

const MIB = 1024;

/** Formats what was found, for a person. */
export function formatReport(result: SoakResult): string {
  const { figures, phases, samples, faults, excused, endings, criteria, seed } = result;
  const end = samples.at(-1)?.at ?? phases.end;
  const cpu = totalCpu(samples);
  const bytes = figures.bytesUp + figures.bytesDown;
  const lines = [
    `seed          ${seed}`,
    `sessions      ${figures.started} started, ${figures.finished} finished, ${figures.failed} failed`,
    `messages      ${figures.messages}, ${formatGib(figures.bytesUp)} up, ${formatGib(figures.bytesDown)} down`,
    `strangers     ${formatCounts(figures.strangers)}`,
    `faults        ${formatCounts(faults)}`,
    `due to faults ${formatCounts(excused)}`,
    `endings       ${formatCounts(endings)}`,
    `CPU           ${cpu.toFixed(1)} s, ${((100 * cpu * 1000) / end).toFixed(1)} % of a core, ${(cpu / (bytes / 2 ** 30)).toFixed(1)} s/GiB`,
    "",
    "                       min  median     max  MiB RSS",
    ...windowsOf(phases).map(([name, window]) => {
      return `${name.padEnd(18)}${formatSpread(spreadOver(samples, window, totalRss))}`;
    }),
    ...rolesOf(samples).flatMap((role) =>
      windowsOf(phases).map(([name, window]) => {
        const rss = ({ processes }: Sample): number =>
          processes.reduce((sum, one) => sum + (one.role === role ? one.rssKib : 0), 0);
        return `${`  ${role} ${name}`.padEnd(18)}${formatSpread(spreadOver(samples, window, rss))}`;
      }),
    ),
    `without a session: ${formatRest(result.atRest.before)} before, ${formatRest(result.atRest.after)} after`,
    `growth from early to late: ${(growthPerHour(samples, { from: phases.early.from, to: phases.end }) / MIB).toFixed(1)} MiB/h`,
    "",
    ...criteria.flatMap(({ name, holds, details }) => [
      `${holds ? "ok    " : "FAILED"}  ${name}`,
      ...details.map((detail) => `          ${detail}`),
    ]),
  ];
  return lines.join("\n");
}

/** Formats where it is, in one line. */
export function formatProgress(
  sample: Sample,
  figures: LoadFigures,
  state: { readonly faults: number; readonly unexcused: number },
): string {
  const seconds = Math.round(sample.at / 1000);
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const memory = sample.processes.map(({ rssKib }) => (rssKib / MIB).toFixed(0)).join("+");
  return [
    `${time.padStart(6)}  ${figures.live} live, ${figures.started} started, ${figures.failed} failed (${state.unexcused} for no reason)`,
    `${formatGib(figures.bytesUp + figures.bytesDown)}, slowest ${Math.round(figures.slowestMs)} ms`,
    `${state.faults} faults, RSS ${memory} MiB`,
  ].join("; ");
}

function windowsOf({ early, late }: Phases): readonly (readonly [string, Window])[] {
  return [
    ["warm-up", { from: 0, to: early.from }],
    ["early", early],
    ["late", late],
  ];
}

function rolesOf(samples: readonly Sample[]): readonly string[] {
  const roles = new Set(samples.flatMap(({ processes }) => processes.map(({ role }) => role as string)));
  return roles.size > 1 ? [...roles] : [];
}

function formatSpread({ min, median, max }: Spread): string {
  return [min, median, max].map((kib) => (kib / MIB).toFixed(1).padStart(8)).join("");
}

function formatRest(processes: readonly Counted[]): string {
  const each = processes.map(({ rssKib }) => (rssKib / MIB).toFixed(0)).join("+");
  return each === "" ? "nothing" : `${each} MiB`;
}

function formatCounts(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  return parts.length === 0 ? "none" : parts.join(", ");
}

function formatGib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}
