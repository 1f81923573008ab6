import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { RouteError } from "../../src/core/errors.ts";
import { Cover } from "../../src/proxy/cover.ts";
import { EarlySite } from "../../src/proxy/early-site.ts";
import { SiteUsers } from "../../src/proxy/mask.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";

/** How long a client may say nothing until the site is connected to, in milliseconds. */
const EARLY_MS = 100;
/** A site that closes sooner, without a byte, has not waited for the client, in milliseconds. */
const TELLING_MS = 700;
const FIRST = "cover.example";
const SECOND = "other.example";
const ADDRESSES: ReadonlyMap<string, string> = new Map([
  [FIRST, "1.0.0.1"],
  [SECOND, "1.0.0.2"],
]);

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

interface Setup {
  readonly early: EarlySite;
  readonly cover: Cover;
  readonly users: SiteUsers;
  /** The sites' ends of the connections, with where those went. */
  readonly sites: { readonly host: string; readonly site: MemoryChannel; readonly own: MemoryChannel }[];
  /** What connecting waits for. */
  gate: Promise<void> | undefined;
  failure: RouteError | undefined;
}

function setUp({ most = 100 }: { readonly most?: number } = {}): Setup {
  const sites: Setup["sites"] = [];
  const cover = new Cover({
    domains: [FIRST, SECOND],
    host: undefined,
    pinned: (name) => ADDRESSES.get(name),
    lookUp: () => Promise.reject(new Error("not asked")),
    dial: async ({ host }) => {
      await setup.gate;
      if (setup.failure !== undefined) throw setup.failure;
      const [site, own] = memoryChannelPair();
      site.attach(new RecordingSink());
      sites.push({ host, site, own });
      return own;
    },
    isOwn: () => false,
    isHere: () => true,
    warn: () => {},
    debug: () => {},
  });
  const users = new SiteUsers(most);
  const setup: Setup = {
    early: new EarlySite(cover, users),
    users,
    cover,
    sites,
    gate: undefined,
    failure: undefined,
  };
  return setup;
}

async function pass(ms: number): Promise<void> {
  await settle();
  jest.advanceTimersByTime(ms);
  await settle();
}

/** Lets the time pass after which the connection is made. */
function waitForSite(): Promise<void> {
  return pass(EARLY_MS);
}

describe("EarlySite", () => {
  test("connects to the first site after a tenth of a second, and not before", async () => {
    const { early, sites } = setUp();
    await settle();
    jest.advanceTimersByTime(EARLY_MS - 1);
    await settle();
    expect(sites).toEqual([]);
    jest.advanceTimersByTime(1);
    await settle();
    expect(sites.map(({ host }) => host)).toEqual(["1.0.0.1"]);
    expect(early.spoke.aborted).toBe(false);
    early.destroy();
  });

  const CLOSES = [
    ["ends", (site: MemoryChannel) => site.end()],
    ["closes", (site: MemoryChannel) => site.close()],
    ["breaks", (site: MemoryChannel) => site.destroy()],
  ] as const;

  test("says so at once when the site says something, whatever it does then", async () => {
    for (const [, close] of CLOSES) {
      const { early, sites } = setUp();
      await waitForSite();
      sites[0]?.site.write(Uint8Array.of(1));
      await settle();
      expect(early.spoke.aborted).toBe(true);
      if (sites[0] !== undefined) close(sites[0].site);
      await settle();
      early.destroy();
    }
  });

  test.each(CLOSES)("says so at once when the site %s without a byte after 0.7 s", async (_, close) => {
    const { early, sites } = setUp();
    await waitForSite();
    await pass(TELLING_MS);
    expect(early.spoke.aborted).toBe(false);
    if (sites[0] !== undefined) close(sites[0].site);
    await settle();
    await pass(1);
    expect(early.spoke.aborted).toBe(true);
    early.destroy();
  });

  test.each(CLOSES)("waits for 0.7 s to be over when the site %s without a byte before", async (_, close) => {
    const { early, sites } = setUp();
    await waitForSite();
    await pass(TELLING_MS / 2);
    if (sites[0] !== undefined) close(sites[0].site);
    await pass(TELLING_MS / 2 - 1);
    expect(early.spoke.aborted).toBe(false);
    await pass(1);
    expect(early.spoke.aborted).toBe(true);
    early.destroy();
  });

  test("stays silent when the site cannot be reached", async () => {
    const setup = setUp();
    setup.failure = new RouteError("REFUSED", "connection refused");
    await waitForSite();
    expect(setup.early.spoke.aborted).toBe(false);
    await expect(setup.early.take(undefined)).rejects.toBe(setup.failure);
    setup.early.destroy();
  });
});

