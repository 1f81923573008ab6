import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import type { Channel } from "../../src/channel/channel.ts";
import { RouteError } from "../../src/core/errors.ts";
import type { TcpEndpoint } from "../../src/net/tcp-dial.ts";
import { GROUP, parseClientHello } from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import { defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import { encodeFirstFlight } from "../../src/protocol/tls/server-hello.ts";
import { Cover, type CoverDeps } from "../../src/proxy/cover.ts";
import { describeNotes, type SiteNote } from "../../src/proxy/cover-report.ts";
import { type MemoryChannel, memoryChannelPair, RecordingSink, settle } from "../support/memory-channel.ts";
import { eventually } from "./frame-server.ts";

const LOOP_TEXT = "it leads back to this proxy";
const PRIVATE_TEXT = "it leads to a private address";

const NAME = "cover.example";
const OTHER = "other.example";
/** Public, and nobody's. */
const FAR = "93.184.216.34";
const NEVER = new AbortController().signal;
const MINUTE_MS = 60_000;

let undo: (() => void)[] = [];
beforeEach(() => {
  jest.useFakeTimers();
  const timeout = spyOn(AbortSignal, "timeout").mockImplementation(afterSomeTurns);
  undo = [() => timeout.mockRestore()];
});
afterEach(() => {
  for (const one of undo) one();
  for (const cover of covers.splice(0)) cover.close();
  jest.useRealTimers();
});

/** A wait that is over when nothing happens any more. */
function afterSomeTurns(): AbortSignal {
  const controller = new AbortController();
  void settle(60).then(() => controller.abort());
  return controller.signal;
}

const covers: Cover[] = [];

/** A site as one connection sees it. */
interface Visit {
  readonly endpoint: TcpEndpoint;
  readonly site: MemoryChannel;
  readonly hears: RecordingSink;
}

interface Setup {
  readonly cover: Cover;
  readonly dialled: string[];
  readonly visits: Visit[];
  readonly warnings: string[];
  readonly details: string[];
  /** Names that DNS was asked for. */
  readonly asked: string[];
  /** What DNS says; an error when there is none. */
  readonly dns: Map<string, readonly string[]>;
  /** Hosts that refuse connections. */
  readonly down: Set<string>;
}

function setUp(changes: Partial<CoverDeps> = {}): Setup {
  const setup: Omit<Setup, "cover"> = {
    dialled: [],
    visits: [],
    warnings: [],
    details: [],
    asked: [],
    dns: new Map([
      [NAME, [FAR]],
      [OTHER, ["93.184.216.35"]],
    ]),
    down: new Set(),
  };
  const cover = new Cover({
    domains: [NAME, OTHER],
    host: undefined,
    pinned: () => undefined,
    lookUp: async (name) => {
      setup.asked.push(name);
      const addresses = setup.dns.get(name);
      if (addresses === undefined) throw new Error("ENOTFOUND");
      return addresses;
    },
    dial: async (endpoint) => {
      setup.dialled.push(`${endpoint.host}:${endpoint.port}`);
      if (setup.down.has(endpoint.host)) throw new RouteError("REFUSED", `${endpoint.host} refuses`);
      const [site, channel] = memoryChannelPair();
      const hears = new RecordingSink();
      site.attach(hears);
      setup.visits.push({ endpoint, site, hears });
      return channel;
    },
    isOwn: () => false,
    isHere: (address) => address === FAR,
    warn: (text) => setup.warnings.push(text),
    debug: (text) => setup.details.push(text),
    ...changes,
  });
  covers.push(cover);
  return { ...setup, cover };
}

/** What a site says to the message of a hello. */
type Answer = (message: Uint8Array) => Uint8Array | "end";

/** Lets sites answer every hello from now on. */
function answerHellos(
  { visits }: Setup,
  size = 3_000,
  answer: Answer = (message) => flightFor(message, size),
): void {
  const seen = new Set<Visit>();
  const look = (): void => {
    for (const visit of visits) {
      const progress = visit.hears.length > 0 ? measureClientHello(visit.hears.bytes) : undefined;
      if (progress?.kind !== "whole" || seen.has(visit)) continue;
      seen.add(visit);
      const answered = answer(progress.message);
      if (answered === "end") visit.site.end();
      else visit.site.write(answered);
    }
  };
  let stopped = false;
  undo.push(() => {
    stopped = true;
  });
  void (async () => {
    for (; !stopped; await settle(1)) look();
  })();
}

function flightFor(message: Uint8Array, size: number): Uint8Array {
  const { sessionId, cipherSuites } = parseClientHello(message);
  return encodeFirstFlight({
    sessionId,
    cipherSuite: cipherSuites.find((suite) => suite >> 8 === 0x13) ?? 0,
    extensionOrder: [51, 43],
    keyShare: { group: GROUP.x25519, key: new Uint8Array(32).fill(9) },
    encrypted: new Uint8Array(size).fill(7),
  });
}

/** A ServerHello that asks for another hello, with P-256. */
function helloRetryFor(message: Uint8Array): Uint8Array {
  const { sessionId } = parseClientHello(message);
  const random = new Bun.CryptoHasher("sha256").update("HelloRetryRequest").digest();
  const extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 0x17];
  const body = [
    3,
    3,
    ...random,
    sessionId.length,
    ...sessionId,
    0x13,
    1,
    0,
    0,
    extensions.length,
    ...extensions,
  ];
  return Uint8Array.from([0x16, 3, 3, 0, body.length + 4, 2, 0, 0, body.length, ...body]);
}

