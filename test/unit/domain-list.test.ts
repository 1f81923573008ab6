import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { CfDomainList, type CfDomainListOptions, DomainListError } from "../../src/upstream/domain-list.ts";
import { Condition, nextTurn, within } from "../support/waiting.ts";

const FALLBACK = ["f1.example", "f2.example", "f3.example", "f4.example"];
const textOf = (...names: readonly string[]): string => names.map((name) => `${name}.example\n`).join("");
const namesOf = (...names: readonly string[]): string[] => names.map((name) => `${name}.example`);

/** Draws the first of what is left: the order stays. */
const inOrder = (): number => 0;

class Store {
  text: string | undefined;
  writes = 0;

  reads = 0;

  constructor(text?: string) {
    this.text = text;
  }

  read(): string | undefined {
    this.reads += 1;
    return this.text;
  }

  write(text: string): void {
    this.text = text;
    this.writes += 1;
  }
}

/** A list whose fetches the test answers. */
class Fixture {
  readonly store: Store;
  readonly list: CfDomainList;
  readonly changes: (readonly string[])[] = [];
  readonly failures: unknown[] = [];
  readonly fetches: { readonly signal: AbortSignal; readonly answer: PromiseWithResolvers<string> }[] = [];
  readonly #happened = new Condition();

  constructor(changes: Partial<CfDomainListOptions> = {}, kept?: string) {
    this.store = new Store(kept);
    this.list = new CfDomainList({
      fallback: FALLBACK.join("\n"),
      fetch: (signal) => {
        const answer = Promise.withResolvers<string>();
        this.fetches.push({ signal, answer });
        this.#happened.changed();
        return answer.promise;
      },
      kept: this.store,
      onChange: (domains) => this.changes.push(domains),
      onFailed: (error) => {
        this.failures.push(error);
        this.#happened.changed();
      },
      random: inOrder,
      ...changes,
    });
    open.push(this.list);
  }

  /** Refreshes with this answer. */
  async fetched(text: string): Promise<void> {
    const done = this.list.refresh();
    this.fetches.at(-1)?.answer.resolve(text);
    await done;
  }

  untilFetches(count: number): Promise<void> {
    return this.#happened.until(() => this.fetches.length >= count, `fetch ${count}`);
  }
}

const open: CfDomainList[] = [];
afterEach(() => {
  for (const list of open.splice(0)) list.close();
});

describe("CfDomainList, at first", () => {
  test("has the fallback when nothing is kept", () => {
    expect(new Fixture().list.domains).toEqual(FALLBACK);
  });

  test("has the list that is kept", () => {
    expect(new Fixture({}, `virkgj.com\n${textOf("a", "b")}`).list.domains).toEqual([
      "pclead.co.uk",
      ...namesOf("a", "b"),
    ]);
  });

  test.each(["", textOf("a", "b"), "<html>404"])(
    "has the fallback when what is kept is no list: %j",
    (kept) => {
      expect(new Fixture({}, kept).list.domains).toEqual(FALLBACK);
    },
  );

  test("has the fallback when what is kept cannot be read", () => {
    const broken = new Error("EIO");
    const kept = {
      read: () => {
        throw broken;
      },
      write: () => {},
    };
    const { list, failures } = new Fixture({ kept });
    expect(list.domains).toEqual(FALLBACK);
    expect(failures).toEqual([broken]);
  });

  test("reads neither before somebody asks, and then once", () => {
    const fixture = new Fixture({}, textOf("a", "b", "c"));
    expect(fixture.store.reads).toBe(0);
    const { domains } = fixture.list;
    expect(fixture.list.domains).toBe(domains);
    expect(fixture.store.reads).toBe(1);
  });

  test("reads the fallback as it reads any list", () => {
    const fallback = "# comment\n\nvirkgj.com\r\nB.example\nb.example\nno name\n";
    expect(new Fixture({ fallback }).list.domains).toEqual(["pclead.co.uk", "b.example"]);
    expect(new Fixture({ fallback: "" }).list.domains).toEqual([]);
  });

  test("draws the order, and keeps every name", () => {
    const orders = new Set<string>();
    for (let draw = 0; draw < 200; draw += 1) {
      const { domains } = new Fixture({ random: Math.random }).list;
      expect([...domains].sort()).toEqual(FALLBACK);
      orders.add(domains.join());
    }
    expect(orders.size).toBeGreaterThan(10);
    expect(FALLBACK[0]).toBe("f1.example");
  });
});

