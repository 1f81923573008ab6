import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import { ProxyHeaderError, RouteError } from "../../src/core/errors.ts";
import type { MaskReason } from "../../src/core/events.ts";
import { IpNetwork } from "../../src/core/ip-network.ts";
import { defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import { Cover } from "../../src/proxy/cover.ts";
import { Entrance, type EntranceDeps, type Entry } from "../../src/proxy/entrance.ts";
import { FakeTls } from "../../src/proxy/fake-tls.ts";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { ANY_FORM } from "../../src/proxy/handshake.ts";
import { SiteUsers } from "../../src/proxy/mask.ts";
import { SeenHellos } from "../../src/proxy/seen-hellos.ts";
import { type BuiltHello, buildHello, type HelloOptions } from "../support/fake-tls-hello.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";
import { makeInit } from "../support/obfuscated2.ts";
import type { TestTransport } from "../support/packets.ts";
import { eventually } from "./frame-server.ts";

const SECRET = { name: "family", key: new Uint8Array(16).fill(9) };
const OTHER_SECRET = { name: "friends", key: new Uint8Array(16).fill(8) };
const STRANGE_KEY = new Uint8Array(16).fill(7);
const COVER = "cover.example";
const SECOND_COVER = "second.example";
const NO_FORM = { plain: false, padded: false };
const HANDSHAKE_MS = 10_000;
/** How long a client may say nothing until the site is connected to, in milliseconds. */
const EARLY_MS = 100;
/** A site that closes sooner, without a byte, has not waited for the client, in milliseconds. */
const TELLING_MS = 700;
const NOW = 1_800_000_000;
const HTTP = Buffer.from("GET / HTTP/1.0\r\n\r\n");
const GREETING = Buffer.from("SSH-2.0-OpenSSH_9.2\r\n");
const PAGE = Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n");

/** Ends the patience with what may still become an init. */
let endPatience = (): void => {};
let patiences: number[] = [];
let undo = (): void => {};

beforeEach(() => {
  jest.useFakeTimers();
  patiences = [];
  const timeout = spyOn(AbortSignal, "timeout").mockImplementation((ms) => {
    const controller = new AbortController();
    patiences.push(ms);
    endPatience = () => controller.abort();
    return controller.signal;
  });
  undo = () => timeout.mockRestore();
});
afterEach(() => {
  undo();
  jest.useRealTimers();
});

/** The site's end of a connection to it. */
interface Visit {
  readonly host: string;
  readonly site: MemoryChannel;
  readonly hears: RecordingSink;
  readonly own: MemoryChannel;
}

interface Setup {
  readonly app: MemoryChannel;
  readonly appHears: RecordingSink;
  /** The proxy's end of the client's connection. */
  readonly own: MemoryChannel;
  readonly visits: Visit[];
  readonly masked: { readonly why: MaskReason; readonly detail: string }[];
  readonly addresses: string[];
  /** Resolves to the error when there is one. */
  readonly entry: Promise<Entry | Error>;
}

interface Options extends Partial<EntranceDeps> {
  readonly address?: string;
  readonly siteFailure?: RouteError;
  /** What the site says at once. */
  readonly greeting?: Uint8Array;
  readonly seen?: SeenHellos;
}

/** With fake TLS alone, unless `options` say something else. */
function setUp(options: Options = {}): Setup {
  const { address = "192.0.2.1", siteFailure, greeting, seen = new SeenHellos(), ...deps } = options;
  const [app, own] = memoryChannelPair();
  const appHears = new RecordingSink();
  app.attach(appHears);
  const visits: Visit[] = [];
  const cover = new Cover({
    domains: [COVER, SECOND_COVER],
    host: undefined,
    pinned: (name) => (name === COVER ? "1.0.0.1" : "1.0.0.2"),
    lookUp: () => Promise.reject(new Error("not asked")),
    dial: async ({ host }) => {
      if (siteFailure !== undefined) throw siteFailure;
      const [site, channel] = memoryChannelPair();
      const hears = new RecordingSink();
      site.attach(hears);
      if (greeting !== undefined) site.write(greeting);
      visits.push({ host, site, hears, own: channel });
      return channel;
    },
    isOwn: () => false,
    isHere: () => true,
    warn: () => {},
    debug: () => {},
  });
  const secrets = options.secrets ?? [SECRET, OTHER_SECRET];
  const tls = new FakeTls({
    secrets,
    seen,
    profileOf: (name) => (name === COVER || name === SECOND_COVER ? defaultProfile(name) : undefined),
    measured: () => Promise.resolve(),
    onStranger: () => {},
    now: () => NOW,
  });
  const masked: Setup["masked"] = [];
  const addresses: string[] = [];
  const entrance = new Entrance(
    own,
    {
      secrets,
      forms: NO_FORM,
      disguise: { tls, cover, users: new SiteUsers(100) },
      trustedProxies: undefined,
      handshakeTimeoutMs: HANDSHAKE_MS,
      gate: OPEN_GATE,
      addresses: undefined,
      ...deps,
    },
    {
      counts: { up: 0, down: 0 },
      onAddress: (heard) => addresses.push(heard),
      onArrived: () => {},
      onUser: () => {},
      onRefused: () => {},
      onMasked: (why, detail) => masked.push({ why, detail }),
    },
  );
  const entry = entrance.enter(address).catch((error: unknown) => {
    if (error instanceof Error) return error;
    throw error;
  });
  return { app, appHears, own, visits, masked, addresses, entry };
}

const hello = (options: Partial<HelloOptions> = {}): BuiltHello =>
  buildHello({ secret: SECRET.key, serverName: COVER, timestamp: NOW, shape: "desktop-517", ...options });

const init = (transport: TestTransport = "abridged", key = SECRET.key) =>
  makeInit({ transport, dcId: 4 }, key);

function record(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Uint8Array.of(0x17, 3, 3, bytes.length >> 8, bytes.length & 0xff), bytes]);
}

