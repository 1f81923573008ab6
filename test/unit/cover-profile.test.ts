import { describe, expect, test } from "bun:test";
import { type ClientHello, EXTENSION, GROUP } from "../../src/protocol/tls/client-hello.ts";
import {
  type CoverProfile,
  chooseFlightSize,
  chooseKeyShare,
  chooseSuite,
  defaultProfile,
  normalizeFlightSize,
  TLS13_SUITES,
} from "../../src/protocol/tls/cover-profile.ts";

const [AES_128, AES_256, CHACHA] = TLS13_SUITES;
const GREASE = 0x1a1a;
/** TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, of TLS 1.2. */
const OLD_SUITE = 0xc02f;

const HELLO: ClientHello = {
  legacyVersion: 0x0303,
  random: new Uint8Array(32),
  sessionId: new Uint8Array(32),
  cipherSuites: [GREASE, AES_128, AES_256, CHACHA, OLD_SUITE],
  compressionMethods: [0],
  extensions: [],
  serverName: "example.com",
  supportedVersions: [0x0304],
  supportedGroups: [],
  keyShares: [
    { group: GREASE, key: Uint8Array.of(0) },
    { group: GROUP.x25519MlKem768, key: new Uint8Array(1_216) },
    { group: GROUP.x25519, key: new Uint8Array(32) },
  ],
  alpn: [],
};
const PROFILE: CoverProfile = {
  suites: "client",
  groups: [GROUP.x25519],
  extensionOrder: [EXTENSION.supportedVersions, EXTENSION.keyShare],
  flightSizes: [2_500, 2_501, 2_502, 2_503],
  olderFlightSizes: [2_200],
};
/** As clients of today. */
const NEWER: ClientHello = {
  ...HELLO,
  extensions: [{ type: EXTENSION.encryptedClientHello, data: new Uint8Array(200) }],
};
const offering = (...cipherSuites: number[]): ClientHello => ({ ...HELLO, cipherSuites });
const sharing = (...groups: number[]): ClientHello => ({
  ...HELLO,
  keyShares: groups.map((group) => ({ group, key: Uint8Array.of(1) })),
});

describe("chooseSuite()", () => {
  test("takes the site's best of those that the client offers", () => {
    expect(chooseSuite(HELLO, { ...PROFILE, suites: [AES_256, CHACHA, AES_128] })).toBe(AES_256);
    expect(chooseSuite(offering(AES_128, CHACHA), { ...PROFILE, suites: [AES_256, CHACHA] })).toBe(CHACHA);
  });

  test("takes the client's first where the site does, but no GREASE and none of TLS 1.2", () => {
    expect(chooseSuite(offering(GREASE, OLD_SUITE, CHACHA, AES_128), PROFILE)).toBe(CHACHA);
    expect(chooseSuite(offering(AES_256, AES_128), PROFILE)).toBe(AES_256);
  });

  test("takes the client's first when the site was seen with none of them", () => {
    expect(chooseSuite(offering(GREASE, CHACHA), { ...PROFILE, suites: [AES_256] })).toBe(CHACHA);
    expect(chooseSuite(offering(CHACHA, AES_128), { ...PROFILE, suites: [] })).toBe(CHACHA);
  });

  test("does not take what the site was seen with when the client did not offer it", () => {
    const profile: CoverProfile = { ...PROFILE, suites: [OLD_SUITE, GREASE, AES_128] };
    expect(chooseSuite(HELLO, profile)).toBe(AES_128);
  });

  test("returns undefined when the client offers none of TLS 1.3", () => {
    expect(chooseSuite(offering(OLD_SUITE, GREASE, 0x1304), PROFILE)).toBeUndefined();
    expect(chooseSuite(offering(OLD_SUITE), { ...PROFILE, suites: [AES_128] })).toBeUndefined();
    expect(chooseSuite(offering(), PROFILE)).toBeUndefined();
  });
});