const connect = ({ cover }: Setup, name: string | undefined = NAME): Promise<Channel> =>
  cover.connect(name, NEVER);

/** How often it was said that a site is measured. */
const measurements = ({ details }: Setup): number =>
  details.filter((text) => text.includes(" is measured: ")).length;

/** The random of the hello that a visit brought. */
function randomOf(visit: Visit | undefined): Uint8Array {
  const progress = measureClientHello(visit?.hears.bytes ?? new Uint8Array(0));
  if (progress.kind !== "whole") throw new Error("the hello is not whole");
  return parseClientHello(progress.message).random;
}

describe("Cover.connect()", () => {
  test("goes to port 443 of the address that DNS has", async () => {
    const setup = setUp();
    await connect(setup);
    await connect(setup, OTHER);
    expect(setup.dialled).toEqual([`${FAR}:443`, "93.184.216.35:443"]);
  });

  test.each([undefined, "unknown.example", ""])("shows the first site for %p", async (name) => {
    const setup = setUp();
    await setup.cover.connect(name, NEVER);
    expect(setup.dialled).toEqual([`${FAR}:443`]);
    expect(setup.cover.nameFor(name)).toBe(NAME);
  });

  test("compares names without case", async () => {
    const setup = setUp();
    await connect(setup, "Other.EXAMPLE");
    expect(setup.dialled).toEqual(["93.184.216.35:443"]);
    expect(setup.cover.nameFor("OTHER.example")).toBe(OTHER);
    expect(setup.cover.profileOf("OTHER.example")).toEqual(defaultProfile(OTHER));
    expect(setup.cover.profileOf("unknown.example")).toBeUndefined();
  });

  test("tries the next address when one does not answer, three at most", async () => {
    const setup = setUp();
    const addresses = ["1.0.0.1", "1.0.0.2", "1.0.0.3", "1.0.0.4"];
    setup.dns.set(NAME, addresses);
    setup.down.add("1.0.0.1");
    await connect(setup);
    expect(setup.dialled).toEqual(["1.0.0.1:443", "1.0.0.2:443"]);
    for (const address of addresses) setup.down.add(address);
    await expect(connect(setup)).rejects.toThrow("1.0.0.3 refuses");
    expect(setup.dialled).toHaveLength(5);
  });

  test("is not possible without a site", () => {
    expect(() => setUp({ domains: [] })).toThrow(RangeError);
  });
});

