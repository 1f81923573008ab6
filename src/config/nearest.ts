import leven from "leven";

/** Returns the candidate that was most likely meant by `written`, unless none is near. */
export function nearestOf(written: string, candidates: readonly string[]): string | undefined {
  const distances = candidates.map((candidate) => ({ candidate, distance: leven(written, candidate) }));
  const [best] = distances.sort((a, b) => a.distance - b.distance);
  const close = best !== undefined && best.distance <= Math.max(2, written.length / 3);
  return close ? best.candidate : undefined;
}