const CHANGE_CIPHER = Uint8Array.of(0x14, 3, 3, 0, 1, 1);

async function clientOf({ entry }: Setup): Promise<Extract<Entry, { kind: "client" }>> {
  const entered = await entry;
  if (entered instanceof Error) throw entered;
  if (entered.kind !== "client") throw new Error(`it is ${entered.kind}`);
  return entered;
}

/** Waits until the client is shown the site; returns the site's end. */
async function visitOf(setup: Setup): Promise<Visit> {
  const entered = await setup.entry;
  if (entered instanceof Error) throw entered;
  expect(entered.kind).toBe("masked");
  await settle();
  const visit = setup.visits.at(-1);
  if (visit === undefined) throw new Error("nobody is at the site");
  return visit;
}

const heardBy = ({ hears }: Visit): string => Buffer.from(hears.bytes).toString("latin1");
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

/** Cuts bytes into single ones. */
function writeEach(app: MemoryChannel, bytes: Uint8Array): void {
  for (const byte of bytes) app.write(Uint8Array.of(byte));
}

async function pass(ms: number): Promise<void> {
  await settle();
  jest.advanceTimersByTime(ms);
  await settle();
}

describe("Entrance.enter() with fake TLS", () => {
  test("lets a client in whose init is in records, and leaves what follows", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    const { bytes, up } = init();
    setup.app.write(
      Buffer.concat([CHANGE_CIPHER, record(Buffer.concat([bytes, up.update(Buffer.from("more"))]))]),
    );
    const { client, reader, channel } = await clientOf(setup);
    expect(client).toMatchObject({ secret: "family", target: { dc: 4, transport: "abridged" } });
    expect(reader.heldBytes).toBe(4);
    expect(setup.appHears.bytes.subarray(0, 3).toHex()).toBe("160303");
    const before = setup.appHears.length;
    channel.write(Buffer.from("answer"));
    await settle();
    expect(latin1(setup.appHears.bytes.subarray(before))).toBe("\x17\x03\x03\0\x06answer");
    expect(setup.masked).toEqual([]);
    expect(setup.visits).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test.each(["abridged", "intermediate", "padded"] as const)(
    "lets any transport in, whatever is accepted without: %s",
    async (transport) => {
      const setup = setUp();
      setup.app.write(Buffer.concat([hello().bytes, CHANGE_CIPHER, record(init(transport).bytes)]));
      expect((await clientOf(setup)).client.target.transport).toBe(transport);
    },
  );

  test("reads a hello and an init that come byte by byte", async () => {
    const setup = setUp();
    writeEach(setup.app, Buffer.concat([hello().bytes, CHANGE_CIPHER, record(init().bytes)]));
    await clientOf(setup);
  });

  test("reads a hello in several records, and an init in as many as it has bytes", async () => {
    const setup = setUp();
    setup.app.write(hello({ records: 5 }).bytes);
    for (const byte of init().bytes) setup.app.write(record(Uint8Array.of(byte)));
    await clientOf(setup);
  });

  test("takes an init only of the secret that made the hello", async () => {
    const setup = setUp();
    setup.app.write(Buffer.concat([hello().bytes, record(init("abridged", OTHER_SECRET.key).bytes)]));
    expect(await setup.entry).toEqual({ kind: "stranger" });
    const ours = setUp();
    ours.app.write(
      Buffer.concat([
        hello({ secret: OTHER_SECRET.key }).bytes,
        record(init("padded", OTHER_SECRET.key).bytes),
      ]),
    );
    expect((await clientOf(ours)).client.secret).toBe("friends");
  });

  test("answers a wrong init as a server does that cannot decrypt: an alert's record, and a FIN", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    const before = setup.appHears.length;
    setup.app.write(record(init("abridged", STRANGE_KEY).bytes));
    expect(await setup.entry).toEqual({ kind: "stranger" });
    await setup.appHears.until((sink) => sink.heard("end"));
    const alert = setup.appHears.bytes.subarray(before);
    expect(alert.subarray(0, 5).toHex()).toBe("1703030013");
    expect(alert).toHaveLength(24);
    expect(setup.masked).toEqual([]);
    expect(setup.visits).toEqual([]);
  });

  test("answers so, too, what is no record of application data", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    const before = setup.appHears.length;
    setup.app.write(HTTP);
    expect(await setup.entry).toMatchObject({ code: "CLOSED" });
    await setup.appHears.until((sink) => sink.heard("end"));
    expect(setup.appHears.bytes.subarray(before, before + 5).toHex()).toBe("1703030013");
  });

  test("waits a minute for the init", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    let over = false;
    void setup.entry.then(() => {
      over = true;
    });
    await pass(59_999);
    expect(over).toBe(false);
    await pass(1);
    expect(await setup.entry).toMatchObject({ code: "TIMEOUT" });
    expect(setup.masked).toEqual([]);
  });

  test.each(["end", "destroy"] as const)(
    "throws CLOSED when the client leaves by %s after the hello",
    async (how) => {
      const setup = setUp();
      setup.app.write(hello().bytes);
      await eventually(() => setup.appHears.length > 0);
      setup.app[how]();
      expect(await setup.entry).toMatchObject({ code: "CLOSED" });
      expect(setup.visits).toEqual([]);
      expect(jest.getTimerCount()).toBe(0);
    },
  );

  test("does not go to the site for a client whose init is late", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes);
    await eventually(() => setup.appHears.length > 0);
    await pass(EARLY_MS);
    setup.app.write(record(init().bytes));
    await clientOf(setup);
    expect(setup.visits).toEqual([]);
  });
});

