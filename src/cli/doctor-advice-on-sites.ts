import type { SiteReport } from "../proxy/cover-report.ts";
import { joinWith } from "./doctor-text.ts";
import { toLine } from "./routes-report.ts";

/** Returns what to do about the sites that strangers are shown, one line an action. */
export function adviseOnSites(sites: readonly SiteReport[]): string[] {
  const actions = sites.flatMap(({ domain, problems }) =>
    problems.map(({ action }) => ({ domain, action: toLine(action) })),
  );
  return [...Map.groupBy(actions, ({ action }) => action)].map(([action, found]) => {
    const domains = [...new Set(found.map(({ domain }) => domain))];
    return `${joinWith(domains, "and")}: ${action}.`;
  });
}
