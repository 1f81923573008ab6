import type { Database } from "bun:sqlite";
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { ownLikeFolder, reasonOf } from "./private-file.ts";
import { StateFileError } from "./state-file.ts";

/** What somebody has moved, in bytes. */
export interface Usage {
  readonly up: number;
  readonly down: number;
}

/** Whoever serves must not wait for another process for long: what is not written now is written the next time. */
const SERVING_WAIT_MS = 100;
const BAD_FILE = ["SQLITE_NOTADB", "SQLITE_CORRUPT"];

/**
 * The traffic of the users, kept in a database so that it outlives restarts and crashes.
 *
 * Several processes may have it open: the one that serves adds, another one shows or resets. What was added is in
 * the file when {@link UsageStore.add} returns, so that a `kill -9` loses nothing of it.
 *
 * Each reset leaves a mark of its own in the file. Whoever finds another one than before adds nothing of what it had not
 * written yet: that was moved before, or about when, the count was set to zero.
 *
 * Nothing here throws. While the file cannot be used, what is added stays in memory, and is written when it can be;
 * the first failure of a row goes to `onFailed`. A damaged file is moved aside, and a new one made of what is known,
 * also when it was another process that has moved it, which may know nothing.
 */
export class UsageStore {
  readonly #path: string;
  readonly #onFailed: (error: StateFileError) => void;
  readonly #make: (path: string) => Database;
  /** As far as they are known; with what is pending. */
  readonly #totals = new Map<string, Usage>();
  /** Not in the file yet. */
  readonly #pending = new Map<string, Usage>();
  /** The last reset of each user, as the file had it; `undefined`: it was not read yet. */
  #marks: Map<string, string> | undefined;
  readonly #resets = new Set<string>();
  #database: Database | undefined;
  /** Which file is open, whatever its name is by now. */
  #inode: number | undefined;
  #failing = false;

  private constructor(
    path: string,
    onFailed: (error: StateFileError) => void,
    make: (path: string) => Database,
  ) {
    this.#path = path;
    this.#onFailed = onFailed;
    this.#make = make;
  }

  /**
   * Opens the database, and makes it, readable by its owner only (0600), when there is none.
   *
   * @param onFailed Must not throw.
   * @param waitMs How long to wait for another process that is writing.
   */
  static async open(
    path: string,
    onFailed: (error: StateFileError) => void,
    waitMs: number = SERVING_WAIT_MS,
  ): Promise<UsageStore> {
    const { Database } = await import("bun:sqlite"); // a proxy without limits of users does without
    const store = new UsageStore(path, onFailed, (file) => prepare(new Database(file), waitMs));
    store.#use(() => {});
    return store;
  }

  /** Everybody's traffic, as the file has it now. */
  totals(): ReadonlyMap<string, Usage> {
    this.#use((database) => this.#read(database));
    return new Map(this.#totals);
  }

  /**
   * Counts `deltas`, and returns everybody's totals: an outside {@link UsageStore.reset} shows in them, and leaves nothing
   * of what was added and not written before it was noticed.
   */
  add(deltas: ReadonlyMap<string, Usage>): ReadonlyMap<string, Usage> {
    for (const [user, delta] of deltas) {
      addTo(this.#totals, user, delta);
      addTo(this.#pending, user, delta);
    }
    return this.totals();
  }

  /** Whose traffic others have set to zero, as it was noticed since the last call. */
  takeResets(): string[] {
    const resets = [...this.#resets];
    this.#resets.clear();
    return resets;
  }

  /** Sets a user's traffic to zero. */
  reset(user: string): void {
    this.#totals.delete(user);
    this.#pending.delete(user);
    const mark = randomBytes(8).toString("hex");
    const done = this.#use((database) => {
      database.run("DELETE FROM usage WHERE user = ?", [user]);
      database.run("INSERT OR REPLACE INTO resets (user, mark) VALUES (?, ?)", [user, mark]);
    }, "immediate");
    if (done) this.#marks?.set(user, mark);
  }

  close(): void {
    try {
      this.#database?.close();
    } catch (error) {
      this.#failed("WRITE", error);
    }
    this.#database = undefined;
  }

  #read(database: Database): void {
    const rows = database
      .query<{ user: string; up: number; down: number }, []>("SELECT user, up, down FROM usage")
      .all();
    this.#totals.clear();
    for (const { user, up, down } of rows) this.#totals.set(user, { up, down });
  }

  /**
   * Writes what is pending and runs `work`, both or neither; failures are dealt with.
   *
   * @param locking `immediate` for work that writes: who has read before it asks for the lock would not wait for it.
   * @returns Whether that was possible.
   */
  #use(work: (database: Database) => void, locking: "deferred" | "immediate" = "deferred"): boolean {
    try {
      this.#run(work, locking);
      this.#failing = false;
      return true;
    } catch (error) {
      if (isDamage(error) && this.#replace()) {
        this.#failed("READ", error, "damaged: moved aside, and made anew");
        return this.#attempt(work);
      }
      this.#failed("WRITE", error);
      return false;
    }
  }