describe("Entrance.enter() with strangers", () => {
  test.each<[MaskReason, Uint8Array]>([
    ["not-tls", HTTP],
    ["not-tls", Uint8Array.of(0x16, 3, 1, 0, 4, 2, 0, 0, 0)],
    ["digest", hello({ secret: STRANGE_KEY }).bytes],
    ["skew", hello({ timestamp: NOW - 121 }).bytes],
    ["server-name", hello({ serverName: "wrong.example" }).bytes],
    ["unsupported", hello({ cipherSuites: [0xc02b] }).bytes],
    ["bad-hello", hello({ tamper: (bytes) => void bytes.fill(33, 43, 44) }).bytes],
  ])("says %s, and shows the site byte for byte", async (why, bytes) => {
    const setup = setUp();
    setup.app.write(bytes);
    const visit = await visitOf(setup);
    expect(setup.masked.map((one) => one.why)).toEqual([why]);
    expect(heardBy(visit)).toBe(latin1(bytes));
    visit.site.write(PAGE);
    await setup.appHears.until(({ length }) => length === PAGE.length);
    setup.app.write(Uint8Array.of(1, 2, 3));
    await visit.hears.until(({ length }) => length === bytes.length + 3);
    visit.site.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    expect(setup.visits).toHaveLength(1);
  });

  test("says replay of a second copy, and shows the site the copy", async () => {
    const bytes = Buffer.concat([hello().bytes, CHANGE_CIPHER, record(init().bytes)]);
    const seen = new SeenHellos();
    const [client, copy] = [setUp({ seen }), setUp({ seen })];
    client.app.write(bytes);
    await clientOf(client);
    copy.app.write(bytes);
    expect(heardBy(await visitOf(copy))).toBe(latin1(bytes));
    expect(copy.masked).toMatchObject([{ why: "replay" }]);
    expect(client.visits).toEqual([]);
  });

  test("answers one of 50 copies on as many connections, and shows the others the site", async () => {
    const bytes = Buffer.concat([hello().bytes, record(init().bytes)]);
    const seen = new SeenHellos();
    const setups = Array.from({ length: 50 }, () => setUp({ seen }));
    for (const { app } of setups) app.write(bytes);
    const entries = await Promise.all(setups.map(({ entry }) => entry));
    expect(entries.filter((entry) => !(entry instanceof Error) && entry.kind === "client")).toHaveLength(1);
    expect(setups.filter(({ masked }) => masked[0]?.why === "replay")).toHaveLength(49);
    expect(setups.filter(({ visits }) => visits.length === 1)).toHaveLength(49);
  });

  test("shows one who asks for a name of ours that site, and others the first", async () => {
    const other = setUp();
    other.app.write(hello({ secret: STRANGE_KEY, serverName: "Second.EXAMPLE" }).bytes);
    expect((await visitOf(other)).host).toBe("1.0.0.2");
    const unknown = setUp();
    unknown.app.write(hello({ secret: STRANGE_KEY, serverName: "wrong.example" }).bytes);
    expect((await visitOf(unknown)).host).toBe("1.0.0.1");
  });

  test("finds the first byte that is none of TLS without waiting for more", async () => {
    const setup = setUp();
    setup.app.write(Uint8Array.of(0x47));
    await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "not-tls" }]);
  });

  test("says silent at the deadline, of one that said nothing or not enough", async () => {
    for (const bytes of [new Uint8Array(0), hello().bytes.subarray(0, 300)]) {
      const setup = setUp();
      setup.app.write(bytes);
      await pass(HANDSHAKE_MS - 1);
      expect(setup.masked).toEqual([]);
      await pass(1);
      const visit = await visitOf(setup);
      expect(setup.masked).toMatchObject([{ why: "silent" }]);
      expect(heardBy(visit)).toBe(latin1(bytes));
      expect(setup.visits).toHaveLength(1); // the one that was open already
      expect(visit.own.closed).toBe(false);
    }
  });

  test("throws why the site cannot be reached, after it has said whom it is for", async () => {
    const siteFailure = new RouteError("REFUSED", "connection refused");
    const setup = setUp({ siteFailure });
    setup.app.write(HTTP);
    expect(await setup.entry).toBe(siteFailure);
    expect(setup.masked).toMatchObject([{ why: "not-tls" }]);
  });
});

