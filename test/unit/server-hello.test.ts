import { describe, expect, test } from "bun:test";
import { EXTENSION, GROUP } from "../../src/protocol/tls/client-hello.ts";
import {
  encodeFirstFlight,
  type FlightPlan,
  SERVER_RANDOM_OFFSET,
} from "../../src/protocol/tls/server-hello.ts";

const PLAN: FlightPlan = {
  sessionId: new Uint8Array(32).fill(0x5e),
  cipherSuite: 0x1301,
  extensionOrder: [EXTENSION.keyShare, EXTENSION.supportedVersions],
  keyShare: { group: GROUP.x25519, key: new Uint8Array(32).fill(0x99) },
  encrypted: new Uint8Array(3).fill(0xec),
};

const encode = (changes: Partial<FlightPlan> = {}): string =>
  encodeFirstFlight({ ...PLAN, ...changes }).toHex();
const hex = (...parts: readonly string[]): string => parts.join("").replaceAll(" ", "");

describe("encodeFirstFlight()", () => {
  test("is three records: the ServerHello, a change_cipher_spec, one of application data", () => {
    expect(encode()).toBe(
      hex(
        "16 03 03 00 7a",
        "02 00 00 76 03 03",
        "00".repeat(32),
        "20",
        "5e".repeat(32),
        "13 01 00",
        "00 2e",
        "00 33 00 24 00 1d 00 20",
        "99".repeat(32),
        "00 2b 00 02 03 04",
        "14 03 03 00 01 01",
        "17 03 03 00 03 ec ec ec",
      ),
    );
  });

  test("keeps the order of the extensions", () => {
    const flight = encode({ extensionOrder: [EXTENSION.supportedVersions, EXTENSION.keyShare] });
    expect(flight).toContain(hex("13 01 00 00 2e 00 2b 00 02 03 04 00 33 00 24 00 1d 00 20 99"));
  });

  test("leaves the 32 bytes of the random at 11 zero", () => {
    expect(SERVER_RANDOM_OFFSET).toBe(11);
    const flight = encodeFirstFlight(PLAN);
    expect(flight.subarray(0, 11).toHex()).toBe(hex("16 03 03 00 7a 02 00 00 76 03 03"));
    expect(flight.subarray(11, 44).toHex()).toBe(`${"00".repeat(32)}20`);
  });

  test("sends back an empty session id, and another suite", () => {
    const flight = encode({ sessionId: new Uint8Array(0), cipherSuite: 0x1303 });
    expect(flight).toStartWith(hex("16 03 03 00 5a 02 00 00 56 03 03", "00".repeat(32), "00 13 03 00 00 2e"));
  });

  test("carries a server's share of X25519MLKEM768", () => {
    const key = new Uint8Array(1_120).fill(0x77);
    const flight = encode({ keyShare: { group: GROUP.x25519MlKem768, key } });
    expect(flight).toContain(hex("04 6e 00 33 04 64 11 ec 04 60 77 77"));
    expect(flight).toStartWith(hex("16 03 03 04 ba 02 00 04 b6 03 03"));
  });

  test("takes 1 to 16,640 encrypted bytes", () => {
    expect(encode({ encrypted: new Uint8Array(1) })).toEndWith(hex("17 03 03 00 01 00"));
    const longest = encode({ encrypted: new Uint8Array(16_640) });
    expect(longest).toContain(hex("14 03 03 00 01 01 17 03 03 41 00 00"));
    expect(() => encode({ encrypted: new Uint8Array(0) })).toThrow(RangeError);
    expect(() => encode({ encrypted: new Uint8Array(16_641) })).toThrow(RangeError);
  });

  test.each([[[]], [[43]], [[51]], [[43, 43]], [[51, 51]], [[43, 51, 43]], [[43, 16]], [[51, 43, 0]]])(
    "throws RangeError on the extensions %p",
    (extensionOrder) => {
      expect(() => encode({ extensionOrder })).toThrow(RangeError);
    },
  );

  test("throws RangeError on a session id of 33 bytes, and on keys that no server sends", () => {
    expect(() => encode({ sessionId: new Uint8Array(33) })).toThrow(RangeError);
    for (const length of [0, 8_193]) {
      const key = new Uint8Array(length);
      expect(() => encode({ keyShare: { group: GROUP.x25519, key } })).toThrow(RangeError);
    }
    const key = new Uint8Array(8_192);
    expect(encode({ keyShare: { group: GROUP.x25519, key } })).toContain(hex("00 1d 20 00 00 00"));
  });
});