describe("EarlySite.take()", () => {
  test("gives the connection that there is, with what the site has said", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    sites[0]?.site.write(Buffer.from("220 hello"));
    await settle();
    const { channel, bytes } = await early.take(undefined);
    early.destroy();
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
    expect(Buffer.from(bytes).toString()).toBe("220 hello");
    expect(sites[0]?.own.closed).toBe(false);
    const sink = new RecordingSink();
    channel.attach(sink);
    sites[0]?.site.write(Uint8Array.of(7));
    await sink.until(({ length }) => length === 1);
  });

  test("makes one when there is none yet", async () => {
    const { early, sites } = setUp();
    const { channel, bytes } = await early.take(FIRST);
    expect(bytes).toHaveLength(0);
    early.destroy();
    await waitForSite();
    expect(sites).toHaveLength(1);
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
  });

  test("makes another one for another name, and drops the first", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    await early.take("OTHER.example");
    early.destroy();
    expect(sites.map(({ host, own }) => [host, own.closed])).toEqual([
      ["1.0.0.1", true],
      ["1.0.0.2", false],
    ]);
  });

  test("takes the first for a name that is none of ours", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    const { channel } = await early.take("unknown.example");
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
    early.destroy();
  });

  test("waits for one that is still being made", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.gate = gate.promise;
    await waitForSite();
    setup.gate = undefined; // another one would be there at once
    const taken = setup.early.take(undefined);
    await settle();
    expect(setup.sites).toEqual([]);
    gate.resolve();
    const { channel } = await taken;
    setup.early.destroy();
    await settle();
    expect(setup.sites.map(({ own }) => own.closed)).toEqual([false]);
    expect(channel).toBe(setup.sites[0]?.own as MemoryChannel);
  });

  test("does not wait for one that is still being made for another name, and drops that", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.gate = gate.promise;
    await waitForSite();
    setup.gate = undefined;
    const { channel } = await setup.early.take(SECOND);
    setup.early.destroy();
    gate.resolve();
    await settle();
    expect(setup.sites.map(({ host, own }) => [host, own.closed])).toEqual([
      ["1.0.0.2", false],
      ["1.0.0.1", true],
    ]);
    expect(channel).toBe(setup.sites[0]?.own as MemoryChannel);
  });

  test("says of one that the site has ended early that it has, and nothing later", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    sites[0]?.site.end();
    await settle();
    const { channel, bytes, ended } = await early.take(undefined);
    expect([channel === sites[0]?.own, bytes.length, ended]).toEqual([true, 0, true]);
    await pass(TELLING_MS);
    expect(early.spoke.aborted).toBe(false);
    early.destroy();
  });
});

describe("EarlySite.destroy()", () => {
  test("connects no more", async () => {
    const { early, sites } = setUp();
    early.destroy();
    await waitForSite();
    expect(sites).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("drops a connection that nobody took, without a word", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    early.destroy();
    await settle();
    expect(sites[0]?.own.closed).toBe(true);
    expect(early.spoke.aborted).toBe(false);
  });

  test("forgets that the site has closed", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    sites[0]?.site.end();
    await settle();
    early.destroy();
    await pass(TELLING_MS);
    expect(early.spoke.aborted).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("drops one that is open only after that", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.gate = gate.promise;
    await waitForSite();
    setup.early.destroy();
    gate.resolve();
    await settle();
    expect(setup.sites.map(({ own }) => own.closed)).toEqual([true]);
  });
});

describe("EarlySite, when there are as many connections as may be", () => {
  test("is not opened early, and takes the place of another when the client is a stranger", async () => {
    const { early, sites, users } = setUp({ most: 1 });
    let ended = 0;
    const other = { quietMs: 0, destroy: () => (ended += 1) };
    users.add(other);
    await waitForSite();
    expect(sites).toHaveLength(0);
    await early.take(undefined);
    expect([sites.length, ended, users.size]).toEqual([1, 1, 1]);
  });

  test("is the first to go, and is made anew when the client turns out to be a stranger", async () => {
    const { early, sites, users } = setUp({ most: 2 });
    await waitForSite();
    const mask = { quietMs: 60_000, destroy: () => {} };
    users.add(mask);
    users.add({ quietMs: 0, destroy: () => {} });
    expect(sites.map(({ own }) => own.closed)).toEqual([true]);
    expect(early.spoke.aborted).toBe(false);
    const { channel } = await early.take(undefined);
    expect([sites.length, sites[1]?.own === channel]).toEqual([2, true]);
  });

  test("gives its place back when it is not needed, and when the site cannot be reached", async () => {
    const { early, users } = setUp({ most: 1 });
    await waitForSite();
    expect(users.size).toBe(1);
    early.destroy();
    expect(users.size).toBe(0);
    const failing = setUp({ most: 1 });
    failing.failure = new RouteError("REFUSED", "connection refused");
    await waitForSite();
    expect(failing.users.size).toBe(0);
  });
});
