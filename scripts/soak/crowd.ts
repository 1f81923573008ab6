import type { TestTransport } from "../../test/support/packets.ts";
import { Client, type ClientOptions, type Traffic } from "./client.ts";
import { HABITS, type Habit, type Life } from "./habits.ts";
import type { Failure, Identity } from "./orders.ts";
import { Random } from "./random.ts";
import { CorruptionError } from "./wire.ts";

/** Who comes, and how. */
export interface CrowdOptions {
  readonly port: number;
  readonly seed: number;
  /** At any time. */
  readonly sessions: number;
  /** New ones per second while it grows. */
  readonly ramp: number;
  readonly longestLifeMs: number;
  /** The web site that the proxy looks like; `undefined` without fake TLS. */
  readonly domain: string | undefined;
  readonly identities: readonly Identity[];
  readonly stalls: boolean;
  onFailure(failure: Failure): void;
}

/** The data centre whose routes never fail, and the one whose routes do. */
export const CALM_DC = 2;
export const ROUGH_DC = 4;
const TRANSPORTS: readonly TestTransport[] = ["padded", "intermediate", "abridged"];
/** Whoever fails comes back after so long, as apps do. */
const BACK_MS = 1_000;
/** One in so many goes to {@link ROUGH_DC}, and one in so many comes through fake TLS. */
const ROUGH_EVERY = 6;
const FAKE_TLS_EVERY = 3;

/** The clients: each slot has one session after the other, all of one habit, so that the load stays the same. */
export class Crowd {
  readonly traffic: Traffic = { bytesUp: 0, bytesDown: 0, messages: 0, slowestMs: 0 };
  live = 0;
  started = 0;
  finished = 0;
  failed = 0;
  /** Live sessions of each habit, and of each user. */
  readonly habits: Record<string, number> = {};
  readonly users: Record<string, number> = {};
  /** Users that must not come at the moment. */
  absent: ReadonlySet<string> = new Set();
  readonly #options: CrowdOptions;
  /** How those who wait are woken. */
  readonly #sleepers = new Set<() => void>();
  #isOver = false;
  #sessions = 0;
  #slots: Promise<void>[] = [];

  constructor(options: CrowdOptions) {
    this.#options = options;
  }

  /** Lets them come, and resolves when all are there. */
  async start(): Promise<void> {
    const { sessions, ramp } = this.#options;
    for (let slot = 0; slot < sessions && !this.#isOver; slot += 1) {
      this.#slots.push(this.#occupy(slot));
      await this.#sleep(1000 / ramp);
    }
  }

  /** Lets all of them leave, and resolves when they have. */
  async stop(): Promise<void> {
    this.#isOver = true;
    for (const wake of this.#sleepers) wake();
    await Promise.all(this.#slots);
  }

  /** Makes a session of `identity`; with fake TLS, some of them. */
  makeClient({ secret }: Identity, slot: number): Client {
    const { domain, port } = this.#options;
    const key = Uint8Array.fromHex(secret);
    const signer =
      domain === undefined || slot % FAKE_TLS_EVERY !== 0
        ? undefined
        : { key, domain, shape: slot % 2 === 0 ? ("hybrid" as const) : ("short" as const) };
    // Outside of fake TLS a proxy that has it lets in padded ones only.
    const free = domain === undefined || signer !== undefined;
    const options: ClientOptions = {
      port,
      key,
      signer,
      transport: free ? (TRANSPORTS[Math.floor(slot / 5) % TRANSPORTS.length] ?? "padded") : "padded",
      dcId: isRough(slot) ? ROUGH_DC : CALM_DC,
      session: ++this.#sessions,
    };
    return new Client(options, this.traffic);
  }

  async #occupy(slot: number): Promise<void> {
    const { seed, identities, longestLifeMs, stalls } = this.#options;
    const random = new Random(seed + slot * 7919);
    const habit = habitOf(slot, { stalls });
    const identity = identities[slot % identities.length];
    if (identity === undefined) throw new Error("nobody may come");
    const crowd = this;
    const life: Life = {
      random,
      longestMs: longestLifeMs,
      get over() {
        return crowd.#isOver;
      },
      sleep: (ms) => this.#sleep(ms),
    };
    while (!this.#isOver) {
      if (this.absent.has(identity.user)) await this.#sleep(500);
      else if (!(await this.#visit(this.makeClient(identity, slot), identity, habit, life))) {
        await this.#sleep(BACK_MS);
      }
    }
  }

  /** @returns Whether it went well. */
  async #visit(client: Client, { user }: Identity, habit: Habit, life: Life): Promise<boolean> {
    const session = this.#sessions;
    const startedAt = Date.now();
    this.started += 1;
    this.#count(habit, user, 1);
    try {
      await client.connect();
      const run = habit.run(client, life);
      run.catch(() => {}); // it hears of its end later than this does
      await Promise.race([run, client.broken]);
      this.finished += 1;
      return true;
    } catch (error) {
      const corruption = error instanceof CorruptionError;
      // What it says is no client's: it may be shown the door, or the web site.
      if (habit.fickle === true && !corruption) {
        this.finished += 1;
        return true;
      }
      this.failed += 1;
      this.#options.onFailure({
        session,
        who: user,
        port: client.port,
        startedAt,
        failedAt: Date.now(),
        doing: `${habit.name}: ${client.doing}`,
        message: error instanceof Error ? error.message : String(error),
        corruption,
      });
      return false;
    } finally {
      client.leave(life.random.chance(0.7) ? "fin" : "reset");
      this.#count(habit, user, -1);
    }
  }

  #count({ name }: Habit, user: string, change: number): void {
    this.live += change;
    this.habits[name] = (this.habits[name] ?? 0) + change;
    this.users[user] = (this.users[user] ?? 0) + change;
  }

  /** Waits; less long when all leave meanwhile. */
  async #sleep(ms: number): Promise<void> {
    if (this.#isOver || ms <= 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#sleepers.add(resolve);
    await promise;
    this.#sleepers.delete(resolve);
    clearTimeout(timer);
  }
}

/** Of both kinds of data centre, media ones are left out: they would have learned routes of their own. */
function isRough(slot: number): boolean {
  return Math.floor(slot / FAKE_TLS_EVERY) % ROUGH_EVERY === ROUGH_EVERY - 1;
}

function habitOf(slot: number, { stalls }: { readonly stalls: boolean }): Habit {
  const [first] = HABITS;
  // Strides through the hundred, so that a small crowd has every habit, too.
  let place = (slot * 37) % 100;
  for (const habit of HABITS) {
    place -= habit.share;
    if (place >= 0) continue;
    if (habit.stalls === true && !stalls) break;
    return habit;
  }
  if (first === undefined) throw new Error("there are no habits");
  return first;
}