  /** A second try, with a new file. */
  #attempt(work: (database: Database) => void): boolean {
    try {
      this.#run(work, "immediate");
      this.#failing = false;
      return true;
    } catch (error) {
      this.#failing = false; // this is another failure
      this.#failed("WRITE", error);
      return false;
    }
  }

  #run(work: (database: Database) => void, locking: "deferred" | "immediate"): void {
    if (this.#database !== undefined && inodeOf(this.#path) !== this.#inode) this.#leave();
    this.#database ??= this.#open();
    const database = this.#database;
    let marks = new Map<string, string>();
    let resets: string[] = [];
    const all = database.transaction(() => {
      marks = readMarks(database);
      const before = this.#marks ?? marks;
      resets = [...marks].filter(([user, mark]) => before.get(user) !== mark).map(([user]) => user);
      const insert = database.query(
        "INSERT INTO usage (user, up, down) VALUES (?1, ?2, ?3) " +
          "ON CONFLICT (user) DO UPDATE SET up = up + excluded.up, down = down + excluded.down",
      );
      for (const [user, { up, down }] of this.#pending)
        if (!resets.includes(user)) insert.run(user, up, down);
      work(database);
    });
    if (this.#pending.size > 0) all.immediate();
    else all[locking]();
    this.#pending.clear();
    this.#marks = marks;
    for (const user of resets) this.#resets.add(user);
  }

  #open(): Database {
    mkdirSync(dirname(this.#path), { recursive: true, mode: 0o700 });
    closeSync(openSync(this.#path, "a", 0o600)); // SQLite itself makes it readable by others
    ownLikeFolder(this.#path);
    this.#inode = inodeOf(this.#path);
    return this.#make(this.#path);
  }

  /** Turns away from a file; all that is known is written to the next one, but for what was set to zero there. */
  #leave(): void {
    this.close();
    for (const [user, usage] of this.#totals) this.#pending.set(user, usage);
  }

  /** Moves a damaged file aside; all that is known is written anew. @returns Whether that was possible. */
  #replace(): boolean {
    this.#leave();
    try {
      renameSync(this.#path, `${this.#path}.damaged`);
      for (const suffix of ["-wal", "-shm"]) rmSync(`${this.#path}${suffix}`, { force: true });
    } catch {
      return !existsSync(this.#path); // another process was faster
    }
    return true;
  }

  #failed(code: "READ" | "WRITE", error: unknown, what = reasonOf(error)): void {
    if (this.#failing) return;
    this.#failing = true;
    this.#onFailed(new StateFileError(code, `Cannot use ${this.#path}: ${what}`, error));
  }
}

function prepare(database: Database, waitMs: number): Database {
  try {
    database.run(`PRAGMA busy_timeout = ${waitMs}`);
    database.run("PRAGMA journal_mode = WAL");
    database.run("PRAGMA synchronous = NORMAL"); // safe against the end of the process; the disk is not waited for
    database.run(
      "CREATE TABLE IF NOT EXISTS usage (user TEXT PRIMARY KEY, up INTEGER NOT NULL, down INTEGER NOT NULL) STRICT",
    );
    database.run("CREATE TABLE IF NOT EXISTS resets (user TEXT PRIMARY KEY, mark TEXT NOT NULL) STRICT");
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

function readMarks(database: Database): Map<string, string> {
  const rows = database.query<{ user: string; mark: string }, []>("SELECT user, mark FROM resets").all();
  return new Map(rows.map(({ user, mark }) => [user, mark]));
}

function addTo(usages: Map<string, Usage>, user: string, { up, down }: Usage): void {
  const before = usages.get(user);
  usages.set(user, { up: (before?.up ?? 0) + up, down: (before?.down ?? 0) + down });
}

function isDamage(error: unknown): boolean {
  const code = reasonOf(error);
  return BAD_FILE.some((bad) => code.startsWith(bad));
}
