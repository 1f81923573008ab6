import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { createServer as createTlsServer, type TlsOptions } from "node:tls";
import type { Channel } from "../../src/channel/channel.ts";
import { TcpDialer } from "../../src/net/tcp-dial.ts";
import { type ClientHello, EXTENSION, GROUP, parseClientHello } from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import { encodeFirstFlight, type FlightPlan } from "../../src/protocol/tls/server-hello.ts";
import { type Survey, surveyCover } from "../../src/proxy/cover-survey.ts";
import { testCertificates } from "../support/certificates.ts";
import { memoryChannelPair, RecordingSink } from "../support/memory-channel.ts";
import { within } from "../support/waiting.ts";

const NAME = "localhost";
const NEVER = new AbortController().signal;
const dialer = new TcpDialer({ highWater: 64 * 1024, timeoutMs: 5_000, proxy: undefined });

const survey = (port: number, onHello: (random: Uint8Array) => void = () => {}): Promise<Survey> =>
  surveyCover(NAME, () => dialer.dial({ host: "127.0.0.1", port }, NEVER), onHello);

async function listen(server: Server): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  return (server.address() as AddressInfo).port;
}

/** Runs `use` against a server of node:tls. */
async function withTlsServer<T>(options: TlsOptions, use: (port: number) => Promise<T>): Promise<T> {
  const { certificate, key } = await testCertificates();
  const server = createTlsServer({ cert: certificate, key, ...options });
  server.on("tlsClientError", () => {}); // every survey leaves in the middle of the handshake
  try {
    return await use(await listen(server));
  } finally {
    server.close();
  }
}

describe("surveyCover() of real servers", () => {
  test.concurrent("measures Bun.listen, which takes the client's first suite", async () => {
    const { certificate, key } = await testCertificates();
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert: certificate, key },
      socket: { data() {}, error() {} },
    });
    try {
      const randoms: string[] = [];
      const { profile, shortcomings } = await survey(server.port, (random) => randoms.push(random.toHex()));
      expect(profile.suites).toBe("client");
      expect(profile.groups.at(-1)).toBe(GROUP.x25519);
      expect(profile.extensionOrder.toSorted()).toEqual([43, 51]);
      expect(profile.flightSizes).toHaveLength(7);
      expect(profile.olderFlightSizes).toHaveLength(4);
      for (const size of [...profile.flightSizes, ...profile.olderFlightSizes]) {
        expect(size).toBeGreaterThan(500);
        expect(size).toBeLessThan(2_000);
      }
      expect(shortcomings).toEqual([]); // BoringSSL puts its flight in one record
      expect(new Set(randoms).size).toBe(11);
    } finally {
      server.stop(true);
    }
  });

  test.concurrent("measures a server of node:tls", async () => {
    const { profile } = await withTlsServer({ minVersion: "TLSv1.3" }, survey);
    expect(profile.extensionOrder.toSorted()).toEqual([43, 51]);
    expect(Math.min(...profile.flightSizes)).toBeGreaterThan(500);
    expect(Math.max(...profile.flightSizes) - Math.min(...profile.flightSizes)).toBeLessThan(20);
  });

  test.concurrent("says of one with TLS 1.2 alone that it does not speak 1.3", async () => {
    await expect(withTlsServer({ maxVersion: "TLSv1.2" }, survey)).rejects.toMatchObject({
      code: "BAD_SERVER_HELLO",
      why: "old-tls",
      message: "it does not speak TLS 1.3",
    });
  });

  test.concurrent("says what else it would take to look like one that wants P-256", async () => {
    const { shortcomings } = await withTlsServer({ ecdhCurve: "prime256v1" }, survey);
    expect(shortcomings).toEqual([{ kind: "key-exchange", group: GROUP.secp256r1 }]);
  });

  // A HelloRetryRequest has no encrypted part: its size is 0, and no flight can be made of that.
  test("gives one that wants P-256 sizes that a flight can be made of", async () => {
    const { profile } = await withTlsServer({ ecdhCurve: "prime256v1" }, survey);
    expect(Math.min(...profile.flightSizes, ...profile.olderFlightSizes)).toBeGreaterThan(0);
  });
});

