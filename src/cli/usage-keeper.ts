import { join } from "node:path";
import type { StateFileError } from "../config/state-file.ts";
import type { UsageStore } from "../config/usage-store.ts";
import type { Round, Rounds } from "../net/rounds.ts";
import type { Usage } from "../proxy/gate-user.ts";
import type { LocalGate } from "../proxy/local-gate.ts";
import { USAGE_FILE } from "./state.ts";

/** What was moved in so much time is not counted when the program is killed, in milliseconds; and what was not told yet. */
const WRITE_MS = 2_000;

/** What a {@link UsageKeeper} works with. */
export interface UsageKeeperOptions {
  readonly gate: LocalGate;
  /** Where the database is; without one, what was moved counts until the program ends. */
  readonly folder: string | undefined;
  readonly rounds: Rounds;
  readonly onFailed: (error: StateFileError) => void;
  /** The count of these users was set to zero: what they have moved until now must not be told any more. */
  readonly onReset: (users: ReadonlySet<string>) => void;
}

/** Keeps in a database what users have moved, and tells the gate what others have done to it there. */
export class UsageKeeper {
  readonly #options: UsageKeeperOptions;
  #store: UsageStore | undefined;
  #pending = new Map<string, Usage>();
  #round: Round | undefined;

  constructor(options: UsageKeeperOptions) {
    this.#options = options;
  }

  /** Keeps it from now on, and has the gate know what there was before. Again: users may have come since. */
  async start(): Promise<void> {
    const { folder, rounds, onFailed } = this.#options;
    if (folder === undefined) return;
    const { UsageStore } = await import("../config/usage-store.ts"); // a proxy without users does without
    this.#store ??= await UsageStore.open(join(folder, USAGE_FILE), onFailed);
    this.#round ??= rounds.every(WRITE_MS, () => this.#write());
    this.#write();
  }

  /** Adds what was moved since it was told last. */
  note(bytes: ReadonlyMap<string, Usage>): void {
    if (this.#store === undefined) return;
    for (const [user, { up, down }] of bytes) {
      const before = this.#pending.get(user) ?? { up: 0, down: 0 };
      this.#pending.set(user, { up: before.up + up, down: before.down + down });
    }
  }

  close(): void {
    this.#round?.stop();
    this.#write();
    this.#store?.close();
  }

  /** Also without anything to add: `tgws users reset` may have been there. */
  #write(): void {
    if (this.#store === undefined) return;
    const { gate, onReset } = this.#options;
    const users = new Set(gate.users().map(({ name }) => name));
    // What somebody moved who is not there any more must not come back: the name may be given to somebody else.
    const pending = new Map([...this.#pending].filter(([name]) => users.has(name)));
    this.#pending = new Map();
    const totals = new Map(this.#store.add(pending));
    for (const name of users) if (!totals.has(name)) totals.set(name, { up: 0, down: 0 });
    gate.load(totals);
    const resets = this.#store.takeResets();
    if (resets.length > 0) onReset(new Set(resets));
  }
}
