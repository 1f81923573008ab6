import { describe, expect, test } from "bun:test";
import { HandshakeError } from "../../src/core/errors.ts";
import { parseServerFlight } from "../../src/protocol/tls/server-flight.ts";

const RETRY = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c";
const VERSIONS = "002b00020304";
const SHARE = `003300240 01d0020${"99".repeat(32)}`;
const CCS = "14 03 03 00 01 01";

const bytes = (...parts: readonly string[]): Uint8Array =>
  Uint8Array.fromHex(parts.join("").replaceAll(" ", ""));
const u16 = (value: number): string => value.toString(16).padStart(4, "0");
const sizeOf = (text: string): number => text.replaceAll(" ", "").length / 2;
const record = (type: string, fragment: string, version = "0303"): string =>
  `${type}${version}${u16(sizeOf(fragment))}${fragment}`;
const data = (length: number): string => record("17", "ee".repeat(length));

/** A ServerHello, as a handshake message. */
function hello(
  extensions: string | undefined,
  { random = "aa".repeat(32), sessionId = "205e".padEnd(66, "5e") } = {},
) {
  const block = extensions === undefined ? "" : u16(sizeOf(extensions)) + extensions;
  const body = `0303${random}${sessionId}130100${block}`;
  return `0200${u16(sizeOf(body))}${body}`;
}

/** Cuts `text`, hex, into handshake records of `length` bytes. */
function cut(text: string, length: number): string {
  const whole = text.replaceAll(" ", "");
  const pieces = whole.match(new RegExp(`.{1,${length * 2}}`, "g")) ?? [];
  return pieces.map((piece) => record("16", piece)).join("");
}

const HELLO = record("16", hello(VERSIONS + SHARE));

function expectRefused(flight: Uint8Array, why?: string): void {
  expect(() => parseServerFlight(flight)).toThrow(HandshakeError);
  expect(() => parseServerFlight(flight)).toThrow(expect.objectContaining({ code: "BAD_SERVER_HELLO" }));
  if (why !== undefined) expect(() => parseServerFlight(flight)).toThrow(why);
}