describe("Entrance.enter(), the site before the client has spoken", () => {
  test("is opened after a tenth of a second, and is the one that is shown", async () => {
    const setup = setUp();
    await pass(EARLY_MS - 1);
    expect(setup.visits).toEqual([]);
    await pass(1);
    expect(setup.visits).toHaveLength(1);
    setup.app.write(HTTP);
    expect(heardBy(await visitOf(setup))).toBe(latin1(HTTP));
    expect(setup.visits).toHaveLength(1);
  });

  test("reaches the client with its first byte, and its close", async () => {
    const setup = setUp({ greeting: Buffer.from("220 hello\r\n") });
    await pass(EARLY_MS);
    const visit = await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "silent" }]);
    await setup.appHears.until(({ length }) => length === 11);
    visit.site.end();
    await setup.appHears.until((sink) => sink.heard("end"));
    expect(latin1(setup.appHears.bytes)).toBe("220 hello\r\n");
  });

  test("reaches it, too, when it stopped within a hello, whose bytes the site does not get any more", async () => {
    const setup = setUp();
    const start = hello().bytes.subarray(0, 100);
    setup.app.write(start);
    await pass(EARLY_MS);
    await pass(TELLING_MS);
    expect(setup.masked).toEqual([]);
    setup.visits[0]?.site.end();
    await pass(1);
    const visit = await visitOf(setup);
    await setup.appHears.until((sink) => sink.heard("end"));
    expect(heardBy(visit)).toBe("");
  });

  test("does not reach it before 0.7 s with a close alone", async () => {
    const setup = setUp();
    await pass(EARLY_MS);
    setup.visits[0]?.site.end();
    await pass(TELLING_MS - 1);
    expect(setup.masked).toEqual([]);
    await pass(1);
    await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "silent" }]);
    await setup.appHears.until((sink) => sink.heard("end"));
  });

  test.each(["end", "destroy"] as const)("keeps no slow client out by a %s before that", async (how) => {
    const setup = setUp();
    await pass(EARLY_MS);
    setup.visits[0]?.site[how]();
    await pass(TELLING_MS - 1);
    setup.app.write(Buffer.concat([hello().bytes, record(init().bytes)]));
    await clientOf(setup);
    expect(setup.masked).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("breaks the client's connection when it breaks its own", async () => {
    const setup = setUp();
    await pass(EARLY_MS);
    await pass(TELLING_MS);
    setup.visits[0]?.site.destroy();
    await pass(1);
    await visitOf(setup);
    await setup.appHears.until((sink) => sink.heard("close"));
  });

  test("is dropped when the client turns out to be one", async () => {
    const setup = setUp({ forms: ANY_FORM });
    await pass(EARLY_MS);
    setup.app.write(init().bytes);
    await clientOf(setup);
    expect(setup.visits.map(({ own }) => own.closed)).toEqual([true]);
    const slow = setUp();
    await pass(EARLY_MS);
    slow.app.write(Buffer.concat([hello().bytes, record(init().bytes)]));
    await clientOf(slow);
    expect(slow.visits.map(({ own }) => own.closed)).toEqual([true]);
  });

  // The reader had paused the site, and nobody lets it go on.
  test("goes on when its first piece is 64 KiB", async () => {
    const setup = setUp({ greeting: new Uint8Array(64 * 1024).fill(1) });
    await pass(EARLY_MS);
    const visit = await visitOf(setup);
    visit.site.write(Uint8Array.of(2));
    await settle(200);
    expect(setup.appHears.length).toBe(64 * 1024 + 1);
  });
});

