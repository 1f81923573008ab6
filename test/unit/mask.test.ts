import { describe, expect, test } from "bun:test";
import { Mask, SiteUsers } from "../../src/proxy/mask.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";

const NOTHING = new Uint8Array(0);
const MINUTE = 60_000;

/** A mask between two connections in memory: a stranger's, and one to the site. */
interface Setup {
  readonly mask: Mask;
  readonly stranger: MemoryChannel;
  readonly strangerHears: RecordingSink;
  readonly client: MemoryChannel;
  readonly site: MemoryChannel;
  readonly siteHears: RecordingSink;
  readonly upstream: MemoryChannel;
}

function setUp({ fromClient = NOTHING, fromSite = NOTHING, prepare = (_: MemoryChannel) => {} } = {}): Setup {
  const [stranger, client] = memoryChannelPair(10_000);
  const [site, upstream] = memoryChannelPair(10_000);
  const [strangerHears, siteHears] = [new RecordingSink(), new RecordingSink()];
  stranger.attach(strangerHears);
  site.attach(siteHears);
  prepare(upstream);
  const mask = new Mask(client, upstream, { fromClient, fromSite }, { up: 0, down: 0 });
  return { mask, stranger, strangerHears, client, site, siteHears, upstream };
}

describe("Mask", () => {
  test("gives each side what the other has said so far, then what it says", async () => {
    const { stranger, strangerHears, site, siteHears } = setUp({
      fromClient: Buffer.from("GET / "),
      fromSite: Buffer.from("220 "),
    });
    stranger.write(Buffer.from("HTTP/1.1"));
    site.write(Buffer.from("hello"));
    await siteHears.until(({ length }) => length === 14);
    await strangerHears.until(({ length }) => length === 9);
    expect(Buffer.from(siteHears.bytes).toString()).toBe("GET / HTTP/1.1");
    expect(Buffer.from(strangerHears.bytes).toString()).toBe("220 hello");
  });

  test("adds nothing of its own", async () => {
    const { strangerHears, siteHears } = setUp();
    await settle();
    expect([strangerHears.calls, siteHears.calls]).toEqual([[], []]);
  });

  test("passes bytes on as they are, through congestion", async () => {
    const { stranger, strangerHears, site, siteHears } = setUp({
      fromClient: new Uint8Array(30_000).fill(9),
    });
    stranger.pause();
    site.pause();
    const blocks = Array.from({ length: 50 }, (_, at) => new Uint8Array(2_000).fill(at));
    for (const block of blocks) {
      stranger.write(block);
      site.write(block);
    }
    await settle(200);
    stranger.resume();
    site.resume();
    await siteHears.until(({ length }) => length === 130_000);
    await strangerHears.until(({ length }) => length === 100_000);
    const all = Buffer.concat(blocks);
    expect(Buffer.compare(siteHears.bytes.subarray(30_000), all)).toBe(0);
    expect(Buffer.compare(strangerHears.bytes, all)).toBe(0);
  });

  test("ends as the site does: half, then whole", async () => {
    const { mask, stranger, strangerHears, site, siteHears } = setUp();
    site.end();
    await strangerHears.until((sink) => sink.heard("end"));
    stranger.write(Uint8Array.of(1));
    await siteHears.until(({ length }) => length === 1);
    stranger.end();
    await mask.ended;
    await strangerHears.until((sink) => sink.heard("close"));
    expect(strangerHears.error).toBeUndefined();
  });

  test.each(["site", "stranger"] as const)("breaks the other side when the %s breaks", async (who) => {
    const { mask, stranger, strangerHears, site, siteHears } = setUp();
    (who === "site" ? site : stranger).destroy();
    const hears = who === "site" ? strangerHears : siteHears;
    await hears.until((sink) => sink.heard("close"));
    expect(hears.error).toBeInstanceOf(Error);
    await mask.ended;
  });

  test("ends when the stranger had gone before it began", async () => {
    const [, client] = memoryChannelPair();
    const [site, upstream] = memoryChannelPair();
    const siteHears = new RecordingSink();
    site.attach(siteHears);
    client.destroy();
    await settle();
    const mask = new Mask(
      client,
      upstream,
      { fromClient: Uint8Array.of(1), fromSite: NOTHING },
      { up: 0, down: 0 },
    );
    await mask.ended;
    await siteHears.until((sink) => sink.heard("close"));
  });

  test("goes on reading a stranger that was paused before", async () => {
    const [stranger, client] = memoryChannelPair(10_000);
    const [site, upstream] = memoryChannelPair(10_000);
    const siteHears = new RecordingSink();
    site.attach(siteHears);
    client.pause();
    stranger.write(Uint8Array.of(1, 2, 3));
    new Mask(client, upstream, { fromClient: NOTHING, fromSite: NOTHING }, { up: 0, down: 0 });
    await settle();
    expect(siteHears.length).toBe(3);
  });

  // Whoever listened to the site for its first words pauses it at 64 KiB.
  test("goes on reading a site that was paused before", async () => {
    const { site, strangerHears } = setUp({ prepare: (upstream) => upstream.pause() });
    site.write(Uint8Array.of(1, 2, 3));
    await settle();
    expect(strangerHears.length).toBe(3);
  });
});