describe("CfDomainList.refresh()", () => {
  test("replaces the list and keeps the text as it came", async () => {
    const fixture = new Fixture();
    expect(fixture.list.domains).toEqual(FALLBACK);
    const text = `# comment\r\n${textOf("A", "b", "c")}`;
    await fixture.fetched(text);
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "c"));
    expect(fixture.store.text).toBe(text);
    expect(fixture.changes).toEqual([namesOf("a", "b", "c")]);
    expect(fixture.failures).toEqual([]);
  });

  test.each(["", "<html>\n404: Not Found\n</html>", textOf("a", "b"), textOf("a", "A", "a", "b")])(
    "keeps the old list when fewer than three names come: %j",
    async (text) => {
      const fixture = new Fixture({}, textOf("x", "y", "z"));
      await fixture.fetched(text);
      expect(fixture.list.domains).toEqual(namesOf("x", "y", "z"));
      expect(fixture.store).toMatchObject({ text: textOf("x", "y", "z"), writes: 0 });
      expect(fixture.changes).toEqual([]);
      expect(fixture.failures).toEqual([expect.objectContaining({ code: "TOO_FEW" })]);
      expect(fixture.failures[0]).toBeInstanceOf(DomainListError);
    },
  );

  test("leaves those that stay in their places, and puts newcomers where others were", async () => {
    const fixture = new Fixture({}, textOf("a", "b", "c", "d"));
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "c", "d"));
    await fixture.fetched(textOf("n", "d", "m", "b", "k", "a"));
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "n", "d", "m", "k"));
    await fixture.fetched(textOf("k", "d", "b"));
    expect(fixture.list.domains).toEqual(namesOf("b", "d", "k"));
  });

  test("says nothing about the same domains in another order, and writes no text twice", async () => {
    const fixture = new Fixture({}, textOf("a", "b", "c"));
    const before = fixture.list.domains;
    await fixture.fetched(textOf("a", "b", "c"));
    expect(fixture.store.writes).toBe(0);
    await fixture.fetched(textOf("c", "B", "a"));
    await fixture.fetched(textOf("c", "B", "a"));
    expect(fixture.store.writes).toBe(1);
    expect(fixture.list.domains).toBe(before);
    expect(fixture.changes).toEqual([]);
  });

  test("has the new list for whoever asks only then", async () => {
    const fixture = new Fixture({}, textOf("x", "y", "z"));
    await fixture.fetched(textOf("a", "b", "c"));
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "c"));
    expect(fixture.store.text).toBe(textOf("a", "b", "c"));
  });

  // What is kept is only known once somebody has asked: each start without clients costs a write.
  test("writes no text that is kept already, when nobody has asked for the domains yet", async () => {
    const fixture = new Fixture({}, textOf("a", "b", "c"));
    await fixture.fetched(textOf("a", "b", "c"));
    expect(fixture.store.writes).toBe(0);
  });

  // The new text is kept before the old one is read, which then is the new one: others than before go unheard.
  test("says that the domains are others, when nobody has asked for them yet", async () => {
    const fixture = new Fixture({}, textOf("x", "y", "z"));
    await fixture.fetched(textOf("a", "b", "c"));
    expect(fixture.changes).toEqual([namesOf("a", "b", "c")]);
  });

  test("joins one that is under way", async () => {
    const fixture = new Fixture();
    const both = [fixture.list.refresh(), fixture.list.refresh()];
    expect(fixture.fetches).toHaveLength(1);
    fixture.fetches[0]?.answer.resolve(textOf("a", "b", "c"));
    await Promise.all(both);
    const again = fixture.list.refresh();
    expect(fixture.fetches).toHaveLength(2);
    fixture.fetches[1]?.answer.resolve(textOf("a", "b", "c"));
    await again;
  });

  test("reports a fetch that fails, at once or later", async () => {
    const broken = new Error("offline");
    for (const fetch of [
      () => Promise.reject(broken),
      () => {
        throw broken;
      },
    ]) {
      const { list, failures } = new Fixture({ fetch });
      await list.refresh();
      expect(failures).toEqual([broken]);
      expect(list.domains).toEqual(FALLBACK);
    }
  });

  test("gives up a fetch that takes too long, even one that does not heed its signal", async () => {
    const fixture = new Fixture({ timeoutMs: 20 });
    await within(fixture.list.refresh(), "the end of the refresh");
    expect(fixture.fetches[0]?.signal.aborted).toBe(true);
    expect(fixture.failures).toEqual([expect.objectContaining({ code: "TIMEOUT" })]);
  });

  test("takes a list that cannot be kept", async () => {
    const full = new Error("ENOSPC");
    const kept = {
      read: () => undefined,
      write: () => {
        throw full;
      },
    };
    const fixture = new Fixture({ kept });
    await fixture.fetched(textOf("a", "b", "c"));
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "c"));
    expect(fixture.failures).toEqual([full]);
  });

  test("survives those who hear of it", async () => {
    const broken = new Error("onChange");
    const failures: unknown[] = [];
    const fixture = new Fixture({
      onChange: () => {
        throw broken;
      },
      onFailed: (error) => {
        failures.push(error);
        throw error;
      },
    });
    expect(fixture.list.domains).toEqual(FALLBACK);
    await fixture.fetched(textOf("a", "b", "c"));
    await fixture.fetched("");
    expect(failures).toEqual([broken, expect.objectContaining({ code: "TOO_FEW" })]);
    expect(fixture.list.domains).toEqual(namesOf("a", "b", "c"));
  });

  test("has exactly the last list after any lists, and those that stayed in their order", async () => {
    const names = fc.uniqueArray(fc.constantFrom(..."abcdefghij"), { minLength: 3, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(fc.array(names, { minLength: 1, maxLength: 5 }), async (lists) => {
        const fixture = new Fixture({ random: Math.random });
        for (const list of lists) {
          const before = fixture.list.domains;
          await fixture.fetched(textOf(...list));
          const now = fixture.list.domains;
          expect([...now].sort()).toEqual(namesOf(...list).sort());
          const stayed = (all: readonly string[], others: readonly string[]): string[] =>
            all.filter((name) => others.includes(name));
          expect(stayed(now, before)).toEqual(stayed(before, now));
        }
      }),
      { seed: 20_255, numRuns: 100 },
    );
  });
});

