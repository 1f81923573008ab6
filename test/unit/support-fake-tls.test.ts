import { describe, expect, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js";
import { peekServerName } from "../support/client-hello.ts";
import { CoverSite, coverPage } from "../support/cover-site.ts";
import { checkFlight, isX25519Key } from "../support/fake-tls-client.ts";
import {
  type BuiltHello,
  buildHello,
  GROUPS,
  HELLO_SHAPES,
  HelloKeys,
  isGrease,
  ML_KEM,
  readTimestamp,
} from "../support/fake-tls-hello.ts";
import { concat } from "../support/packets.ts";
import vectors from "../vectors/client-hellos.json";

const SECRET = new Uint8Array(randomBytes(16));
const NAME = "cover.example";
/** Of the flights that are made here. */
const DATA = new Uint8Array(1000);

/** What a flight is made of that is not right by itself. */
interface Flaws {
  readonly suite?: number;
  readonly sessionId?: Uint8Array;
  readonly group?: number;
  readonly share?: Uint8Array;
  readonly secret?: Uint8Array;
  /** Changes it after it was signed. */
  readonly after?: (bytes: Uint8Array) => Uint8Array;
}

describe("buildHello()", () => {
  for (const shape of HELLO_SHAPES) {
    for (const records of [1, 2, 3, 40]) {
      test(`signs a hello of the shape ${shape} in ${records} records`, () => {
        const hello = buildHello({
          shape,
          secret: SECRET,
          serverName: NAME,
          records,
          timestamp: 1_700_000_000,
        });
        expect(readTimestamp(hello.bytes, SECRET)).toBe(1_700_000_000);
        expect(readTimestamp(hello.bytes, new Uint8Array(16))).toBeUndefined();
        expect(peekServerName(hello.bytes)).toEqual({ serverName: NAME });
      });
    }
  }

  test("pads as older clients do, and is as long as TDLib's", () => {
    expect(buildHello({ shape: "desktop-517", secret: SECRET, serverName: NAME }).bytes).toHaveLength(517);
    const seen = vectors.find(({ client }) => client === "TDLib")?.hello.length ?? 0;
    for (let count = 0; count < 10; count += 1) {
      const { bytes } = buildHello({ shape: "tdlib", secret: SECRET, serverName: NAME });
      // Both take one of four lengths, which are 32 bytes apart.
      expect([0, 32, 64, 96]).toContain(Math.abs(bytes.length - seen / 2));
    }
  });

  test("has no name without one, and its time wraps where 32 bits end", () => {
    const { bytes } = buildHello({ shape: "tdlib", secret: SECRET, timestamp: 0xffff_fffe });
    expect(peekServerName(bytes)).toEqual({ serverName: undefined });
    expect(readTimestamp(bytes, SECRET)).toBe(0xffff_fffe);
  });

  test("is spoiled by any change afterwards", () => {
    for (const at of [3, 11, 38, 45, 100]) {
      const tamper = (bytes: Uint8Array): void => {
        bytes[at] = (bytes[at] ?? 0) ^ 1;
      };
      const { bytes } = buildHello({ secret: SECRET, serverName: NAME, tamper });
      expect(readTimestamp(bytes, SECRET)).toBeUndefined();
    }
  });

  test("offers shares that others can use", () => {
    const keys = new HelloKeys();
    expect(isX25519Key(keys.x25519Share)).toBe(true);
    expect(keys.hybridShare).toHaveLength(ML_KEM.publicKey + 32);
    const encapsulated = ml_kem768.encapsulate(keys.hybridShare.slice(0, ML_KEM.publicKey));
    expect(keys.decapsulate(encapsulated.cipherText).toHex()).toBe(encapsulated.sharedSecret.toHex());
    const other = new HelloKeys();
    expect(keys.agree(other.x25519Share).toHex()).toBe(other.agree(keys.x25519Share).toHex());
  });
});

describe("isX25519Key()", () => {
  test("knows the base point, and real keys", () => {
    expect(isX25519Key(Uint8Array.from({ length: 32 }, (_, index) => (index === 0 ? 9 : 0)))).toBe(true);
    for (let count = 0; count < 20; count += 1) expect(isX25519Key(new HelloKeys().x25519Share)).toBe(true);
  });

  test("refuses random bytes half of the time, and all that are too long or not reduced", () => {
    const random = Array.from({ length: 200 }, () => {
      const bytes = new Uint8Array(randomBytes(32));
      bytes[31] = (bytes[31] ?? 0) & 0x7f;
      return isX25519Key(bytes);
    });
    const refused = random.filter((good) => !good).length;
    expect(refused).toBeGreaterThan(50);
    expect(refused).toBeLessThan(150);
    expect(isX25519Key(new Uint8Array(32).fill(0xff))).toBe(false);
    expect(isX25519Key(new Uint8Array(33))).toBe(false);
  });
});

describe("checkFlight()", () => {
  const hello = buildHello({ shape: "tdlib", secret: SECRET, serverName: NAME });

  test("takes what a server answers", () => {
    expect(checkFlight(flightFor(hello), hello)).toMatchObject({
      cipherSuite: 0x1301,
      extensions: [0x2b, 0x33],
      group: GROUPS.x25519,
      recordSizes: [122, 1, DATA.length],
    });
    const share = hybridShareFor(hello);
    const { group } = checkFlight(flightFor(hello, { group: GROUPS.x25519MlKem768, share }), hello);
    expect(group).toBe(GROUPS.x25519MlKem768);
  });

  const random = Uint8Array.from({ length: 32 }, (_, index) => (index === 0 ? 2 : 0)); // off the curve
  const mlKem = { group: GROUPS.x25519MlKem768 };
  const cases: readonly (readonly [string, Flaws, string])[] = [
    ["another secret", { secret: new Uint8Array(16) }, "not the digest"],
    ["a suite that was not offered", { suite: 0x1304 }, "Not offered"],
    ["a GREASE suite", { suite: hello.cipherSuites[0] ?? 0 }, "GREASE"],
    ["a suite of TLS 1.2", { suite: 0xc02f }, "Not of TLS 1.3"],
    ["another session id", { sessionId: new Uint8Array(32) }, "not echoed"],
    ["a share off the curve", { share: random }, "not a point"],
    ["a group without a share", { group: 0x17 }, "No share was offered"],
    ["a hybrid share that is too short", { ...mlKem }, "A key share of 32 bytes"],
    [
      "a random ciphertext",
      { ...mlKem, share: concat(new Uint8Array(randomBytes(1088)), hello.keys.x25519Share) },
      "not made with our key",
    ],
    ["a byte more", { after: (bytes) => concat(bytes, Uint8Array.of(0x17)) }, "bytes long"],
    ["a changed byte", { after: (bytes) => bytes.with(bytes.length - 1, 1) }, "not the digest"],
  ];
  for (const [what, flaws, message] of cases) {
    test(`refuses ${what}`, () => {
      expect(() => checkFlight(flightFor(hello, flaws), hello)).toThrow(message);
    });
  }
});

describe("the captured hellos", () => {
  for (const [index, { client, version, domain, secret, time, hello }] of vectors.entries()) {
    test(`of ${client} ${version} (${index}) name the domain, and prove the secret where there is one`, () => {
      const bytes = Uint8Array.fromHex(hello);
      expect(peekServerName(bytes)).toEqual({ serverName: domain });
      if (secret === undefined) return;
      expect(readTimestamp(bytes, Uint8Array.fromHex(secret))).toBe(time);
    });
  }

  test("are of Telegram's clients and of others", () => {
    const proven = vectors.filter(({ secret }) => secret !== undefined).map(({ client }) => client);
    expect(proven).toContain("mtcute");
    expect(proven).toContain("TDLib");
    expect(vectors.length).toBeGreaterThan(proven.length);
  });
});

test("isGrease() knows the 16 values and no others", () => {
  const all = Array.from({ length: 0x10000 }, (_, value) => value).filter(isGrease);
  expect(all).toHaveLength(16);
  expect(all[0]).toBe(0x0a0a);
});

describe.skipIf(CoverSite.missing !== undefined)("CoverSite", () => {
  test("serves each of its names with a page and a certificate of its own, and counts", async () => {
    await using site = await CoverSite.start({ names: [NAME, "other.example"], keepaliveTimeoutMs: 0 });
    for (const name of site.names) {
      const response = await fetch(`https://127.0.0.1:${site.port}/`, {
        headers: { host: name },
        tls: { ca: site.certificates.ca, serverName: name },
      });
      expect(await response.text()).toBe(coverPage(name));
    }
    expect(await site.accepted()).toBe(2);
    await site.forget();
    expect(await site.accepted()).toBe(0);
    expect(site.accessLog).toContain(`${NAME} TLSv1.3 "GET / HTTP/1.1" 200`);
  });
});

/** Answers as a server would that makes no mistake but these. */
function flightFor(hello: BuiltHello, flaws: Flaws = {}): Uint8Array {
  const { suite = 0x1301, sessionId = hello.sessionId, group = GROUPS.x25519, secret = SECRET } = flaws;
  const share = flaws.share ?? new HelloKeys().x25519Share;
  const keyShare = concat(uint16(group, share.length), share);
  const extensions = concat(uint16(0x2b, 2, 0x0304), uint16(0x33, keyShare.length), keyShare);
  const body = concat(
    uint16(0x0303),
    new Uint8Array(32),
    Uint8Array.of(sessionId.length),
    sessionId,
    uint16(suite),
    Uint8Array.of(0),
    uint16(extensions.length),
    extensions,
  );
  const message = concat(Uint8Array.of(2, 0), uint16(body.length), body);
  const flight = concat(
    Uint8Array.of(0x16, 3, 3),
    uint16(message.length),
    message,
    Uint8Array.of(0x14, 3, 3, 0, 1, 1, 0x17, 3, 3),
    uint16(DATA.length),
    DATA,
  );
  flight.set(createHmac("sha256", secret).update(hello.random).update(flight).digest(), 11);
  return flaws.after?.(flight) ?? flight;
}

function hybridShareFor(hello: BuiltHello): Uint8Array {
  const { cipherText } = ml_kem768.encapsulate(hello.keys.hybridShare.slice(0, ML_KEM.publicKey));
  return concat(cipherText, new HelloKeys().x25519Share);
}

function uint16(...values: readonly number[]): Uint8Array {
  return Uint8Array.from(values.flatMap((value) => [value >> 8, value & 0xff]));
}
