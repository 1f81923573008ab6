import { RouteError } from "../core/errors.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import { describeNotes, type SiteReport } from "../proxy/cover-report.ts";
import type { RouteId } from "../upstream/route.ts";
import { type WayDiagnosis, works } from "./doctor-diagnosis.ts";
import type { Findings } from "./doctor-report.ts";
import { roundMs, routesToJson, type TargetRoutesJson } from "./routes-report.ts";

/**
 * What `tgws doctor --json` prints. Times are in milliseconds; fields are only ever added.
 *
 * - `ok` every data centre has a working route, for messages and for media; the exit code says the same, and
 *   neither says anything of `sites`
 * - `complete` false when it was stopped before the end
 * - `results` one for each way that was tried, by data centre, in the order of the routes; `stages` is empty
 *   behind an outbound proxy, and its `code` is one of those of `error`
 * - `leftOut` ways that were not tried, because their route has many
 * - `sites` what strangers are shown, see `--fake-tls-domain`; `usable` false when a site cannot be reached, or does
 *   not answer as clients can be answered; `address` where it was reached, missing like `look` when it was not;
 *   `problems` what is wrong and what to do, which is in `advice`, too; `notes` what there is nothing to do about
 * - `routes` the learned order, see `tgws routes --json`; empty when there is none
 */
export interface DoctorJson {
  /** The program's. */
  readonly version: string;
  /** When it ended, ISO 8601. */
  readonly at: string;
  readonly deep: boolean;
  readonly ok: boolean;
  readonly complete: boolean;
  readonly results: readonly ResultJson[];
  readonly leftOut: readonly (TargetJson & { readonly route: RouteId; readonly ways: number })[];
  readonly advice: readonly string[];
  readonly routes: readonly TargetRoutesJson[];
  readonly sites: readonly SiteJson[];
}

interface SiteJson {
  readonly domain: string;
  readonly usable: boolean;
  readonly address?: string;
  readonly look?: string;
  readonly problems: readonly string[];
  readonly notes: readonly string[];
}

interface TargetJson {
  readonly dc: number;
  readonly media: boolean;
  readonly test: boolean;
}

interface ResultJson extends TargetJson {
  readonly route: RouteId;
  readonly endpoint: string;
  readonly ok: boolean;
  readonly stages: readonly {
    readonly name: string;
    readonly ms: number;
    readonly error?: string;
    readonly code?: string;
    readonly detail?: string;
  }[];
  /** `null`, like the two that follow, when it does not work. */
  readonly openMs: number | null;
  /** From the question to the answer. */
  readonly rttMs: number | null;
  /** What came back. */
  readonly bytes: number | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  /** Where a redirect leads. */
  readonly location: string | null;
  /** How long the server wants to be left alone. */
  readonly retryAfterMs: number | null;
}

/** Returns what was found as a value for `JSON.stringify`. */
export function findingsToJson(
  findings: Findings,
  { version, deep }: { readonly version: string; readonly deep: boolean },
): DoctorJson {
  const { targets, ok, complete, advice, learned, sites } = findings;
  return {
    version,
    at: new Date().toISOString(),
    deep,
    ok,
    complete,
    results: targets.flatMap(({ ways }) => ways.map(resultToJson)),
    leftOut: targets.flatMap(({ target, leftOut }) =>
      [...leftOut].map(([route, ways]) => ({ ...targetToJson(target), route, ways })),
    ),
    advice,
    routes: routesToJson(learned),
    sites: sites.map(siteToJson),
  };
}

function siteToJson(site: SiteReport): SiteJson {
  const { domain, usable, address, look, problems } = site;
  return {
    domain,
    usable,
    ...(address === undefined ? {} : { address }),
    ...(look === undefined ? {} : { look }),
    problems: problems.map(({ text }) => text),
    notes: describeNotes([site]),
  };
}

function targetToJson({ dc, media, test }: DcTarget): TargetJson {
  return { dc, media, test };
}

function resultToJson(way: WayDiagnosis): ResultJson {
  const { target, route, endpoint, inspection, outcome } = way;
  const answer = outcome instanceof RouteError ? undefined : outcome;
  return {
    ...targetToJson(target),
    route,
    endpoint,
    ok: works(way),
    stages: (inspection?.stages ?? []).map(({ name, ms, error, detail }) => ({
      name,
      ms: roundMs(ms),
      ...(error === undefined ? {} : { error: error.message, code: error.code }),
      ...(detail === undefined ? {} : { detail }),
    })),
    openMs: answer === undefined ? null : roundMs(answer.openMs),
    rttMs: answer === undefined ? null : roundMs(answer.rttMs),
    bytes: answer === undefined ? null : answer.bytes,
    error: outcome instanceof RouteError ? { code: outcome.code, message: outcome.message } : null,
    location: inspection?.location ?? null,
    retryAfterMs: inspection?.retryAfterMs ?? null,
  };
}
