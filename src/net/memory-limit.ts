import { totalmem } from "node:os";

/** The part of the memory that what waits to be sent may take. */
const SHARE = 1 / 4;

/** Returns how many bytes may be queued unless the user says otherwise: a quarter of the memory, or of a container's. */
export function defaultBufferBytes(): number {
  const constrained = process.constrainedMemory(); // 0 or more than there is: no limit
  const total = totalmem();
  return Math.floor((constrained > 0 ? Math.min(constrained, total) : total) * SHARE);
}