describe("Entrance.enter(), clients that leave early", () => {
  test.each(["end", "destroy"] as const)("throws CLOSED on %s without a byte", async (how) => {
    for (const forms of [NO_FORM, ANY_FORM]) {
      const setup = setUp({ forms });
      await settle();
      setup.app[how]();
      expect(await setup.entry).toMatchObject({ code: "CLOSED" });
      expect(setup.masked).toEqual([]);
      expect(setup.visits).toEqual([]);
      expect(jest.getTimerCount()).toBe(0);
    }
  });

  test("shows the site what one said before its FIN, and the FIN", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes.subarray(0, 50));
    setup.app.end();
    const visit = await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "silent" }]);
    await visit.hears.until((sink) => sink.heard("end"));
    expect(visit.hears.length).toBe(50);
  });

  test("throws CLOSED when one breaks off within a hello", async () => {
    const setup = setUp();
    setup.app.write(hello().bytes.subarray(0, 50));
    await settle();
    setup.app.destroy();
    expect(await setup.entry).toMatchObject({ code: "CLOSED" });
    expect(setup.masked).toEqual([]);
  });

  test.each(["end", "destroy"] as const)("drops the early site on %s", async (how) => {
    const setup = setUp();
    await pass(EARLY_MS);
    setup.app[how]();
    expect(await setup.entry).toMatchObject({ code: "CLOSED" });
    expect(setup.visits.map(({ own }) => own.closed)).toEqual([true]);
  });
});