/** What a site does with a hello. */
type Answer = (hello: ClientHello) => Uint8Array | "end" | "reset";

const alert = (description: number): Uint8Array => Uint8Array.of(0x15, 3, 3, 0, 2, 2, description);
const ALERT = alert(40);

const times = <T>(count: number, value: T): readonly T[] => Array.from({ length: count }, () => value);

/** Surveys a site in memory; `hellos` are those that came. */
async function surveyStub(
  answer: Answer,
): Promise<{ readonly hellos: readonly ClientHello[]; readonly found: Survey; readonly open: number }> {
  const hellos: ClientHello[] = [];
  const sites: RecordingSink[] = [];
  const open = async (): Promise<Channel> => {
    const [site, channel] = memoryChannelPair();
    const hears = new RecordingSink();
    sites.push(hears);
    site.attach(hears);
    void hears
      .until(({ length }) => length > 0)
      .then(() => {
        const progress = measureClientHello(hears.bytes);
        if (progress.kind !== "whole") throw new Error("the hello is not whole");
        const hello = parseClientHello(progress.message);
        hellos.push(hello);
        const answered = answer(hello);
        if (answered === "reset") site.destroy();
        else if (answered === "end") site.end();
        else site.write(answered);
      });
    return channel;
  };
  const found = await surveyCover(NAME, open, () => {});
  for (const hears of sites)
    await within(
      hears.until((sink) => sink.heard("close")),
      "the end",
    );
  return { hellos, found, open: sites.length };
}

const flight = ({ sessionId }: ClientHello, changes: Partial<FlightPlan> = {}): Uint8Array =>
  encodeFirstFlight({
    sessionId,
    cipherSuite: 0x1301,
    extensionOrder: [43, 51],
    keyShare: { group: GROUP.x25519, key: new Uint8Array(32).fill(9) },
    encrypted: randomBytes(3_000),
    ...changes,
  });

const offersEch = ({ extensions }: ClientHello): boolean =>
  extensions.some(({ type }) => type === EXTENSION.encryptedClientHello);

/** Those of TLS 1.3 that a hello offers, in its order. */
const offered = ({ cipherSuites }: ClientHello): readonly number[] =>
  cipherSuites.filter((suite) => suite >> 8 === 0x13);

