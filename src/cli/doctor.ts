import type { OutboundProxy } from "../core/outbound-proxy.ts";
import { DC_NUMBERS, type DcTarget, TEST_DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import type { SiteReport } from "../proxy/cover-report.ts";
import { adviseOn } from "./doctor-advice.ts";
import { allReachable, type TargetDiagnosis } from "./doctor-diagnosis.ts";
import { type ExaminationOptions, examine } from "./doctor-examination.ts";
import { findingsToJson } from "./doctor-json.ts";
import { type Findings, formatFindings } from "./doctor-report.ts";
import { hasNetwork } from "./doctor-situation.ts";
import type { ReportStyle } from "./doctor-text.ts";
import type { TargetRoutes } from "./routes-report.ts";

/** What shells report for a program that Ctrl-C ended. */
const EXIT_INTERRUPTED = 130;

/** What a diagnosis looks at, and where its report goes. For its targets see {@link doctorTargets}. */
export interface DoctorOptions extends ExaminationOptions {
  /** The program's. */
  readonly version: string;
  /** Print a `DoctorJson` and nothing else. */
  readonly json: boolean;
  /** The order that serving clients has taught, or would by now; asked for at the end. Without: not shown. */
  readonly learned?: (() => readonly TargetRoutes[]) | undefined;
  /** What ways go through, unless they bypass it. */
  readonly proxy?: OutboundProxy | undefined;
  /** `os.networkInterfaces`; asked at the end. Without: this computer is taken to be in a network. */
  readonly interfaces?: (() => Parameters<typeof hasNetwork>[0]) | undefined;
  /** Looks at the sites that strangers are shown. Without: there are none. */
  readonly cover?: (() => Promise<readonly SiteReport[]>) | undefined;
  /** Standard output; called once, with lines that lack the last line break. */
  readonly out: (text: string) => void;
  readonly style: ReportStyle;
}

/** Every data centre of an environment, for messages and for media. */
export function doctorTargets(environment: { readonly test: boolean }): DcTarget[] {
  const { test } = environment;
  const numbers: readonly number[] = test ? TEST_DC_NUMBERS : DC_NUMBERS;
  return numbers.flatMap((dc) => [false, true].map((media) => ({ dc, media, test })));
}

/**
 * Tries the ways to every data centre, and prints a table, the reasons for what failed and what to do.
 *
 * @returns The exit code: 0 when every target has a working way, whatever strangers are shown; 1 when not, 130 when
 * `signal` aborted.
 */
export async function runDoctor(options: DoctorOptions): Promise<number> {
  let targets: readonly TargetDiagnosis[];
  let sites: readonly SiteReport[];
  try {
    const looking = options.cover?.() ?? [];
    targets = await examine(options);
    sites = await looking;
  } finally {
    options.progress.stop();
  }
  const complete = targets.every(({ missing }) => missing === 0);
  const findings: Findings = {
    targets,
    ok: complete && allReachable(targets),
    complete,
    advice: adviseOn(targets, {
      routes: options.routes.map(({ id }) => id),
      proxy: options.proxy,
      online: options.interfaces === undefined || hasNetwork(options.interfaces()),
      sites,
    }),
    learned: options.learned?.() ?? [],
    sites,
  };
  options.out(
    options.json
      ? JSON.stringify(findingsToJson(findings, options), null, 2)
      : formatFindings(findings, options.style),
  );
  if (options.signal.aborted) return EXIT_INTERRUPTED;
  return findings.ok ? 0 : 1;
}
