import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { RouteError } from "../../src/core/errors.ts";
import { Cover } from "../../src/proxy/cover.ts";
import { EarlySite } from "../../src/proxy/early-site.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";

/** How long a client may say nothing until the site is connected to, in milliseconds. */
const EARLY_MS = 100;
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
  /** The sites' ends of the connections, with where those went. */
  readonly sites: { readonly host: string; readonly site: MemoryChannel; readonly own: MemoryChannel }[];
  /** What connecting waits for. */
  gate: Promise<void> | undefined;
  failure: RouteError | undefined;
}

function setUp(): Setup {
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
  const setup: Setup = { early: new EarlySite(cover), cover, sites, gate: undefined, failure: undefined };
  return setup;
}

/** Lets the time pass after which the connection is made. */
async function waitForSite(): Promise<void> {
  await settle();
  jest.advanceTimersByTime(EARLY_MS);
  await settle();
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
    early.close();
  });

  test.each([
    ["says something", (site: MemoryChannel) => site.write(Uint8Array.of(1))],
    ["ends", (site: MemoryChannel) => site.end()],
    ["closes", (site: MemoryChannel) => site.close()],
    ["breaks", (site: MemoryChannel) => site.destroy()],
  ])("says so when the site %s", async (_, speak) => {
    const { early, sites } = setUp();
    await waitForSite();
    const [connection] = sites;
    if (connection === undefined) throw new Error("unreachable");
    speak(connection.site);
    await settle();
    expect(early.spoke.aborted).toBe(true);
    early.close();
  });

  test("stays silent when the site cannot be reached", async () => {
    const setup = setUp();
    setup.failure = new RouteError("REFUSED", "connection refused");
    await waitForSite();
    expect(setup.early.spoke.aborted).toBe(false);
    await expect(setup.early.take(setup.cover, undefined, new AbortController().signal)).rejects.toBe(
      setup.failure,
    );
    setup.early.close();
  });
});

describe("EarlySite.take()", () => {
  test("gives the connection that there is, with what the site has said", async () => {
    const { early, cover, sites } = setUp();
    await waitForSite();
    sites[0]?.site.write(Buffer.from("220 hello"));
    await settle();
    const { channel, bytes } = await early.take(cover, undefined, new AbortController().signal);
    early.close();
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
    expect(Buffer.from(bytes).toString()).toBe("220 hello");
    expect(sites[0]?.own.closed).toBe(false);
    const sink = new RecordingSink();
    channel.attach(sink);
    sites[0]?.site.write(Uint8Array.of(7));
    await sink.until(({ length }) => length === 1);
  });

  test("makes one when there is none yet", async () => {
    const { early, cover, sites } = setUp();
    const { channel, bytes } = await early.take(cover, FIRST, new AbortController().signal);
    expect(bytes).toHaveLength(0);
    early.close();
    await waitForSite();
    expect(sites).toHaveLength(1);
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
  });

  test("makes another one for another name, and drops the first", async () => {
    const { early, cover, sites } = setUp();
    await waitForSite();
    await early.take(cover, "OTHER.example", new AbortController().signal);
    early.close();
    expect(sites.map(({ host, own }) => [host, own.closed])).toEqual([
      ["1.0.0.1", true],
      ["1.0.0.2", false],
    ]);
  });

  test("takes the first for a name that is none of ours", async () => {
    const { early, cover, sites } = setUp();
    await waitForSite();
    const { channel } = await early.take(cover, "unknown.example", new AbortController().signal);
    expect(channel).toBe(sites[0]?.own as MemoryChannel);
    early.close();
  });

  test("does not wait for one that is still being made, and drops that", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.gate = gate.promise;
    await waitForSite();
    setup.gate = undefined;
    const { channel } = await setup.early.take(setup.cover, undefined, new AbortController().signal);
    setup.early.close();
    gate.resolve();
    await settle();
    expect(setup.sites.map(({ own }) => own.closed)).toEqual([false, true]);
    expect(channel).toBe(setup.sites[0]?.own as MemoryChannel);
  });
});

describe("EarlySite.close()", () => {
  test("connects no more", async () => {
    const { early, sites } = setUp();
    early.close();
    await waitForSite();
    expect(sites).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("drops a connection that nobody took, without a word", async () => {
    const { early, sites } = setUp();
    await waitForSite();
    early.close();
    await settle();
    expect(sites[0]?.own.closed).toBe(true);
    expect(early.spoke.aborted).toBe(true);
  });

  test("drops one that is open only after that", async () => {
    const setup = setUp();
    const gate = Promise.withResolvers<void>();
    setup.gate = gate.promise;
    await waitForSite();
    setup.early.close();
    gate.resolve();
    await settle();
    expect(setup.sites.map(({ own }) => own.closed)).toEqual([true]);
  });
});