describe("Cover.connect(), addresses that it refuses", () => {
  test.each(["10.0.0.1", "127.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"])(
    "does not go where DNS says %s",
    async (address) => {
      const setup = setUp();
      setup.dns.set(NAME, [address]);
      await expect(connect(setup)).rejects.toMatchObject({
        code: "UNREACHABLE",
        message: PRIVATE_TEXT,
      });
      expect(setup.dialled).toEqual([]);
    },
  );

  test("goes to the public ones among them", async () => {
    const setup = setUp();
    setup.dns.set(NAME, ["10.0.0.1", FAR, "127.0.0.1"]);
    await connect(setup);
    expect(setup.dialled).toEqual([`${FAR}:443`]);
  });

  test("does not go where we listen ourselves", async () => {
    const setup = setUp({ isOwn: ({ host, port }) => host === FAR && port === 443 });
    await expect(connect(setup)).rejects.toMatchObject({
      code: "UNREACHABLE",
      message: LOOP_TEXT,
    });
    setup.dns.set(NAME, [FAR, "1.0.0.1"]);
    jest.advanceTimersByTime(5 * MINUTE_MS);
    await connect(setup);
    expect(setup.dialled).toEqual(["1.0.0.1:443"]);
  });

  test("allows a private address that the user gives for the name, but not our own", async () => {
    const own = { host: "10.0.0.2", port: 443 };
    const setup = setUp({
      pinned: (name) => (name === NAME ? "10.0.0.1" : "10.0.0.2"),
      isOwn: ({ host, port }) => host === own.host && port === own.port,
    });
    await connect(setup);
    expect(setup.dialled).toEqual(["10.0.0.1:443"]);
    expect(setup.asked).toEqual([]);
    await expect(connect(setup, OTHER)).rejects.toThrow("it leads back to this proxy");
  });

  test("goes for every name to the host that the user says, wherever it is", async () => {
    const setup = setUp({ host: { host: "127.0.0.1", port: 8_443 } });
    await connect(setup);
    await connect(setup, OTHER);
    expect(setup.dialled).toEqual(["127.0.0.1:8443", "127.0.0.1:8443"]);
    expect(setup.asked).toEqual([]);
  });

  test("asks DNS, or the pins, for a host that is a name", async () => {
    const setup = setUp({
      host: { host: "web", port: 80 },
      pinned: (name) => (name === "pinned" ? "10.0.0.9" : undefined),
    });
    setup.dns.set("web", ["10.0.0.7"]);
    await connect(setup);
    expect(setup.dialled).toEqual(["10.0.0.7:80"]);
    const pinned = setUp({ host: { host: "pinned", port: 80 }, pinned: () => "10.0.0.9" });
    await connect(pinned);
    expect(pinned.dialled).toEqual(["10.0.0.9:80"]);
  });

  test("refuses a host that is we ourselves", async () => {
    const setup = setUp({ host: { host: "127.0.0.1", port: 1_443 }, isOwn: ({ port }) => port === 1_443 });
    await expect(connect(setup)).rejects.toThrow("it leads back to this proxy");
    expect(setup.dialled).toEqual([]);
  });
});

describe("Cover.connect(), DNS", () => {
  test("asks again after 5 min, and takes what it says then", async () => {
    const setup = setUp();
    await connect(setup);
    setup.dns.set(NAME, ["1.0.0.9"]);
    jest.advanceTimersByTime(5 * MINUTE_MS - 1);
    await connect(setup);
    expect(setup.asked).toEqual([NAME]);
    jest.advanceTimersByTime(1);
    await connect(setup);
    expect(setup.asked).toEqual([NAME, NAME]);
    expect(setup.dialled.at(-1)).toBe("1.0.0.9:443");
  });

  test("keeps the addresses that it had when DNS fails, and does not ask at every connection", async () => {
    const setup = setUp();
    await connect(setup);
    setup.dns.delete(NAME);
    for (let times = 0; times < 3; times += 1) {
      jest.advanceTimersByTime(5 * MINUTE_MS);
      await connect(setup);
      await connect(setup);
    }
    expect(setup.asked).toHaveLength(4);
    expect(new Set(setup.dialled)).toEqual(new Set([`${FAR}:443`]));
  });

  test("throws DNS when it never had any, and asks again the next time", async () => {
    const setup = setUp();
    setup.dns.delete(NAME);
    await expect(connect(setup)).rejects.toMatchObject({ code: "DNS", message: "the name has no address" });
    setup.dns.set(NAME, [FAR]);
    await connect(setup);
    expect(setup.dialled).toEqual([`${FAR}:443`]);
  });
});