describe("Entrance.enter() with several forms on one port", () => {
  test.each(["abridged", "intermediate", "padded"] as const)(
    "lets an init of %s in, in one piece and split",
    async (transport) => {
      for (const split of [false, true]) {
        const setup = setUp({ forms: ANY_FORM });
        const { bytes } = init(transport);
        if (split) writeEach(setup.app, bytes);
        else setup.app.write(bytes);
        const { client, channel } = await clientOf(setup);
        expect(client.target.transport).toBe(transport);
        expect(channel).toBe(setup.own);
      }
    },
  );

  test("lets fake TLS in, in one piece and split", async () => {
    for (const split of [false, true]) {
      const setup = setUp({ forms: ANY_FORM });
      const bytes = Buffer.concat([hello().bytes, CHANGE_CIPHER, record(init().bytes)]);
      if (split) writeEach(setup.app, bytes);
      else setup.app.write(bytes);
      const { channel } = await clientOf(setup);
      expect(channel).not.toBe(setup.own);
    }
  });

  test("shows the site to a short request after a pause of 0.7 s, in which it could become an init", async () => {
    const setup = setUp({ forms: ANY_FORM });
    setup.app.write(GREETING.subarray(0, 3));
    await settle();
    expect(patiences).toEqual([700]);
    const endFirst = endPatience;
    setup.app.write(GREETING.subarray(3));
    await settle();
    expect(patiences).toEqual([700, 700]); // anew with every byte
    endFirst();
    await settle();
    expect(setup.masked).toEqual([]);
    endPatience();
    expect(heardBy(await visitOf(setup))).toBe(latin1(GREETING));
    expect(setup.masked).toMatchObject([{ why: "not-tls" }]);
  });

  test("shows the site at once to a short request of HTTP, as no init begins", async () => {
    const setup = setUp({ forms: ANY_FORM });
    setup.app.write(HTTP);
    expect(heardBy(await visitOf(setup))).toBe(latin1(HTTP));
    expect(patiences).toEqual([]);
  });

  test("goes on with a hello whose first bytes took longer than that", async () => {
    const setup = setUp({ forms: ANY_FORM });
    const { bytes } = hello();
    setup.app.write(bytes.subarray(0, 20));
    await settle();
    endPatience();
    await settle();
    setup.app.write(Buffer.concat([bytes.subarray(20), record(init().bytes)]));
    await clientOf(setup);
  });

  test("shows it at once to what is 64 bytes and no init", async () => {
    const setup = setUp({ forms: ANY_FORM });
    setup.app.write(init("abridged", STRANGE_KEY).bytes.fill(0x47, 0, 1));
    await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "not-tls" }]);
  });

  test.each([
    [{ plain: false, padded: true }, "abridged", false],
    [{ plain: false, padded: true }, "intermediate", false],
    [{ plain: false, padded: true }, "padded", true],
    [{ plain: true, padded: false }, "abridged", true],
    [{ plain: true, padded: false }, "intermediate", true],
    [{ plain: true, padded: false }, "padded", false],
    [NO_FORM, "abridged", false],
    [NO_FORM, "padded", false],
  ] as const)("with %j lets an init of %s in: %p", async (forms, transport, welcome) => {
    const setup = setUp({ forms });
    const { bytes } = init(transport);
    setup.app.write(bytes);
    if (welcome) await clientOf(setup);
    else expect(heardBy(await visitOf(setup))).toBe(latin1(bytes));
    const plain = setUp({ forms, disguise: undefined });
    plain.app.write(bytes);
    await pass(HANDSHAKE_MS);
    expect(await plain.entry).toMatchObject({ kind: welcome ? "client" : "stranger" });
    expect(plain.appHears.length).toBe(0);
  });
});

