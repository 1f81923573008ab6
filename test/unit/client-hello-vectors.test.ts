import { describe, expect, test } from "bun:test";
import { findSigner } from "../../src/crypto/fake-tls-digest.ts";
import { isGrease, parseClientHello } from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello, zeroRandom } from "../../src/protocol/tls/client-hello-records.ts";
import { chooseKeyShare, chooseSuite, defaultProfile } from "../../src/protocol/tls/cover-profile.ts";
import vectors from "../vectors/client-hellos.json" with { type: "json" };

/** A captured ClientHello; those of Telegram clients come with what their digest was made of. */
interface Vector {
  readonly client: string;
  readonly version: string;
  readonly domain: string;
  readonly hello: string;
  readonly secret?: string;
  readonly time?: number;
}

describe.each(vectors as readonly Vector[])("the ClientHello of $client $version", (vector) => {
  const bytes = Uint8Array.fromHex(vector.hello);

  test("is whole at its last byte and not before, and asks for its domain", () => {
    const progress = measureClientHello(bytes);
    if (progress.kind !== "whole") throw new Error("it is not whole");
    expect(progress.length).toBe(bytes.length);
    expect(measureClientHello(bytes.subarray(0, -1)).kind).toBe("partial");
    expect(parseClientHello(progress.message).serverName).toBe(vector.domain);
  });

  test("can be answered: a suite of its own, never GREASE, and a key share", () => {
    const progress = measureClientHello(bytes);
    if (progress.kind !== "whole") throw new Error("it is not whole");
    const hello = parseClientHello(progress.message);
    const suite = chooseSuite(hello, defaultProfile(vector.domain)) ?? 0;
    expect(hello.cipherSuites).toContain(suite);
    expect(isGrease(suite)).toBe(false);
    expect(chooseKeyShare(hello, defaultProfile(vector.domain))).toBeDefined();
  });

  test.skipIf(vector.secret === undefined)("was made with its secret, at its time", () => {
    const progress = measureClientHello(bytes);
    if (progress.kind !== "whole") throw new Error("it is not whole");
    const { random } = parseClientHello(progress.message);
    const secret = { name: vector.client, key: Uint8Array.fromHex(vector.secret ?? "") };
    const zeroed = zeroRandom(bytes, progress.randomParts);
    const { time = 0 } = findSigner(zeroed, random, [secret]) ?? {};
    expect(Math.abs(time - (vector.time ?? Number.NaN))).toBeLessThanOrEqual(2);
    expect(findSigner(zeroed, random, [{ name: "other", key: new Uint8Array(16) }])).toBeUndefined();
  });
});
