import { describe, expect, test } from "bun:test";
import { FormatError } from "../../src/core/errors.ts";
import { formatSecret, parseSecret } from "../../src/protocol/mtproto/secret.ts";

/** Its base64 has both characters that base64url writes differently, and padding. */
const KEY = Uint8Array.from([0xfb, 0xff, 0xbe, 0x3f, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const PADDED = Uint8Array.of(0xdd, ...KEY);
const hex = (bytes: Uint8Array): string => bytes.toHex();
const base64 = (bytes: Uint8Array): string => bytes.toBase64();
const base64url = (bytes: Uint8Array): string => bytes.toBase64({ alphabet: "base64url", omitPadding: true });

function errorOf(text: string): FormatError {
  try {
    parseSecret(text);
  } catch (error) {
    if (error instanceof FormatError) return error;
    throw error;
  }
  throw new Error("parseSecret accepted it");
}

describe("parseSecret()", () => {
  test.each([
    ["hexadecimal", hex(KEY)],
    ["upper-case hexadecimal", hex(KEY).toUpperCase()],
    ["base64", base64(KEY)],
    ["base64 without padding", base64(KEY).replace(/=+$/, "")],
    ["base64url", base64url(KEY)],
    ["hexadecimal with dd", `dd${hex(KEY)}`],
    ["hexadecimal with DD", `DD${hex(KEY).toUpperCase()}`],
    ["base64 with dd", base64(PADDED)],
    ["base64url with dd", base64url(PADDED)],
    ["a copy with white space around it", `  ${hex(KEY)}\n`],
  ])("reads the 16 key bytes from %s", (_, text) => {
    expect(parseSecret(text)).toEqual(KEY);
  });

  test("takes 16 bytes that begin with dd or ee for a whole key", () => {
    const dd = `dd${"00".repeat(15)}`;
    const ee = `ee${"00".repeat(15)}`;
    expect(parseSecret(dd).toHex()).toBe(dd);
    expect(parseSecret(ee).toHex()).toBe(ee);
  });

  test("takes text that is both hexadecimal and base64 for hexadecimal", () => {
    const text = "0123456789abcdef0123456789abcdef";
    expect(parseSecret(text).toHex()).toBe(text);
  });

  test.each([
    ["nothing", ""],
    ["too few digits", hex(KEY).slice(2)],
    ["an odd digit", hex(KEY).slice(1)],
    ["17 bytes without dd", `aa${hex(KEY)}`],
    ["18 bytes with dd", `dd${hex(KEY)}00`],
    ["neither alphabet", "not a secret at all!"],
    ["a whole link", `tg://proxy?secret=${hex(KEY)}`],
  ])("throws BAD_SECRET on %s", (_, text) => {
    expect(errorOf(text).code).toBe("BAD_SECRET");
  });

  test.each([
    ["hexadecimal", `ee${hex(KEY)}${Buffer.from("example.com").toString("hex")}`],
    ["base64url", base64url(Uint8Array.of(0xee, ...KEY, ...Buffer.from("example.com")))],
  ])("says that fake TLS is not supported on an ee secret in %s", (_, text) => {
    expect(errorOf(text).message).toContain("fake TLS");
  });

  test.each([
    ["a long one", `${hex(KEY)}ab`],
    ["an ee one", `ee${hex(KEY)}6578616d706c652e636f6d`],
    ["a mistyped one", `${hex(KEY).slice(0, -1)}g`],
    ["base64 of a wrong length", base64url(KEY.subarray(0, 15))],
  ])("never quotes the secret: %s", (_, text) => {
    const error = errorOf(text);
    const said = `${error.message} ${error.hint} ${error.stack}`;
    for (let at = 0; at + 8 <= text.length; at += 1) expect(said).not.toContain(text.slice(at, at + 8));
    expect(error.cause).toBeUndefined();
  });
});

describe("formatSecret()", () => {
  test("writes hexadecimal, with dd before it for padded packets", () => {
    expect(formatSecret(KEY, "plain")).toBe(hex(KEY));
    expect(formatSecret(KEY, "padded")).toBe(`dd${hex(KEY)}`);
  });

  test("writes what parseSecret reads", () => {
    expect(parseSecret(formatSecret(KEY, "plain"))).toEqual(KEY);
    expect(parseSecret(formatSecret(KEY, "padded"))).toEqual(KEY);
  });
});
