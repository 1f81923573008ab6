import { hasSpareDescriptors } from "../net/descriptors.ts";
import { type Round, Rounds } from "../net/rounds.ts";

/** How often it is looked, in milliseconds: less often when nothing has happened for some looks. */
const LOOK_MS = { usual: 500, calm: 1_000 } as const;
const CALM_LOOKS = 4;
/** A process that does nothing but fail to accept uses more of a processor than this part, also where it gets little. */
const BUSY = 0.1;
/** After a shortage nobody is accepted for so long, in milliseconds; doubled while it goes on. */
const PAUSE_MS = { first: 1_000, most: 10_000 } as const;
/** So many files and sockets must be left to go on: a session's, and some for what it needs to begin. */
const ENOUGH_DESCRIPTORS = 8;
/** A session's: with fewer there is nothing to go on with. */
const LEAST_DESCRIPTORS = 2;
/** The bound on connections that a shortage has shown rises again by this part, and one, each so often. */
const RECOVERY = { part: 0.05, ms: 10_000 } as const;
/** Where so many can be opened, the shortage is over: so many more may come until the next look. */
const PLENTY = { descriptors: 64, connections: 16 } as const;

/** The server, as far as it is to be kept from running out of descriptors. */
export interface Strained {
  /** Connections right now. */
  readonly size: number;
  /** Connections that were ever accepted. */
  readonly accepted: number;
  /** Whether somebody waits to be accepted; `undefined` where that cannot be told. */
  waiting(): Promise<boolean | undefined>;
  /** @returns Whether it worked; if not, those who come are closed until {@link Strained.resume}. */
  pause(): Promise<boolean>;
  resume(): void;
  /** Drops what can be had again: connections that were opened ahead. */
  relieve(): void;
  /** Ends connections, those first that can best be done without, while `isShort`. @returns How many. */
  shedWhile(isShort: () => boolean): number;
}

/**
 * Notices that nobody can be accepted any more, and makes room.
 *
 * Bun tries to accept again and again then, as fast as the processor goes, and tells nobody. Two things show it: no
 * file can be opened (too many are, by this process or in all), or somebody waits, nobody is accepted, and the
 * processor is busy (the kernel has no memory). Accepting is paused, which stops the spinning; what can be had again
 * is dropped; and where descriptors are short, strangers and then sessions, until there is room.
 */
export class DescriptorWatch {
  readonly #strained: Strained;
  readonly #hasSpare: (count: number) => boolean;
  readonly #round: Round;
  #looking = false;
  #accepted = 0;
  #processorMs = processorMs();
  #lookedAt = performance.now();
  /** Looks in a row at which there was room, and nobody came. */
  #calmLooks = 0;
  /** Looks in a row at which somebody waited in vain. */
  #inVain = 0;
  #pausedUntil: number | undefined;
  #pauseMs = 0;
  /** Accepted when it last went on. */
  #resumedWith = 0;
  /** So many connections were too many. */
  #ceiling = Number.POSITIVE_INFINITY;
  #ceilingAt = 0;
  #stopped = false;

  /** @param hasSpare Whether so many more could be opened. */
  constructor(
    strained: Strained,
    rounds: Rounds = new Rounds(),
    hasSpare: (count: number) => boolean = hasSpareDescriptors,
  ) {
    this.#strained = strained;
    this.#hasSpare = hasSpare;
    this.#round = rounds.every(LOOK_MS.usual, () => void this.#look());
  }

  /** Connections that there may be, as far as descriptors have shown. */
  get ceiling(): number {
    return this.#ceiling;
  }

  stop(): void {
    this.#stopped = true;
    this.#round.stop();
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const now = performance.now();
      if (this.#pausedUntil !== undefined) this.#goOn(now);
      else if (!this.#hasSpare(1)) await this.#makeRoom(now);
      else if (await this.#acceptsInVain(now)) await this.#pause(now);
      this.#raiseCeiling(now);
      this.#round.pace(this.#calmLooks < CALM_LOOKS ? LOOK_MS.usual : LOOK_MS.calm);
    } finally {
      this.#looking = false;
    }
  }

  readonly #isShort = (): boolean => !this.#hasSpare(ENOUGH_DESCRIPTORS);

  /** Descriptors are short: sheds until there are enough, at once, or else nobody could be paused either. */
  async #makeRoom(now: number): Promise<void> {
    this.#strained.relieve();
    const before = this.#strained.size;
    this.#ceiling = Math.max(1, before - this.#strained.shedWhile(this.#isShort));
    this.#ceilingAt = now;
    await this.#pause(now);
  }

  async #pause(now: number): Promise<void> {
    this.#calmLooks = 0;
    this.#strained.relieve();
    if (this.#stopped) return;
    if (!(await this.#strained.pause())) {
      this.#pausedUntil = now; // the next look goes on, and the one after tries again
      return;
    }
    const again = this.#strained.accepted === this.#resumedWith;
    this.#pauseMs = again
      ? Math.min(Math.max(this.#pauseMs * 2, PAUSE_MS.first), PAUSE_MS.most)
      : PAUSE_MS.first;
    this.#pausedUntil = now + this.#pauseMs;
  }

  #goOn(now: number): void {
    if (this.#pausedUntil === undefined || now < this.#pausedUntil) return;
    this.#strained.shedWhile(this.#isShort);
    if (!this.#hasSpare(LEAST_DESCRIPTORS)) return; // or it would spin until the next look
    try {
      this.#strained.resume();
    } catch {
      return; // still short: the next look tries again
    }
    this.#pausedUntil = undefined;
    this.#resumedWith = this.#strained.accepted;
    this.#inVain = 0;
  }

  /** Asks the kernel only when the processor is busy and nobody came: that costs a library. */
  async #acceptsInVain(now: number): Promise<boolean> {
    const processor = processorMs();
    const busy = (processor - this.#processorMs) / (now - this.#lookedAt) > BUSY;
    this.#processorMs = processor;
    this.#lookedAt = now;
    const { accepted } = this.#strained;
    const nobody = accepted === this.#accepted;
    this.#accepted = accepted;
    this.#calmLooks = nobody && !busy ? this.#calmLooks + 1 : 0;
    const inVain = busy && nobody && (await this.#strained.waiting()) === true;
    this.#inVain = inVain && this.#strained.accepted === accepted ? this.#inVain + 1 : 0;
    return this.#inVain >= 2;
  }

  #raiseCeiling(now: number): void {
    if (!Number.isFinite(this.#ceiling)) return;
    const soon = this.#strained.size + PLENTY.connections;
    const plenty = soon > this.#ceiling && this.#hasSpare(PLENTY.descriptors);
    if (!plenty && now - this.#ceilingAt < RECOVERY.ms) return;
    this.#ceilingAt = now;
    this.#ceiling = plenty ? soon : Math.floor(this.#ceiling * (1 + RECOVERY.part)) + 1;
  }
}

/** What the process has used of processors, in milliseconds. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}