describe("surveyCover()", () => {
  let undo = (): void => {};

  /** Makes every wait short; returns how long they were to be. */
  function hurry(): number[] {
    const waits: number[] = [];
    const real = AbortSignal.timeout.bind(AbortSignal);
    const spy = spyOn(AbortSignal, "timeout").mockImplementation((ms) => {
      waits.push(ms);
      return real(40);
    });
    undo = () => spy.mockRestore();
    return waits;
  }

  /** Whoever waits for a time to be over waits for ever. */
  function stopClock(): void {
    const spy = spyOn(AbortSignal, "timeout").mockImplementation(() => new AbortController().signal);
    undo = () => spy.mockRestore();
  }

  afterEach(() => {
    undo();
  });

  test("asks seven times with ECH, once with other suites first, and four times without; closes each connection", async () => {
    const waits = hurry();
    const { hellos, open, found } = await surveyStub((hello) =>
      flight(hello, {
        cipherSuite: offered(hello)[0] ?? 0,
        encrypted: randomBytes(hello.cipherSuites.length * 100),
      }),
    );
    expect(hellos.filter(offersEch).map(offered)).toEqual([
      [0x1301, 0x1302, 0x1303],
      [0x1303, 0x1302, 0x1301],
      ...Array.from({ length: 5 }, () => [0x1301, 0x1302, 0x1303]),
    ]);
    const older = hellos.filter((hello) => !offersEch(hello));
    expect(older.map(offered)).toEqual(Array.from({ length: 4 }, () => [0x1301, 0x1302, 0x1303]));
    expect(open).toBe(11);
    expect(new Set(hellos.map(({ random }) => random.toHex())).size).toBe(11);
    expect(hellos.every(({ serverName }) => serverName === NAME)).toBe(true);
    expect(found.profile).toMatchObject({
      suites: "client",
      groups: [GROUP.x25519],
      extensionOrder: [43, 51],
    });
    expect(found.shortcomings).toEqual([]);
    expect(waits).toContain(400);
  });

  test("finds the order of a server that has one of its own, leaving out its first the third time", async () => {
    hurry();
    const order = [0x1302, 0x1303, 0x1301];
    const { hellos, found } = await surveyStub((hello) => {
      const cipherSuite = order.find((suite) => offered(hello).includes(suite)) ?? 0;
      return flight(hello, { cipherSuite, encrypted: randomBytes(cipherSuite === 0x1302 ? 3_016 : 3_000) });
    });
    expect(hellos.map(offersEch)).toEqual([...times(8, true), ...times(4, false)]);
    expect(hellos.map(offered).at(2)).toEqual([0x1301, 0x1303]);
    expect(found.profile).toMatchObject({
      suites: order,
      flightSizes: times(8, 3_000),
      olderFlightSizes: times(4, 3_000),
    });
  });

  test("keeps the answers to hellos with ECH and without apart", async () => {
    hurry();
    const { found } = await surveyStub((hello) =>
      flight(hello, { encrypted: randomBytes(offersEch(hello) ? 3_210 : 3_000) }),
    );
    expect(found.profile).toMatchObject({ flightSizes: times(8, 3_210), olderFlightSizes: times(4, 3_000) });
  });

  test.each([
    ["refuses", ALERT],
    ["ends", "end"],
    ["resets", "reset"],
    ["is silent on", new Uint8Array(0)],
  ] as const)("does without the samples that the site %s", async (_, failure) => {
    hurry();
    let today = 0;
    let older = 0;
    const { found, hellos } = await surveyStub((hello) => {
      const sample = offersEch(hello) ? ++today - 3 : ++older; // the first three are no samples
      if (sample === 2) return failure;
      return flight(hello, { encrypted: randomBytes(offersEch(hello) ? 3_210 : 3_000) });
    });
    expect(hellos).toHaveLength(12);
    expect(found.profile).toMatchObject({ flightSizes: times(7, 3_210), olderFlightSizes: times(3, 3_000) });
    expect(found.shortcomings).toEqual([]);
  });

  test("takes the answers to hellos with ECH for those without when the site answers none of these", async () => {
    hurry();
    const { found } = await surveyStub((hello) => (offersEch(hello) ? flight(hello) : "end"));
    expect(found.profile).toMatchObject({ flightSizes: times(8, 3_000), olderFlightSizes: times(8, 3_000) });
  });

  test("finds the key exchange and the order of the extensions", async () => {
    hurry();
    const keyShare = { group: GROUP.x25519MlKem768, key: new Uint8Array(1_120) };
    const { found } = await surveyStub((hello) => flight(hello, { keyShare, extensionOrder: [51, 43] }));
    expect(found.profile).toMatchObject({
      groups: [GROUP.x25519MlKem768, GROUP.x25519],
      extensionOrder: [51, 43],
    });
  });

  test("joins the records of a flight, their headers counted, and says so", async () => {
    hurry();
    const record = Buffer.concat([Uint8Array.of(0x17, 3, 3, 0, 100), randomBytes(100)]);
    const { found } = await surveyStub((hello) => Buffer.concat([flight(hello), record, record]));
    expect(found.profile).toMatchObject({ flightSizes: times(8, 3_210), olderFlightSizes: times(4, 3_210) });
    expect(found.shortcomings).toEqual([{ kind: "records", count: 3 }]);
  });

  test("says that certificates are too long for one record, and makes it as long as can be", async () => {
    hurry();
    const record = Buffer.concat([Uint8Array.of(0x17, 3, 3, 0x3e, 0x80), randomBytes(16_000)]);
    const { found } = await surveyStub((hello) => Buffer.concat([flight(hello), record]));
    expect(found.profile).toMatchObject({
      flightSizes: times(8, 16_624),
      olderFlightSizes: times(4, 16_624),
    });
    expect(found.shortcomings).toContainEqual({ kind: "too-long" });
  });

  test("takes what came when the server ends after its flight", async () => {
    stopClock();
    const open = async (): Promise<Channel> => {
      const [site, channel] = memoryChannelPair();
      const hears = new RecordingSink();
      site.attach(hears);
      void hears
        .until(({ length }) => length > 0)
        .then(() => {
          const progress = measureClientHello(hears.bytes);
          if (progress.kind === "whole") site.write(flight(parseClientHello(progress.message)));
          site.end();
        });
      return channel;
    };
    const { profile } = await surveyCover(NAME, open, () => {});
    expect(profile.flightSizes).toEqual(times(8, 3_000));
  });

  test.each(["end", "reset"] as const)("says so when the server closes by %s", async (how) => {
    await expect(surveyStub(() => how)).rejects.toMatchObject({
      code: "BAD_SERVER_HELLO",
      why: "closed",
      message: "it did not answer with a ServerHello before it closed",
    });
  });

  test("says so when nothing comes", async () => {
    const waits = hurry();
    await expect(surveyStub(() => new Uint8Array(0))).rejects.toMatchObject({
      code: "BAD_SERVER_HELLO",
      why: "silent",
      message: "it did not answer with a ServerHello within 5 s",
    });
    expect(waits).toHaveLength(2);
    for (const wait of waits) expect(wait).toBeCloseTo(5_000, -2);
  });

  test("says so when the flight stops within a record, or before it is encrypted", async () => {
    hurry();
    for (const cut of [1, 3_005]) {
      await expect(surveyStub((hello) => flight(hello).slice(0, -cut))).rejects.toMatchObject({
        why: "garbled",
        message: "it did not answer to its end within 5 s",
      });
    }
  });

  test.each([
    ["an alert", ALERT, "refused", /^it answered with the TLS alert 40, handshake_failure$/],
    ["an alert of a number", alert(51), "refused", /^it answered with the TLS alert 51$/],
    ["an alert about the version", alert(70), "old-tls", /^it does not speak TLS 1\.3$/],
    [
      "an alert that is encrypted",
      Uint8Array.of(0x15, 3, 3, 0, 3, 1, 2, 3),
      "garbled",
      /the alert of 3 bytes/,
    ],
    ["HTTP", Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n"), "not-tls", /a record of type 72/],
    ["zeros", new Uint8Array(100), "not-tls", /a record of type 0/],
    ["SSL 2", Uint8Array.of(0x16, 0, 2, 0, 9), "not-tls", /a record of version 0/],
    ["another message", Uint8Array.of(0x16, 3, 3, 0, 1, 9), "garbled", /a handshake message of type 9/],
  ] as const)("throws BAD_SERVER_HELLO on %s", async (_, bytes, why, message) => {
    await expect(surveyStub(() => bytes)).rejects.toMatchObject({
      code: "BAD_SERVER_HELLO",
      why,
      message: expect.stringMatching(message),
    });
  });

  test("reads no more than 64 KiB of an answer that does not end", async () => {
    hurry();
    const record = Buffer.concat([Uint8Array.of(0x17, 3, 3, 0x40, 0), randomBytes(16_384)]);
    const endless = Buffer.concat([record, record, record, record, record]);
    await expect(surveyStub((hello) => Buffer.concat([flight(hello), endless]))).rejects.toMatchObject({
      why: "garbled",
      message: "its answer does not end",
    });
  });

  test("does not get to a server that cannot be connected to", async () => {
    const refused = createTcpServer();
    const port = await listen(refused);
    refused.close();
    await expect(survey(port)).rejects.toMatchObject({ code: "REFUSED" });
  });

  // Asked for the rest of the suites it answers with an alert, which says only that there is no other.
  test("measures a server that has one suite alone", async () => {
    hurry();
    const { found } = await surveyStub((hello) =>
      offered(hello).includes(0x1302) ? flight(hello, { cipherSuite: 0x1302 }) : ALERT,
    );
    expect(found.profile.suites[0]).toBe(0x1302);
  });

  // A flight with these extensions cannot be made: encodeFirstFlight throws, and every client would be sent away.
  test("keeps the usual extensions when two others came", async () => {
    hurry();
    const { found } = await surveyStub((hello) => {
      const bytes = flight(hello);
      const at = bytes.findIndex((_, at) => bytes[at] === 0 && bytes[at + 1] === 51 && bytes[at + 3] === 36);
      bytes[at + 1] = 44; // the cookie of a retry
      return bytes;
    });
    expect(found.profile.extensionOrder).toEqual([43, 51]);
  });
});
