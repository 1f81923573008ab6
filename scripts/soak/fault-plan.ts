import { ENDING, FAULTS, type Rig, refuseForLoad } from "./faults.ts";
import { PARTS, type Part } from "./options.ts";
import { isWithin, type Phases } from "./phases.ts";

/** When which faults are injected. */
export interface FaultPlan {
  readonly parts: ReadonlySet<Part>;
  readonly phases: Phases;
  /** Between two of them, about, in milliseconds. */
  readonly gapMs: number;
  /** `performance.now()` when the load began. */
  readonly startedAt: number;
  isOver(): boolean;
  /** A fault begins, or is over. */
  note(part: Part, what: "begins" | "is over"): void;
}

const FAULT_PARTS = PARTS.filter((part) => FAULTS[part] !== undefined);

/** Injects one fault after the other, each kind as often as the others, until the load is nearly over. */
export async function injectFaults(rig: Rig, plan: FaultPlan): Promise<void> {
  const { parts, phases, gapMs, startedAt, isOver, note } = plan;
  const chosen = FAULT_PARTS.filter((part) => parts.has(part));
  const lasting = chosen.filter((part) => !ENDING.includes(part));
  let due: readonly Part[] = [];
  /** However short the time for it is, each of these comes once. */
  let owed = chosen.filter((part) => ENDING.includes(part));
  await Bun.sleep(gapMs);
  while (!isOver()) {
    const now = performance.now() - startedAt;
    const mayEnd = isWithin(phases.kills, now);
    if (due.length === 0) due = mayEnd ? chosen : lasting;
    if (!mayEnd) due = due.filter((part) => !ENDING.includes(part));
    // What takes a while must be over when the load is.
    if (chosen.length === 0 || now > phases.end - 4 * gapMs) return;
    if (due.length > 0) {
      const part = rig.random.pick(mayEnd && owed.length > 0 ? owed : due);
      due = due.filter((one) => one !== part);
      owed = owed.filter((one) => one !== part);
      note(part, "begins");
      await FAULTS[part]?.(rig);
      note(part, "is over");
    }
    await Bun.sleep(rig.random.between(0.5, 2) * gapMs);
  }
}

/** Injects each fault once that ends no process, so that the proxy has met it. */
export async function injectEach(rig: Rig, parts: ReadonlySet<Part>): Promise<void> {
  // First: a route that fails otherwise is not tried again at once.
  if (parts.has("routes")) await refuseForLoad(rig);
  for (const part of FAULT_PARTS) {
    if (parts.has(part) && !ENDING.includes(part)) await FAULTS[part]?.(rig);
  }
}