describe("Cover.start()", () => {
  test("looks like the site as soon as that is measured, and says how that is", async () => {
    const setup = setUp();
    answerHellos(setup, 1_234);
    const before = setup.cover.profileOf(NAME);
    setup.cover.start();
    await eventually(() => setup.details.length === 2);
    expect(before).toEqual(defaultProfile(NAME));
    expect(setup.cover.profileOf(NAME)).toEqual({
      suites: "client",
      groups: [GROUP.x25519],
      extensionOrder: [51, 43],
      flightSizes: Array.from({ length: 7 }, () => 1_234),
      olderFlightSizes: Array.from({ length: 4 }, () => 1_234),
    });
    expect(setup.details[0]).toMatch(
      /^the cover site \S+ is measured: suites in the client's order, groups 001d, 1234 bytes encrypted$/,
    );
    expect(setup.visits).toHaveLength(22);
    expect(setup.warnings).toEqual(
      [OTHER].map(
        (name) =>
          `${name} leads to 93.184.216.35 and not to this machine: whoever looks the name up can tell. Let DNS lead ` +
          "the name here, unless a router in front of this machine has that address",
      ),
    );
  });

  test("measures again after 6 h, and after 5 min when that failed; warns of the same once", async () => {
    const setup = setUp({ domains: [NAME] });
    setup.down.add(FAR);
    setup.cover.start();
    const text =
      `${NAME} cannot be reached (${FAR}:443: ${FAR} refuses): whoever opens this address sees that no web site is ` +
      "here. Start the site, or say where it is: --mask-host <host:port>";
    await eventually(() => setup.warnings.length === 1);
    expect(setup.warnings).toEqual([text]);
    await settle();
    jest.advanceTimersByTime(5 * MINUTE_MS - 1);
    await settle();
    expect(setup.dialled).toHaveLength(2);
    jest.advanceTimersByTime(1);
    await eventually(() => setup.dialled.length === 4);
    await settle();
    expect(setup.warnings).toEqual([text]);
    const failed = `the cover site ${NAME} cannot be measured: ${FAR} refuses`;
    expect(setup.details).toEqual([failed, failed]);

    setup.down.clear();
    answerHellos(setup);
    jest.advanceTimersByTime(5 * MINUTE_MS);
    await eventually(() => measurements(setup) === 1);
    await settle();
    jest.advanceTimersByTime(6 * 60 * MINUTE_MS - 1);
    await settle(100);
    expect(setup.visits).toHaveLength(11);
    jest.advanceTimersByTime(1);
    await eventually(() => setup.visits.length > 11);
  });

  test("keeps looking like the site when it cannot be measured any more", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup, 1_234);
    setup.cover.start();
    await eventually(() => setup.details.length === 1);
    const measured = setup.cover.profileOf(NAME);
    setup.down.add(FAR);
    await settle();
    jest.advanceTimersByTime(6 * 60 * MINUTE_MS);
    await eventually(() => setup.warnings.length === 1);
    expect(setup.cover.profileOf(NAME)).toBe(measured as never);
  });

  test("warns of a name that DNS does not know, although the site is reached elsewhere", async () => {
    const setup = setUp({ domains: [NAME], host: { host: "127.0.0.1", port: 8_443 } });
    setup.dns.delete(NAME);
    answerHellos(setup);
    setup.cover.start();
    await eventually(() => setup.details.length === 1);
    expect(setup.warnings).toEqual([
      `${NAME} cannot be looked up from here; if nobody can look it up, it does not pass for a web site. Let it have ` +
        "an address in DNS",
    ]);
  });

  test("ends with close(): nothing is measured any more, and no timer is left", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup);
    setup.cover.start();
    await eventually(() => setup.details.length === 1);
    await settle();
    setup.cover.close();
    await settle();
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(12 * 60 * MINUTE_MS);
    await settle(50);
    expect(setup.visits).toHaveLength(11);
    expect(setup.warnings).toEqual([]);
  });

  // What it is that leads back is known, and so is what to do about it.
  test("says what to do when the name leads to where we listen", async () => {
    const setup = setUp({ domains: [NAME], isOwn: () => true });
    setup.cover.start();
    await eventually(() => setup.warnings.length === 1);
    expect(setup.warnings[0]).toBe(
      `${NAME} leads back to this proxy. Say where it is: --mask-host <host:port>`,
    );
  });

  test("says what to do when the mask host is where we listen, once for all sites", async () => {
    const setup = setUp({ host: { host: "127.0.0.1", port: 21_010 }, isOwn: () => true, isHere: () => true });
    setup.cover.start();
    await eventually(() => setup.details.length === 2);
    await settle();
    expect(setup.warnings).toEqual([
      "--mask-host 127.0.0.1:21010 leads back to this proxy: give the web server's own address and port",
    ]);
  });

  // DNS that hands its answers out in turns would give another text each time.
  test("warns once of a name whose addresses change, and again when it was right in between", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup);
    const survey = async (...addresses: readonly string[]): Promise<void> => {
      setup.dns.set(NAME, addresses);
      const before = measurements(setup);
      if (before === 0) setup.cover.start();
      else jest.advanceTimersByTime(6 * 60 * MINUTE_MS);
      await eventually(() => measurements(setup) > before);
      await settle();
    };
    const rest = "Let DNS lead the name here, unless a router in front of this machine has";
    const seen = "and not to this machine: whoever looks the name up can tell.";
    await survey("1.0.0.4", "1.0.0.3", "1.0.0.2", "1.0.0.1");
    const first = `${NAME} leads to 1.0.0.1, 1.0.0.2 and 2 more, ${seen} ${rest} one of these addresses`;
    expect(setup.warnings).toEqual([first]);
    await survey("1.0.0.5");
    await survey("1.0.0.6", "1.0.0.7");
    expect(setup.warnings).toEqual([first]);
    await survey(FAR);
    expect(setup.warnings).toEqual([first]);
    await survey("1.0.0.6", "1.0.0.7");
    const again = `${NAME} leads to 1.0.0.6, 1.0.0.7 ${seen} ${rest} one of these addresses`;
    expect(setup.warnings).toEqual([first, again]);
  });

  test("says of records once for all sites, when the last was measured, and not again after it was down", async () => {
    const setup = setUp({ isHere: () => true });
    const record = Uint8Array.from([0x17, 3, 3, 0, 100, ...new Uint8Array(100)]);
    answerHellos(setup, 3_000, (message) => {
      return Uint8Array.from([...flightFor(message, 3_000), ...record, ...record, ...record]);
    });
    setup.cover.start();
    await eventually(() => setup.warnings.length > 0);
    const rest =
      "in 4 TLS records, where Telegram's apps take one: ours is one of the same length, which a close look at a " +
      "served connection can tell. A server with BoringSSL answers in one";
    expect(setup.warnings).toEqual([`${NAME} and ${OTHER} answer ${rest}`]);

    setup.down.add(FAR);
    await settle();
    jest.advanceTimersByTime(6 * 60 * MINUTE_MS);
    await eventually(() => setup.warnings.length === 2);
    setup.down.clear();
    await settle();
    jest.advanceTimersByTime(5 * MINUTE_MS);
    await eventually(() => measurements(setup) === 4);
    await settle();
    expect(setup.warnings[1]).toStartWith(`${NAME} cannot be reached (`);
    expect(setup.warnings).toHaveLength(2);
  });
});