describe("Mask.look()", () => {
  test("leaves a quiet pair to the site for 20 minutes, then drops both", async () => {
    const { mask, client, upstream } = setUp();
    mask.look(20 * MINUTE - 1);
    await settle();
    expect(mask.quietMs).toBe(20 * MINUTE - 1);
    expect([client.closed, upstream.closed]).toEqual([false, false]);
    mask.look(1);
    await mask.ended;
    expect([client.closed, upstream.closed]).toEqual([true, true]);
  });

  test.each(["stranger", "site"] as const)("starts anew when the %s says something", async (who) => {
    const setup = setUp();
    setup.mask.look(19 * MINUTE);
    setup[who].write(Uint8Array.of(1));
    await settle();
    setup.mask.look(19 * MINUTE);
    expect(setup.mask.quietMs).toBe(0);
    setup.mask.look(19 * MINUTE);
    await settle();
    expect(setup.client.closed).toBe(false);
  });

  test("starts anew while a queue gets shorter", async () => {
    const { mask, stranger, client } = setUp({ fromSite: new Uint8Array(5_000) });
    stranger.pause();
    mask.look(MINUTE);
    expect(mask.quietMs).toBe(0); // 5,000 bytes are new to it
    mask.look(19 * MINUTE);
    stranger.resume();
    await settle();
    mask.look(19 * MINUTE);
    expect(mask.quietMs).toBe(0);
    expect(client.closed).toBe(false);
  });

  test("gives a side as long to take what is left when the other has ended", async () => {
    const { mask, stranger, site, client } = setUp();
    stranger.pause();
    site.write(new Uint8Array(5_000));
    site.end();
    await settle();
    mask.look(MINUTE);
    mask.look(20 * MINUTE - 1);
    await settle();
    expect(client.closed).toBe(false);
    mask.look(1);
    await mask.ended;
    expect(client.closed).toBe(true);
  });

  test("counts the time before the end, too", async () => {
    const { mask, stranger, client } = setUp();
    mask.look(8 * MINUTE);
    stranger.end();
    await settle();
    mask.look(12 * MINUTE - 1);
    await settle();
    expect(client.closed).toBe(false);
    mask.look(1);
    await mask.ended;
  });
});

describe("Mask.destroy()", () => {
  test("drops both sides, once, the stranger's with a FIN", async () => {
    const { mask, strangerHears, siteHears } = setUp();
    mask.destroy();
    mask.destroy();
    await mask.ended;
    await strangerHears.until((sink) => sink.heard("close"));
    await siteHears.until((sink) => sink.heard("close"));
    mask.look(20 * MINUTE);
    await settle();
    expect([strangerHears.calls, siteHears.calls]).toEqual([["end", "close"], ["close"]]);
  });
});

describe("SiteUsers", () => {
  test("knows those that were added and not deleted", () => {
    const masks = new SiteUsers(3);
    const one = setUp().mask;
    masks.add(one);
    masks.add(setUp().mask);
    expect(masks.size).toBe(2);
    masks.delete(one);
    masks.delete(one);
    expect(masks.size).toBe(1);
  });

  test("ends the one that has been quiet for longest when it is full", async () => {
    const masks = new SiteUsers(3);
    const all = [1_000, 3_000, 2_000].map((quietMs) => {
      const setup = setUp();
      setup.mask.look(quietMs);
      masks.add(setup.mask);
      return setup;
    });
    const more = setUp();
    masks.add(more.mask);
    await settle();
    expect(masks.size).toBe(3);
    expect([...all, more].map(({ client }) => client.closed)).toEqual([false, true, false, false]);
    const yetMore = setUp();
    masks.add(yetMore.mask);
    await settle();
    expect([...all, more].map(({ client }) => client.closed)).toEqual([false, true, true, false]);
  });

  test("ends the oldest of those that are equally quiet", async () => {
    const masks = new SiteUsers(2);
    const all = Array.from({ length: 4 }, () => setUp());
    for (const { mask } of all) masks.add(mask);
    await settle();
    expect(masks.size).toBe(2);
    expect(all.map(({ client }) => client.closed)).toEqual([true, true, false, false]);
  });

  test("counts right when the session of one that it ended deletes it, too", async () => {
    const masks = new SiteUsers(1);
    const first = setUp();
    masks.add(first.mask);
    masks.add(setUp().mask);
    await first.mask.ended;
    masks.delete(first.mask);
    expect(masks.size).toBe(1);
  });

  test("ends nobody while there is room", async () => {
    const masks = new SiteUsers(2);
    const all = Array.from({ length: 5 }, () => setUp());
    for (const { mask } of all) {
      masks.add(mask);
      masks.delete(mask);
    }
    await settle();
    expect(all.some(({ client }) => client.closed)).toBe(false);
  });
});