describe("CfDomainList.start()", () => {
  test("looks soon, and sooner than usual after a failure", async () => {
    const fixture = new Fixture({ startMs: 5, refreshMs: 3_600_000, retryMs: 5 });
    fixture.list.start();
    fixture.list.start();
    expect(fixture.fetches).toHaveLength(0);
    await fixture.untilFetches(1);
    fixture.fetches[0]?.answer.reject(new Error("offline"));
    await fixture.untilFetches(2);
    expect(fixture.fetches).toHaveLength(2);
  });

  test("looks again after the usual time", async () => {
    const fixture = new Fixture({ startMs: 5, refreshMs: 200, retryMs: 3_600_000 });
    fixture.list.start();
    await fixture.untilFetches(1);
    fixture.fetches[0]?.answer.resolve(textOf("a", "b", "c"));
    const goodAt = performance.now();
    await fixture.untilFetches(2);
    expect(performance.now() - goodAt).toBeGreaterThan(190);
  });

  test("does not look before it is started", async () => {
    const fixture = new Fixture({ startMs: 0, refreshMs: 0, retryMs: 0 });
    await fixture.fetched(textOf("a", "b", "c"));
    await Bun.sleep(10);
    expect(fixture.fetches).toHaveLength(1);
  });

  test("does not keep the program running", async () => {
    const source = new URL("../../src/upstream/domain-list.ts", import.meta.url).pathname;
    const script = `
      import { CfDomainList } from ${JSON.stringify(source)};
      const kept = { read: () => undefined, write: () => {} };
      const list = new CfDomainList({ fallback: "", kept, startMs: 5, fetch: () => new Promise(() => {}) });
      list.start();
      await Bun.sleep(50);
      console.log("done");
    `;
    const program = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
    expect(await within(program.stdout.text(), "its last word")).toBe("done\n");
    expect(await within(program.exited, "its end")).toBe(0);
  });
});

describe("CfDomainList.close()", () => {
  test("gives up the look that is under way, without a complaint", async () => {
    const fixture = new Fixture({ startMs: 0, retryMs: 0 });
    fixture.list.start();
    await fixture.untilFetches(1);
    const done = fixture.list.refresh();
    fixture.list.close();
    await within(done, "the end of the refresh");
    expect(fixture.fetches[0]?.signal.aborted).toBe(true);
    fixture.fetches[0]?.answer.resolve(textOf("a", "b", "c"));
    await nextTurn();
    await Bun.sleep(10);
    expect(fixture.list.domains).toEqual(FALLBACK);
    expect(fixture).toMatchObject({ changes: [], failures: [] });
    expect(fixture.fetches).toHaveLength(1);
  });

  test("lets nothing begin any more", async () => {
    const fixture = new Fixture({ startMs: 0 });
    fixture.list.start();
    fixture.list.close();
    fixture.list.close();
    fixture.list.start();
    await fixture.list.refresh();
    await Bun.sleep(10);
    expect(fixture.fetches).toEqual([]);
  });
});
