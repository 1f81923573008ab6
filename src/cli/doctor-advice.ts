import { adviseOnFaults } from "./doctor-advice-on-faults.ts";
import { adviseOnGaps, adviseOnWayOut } from "./doctor-advice-on-gaps.ts";
import { adviseOnSites } from "./doctor-advice-on-sites.ts";
import { type TargetDiagnosis, works } from "./doctor-diagnosis.ts";
import { type Circumstances, isDirect, listRoutes, type Situation, situationOf } from "./doctor-situation.ts";
import { listSome, listTargets } from "./doctor-text.ts";

/**
 * Says what to do, one sentence or two a line, in the order of what helps most.
 *
 * When everything works, it is one line. When every data centre has a route, only what will hurt users all
 * the same is mentioned: a route that is blocked costs nothing when another one serves. What is to be done about
 * the sites that strangers are shown comes last.
 */
export function adviseOn(targets: readonly TargetDiagnosis[], circumstances?: Circumstances): string[] {
  const situation = situationOf(targets, circumstances);
  const onSites = adviseOnSites(situation.sites);
  if (targets.some(({ missing }) => missing > 0)) {
    const stopped = "It was stopped before everything was tried: run it again for advice.";
    return [stopped, ...listFound(situation), ...onSites];
  }
  if (situation.offline) {
    return [describeState(situation), "This computer has no network: connect it, then run it again."];
  }
  const faults = adviseOnFaults(situation);
  if (situation.dead.length === 0) {
    const state = "Every data centre has a working route.";
    const idle = faults.length === 0 && onSites.length === 0;
    return idle ? [`${state} ${reassure(situation)}`] : [state, ...faults, ...onSites];
  }
  const advice = [...faults, ...adviseOnGaps(situation)];
  if (advice.length === 0) advice.push("The reasons above match nothing that is known: please report them.");
  return [describeState(situation), ...advice, ...adviseOnWayOut(situation), ...onSites];
}

function describeState({ targets, dead }: Situation): string {
  if (dead.length === targets.length) return "No data centre can be reached.";
  return `No working route: ${listTargets(dead.map(({ target }) => target))}. The rest works.`;
}

/** What failed before it was stopped. */
function listFound({ failures }: Situation): string[] {
  if (failures.length === 0) return [];
  const found = failures.map(({ way, error }) => `${way.route} (${error.code})`);
  return [`Failed until then: ${listSome(found)}.`];
}

/** A table full of failures looks like trouble, also when tgws goes past all of them by itself. */
function reassure({ all, failures }: Situation): string {
  if (failures.length === 0) return "There is nothing to do.";
  const direct = all.filter(isDirect);
  if (direct.length === 0 || direct.some(works)) return "There is nothing to do: what fails is passed over.";
  const working = listRoutes(all.filter(works));
  return `The direct routes fail here, so tgws uses ${working} by itself: there is nothing to do.`;
}
