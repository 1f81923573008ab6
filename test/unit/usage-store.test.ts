import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StateFileError } from "../../src/config/state-file.ts";
import { type Usage, UsageStore } from "../../src/config/usage-store.ts";

let folder: string;
let path: string;
let failures: StateFileError[];
const open: UsageStore[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-usage-"));
  path = join(folder, "usage.db");
  failures = [];
});
afterEach(() => {
  for (const store of open.splice(0)) store.close();
  rmSync(folder, { recursive: true, force: true });
});

async function openStore(at = path): Promise<UsageStore> {
  const store = await UsageStore.open(at, (error) => failures.push(error));
  open.push(store);
  return store;
}

const deltas = (users: Record<string, readonly [number, number]>): Map<string, Usage> =>
  new Map(Object.entries(users).map(([user, [up, down]]) => [user, { up, down }]));
const asObject = (usages: ReadonlyMap<string, Usage>): object => Object.fromEntries(usages);

describe("UsageStore", () => {
  test("adds up, and keeps it for the next start", async () => {
    const store = await openStore();
    expect(store.totals().size).toBe(0);
    store.add(deltas({ ann: [1, 2], bob: [5, 0] }));
    expect(asObject(store.add(deltas({ ann: [10, 20] })))).toEqual({
      ann: { up: 11, down: 22 },
      bob: { up: 5, down: 0 },
    });
    store.close();
    expect(asObject((await openStore()).totals())).toEqual({
      ann: { up: 11, down: 22 },
      bob: { up: 5, down: 0 },
    });
    expect(failures).toEqual([]);
  });

  test("is readable by its owner only, in all of its files", async () => {
    (await openStore()).add(deltas({ ann: [1, 2] }));
    const files = readdirSync(folder);
    expect(files).toContain("usage.db");
    for (const file of files) expect(statSync(join(folder, file)).mode & 0o777).toBe(0o600);
  });

  test("counts petabytes exactly", async () => {
    const store = await openStore();
    const most = Number.MAX_SAFE_INTEGER - 1;
    store.add(deltas({ ann: [most, 0] }));
    expect(asObject(store.add(deltas({ ann: [1, 0] })))).toEqual({
      ann: { up: Number.MAX_SAFE_INTEGER, down: 0 },
    });
  });

  test("takes any name", async () => {
    const store = await openStore();
    const names = ["__proto__", "a'b", "", "ü", 'x"; DROP TABLE usage; --'];
    for (const name of names) store.add(new Map([[name, { up: 1, down: 1 }]]));
    expect([...store.totals().keys()].toSorted()).toEqual(names.toSorted());
  });

  test("sees what another process has set to zero, and adds to that", async () => {
    const [serving, command] = [await openStore(), await openStore()];
    serving.add(deltas({ ann: [100, 100], bob: [1, 1] }));
    command.reset("ann");
    expect(asObject(serving.totals())).toEqual({ bob: { up: 1, down: 1 } });
    expect(asObject(serving.add(deltas({ ann: [1, 2] })))).toEqual({
      ann: { up: 1, down: 2 },
      bob: { up: 1, down: 1 },
    });
  });

  test("adds nothing that was not written yet when another process set it to zero, and says whose", async () => {
    const [serving, command] = [await openStore(), await openStore()];
    serving.add(deltas({ ann: [100, 100], bob: [1, 1] }));
    const other = new Database(path);
    other.run("BEGIN IMMEDIATE");
    serving.add(deltas({ ann: [1_000, 0], bob: [1, 1] })); // stays in memory
    other.run("COMMIT");
    other.close();
    command.reset("ann");
    expect(asObject(command.totals())).toEqual({ bob: { up: 1, down: 1 } });
    expect(asObject(serving.add(deltas({ ann: [10_000, 0], bob: [1, 1] })))).toEqual({
      bob: { up: 3, down: 3 },
    });
    expect(serving.takeResets()).toEqual(["ann"]);
    expect(serving.takeResets()).toEqual([]);
    expect(asObject(serving.add(deltas({ ann: [1, 2] })))).toMatchObject({ ann: { up: 1, down: 2 } });
    expect(serving.takeResets()).toEqual([]);
    expect(command.takeResets()).toEqual([]);
  });

  test("notices a reset of somebody of whom nothing was written yet, and each one again", async () => {
    const [serving, command] = [await openStore(), await openStore()];
    for (let round = 0; round < 3; round++) {
      command.reset("ann");
      expect(serving.add(deltas({ ann: [1, 1] })).size).toBe(0);
      expect(serving.takeResets()).toEqual(["ann"]);
    }
    command.close();
    serving.close();
    const next = await openStore(); // what was reset before it began is no news
    expect(asObject(next.add(deltas({ ann: [1, 1] })))).toEqual({ ann: { up: 1, down: 1 } });
    expect(next.takeResets()).toEqual([]);
  });

  test("takes over a file from before there were marks", async () => {
    const before = new Database(path);
    before.run(
      "CREATE TABLE usage (user TEXT PRIMARY KEY, up INTEGER NOT NULL, down INTEGER NOT NULL) STRICT",
    );
    before.run("INSERT INTO usage VALUES ('ann', 3, 4)");
    before.close();
    const store = await openStore();
    expect(asObject(store.totals())).toEqual({ ann: { up: 3, down: 4 } });
    store.reset("ann");
    expect(store.totals().size).toBe(0);
    expect(failures).toEqual([]);
  });

  test("keeps what it adds in memory while another process has the lock, and writes it later", async () => {
    const store = await openStore();
    store.add(deltas({ ann: [1, 0] }));
    const other = new Database(path);
    other.run("BEGIN IMMEDIATE");
    expect(asObject(store.add(deltas({ ann: [2, 0] })))).toEqual({ ann: { up: 3, down: 0 } });
    expect(asObject(store.add(deltas({ ann: [4, 0] })))).toEqual({ ann: { up: 7, down: 0 } });
    expect(failures).toHaveLength(1);
    expect(failures[0]?.message).toStartWith(`Cannot use ${path}: SQLITE_BUSY`);
    other.run("COMMIT");
    other.close();
    store.add(deltas({ ann: [8, 0] }));
    store.close();
    expect(asObject((await openStore()).totals())).toEqual({ ann: { up: 15, down: 0 } });
    expect(failures).toHaveLength(1);
  });

  test("moves a damaged file aside, and begins anew", async () => {
    writeFileSync(path, "this is no database, but it is long enough to be looked at".repeat(100));
    const store = await openStore();
    expect(asObject(store.add(deltas({ ann: [1, 2] })))).toEqual({ ann: { up: 1, down: 2 } });
    expect(failures.map(({ message }) => message)).toEqual([
      `Cannot use ${path}: damaged: moved aside, and made anew`,
    ]);
    expect(existsSync(`${path}.damaged`)).toBe(true);
    store.close();
    expect((await openStore()).totals().size).toBe(1);
  });

  test("writes what it knows to a new file when another process has moved the old one aside", async () => {
    const serving = await openStore();
    serving.add(deltas({ ann: [1, 2], bob: [3, 4] }));
    renameSync(path, `${path}.damaged`);
    for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
    const command = await openStore();
    command.reset("ann");
    command.close();
    expect(asObject(serving.add(deltas({ ann: [1, 1], bob: [1, 1] })))).toEqual({ bob: { up: 4, down: 5 } });
    expect(serving.takeResets()).toEqual(["ann"]);
    serving.close();
    expect(asObject((await openStore()).totals())).toEqual({ bob: { up: 4, down: 5 } });
    expect(failures).toEqual([]);
  });

  test("works in memory where there can be no file", async () => {
    mkdirSync(path);
    const store = await openStore();
    store.add(deltas({ ann: [1, 2] }));
    expect(asObject(store.add(deltas({ ann: [1, 2] })))).toEqual({ ann: { up: 2, down: 4 } });
    store.reset("ann");
    expect(store.totals().size).toBe(0);
    expect(failures).toHaveLength(1);
  });

  test("loses nothing that was added before kill -9", async () => {
    const program = `
      import { UsageStore } from ${JSON.stringify(join(import.meta.dir, "../../src/config/usage-store.ts"))};
      const store = await UsageStore.open(${JSON.stringify(path)}, (error) => { throw error; });
      for (let at = 1; ; at++) {
        store.add(new Map([["ann", { up: 1, down: 2 }]]));
        process.stdout.write(at + "\\n");
      }`;
    const child = Bun.spawn([process.execPath, "-e", program], { stdout: "pipe" });
    let said = "";
    for await (const chunk of child.stdout) {
      said += new TextDecoder().decode(chunk);
      if (said.length > 2_000) child.kill("SIGKILL");
    }
    await child.exited;
    const last = Number(said.slice(0, said.lastIndexOf("\n")).split("\n").at(-1));
    const { up = 0, down } = (await openStore()).totals().get("ann") ?? {};
    expect(last).toBeGreaterThan(100);
    expect(up).toBeGreaterThanOrEqual(last); // what it has said last may not have come out
    expect(down).toBe(2 * up);
    expect(failures).toEqual([]);
  });
});