describe("Cover.survey()", () => {
  test("says where a site was reached and how it looks", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup, 1_263);
    expect(await setup.cover.survey()).toEqual([
      {
        domain: NAME,
        usable: true,
        address: `${FAR}:443`,
        look: "TLS 1.3, X25519, an answer of about 1,263 bytes",
        problems: [],
        notes: [],
      },
    ]);
  });

  const says = `${NAME} (10.0.0.1:8443)`;
  const http = Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n");
  const alert = Uint8Array.of(0x15, 3, 3, 0, 2, 2, 112);
  test.each([
    [
      "old-tls",
      Uint8Array.of(0x15, 3, 3, 0, 2, 2, 70),
      `${NAME} does not speak TLS 1.3, but apps are answered with it: networks can tell. Turn TLS 1.3 on there, or ` +
        "name another site",
    ],
    [
      "not-tls",
      http,
      `${NAME} does not answer with TLS at 10.0.0.1:8443: is that its port for http? Give the one for https: ` +
        "--mask-host <host:port>",
    ],
    [
      "closed",
      "end",
      `${says} did not answer with a ServerHello before it closed; a port with "proxy_protocol" needs one without it ` +
        "for tgws",
    ],
    [
      "refused",
      alert,
      `${says} takes no hello like those of apps: it answered with the TLS alert 112, unrecognized_name. Let it serve ` +
        "this name there, with TLS 1.3, or name another site",
    ],
    [
      "silent",
      new Uint8Array(0),
      `${says} does not answer like a web site: it did not answer with a ServerHello within 5 s. See that a web site ` +
        "with TLS 1.3 answers there, or say where it is: --mask-host <host:port>",
    ],
  ] as const)("says what to do about a site that is %s", async (kind, answer, text) => {
    const setup = setUp({ domains: [NAME], host: { host: "10.0.0.1", port: 8_443 } });
    answerHellos(setup, 0, () => answer);
    const [report] = await setup.cover.survey();
    expect(report).toMatchObject({
      usable: false,
      address: "10.0.0.1:8443",
      look: undefined,
      problems: [{ kind, text }],
      notes: [],
    });
  });

  test("says of one that wants another key exchange what to change", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup, 0, helloRetryFor);
    const [report] = await setup.cover.survey();
    expect(report).toMatchObject({ usable: false, look: "TLS 1.3, P-256", notes: [] });
    expect(report?.problems.map(({ text }) => text)).toEqual([
      `${NAME} cannot be imitated in full: it asks for a key exchange that apps do not offer (P-256), so networks can ` +
        "tell. Turn X25519 on there: ssl_ecdh_curve X25519:prime256v1 in nginx",
    ]);
  });

  test("says of one whose certificates are too long what to change", async () => {
    const setup = setUp({ domains: [NAME] });
    const record = Uint8Array.from([0x17, 3, 3, 0x3e, 0x80, ...new Uint8Array(16_000)]);
    answerHellos(setup, 0, (message) => Uint8Array.from([...flightFor(message, 3_000), ...record]));
    const [report] = await setup.cover.survey();
    expect(report).toMatchObject({
      usable: true,
      problems: [
        { kind: "too-long", action: "give it a shorter chain of certificates, or name another site" },
      ],
      notes: [{ kind: "records", count: 2 }],
    });
  });

  test("says that what DNS leads to is private, and how to name it", async () => {
    const setup = setUp({ domains: [NAME], isHere: () => true });
    setup.dns.set(NAME, ["10.0.0.1"]);
    const [report] = await setup.cover.survey();
    expect(report).toMatchObject({ usable: false, address: undefined, look: undefined });
    expect(report?.problems).toMatchObject([
      { kind: "private", action: "if that is meant, name it: --mask-host 10.0.0.1:443" },
    ]);
    expect(report?.problems[0]?.cause).toContain(`${NAME} leads to a private address (10.0.0.1:443)`);
  });

  test("says once of a name that is not found that nothing can be shown", async () => {
    const setup = setUp({ domains: [NAME] });
    setup.dns.delete(NAME);
    const [report] = await setup.cover.survey();
    expect(report?.problems.map(({ text }) => text)).toEqual([
      `${NAME} cannot be looked up from here; if nobody can look it up, it does not pass for a web site. Whoever opens ` +
        "this address sees that no web site is here. Say where it is: --mask-host <host:port>",
    ]);
  });

  test("names the mask host that is not found beside the name that is not", async () => {
    const setup = setUp({ domains: [NAME], host: { host: "web", port: 8_443 } });
    setup.dns.delete(NAME);
    const [report] = await setup.cover.survey();
    expect(report?.problems).toMatchObject([
      { kind: "nameless" },
      { kind: "unreachable", cause: expect.stringContaining("(web:8443: the name has no address)") },
    ]);
  });

  test("blames the outbound proxy for what the proxy does", async () => {
    const dial = (): Promise<Channel> =>
      Promise.reject(new RouteError("PROXY", "the proxy cannot be reached"));
    const [report] = await setUp({ domains: [NAME], dial }).cover.survey();
    expect(report?.problems[0]?.action).toBe(
      "check --upstream-proxy, or say where it is: --mask-host <host:port>",
    );
  });
});

