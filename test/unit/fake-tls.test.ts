import { afterEach, describe, expect, spyOn, test } from "bun:test";
import { createHmac } from "node:crypto";
import { RefusedError } from "../../src/core/errors.ts";
import type { NamedSecret } from "../../src/protocol/mtproto/secret.ts";
import { measureClientHello } from "../../src/protocol/tls/client-hello-records.ts";
import { type CoverProfile, defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import { parseServerFlight } from "../../src/protocol/tls/server-flight.ts";
import type { Admission } from "../../src/proxy/admission.ts";
import { FakeTls, type FakeTlsDeps } from "../../src/proxy/fake-tls.ts";
import { SeenHellos } from "../../src/proxy/seen-hellos.ts";
import { type BuiltHello, buildHello, GROUPS, type HelloOptions } from "../support/fake-tls-hello.ts";

const FIRST = { name: "first", key: new Uint8Array(16).fill(1) };
const SECOND = { name: "second", key: new Uint8Array(16).fill(2) };
const STRANGE_KEY = new Uint8Array(16).fill(3);
const COVER = "cover.example";
const OTHER = "other.example";
const NOW = 1_800_000_000;
const PROFILE = defaultProfile(COVER);

let undo = (): void => {};
afterEach(() => {
  undo();
});

interface Setup {
  readonly tls: FakeTls;
  /** Randoms that were heard as strangers', in hexadecimal. */
  readonly strangers: string[];
}

function setUp(deps: Partial<FakeTlsDeps> = {}): Setup {
  const strangers: string[] = [];
  const profiles = new Map([
    [COVER, PROFILE],
    [OTHER, defaultProfile(OTHER)],
  ]);
  const tls = new FakeTls({
    secrets: [FIRST, SECOND],
    seen: new SeenHellos(),
    profileOf: (name) => profiles.get(name.toLowerCase()),
    measured: () => Promise.resolve(),
    onStranger: (random) => strangers.push(random.toHex()),
    now: () => NOW,
    ...deps,
  });
  return { tls, strangers };
}

const hello = (options: Partial<HelloOptions> = {}): BuiltHello =>
  buildHello({ secret: FIRST.key, serverName: COVER, timestamp: NOW, ...options });

function admit(tls: FakeTls, bytes: Uint8Array): Promise<Admission> {
  const progress = measureClientHello(bytes);
  if (progress.kind !== "whole") throw new Error("the hello is not whole");
  return tls.admit(bytes, progress, () => ({ rate: undefined }));
}

async function admitted(tls: FakeTls, bytes: Uint8Array): Promise<Extract<Admission, { kind: "client" }>> {
  const admission = await admit(tls, bytes);
  if (admission.kind === "stranger") throw new Error(`a stranger: ${admission.why}, ${admission.detail}`);
  return admission;
}

/** Why it is a stranger; `client` when it is none. */
async function verdict(tls: FakeTls, bytes: Uint8Array): Promise<string> {
  const admission = await admit(tls, bytes);
  return admission.kind === "client" ? "client" : admission.why;
}

const RANDOM_AT = 11;

/** The server's random as a client computes it. */
function expectedRandom({ random, secret }: BuiltHello, flight: Uint8Array): string {
  const zeroed = flight.slice().fill(0, RANDOM_AT, RANDOM_AT + 32);
  return createHmac("sha256", secret).update(random).update(zeroed).digest("hex");
}

describe("FakeTls.admit()", () => {
  test("answers a client with a flight that the secret has signed", async () => {
    const made = hello();
    const { secret, flight } = await admitted(setUp().tls, made.bytes);
    expect(secret).toBe(FIRST);
    expect(flight.subarray(RANDOM_AT, RANDOM_AT + 32).toHex()).toBe(expectedRandom(made, flight));
    const parsed = parseServerFlight(flight);
    expect(parsed).toMatchObject({
      version: 0x0304,
      helloRetry: false,
      cipherSuite: 0x1301,
      extensionOrder: PROFILE.extensionOrder,
      group: GROUPS.x25519,
      changeCipherSpec: true,
      rest: 0,
    });
    expect(parsed?.encryptedRecords).toHaveLength(1);
    expect(PROFILE.olderFlightSizes).toContain(parsed?.encryptedRecords[0] ?? 0);
    expect(flight.subarray(44, 76).toHex()).toBe(made.sessionId.toHex());
  });

  test.each(["desktop-517", "tdlib", "minimal"] as const)("knows a hello of the shape %s", async (shape) => {
    expect(await verdict(setUp().tls, hello({ shape }).bytes)).toBe("client");
  });

  test.each([2, 3, 7, 40])("knows a hello in %i records", async (records) => {
    const { bytes, random } = hello({ shape: "desktop-517", records });
    const { tls } = setUp();
    expect(await verdict(tls, bytes)).toBe("client");
    expect(random).toHaveLength(32);
  });

  test("does not take what follows the hello for a part of it", async () => {
    const { bytes } = hello();
    expect(await verdict(setUp().tls, Buffer.concat([bytes, new Uint8Array(100).fill(7)]))).toBe("client");
  });

  test("leaves the bytes of the hello as they are", async () => {
    const { bytes } = hello();
    const before = bytes.toHex();
    await admit(setUp().tls, bytes);
    expect(bytes.toHex()).toBe(before);
  });

  test("makes each answer anew: keys, and the encrypted part", async () => {
    const { tls } = setUp();
    const flights = [await admitted(tls, hello().bytes), await admitted(tls, hello().bytes)];
    const [one = "", other = ""] = flights.map(({ flight }) => flight.subarray(-1_000).toHex());
    expect(one).not.toBe(other);
  });

  test("says by which of several secrets, and signs with that one", async () => {
    const { tls } = setUp();
    const made = hello({ secret: SECOND.key });
    const { secret, flight } = await admitted(tls, made.bytes);
    expect(secret).toBe(SECOND);
    expect(flight.subarray(RANDOM_AT, RANDOM_AT + 32).toHex()).toBe(expectedRandom(made, flight));
  });

  test("answers for each of several domains as its site does", async () => {
    const profile: CoverProfile = { ...PROFILE, extensionOrder: [51, 43], olderFlightSizes: [1_234] };
    const { tls } = setUp({ profileOf: (name) => (name === OTHER ? profile : PROFILE) });
    const { flight } = await admitted(tls, hello({ serverName: OTHER }).bytes);
    expect(parseServerFlight(flight)).toMatchObject({ extensionOrder: [51, 43], encryptedRecords: [1_234] });
  });

  test.each([
    ["tdlib", "with", 3_210],
    ["minimal", "without", 3_000],
  ] as const)(
    "answers a hello of the shape %s, %s ECH, with as much as the site does",
    async (shape, _, size) => {
      const profile = { ...PROFILE, flightSizes: [3_210], olderFlightSizes: [3_000] };
      const { flight } = await admitted(setUp({ profileOf: () => profile }).tls, hello({ shape }).bytes);
      expect(parseServerFlight(flight)).toMatchObject({ encryptedRecords: [size] });
    },
  );

  test("picks the suite that the site prefers, of those that the client offers", async () => {
    const suites = [0x1303, 0x1302, 0x1301];
    const { tls } = setUp({ profileOf: () => ({ ...PROFILE, suites, flightSizes: [2_000] }) });
    const pick = async (cipherSuites: readonly number[]) =>
      parseServerFlight((await admitted(tls, hello({ cipherSuites, shape: "tdlib" }).bytes)).flight);
    expect(await pick([0x1301, 0x1302, 0x1303])).toMatchObject({ cipherSuite: 0x1303 });
    expect(await pick([0x1301, 0x1302])).toMatchObject({ cipherSuite: 0x1302, encryptedRecords: [2_016] });
    expect(await pick([0xc02b, 0x1301])).toMatchObject({ cipherSuite: 0x1301 });
  });

  test("encapsulates a secret for the client's own key where the site does", async () => {
    const profile = { ...PROFILE, groups: [GROUPS.x25519MlKem768, GROUPS.x25519] };
    const { tls } = setUp({ profileOf: () => profile });
    const made = hello({ shape: "tdlib" });
    const { flight } = await admitted(tls, made.bytes);
    expect(parseServerFlight(flight)).toMatchObject({ group: GROUPS.x25519MlKem768 });
    expect(flight.subarray(RANDOM_AT, RANDOM_AT + 32).toHex()).toBe(expectedRandom(made, flight));
    const older = await admitted(tls, hello({ shape: "desktop-517" }).bytes);
    expect(parseServerFlight(older.flight)).toMatchObject({ group: GROUPS.x25519 });
  });

  test.each(["COVER.example", "cOvEr.EXAMPLE"])("compares the name without case: %s", async (serverName) => {
    expect(await verdict(setUp().tls, hello({ serverName }).bytes)).toBe("client");
  });
});

describe("FakeTls.admit() with strangers", () => {
  test("says digest of a hello that no secret has made, and lets its random be heard", async () => {
    const { tls, strangers } = setUp();
    const made = hello({ secret: STRANGE_KEY });
    expect(await admit(tls, made.bytes)).toEqual({
      kind: "stranger",
      why: "digest",
      serverName: COVER,
      detail: "not made with a secret of ours",
    });
    expect(strangers).toEqual([made.random.toHex()]);
  });

  test("says digest when a single byte was changed, wherever it is", async () => {
    const { length } = hello().bytes;
    for (const at of [RANDOM_AT, RANDOM_AT + 27, 50, length - 1]) {
      const tamper = (bytes: Uint8Array): void => {
        bytes[at] = (bytes[at] ?? 0) ^ 1;
      };
      expect(await verdict(setUp().tls, hello({ tamper }).bytes)).toBe("digest");
    }
  });

  test("says digest when the records were cut in another way", async () => {
    const { bytes } = hello();
    const message = bytes.subarray(5);
    const record = (part: Uint8Array) =>
      Buffer.concat([Uint8Array.of(0x16, 3, 1, part.length >> 8, part.length & 0xff), part]);
    const cut = Buffer.concat([record(message.subarray(0, 60)), record(message.subarray(60))]);
    expect(await verdict(setUp().tls, cut)).toBe("digest");
  });

  test("says digest to everybody without secrets", async () => {
    expect(await verdict(setUp({ secrets: [] }).tls, hello().bytes)).toBe("digest");
  });

  test.each([
    [-121, "skew"],
    [-120, "client"],
    [0, "client"],
    [120, "client"],
    [121, "skew"],
  ])("judges a clock that is off by %i s: %s", async (off, expected) => {
    const { tls, strangers } = setUp();
    expect(await verdict(tls, hello({ timestamp: NOW + off }).bytes)).toBe(expected);
    expect(strangers).toEqual([]);
  });

  test("says how far the clock is off, and which way", async () => {
    const { tls } = setUp();
    expect(await admit(tls, hello({ timestamp: NOW + 300 }).bytes)).toMatchObject({
      detail: "its clock is 300 s ahead of ours",
    });
    expect(await admit(tls, hello({ timestamp: NOW - 121 }).bytes)).toMatchObject({
      detail: "its clock is 121 s behind ours",
    });
  });

  test.each([0, 2 ** 31, 2 ** 32 - 1])(
    "says skew at the ends of what the time can be: %i",
    async (timestamp) => {
      expect(await verdict(setUp().tls, hello({ timestamp }).bytes)).toBe("skew");
    },
  );

  test("says server-name of another name, or none, although the digest is right", async () => {
    const { tls, strangers } = setUp();
    expect(await admit(tls, hello({ serverName: "wrong.example" }).bytes)).toMatchObject({
      why: "server-name",
      serverName: "wrong.example",
      detail: "for wrong.example",
    });
    expect(await admit(tls, buildHello({ secret: FIRST.key, timestamp: NOW }).bytes)).toMatchObject({
      why: "server-name",
      serverName: undefined,
      detail: "for no name",
    });
    expect(strangers).toEqual([]);
  });

  test("says unsupported of a hello without a suite of TLS 1.3, or with GREASE alone", async () => {
    for (const cipherSuites of [[0xc02b, 0xc02f], [0x0a0a]]) {
      expect(await verdict(setUp().tls, hello({ cipherSuites }).bytes)).toBe("unsupported");
    }
  });

  test("says bad-hello when the parts do not fit, before it looks at the digest", async () => {
    const { tls, strangers } = setUp();
    const tamper = (bytes: Uint8Array): void => {
      bytes[43] = 33; // the length of the session id
    };
    expect(await admit(tls, hello({ tamper }).bytes)).toMatchObject({
      why: "bad-hello",
      serverName: undefined,
    });
    expect(strangers).toEqual([]);
  });
});

describe("FakeTls.admit(), what was there before", () => {
  test("says replay of a hello that was answered", async () => {
    const { tls } = setUp();
    const { bytes } = hello();
    expect(await verdict(tls, bytes)).toBe("client");
    expect(await verdict(tls, bytes)).toBe("replay");
  });

  test("answers one of 50 copies that come in one tick", async () => {
    const profile = { ...PROFILE, groups: [GROUPS.x25519MlKem768] }; // which is answered later
    const { tls } = setUp({ profileOf: () => profile });
    const { bytes } = hello({ shape: "tdlib" });
    const verdicts = await Promise.all(Array.from({ length: 50 }, () => verdict(tls, bytes.slice())));
    expect(verdicts.filter((one) => one === "client")).toHaveLength(1);
    expect(verdicts.filter((one) => one === "replay")).toHaveLength(49);
  });

  test("says replay also when the time in it was changed, which the digest does not cover", async () => {
    const { tls } = setUp();
    const { bytes } = hello();
    expect(await verdict(tls, bytes)).toBe("client");
    const later = bytes.slice();
    moveTime(later, NOW, NOW + 60);
    expect(await verdict(tls, later)).toBe("replay");
  });

  test("waits for who remembers hellos elsewhere, and then for who lets the user in", async () => {
    const order: string[] = [];
    const seen = {
      claim: async (random: Uint8Array) => {
        order.push("claim");
        return random[0] !== undefined;
      },
    };
    const { tls } = setUp({ seen });
    const { bytes } = hello();
    const progress = measureClientHello(bytes);
    if (progress.kind !== "whole") throw new Error("the hello is not whole");
    const grant = { rate: undefined };
    const admission = await tls.admit(bytes, progress, async (user) => {
      order.push(user);
      return grant;
    });
    expect(order).toEqual(["claim", "first"]);
    expect(admission).toMatchObject({ kind: "client", grant });
  });

  test("makes a stranger of a user who is refused, and a bug of what else is thrown", async () => {
    const { tls } = setUp();
    const refuse = (error: Error) => {
      const { bytes } = hello();
      const progress = measureClientHello(bytes);
      if (progress.kind !== "whole") throw new Error("the hello is not whole");
      return tls.admit(bytes, progress, () => Promise.reject(error));
    };
    expect(await refuse(new RefusedError("user-quota"))).toEqual({
      kind: "stranger",
      why: "refused",
      serverName: COVER,
      detail: "user-quota",
    });
    await expect(refuse(new Error("a bug"))).rejects.toThrow("a bug");
  });

  test("asks for no user when the hello is nobody's, or was there before", async () => {
    const asked: string[] = [];
    const { tls } = setUp();
    for (const { bytes } of [hello({ secret: STRANGE_KEY }), hello({ timestamp: NOW + 121 })]) {
      const progress = measureClientHello(bytes);
      if (progress.kind === "whole") {
        await tls.admit(bytes, progress, (user) => {
          asked.push(user);
          return { rate: undefined };
        });
      }
    }
    expect(asked).toEqual([]);
  });

  test("does not remember a hello that was not answered", async () => {
    const seen = new SeenHellos();
    let now = NOW;
    const { tls } = setUp({ seen, now: () => now });
    const { bytes } = hello({ timestamp: NOW + 121 });
    expect(await verdict(tls, bytes)).toBe("skew");
    expect(await verdict(tls, hello({ secret: STRANGE_KEY }).bytes)).toBe("digest");
    expect(await verdict(tls, hello({ serverName: "wrong.example" }).bytes)).toBe("server-name");
    expect(seen.size).toBe(0);
    now += 1;
    expect(await verdict(tls, bytes)).toBe("client");
  });

  /** Lets a hello be answered, time pass, another client come, and the hello again. */
  async function replayAfter(seconds: number, change: (bytes: Uint8Array) => void): Promise<string> {
    let now = NOW;
    let monotonic = 1_000_000;
    const clock = spyOn(performance, "now").mockImplementation(() => monotonic);
    undo = () => clock.mockRestore();
    const { tls } = setUp({ now: () => Math.floor(now) });
    const { bytes } = hello({ timestamp: NOW + 120 });
    expect(await verdict(tls, bytes)).toBe("client");
    now += seconds;
    monotonic += seconds * 1_000;
    expect(await verdict(tls, hello({ timestamp: Math.floor(now) }).bytes)).toBe("client");
    change(bytes);
    return verdict(tls, bytes);
  }

  test("refuses a copy for as long as its time is right, and after that for its time", async () => {
    expect(await replayAfter(239.9, () => {})).toBe("replay");
    expect(await replayAfter(241, () => {})).toBe("skew");
  });

  // It is forgotten after 240 s, but its time is right for up to 240.999 s, since whole seconds are compared.
  test("refuses a copy in the last second in which its time is right", async () => {
    expect(await replayAfter(240.5, () => {})).toBe("replay");
  });

  // The time is not covered by the digest: who knows when a hello was made can give it any other time.
  test("refuses a copy whose time was moved on after 4 min", async () => {
    expect(await replayAfter(300, (bytes) => moveTime(bytes, NOW + 120, NOW + 300))).toBe("replay");
  });

  /** Gives a hello another time, which takes no secret. */
  function moveTime(bytes: Uint8Array, from: number, to: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const at = RANDOM_AT + 28;
    view.setUint32(at, (view.getUint32(at, true) ^ from ^ to) >>> 0, true);
  }
});

describe("FakeTls.admit(), what it costs", () => {
  /** Secrets that count how often their keys are used. */
  function countingSecrets(): { readonly secrets: readonly NamedSecret[]; readonly uses: number[] } {
    const uses: number[] = [0, 0, 0, 0];
    const secrets = uses.map((_, index) => ({
      name: `secret ${index}`,
      get key() {
        uses[index] = (uses[index] ?? 0) + 1;
        return new Uint8Array(16).fill(index + 1);
      },
    }));
    return { secrets, uses };
  }

  test("computes one digest for every secret, whatever fits, and one more for an answer", async () => {
    const cases: readonly (readonly [Partial<HelloOptions>, readonly number[]])[] = [
      [{ secret: new Uint8Array(16).fill(1) }, [2, 1, 1, 1]],
      [{ secret: new Uint8Array(16).fill(4) }, [1, 1, 1, 2]],
      [{ secret: new Uint8Array(16).fill(9) }, [1, 1, 1, 1]],
      [{ timestamp: NOW - 1_000 }, [1, 1, 1, 1]],
      [{ serverName: "wrong.example" }, [1, 1, 1, 1]],
      [{ cipherSuites: [0xc02b] }, [1, 1, 1, 1]],
    ];
    for (const [options, expected] of cases) {
      const { secrets, uses } = countingSecrets();
      await admit(setUp({ secrets }).tls, hello(options).bytes);
      expect(uses).toEqual([...expected]);
    }
  });

  test("looks the name up for everybody, so that a wrong digest takes no less time", async () => {
    const asked: string[] = [];
    const profileOf = (name: string): CoverProfile => {
      asked.push(name);
      return PROFILE;
    };
    const { tls } = setUp({ profileOf });
    for (const changes of [{ secret: STRANGE_KEY }, { timestamp: 0 }, {}])
      await admit(tls, hello(changes).bytes);
    expect(asked.slice(0, 3)).toEqual([COVER, COVER, COVER]);
  });
});

describe("FakeTls.admit(), just after the start", () => {
  test("waits until it is known how the site looks, and looks so", async () => {
    const sizes = [1_234];
    const later = { ...PROFILE, flightSizes: sizes, olderFlightSizes: sizes };
    let profile: CoverProfile = PROFILE;
    const known = Promise.withResolvers<void>();
    const { tls } = setUp({ profileOf: () => profile, measured: () => known.promise });
    const admission = admit(tls, hello().bytes);
    profile = later;
    known.resolve();
    const { kind, ...rest } = await admission;
    expect(kind).toBe("client");
    const flight = "flight" in rest ? rest.flight : new Uint8Array(0);
    const [encrypted = 0] = sizes;
    expect(flight.subarray(-encrypted - 5, -encrypted).toHex()).toMatch(/^170303/);
  });

  test("shows a stranger the site at once", async () => {
    const { tls } = setUp({ measured: () => new Promise(() => {}) });
    expect(await admit(tls, hello({ secret: new Uint8Array(16).fill(9) }).bytes)).toMatchObject({
      why: "digest",
    });
  });
});
