import leven from "leven";

/** A word that is shorter says too little to be taken for the beginning of another one. */
const SHORTEST_BEGINNING = 4;

/** Returns the candidate that was most likely meant by `written`, unless none is near: only one may begin with it. */
export function nearestOf(written: string, candidates: readonly string[]): string | undefined {
  const begun = candidates.filter((candidate) => candidate.startsWith(written));
  if (begun.length === 1 && written.length >= SHORTEST_BEGINNING) return begun[0];
  const distances = candidates.map((candidate) => ({ candidate, distance: leven(written, candidate) }));
  const [best] = distances.sort((a, b) => a.distance - b.distance);
  const close = best !== undefined && best.distance <= Math.max(2, written.length / 3);
  return close ? best.candidate : undefined;
}
