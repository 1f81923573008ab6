import { networkInterfaces } from "node:os";
import { type Round, Rounds } from "./rounds.ts";

/** What has happened to the network. */
export interface NetworkChange {
  /** Milliseconds that the machine has slept, or the process was stopped; 0 when it was neither. */
  readonly sleptMs: number;
  /** Addresses that are new, and that are gone. */
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** Time and addresses, as a {@link NetworkWatch} sees them; replaced in tests. */
export interface NetworkSenses {
  /** Milliseconds since some moment; set by people and by time servers, runs while the machine sleeps. */
  readonly wallClock: () => number;
  /** Milliseconds since some moment; never set, and on most systems stops while the machine sleeps. */
  readonly steadyClock: () => number;
  readonly addresses: () => readonly string[];
}

/** How often the clocks and the addresses are looked at, in milliseconds. An address list costs 50 µs. */
const LOOK_MS = 4_000;
/** A look that comes later than planned by this much means sleep; a busy machine is late by less, in milliseconds. */
const SLEEP_MS = 8_000;

/**
 * Notices that the machine has slept, or has moved to another network.
 *
 * Connections do not survive that, but nobody tells: packets just go nowhere until some timeout. A look that
 * comes late by either clock means sleep (or a clock that was set, which does no harm); other addresses of the
 * interfaces mean another network. Addresses of the machine to itself do not count.
 */
export class NetworkWatch {
  readonly #round: Round;
  readonly #senses: NetworkSenses;
  readonly #onChange: (change: NetworkChange) => void;
  #wall: number;
  #steady: number;
  #addresses: ReadonlySet<string> = new Set();

  constructor(
    onChange: (change: NetworkChange) => void,
    senses: NetworkSenses = SENSES,
    rounds: Rounds = new Rounds(),
  ) {
    this.#senses = senses;
    this.#onChange = onChange;
    this.#wall = senses.wallClock();
    this.#steady = senses.steadyClock();
    this.#addresses = this.#readAddresses();
    this.#round = rounds.every(LOOK_MS, () => this.#look());
  }

  stop(): void {
    this.#round.stop();
  }

  #look(): void {
    const { wallClock, steadyClock } = this.#senses;
    const wall = wallClock();
    const steady = steadyClock();
    const late = Math.max(wall - this.#wall, steady - this.#steady) - LOOK_MS;
    this.#wall = wall;
    this.#steady = steady;
    const now = this.#readAddresses();
    const added = [...now].filter((address) => !this.#addresses.has(address));
    const removed = [...this.#addresses].filter((address) => !now.has(address));
    this.#addresses = now;
    const sleptMs = late >= SLEEP_MS ? late : 0;
    if (sleptMs > 0 || added.length > 0 || removed.length > 0) this.#onChange({ sleptMs, added, removed });
  }

  #readAddresses(): ReadonlySet<string> {
    try {
      return new Set(this.#senses.addresses());
    } catch {
      return this.#addresses; // no descriptor is left to ask with: that is no change
    }
  }
}

const SENSES: NetworkSenses = {
  wallClock: Date.now,
  steadyClock: () => performance.now(),
  addresses: outsideAddresses,
};

/** Link-local addresses come and go with every container on the machine, and lead nowhere. */
function outsideAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all
    .filter(({ internal, address }) => !internal && !address.startsWith("fe80:"))
    .map(({ address }) => address);
}
