import { describe, expect, it } from "bun:test";
import { LeakedSecrets } from "../support/leaked-secrets.ts";

const KEY = "00112233445566778899aabbccddeeff";
const BYTES = Uint8Array.fromHex(KEY);

function base64(...bytes: readonly number[]): string {
  return Uint8Array.from(bytes).toBase64();
}

describe("LeakedSecrets", () => {
  const forms: readonly (readonly [string, string])[] = [
    ["in hexadecimal", KEY],
    ["in capitals", KEY.toUpperCase()],
    ["with dd before it", `dd${KEY}`],
    ["with ee before it and a domain behind", `ee${KEY}636f7665722e6578616d706c65`],
    ["in base64", base64(...BYTES)],
    ["in base64 with dd", base64(0xdd, ...BYTES)],
    ["in base64 with ee and a domain", base64(0xee, ...BYTES, 99, 111, 118, 101, 114)],
  ];
  for (const [what, text] of forms) {
    it(`finds a key ${what}`, () => {
      for (const flag of [
        KEY,
        `ann:dd${KEY}`,
        base64(...BYTES),
        `tg://proxy?server=a&port=1&secret=ee${KEY}61`,
      ]) {
        const secrets = new LeakedSecrets();
        secrets.addFlags(["--secret", flag]);
        expect(secrets.findIn(`a line with ${text} in it`)).toBeDefined();
      }
    });
  }

  it("finds nothing in links, nor half a key", () => {
    const secrets = new LeakedSecrets();
    secrets.addFlags([`--secret=${KEY}`]);
    expect(secrets.findIn(`tg://proxy?server=127.0.0.1&port=1443&secret=dd${KEY}\n`)).toBeUndefined();
    expect(secrets.findIn(`https://t.me/proxy?server=127.0.0.1&port=1443&secret=${KEY}\n`)).toBeUndefined();
    expect(secrets.findIn(KEY.slice(2))).toBeUndefined();
  });

  it("finds tokens", () => {
    const secrets = new LeakedSecrets();
    secrets.addFlags(["--status-token", "a long token", "--cfproxy-worker-token=another token"]);
    expect(secrets.findIn("here is a long token")).toBeDefined();
    expect(secrets.findIn("here is another token")).toBeDefined();
    expect(secrets.findIn("here is none")).toBeUndefined();
  });
});
