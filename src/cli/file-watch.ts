import { statSync } from "node:fs";
import { type Round, Rounds } from "../net/rounds.ts";

/** How often files are looked at, in milliseconds. */
const LOOK_MS = 1_000;
/** An editor may remove a file before it puts the new one there: so many looks long. */
const MISSING_LOOKS = 3;
/** A file that is replaced again and again is whole each time: so many looks are waited for the last of them. */
const REPLACED_LOOKS = 3;

/** By path: what tells one state of a file from another. */
export type FileStates = ReadonlyMap<string, string>;

/** How files are now. */
export function lookAt(paths: readonly string[]): FileStates {
  return new Map(paths.map((path) => [path, look(path)]));
}

/**
 * Notices when one of some files has changed.
 *
 * It looks at them every second instead of having the system tell: that works on every file system, for files that are
 * replaced, and for links whose target is.
 */
export class FileWatch {
  readonly #onChange: () => void;
  readonly #rounds: Rounds;
  /** By path: how it was when it was last acted upon. */
  #files: FileStates = new Map();
  /** How the files were at the last look, when that was a change: it is acted upon when it lasts. */
  #pending: FileStates | undefined;
  #missing = 0;
  /** How many looks in a row have found other files in the place of the changed ones. */
  #replaced = 0;
  #round: Round | undefined;

  /** @param onChange Must not throw. */
  constructor(onChange: () => void, rounds: Rounds = new Rounds()) {
    this.#onChange = onChange;
    this.#rounds = rounds;
  }

  /** Watches these files from now on. @param files How they were when they were read, from {@link lookAt}. */
  watch(files: FileStates): void {
    this.#files = files;
    this.#pending = undefined;
    if (files.size > 0) this.#round ??= this.#rounds.every(LOOK_MS, () => this.#look());
  }

  stop(): void {
    this.#round?.stop();
    this.#round = undefined;
  }

  #look(): void {
    const changed = new Map<string, string>();
    for (const [path, before] of this.#files) {
      const now = look(path);
      if (now !== before) changed.set(path, now);
    }
    const last = this.#pending;
    this.#pending = changed.size === 0 ? undefined : changed;
    if (changed.size > 0 && !this.#waits(changed, last)) this.#act(changed);
  }

  /** Whether the files may still be written, or come back. @param last How those that had changed were at the last look. */
  #waits(changed: FileStates, last: FileStates | undefined): boolean {
    const lasts = last?.size === changed.size && [...changed].every(([path, now]) => last.get(path) === now);
    if (!lasts) {
      this.#missing = 0;
      const replaced = [...changed].every(([path, now]) => isReplaced(last?.get(path), now));
      this.#replaced = replaced ? this.#replaced + 1 : 0;
      return this.#replaced < REPLACED_LOOKS;
    }
    this.#missing += 1;
    return [...changed.values()].includes(MISSING) && this.#missing < MISSING_LOOKS;
  }

  #act(changed: FileStates): void {
    this.#files = new Map([...this.#files, ...changed]);
    this.#pending = undefined;
    this.#replaced = 0;
    this.#onChange();
  }
}

const MISSING = "missing";

function look(path: string): string {
  try {
    // Without an error for what is not there: that may stay so for as long as the program runs.
    const status = statSync(path, { throwIfNoEntry: false });
    if (status === undefined) return MISSING;
    const { ino, mtimeMs, size, mode, uid, gid } = status; // with the rights: one that could not be read may be now
    return [ino, mtimeMs, size, mode, uid, gid].join(" ");
  } catch {
    return MISSING;
  }
}

/** Whether there is another file now in the place of what was there: nobody is writing it any more. */
function isReplaced(before: string | undefined, now: string): boolean {
  const [inode] = now.split(" ", 1);
  return before !== undefined && now !== MISSING && before.split(" ", 1)[0] !== inode;
}
