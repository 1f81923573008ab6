import { statSync } from "node:fs";
import { type Round, Rounds } from "../net/rounds.ts";

/** How often files are looked at, in milliseconds. */
const LOOK_MS = 1_000;
/** An editor may remove a file before it puts the new one there: so many looks long. */
const MISSING_LOOKS = 3;

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
  #pending: string | undefined;
  #missing = 0;
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
    const changed: [path: string, state: string][] = [];
    for (const [path, before] of this.#files) {
      const now = look(path);
      if (now !== before) changed.push([path, now]);
    }
    if (changed.length === 0) {
      this.#pending = undefined;
      return;
    }
    const state = JSON.stringify(changed);
    const lasts = state === this.#pending; // it is not being written any more
    this.#pending = state;
    if (!lasts) {
      this.#missing = 0;
      return;
    }
    this.#missing += 1;
    if (changed.some(([, how]) => how === MISSING) && this.#missing < MISSING_LOOKS) return;
    this.#files = new Map([...this.#files, ...changed]);
    this.#pending = undefined;
    this.#onChange();
  }
}

const MISSING = "missing";

function look(path: string): string {
  try {
    // Without an error for what is not there: that may stay so for as long as the program runs.
    const status = statSync(path, { throwIfNoEntry: false });
    return status === undefined ? MISSING : `${status.mtimeMs} ${status.size} ${status.ino}`;
  } catch {
    return MISSING;
  }
}