describe("describeNotes()", () => {
  const notes = (...counts: readonly number[]): { notes: readonly SiteNote[] } => ({
    notes: counts.map((count) => ({ kind: "records", count })),
  });

  test("is empty when there is nothing to say", () => {
    expect(describeNotes([])).toEqual([]);
    expect(describeNotes([{ domain: NAME, ...notes() }])).toEqual([]);
  });

  test("puts all sites that have something into one text", () => {
    const sites = ["a", "b", "c"].map((domain, at) => ({ domain, ...notes(4 - at) }));
    expect(describeNotes([...sites, { domain: "d", ...notes() }])).toEqual([
      expect.stringMatching(/^a, b and c answer in 2 to 4 TLS records, /),
    ]);
    expect(describeNotes(sites.slice(0, 1))).toEqual([
      expect.stringMatching(/^a answers in 4 TLS records, /),
    ]);
  });
});

describe("Cover, a site that is we ourselves", () => {
  /** A site that sends every hello back to us, as a router does that has our address, and closes. */
  async function setUpLoop(): Promise<Setup> {
    const setup = setUp({ domains: [NAME] });
    setup.cover.start();
    await eventually(() => (setup.visits[0]?.hears.length ?? 0) > 0);
    setup.cover.onHello(randomOf(setup.visits[0]));
    setup.visits[0]?.site.destroy();
    await eventually(() => setup.warnings.length === 1);
    return setup;
  }

  test("is found out by a hello of ours that comes back, and is not connected to", async () => {
    const setup = await setUpLoop();
    expect(setup.warnings[0]).toBe(
      `${NAME} leads back to this proxy. Say where it is: --mask-host <host:port>`,
    );
    const before = setup.dialled.length;
    await expect(connect(setup)).rejects.toThrow(LOOP_TEXT);
    expect(setup.dialled).toHaveLength(before);
  });

  test("is connected to again once it was measured", async () => {
    const setup = await setUpLoop();
    answerHellos(setup);
    jest.advanceTimersByTime(5 * MINUTE_MS);
    await eventually(() => measurements(setup) === 1);
    await connect(setup);
  });

  test("is none when strangers send hellos of their own, or ours later", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup);
    setup.cover.onHello(new Uint8Array(32));
    setup.cover.start();
    await eventually(() => measurements(setup) === 1);
    setup.cover.onHello(new Uint8Array(32));
    setup.cover.onHello(randomOf(setup.visits[0]));
    await connect(setup);
    expect(setup.warnings).toEqual([]);
  });

  // Until its first hello is back, whoever comes then is led around in circles.
  test("is not connected to while it is measured again", async () => {
    const setup = await setUpLoop();
    jest.advanceTimersByTime(5 * MINUTE_MS);
    await eventually(() => setup.visits.length === 2);
    await expect(connect(setup)).rejects.toThrow("it leads back to this proxy");
  });

  // Who sees our last hello on its way can send it to us: all strangers would be closed on for 6 h.
  test("is none when the hello comes back, and the site answers it", async () => {
    const setup = setUp({ domains: [NAME] });
    answerHellos(setup);
    setup.cover.start();
    await eventually(() => setup.visits.length === 11 && (setup.visits[10]?.hears.length ?? 0) > 0);
    setup.cover.onHello(randomOf(setup.visits[10]));
    await eventually(() => measurements(setup) === 1);
    await connect(setup);
  });
});