describe("parseServerFlight()", () => {
  test("reads a flight of TLS 1.3", () => {
    expect(parseServerFlight(bytes(HELLO, CCS, data(27), data(900), data(281), "17 03 03 00 35 00"))).toEqual(
      {
        ...{
          version: 0x0304,
          helloRetry: false,
          cipherSuite: 0x1301,
          extensionOrder: [43, 51],
          group: 0x001d,
        },
        ...{ encryptedRecords: [27, 900, 281], changeCipherSpec: true, rest: 6 },
      },
    );
  });

  test("is undefined until the ServerHello's record is whole, then counts what came", () => {
    const flight = bytes(HELLO, CCS, data(20));
    const end = bytes(HELLO).length;
    for (let length = 0; length <= flight.length; length += 1) {
      const parsed = parseServerFlight(flight.subarray(0, length));
      if (length < end) {
        expect(parsed).toBeUndefined();
        continue;
      }
      const changed = length >= end + 6;
      const all = length === flight.length;
      expect(parsed).toMatchObject({
        changeCipherSpec: changed,
        encryptedRecords: all ? [20] : [],
        rest: all ? 0 : length - end - (changed ? 6 : 0),
      });
    }
  });

  test("keeps the order of the extensions, and knows a HelloRetryRequest", () => {
    expect(parseServerFlight(bytes(record("16", hello(SHARE + VERSIONS))))?.extensionOrder).toEqual([51, 43]);
    const retry = hello(`0033000211ec${VERSIONS}`, { random: RETRY });
    expect(parseServerFlight(bytes(record("16", retry), CCS))).toMatchObject({
      ...{ helloRetry: true, version: 0x0304, group: 0x11ec, extensionOrder: [51, 43] },
    });
    const almost = hello(SHARE, { random: `${RETRY.slice(0, -2)}9d` });
    expect(parseServerFlight(bytes(record("16", almost)))?.helloRetry).toBe(false);
  });

  test("reads TLS 1.2, whose records go on after the ServerHello", () => {
    const old = hello("ff01000100 00170000", { sessionId: "00" });
    const certificate = `0b000100${"cc".repeat(256)}`;
    for (const flight of [record("16", old + certificate), record("16", old) + record("16", certificate)]) {
      expect(parseServerFlight(bytes(flight))).toMatchObject({
        ...{ version: 0x0303, group: undefined, extensionOrder: [0xff01, 23], helloRetry: false, rest: 0 },
      });
    }
    expect(parseServerFlight(bytes(record("16", hello(undefined), "0301")))).toMatchObject({
      extensionOrder: [],
    });
  });

  test("joins a ServerHello from up to 64 records", () => {
    const message = hello(VERSIONS + SHARE);
    for (const length of [1_000, 100, 45, 4, 3, 2]) {
      const flight = parseServerFlight(bytes(cut(message, length), CCS));
      expect(flight).toMatchObject({ version: 0x0304, group: 0x1d, changeCipherSpec: true, rest: 0 });
    }
    const short = hello(VERSIONS, { sessionId: "00" }); // 50 bytes
    expect(parseServerFlight(bytes(cut(short, 1)))).toMatchObject({ version: 0x0304 });
    expect(parseServerFlight(bytes(cut(message, 1).slice(0, 64 * 12)))).toBeUndefined();
    expectRefused(bytes(cut(message, 1).slice(0, 65 * 12)), "64 records");
  });

  test("skips later handshake records without looking at them", () => {
    expect(parseServerFlight(bytes(HELLO, record("16", "ff"), data(5)))?.encryptedRecords).toEqual([5]);
  });

  test("takes records of up to 16,640 encrypted bytes", () => {
    expect(parseServerFlight(bytes(HELLO, data(16_640)))?.encryptedRecords).toEqual([16_640]);
    expectRefused(bytes(HELLO, "17 03 03 41 01"));
    expectRefused(bytes(HELLO, "16 03 03 40 01"));
  });

  test.each([
    ["15 03 03 00 02 02 28", "alert 40"],
    ["15 03 01 00 02 02 46", "alert 70"],
    [`${HELLO} ${CCS} 15 03 03 00 02 02 33`, "alert 51"],
    [`15 03 03 00 03 02 28 00`, "alert of 3 bytes"],
  ])("throws BAD_SERVER_HELLO with the number of an alert: %s", (flight, why) => {
    expectRefused(bytes(flight), why);
    expect(() => parseServerFlight(bytes(flight).subarray(0, -1))).not.toThrow();
  });

  test.each([
    ["HTTP", "48"],
    ["SSH", "53 53 48 2d"],
    ["a heartbeat", "18"],
    ["major version 2", "16 02"],
    ["version 3.5", "16 03 05 00 40"],
    ["an empty record", "16 03 03 00 00"],
    ["a change_cipher_spec before the ServerHello", CCS],
    ["application data before the ServerHello", data(1)],
    ["a ClientHello", "16 03 03 00 01 01"],
    ["a message of 16,385 bytes", "16 03 03 00 04 02 00 40 01"],
    ["a message of 37 bytes", record("16", `02000025${"03".repeat(37)}`)],
    ["a session id of 33 bytes", record("16", hello(VERSIONS, { sessionId: `21${"5e".repeat(33)}` }))],
    ["an extension that comes twice", record("16", hello(VERSIONS + VERSIONS))],
    [
      "extensions that are shorter than they say",
      record("16", hello(VERSIONS).replace("0006002b", "0005002b")),
    ],
    ["a version of 1 byte", record("16", hello("002b000103"))],
    ["a version of 3 bytes", record("16", hello("002b0003030400"))],
    ["a group alone, without a HelloRetryRequest", record("16", hello("00330002001d"))],
    ["a key in a HelloRetryRequest", record("16", hello(SHARE, { random: RETRY }))],
    ["an empty key", record("16", hello("00330004001d0000"))],
    ["a byte after the key", record("16", hello("00330006001d00019900"))],
    ["a record of HTTP after the ServerHello", `${HELLO}48`],
  ])("throws BAD_SERVER_HELLO on %s", (_, flight) => expectRefused(bytes(flight)));
});