describe("chooseKeyShare()", () => {
  test("takes the share that the site prefers", () => {
    const hybrid = { ...PROFILE, groups: [GROUP.x25519MlKem768, GROUP.x25519] };
    expect(chooseKeyShare(HELLO, hybrid)).toBe(HELLO.keyShares[1]);
    expect(chooseKeyShare(HELLO, PROFILE)).toBe(HELLO.keyShares[2]);
  });

  test("takes the next when the client has not sent the best", () => {
    const hybrid = { ...PROFILE, groups: [GROUP.x25519MlKem768, GROUP.x25519] };
    expect(chooseKeyShare(sharing(GROUP.x25519), hybrid)?.group).toBe(GROUP.x25519);
  });

  test("leaves out groups that cannot be answered, and takes X25519 in the end", () => {
    const curves = { ...PROFILE, groups: [GROUP.secp256r1, GROUP.secp384r1] };
    expect(chooseKeyShare(sharing(GROUP.secp256r1, GROUP.x25519), curves)?.group).toBe(GROUP.x25519);
    expect(chooseKeyShare(sharing(GROUP.x25519), { ...PROFILE, groups: [] })?.group).toBe(GROUP.x25519);
  });

  test("never takes GREASE", () => {
    expect(chooseKeyShare(sharing(GREASE), { ...PROFILE, groups: [GREASE] })).toBeUndefined();
  });

  test("returns undefined when there is none that can be answered", () => {
    expect(chooseKeyShare(sharing(), PROFILE)).toBeUndefined();
    expect(chooseKeyShare(sharing(GROUP.secp256r1), PROFILE)).toBeUndefined();
    expect(
      chooseKeyShare(sharing(GROUP.secp256r1), { ...PROFILE, groups: [GROUP.secp256r1] }),
    ).toBeUndefined();
  });
});

describe("chooseFlightSize()", () => {
  test("takes each size that was seen, evenly", () => {
    const sizes = [0, 0.24, 0.25, 0.5, 0.75, 1 - 2 ** -20].map((random) =>
      chooseFlightSize(NEWER, PROFILE, AES_128, random),
    );
    expect(sizes).toEqual([2_500, 2_500, 2_501, 2_502, 2_503, 2_503]);
  });

  test("adds the 16 bytes that a Finished with SHA-384 has more", () => {
    expect(chooseFlightSize(NEWER, PROFILE, AES_128, 0)).toBe(2_500);
    expect(chooseFlightSize(NEWER, PROFILE, CHACHA, 0)).toBe(2_500);
    expect(chooseFlightSize(NEWER, PROFILE, AES_256, 0)).toBe(2_516);
  });
});

describe("chooseFlightSize(), for a client without ECH", () => {
  test("takes the size that such clients were seen to get", () => {
    expect(chooseFlightSize(HELLO, PROFILE, AES_128, 0)).toBe(2_200);
  });
});

describe("normalizeFlightSize()", () => {
  test.each([...TLS13_SUITES])("undoes what chooseFlightSize adds for suite %i", (suite) => {
    const flightSizes = [normalizeFlightSize(3_100, suite)];
    expect(chooseFlightSize(NEWER, { ...PROFILE, flightSizes }, suite, 0)).toBe(3_100);
  });
});

describe("defaultProfile()", () => {
  const domains = ["example.com", "www.example.com", "a.b", "xn--e1afmkfd.xn--p1ai", "", "x".repeat(182)];

  test.each(domains)("has what a flight needs for %p, the same every time", (domain) => {
    const profile = defaultProfile(domain);
    expect(defaultProfile(domain)).toEqual(profile);
    expect(profile.suites).toBe("client");
    expect(profile.extensionOrder.toSorted()).toEqual([EXTENSION.supportedVersions, EXTENSION.keyShare]);
    expect(chooseKeyShare(HELLO, profile)?.group).toBe(GROUP.x25519);
    for (const size of profile.flightSizes) {
      expect(size).toBeGreaterThanOrEqual(2_400);
      expect(size).toBeLessThan(4_010);
    }
  });

  test("differs from one domain to the next", () => {
    const sizes = Array.from({ length: 50 }, (_, at) => defaultProfile(`site${at}.example`).flightSizes[0]);
    expect(new Set(sizes).size).toBeGreaterThan(40);
  });
});