describe("Entrance.enter() behind a load balancer", () => {
  const trustedProxies = [IpNetwork.parse("192.0.2.0/24")];
  const V1 = Buffer.from("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n");
  const V2_SIGNATURE = Uint8Array.fromHex("0d0a0d0a000d0a515549540a");
  const V2 = Buffer.concat([
    V2_SIGNATURE,
    Uint8Array.of(0x21, 0x11, 0, 12, 203, 0, 113, 9, 198, 51, 100, 1, 0x12, 0x67, 1, 0xbb),
  ]);
  const V2_LOCAL = Buffer.concat([V2_SIGNATURE, Uint8Array.of(0x20, 0, 0, 0)]);

  test.each([
    ["version 1", V1],
    ["version 2", V2],
  ])("hears the client's address from a header of %s", async (_, header) => {
    for (const split of [false, true]) {
      const setup = setUp({ trustedProxies, forms: ANY_FORM, disguise: undefined });
      const bytes = Buffer.concat([header, init().bytes]);
      if (split) writeEach(setup.app, bytes);
      else setup.app.write(bytes);
      await clientOf(setup);
      expect(setup.addresses).toEqual(["203.0.113.9"]);
    }
  });

  test("lets fake TLS in after a header, and shows strangers the site without it", async () => {
    const setup = setUp({ trustedProxies });
    setup.app.write(Buffer.concat([V2, hello().bytes, record(init().bytes)]));
    await clientOf(setup);
    const stranger = setUp({ trustedProxies });
    stranger.app.write(Buffer.concat([V1, HTTP]));
    expect(heardBy(await visitOf(stranger))).toBe(latin1(HTTP));
    expect(stranger.addresses).toEqual(["203.0.113.9"]);
  });

  test.each([
    ["LOCAL", V2_LOCAL],
    ["UNKNOWN", Buffer.from("PROXY UNKNOWN\r\n")],
  ])("keeps the balancer's own address with %s", async (_, header) => {
    const setup = setUp({ trustedProxies, forms: ANY_FORM, disguise: undefined });
    setup.app.write(Buffer.concat([header, init().bytes]));
    await clientOf(setup);
    expect(setup.addresses).toEqual([]);
  });

  test.each(["192.0.2.255", "::ffff:192.0.2.7"])("trusts %s", async (address) => {
    const setup = setUp({ trustedProxies, forms: ANY_FORM, disguise: undefined, address });
    setup.app.write(Buffer.concat([V1, init().bytes]));
    await clientOf(setup);
  });

  test("refuses whoever is not trusted, before a byte is read", async () => {
    const setup = setUp({ trustedProxies, address: "192.0.3.1" });
    const error = await setup.entry;
    expect(error).toBeInstanceOf(ProxyHeaderError);
    expect(error).toMatchObject({ code: "BAD_PROXY_HEADER", why: "untrusted" });
    expect(setup.addresses).toEqual([]);
  });

  test.each([
    ["missing", init().bytes.fill(0x47, 0, 1)],
    ["missing", hello().bytes],
    ["missing", Uint8Array.of(0x47)],
    ["malformed", Buffer.from("PROXY TCP4 203.0.113.9 198.51.100.1 4711 99999\r\n")],
    ["malformed", Buffer.from("PROXY TCP4 ::1 ::1 1 1\r\n")],
    ["malformed", Buffer.concat([V2_SIGNATURE, Uint8Array.of(0x31, 0x11, 0, 12)])],
  ])("refuses a header that is %s, and shows no site", async (why, bytes) => {
    const setup = setUp({ trustedProxies });
    setup.app.write(bytes);
    expect(await setup.entry).toMatchObject({ code: "BAD_PROXY_HEADER", why });
    expect(setup.visits).toEqual([]);
    expect(setup.masked).toEqual([]);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("gives up a header that never ends, at the deadline", async () => {
    const setup = setUp({ trustedProxies });
    setup.app.write(V1.subarray(0, -1));
    await pass(HANDSHAKE_MS);
    expect(await setup.entry).toMatchObject({ code: "BAD_PROXY_HEADER", why: "missing" });
    expect(setup.visits).toEqual([]);
  });

  test.each(["end", "destroy"] as const)(
    "throws CLOSED when it leaves by %s within the header",
    async (how) => {
      const setup = setUp({ trustedProxies });
      setup.app.write(V2.subarray(0, 14));
      await settle();
      setup.app[how]();
      expect(await setup.entry).toMatchObject({ code: "CLOSED" });
    },
  );

  test("gives header and hello one deadline together", async () => {
    const setup = setUp({ trustedProxies });
    await pass(HANDSHAKE_MS - 1);
    setup.app.write(V1);
    await settle();
    expect(setup.masked).toEqual([]);
    await pass(1);
    await visitOf(setup);
    expect(setup.masked).toMatchObject([{ why: "silent" }]);
  });
});
