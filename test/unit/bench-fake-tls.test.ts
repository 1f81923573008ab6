import { describe, expect, test } from "bun:test";
import { createHmac, randomBytes } from "node:crypto";
import { type HelloSigner, isSigned, makeForeignHello, makeHello } from "../../scripts/bench/client-hello.ts";
import { FakeTlsStream, measureFlight } from "../../scripts/bench/fake-tls-stream.ts";
import { findSigner } from "../../src/crypto/fake-tls-digest.ts";
import { GROUP, parseClientHello } from "../../src/protocol/tls/client-hello.ts";
import { measureClientHello, zeroRandom } from "../../src/protocol/tls/client-hello-records.ts";

const signer: HelloSigner = { key: randomBytes(16), domain: "cover.example", shape: "hybrid" };

function readHello(hello: Buffer) {
  const whole = measureClientHello(hello);
  if (whole.kind !== "whole") throw new Error("the hello is not whole");
  const parsed = parseClientHello(whole.message);
  const secret = { name: "test", key: signer.key };
  return { parsed, signature: findSigner(zeroRandom(hello, whole.randomParts), parsed.random, [secret]) };
}

function record(type: number, fragment: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([type, 3, 3, fragment.length >> 8, fragment.length & 0xff]), fragment]);
}

function answer(hello: Buffer): Buffer {
  const records = [
    record(0x16, new Uint8Array(90)),
    record(0x14, Uint8Array.of(1)),
    record(0x17, randomBytes(700)),
  ];
  const flight = Buffer.concat(records);
  const digest = createHmac("sha256", signer.key).update(hello.subarray(11, 43)).update(flight).digest();
  flight.set(digest, 11);
  return flight;
}

describe("makeHello()", () => {
  test("makes the hello of an older client, 517 bytes long", () => {
    const hello = makeHello({ ...signer, shape: "short" }, 1_700_000_000);
    expect(hello).toHaveLength(517);
    const { parsed, signature } = readHello(hello);
    expect(parsed.serverName).toBe("cover.example");
    expect(parsed.keyShares.map(({ group }) => group)).toEqual([GROUP.x25519]);
    expect(signature?.time).toBe(1_700_000_000);
  });

  test("makes the hello of a current client, with a share for ML-KEM", () => {
    const hello = makeHello(signer, 1_700_000_000.9);
    expect(hello.length).toBeWithin(1_700, 1_820);
    const { parsed, signature } = readHello(hello);
    expect(parsed.keyShares.map(({ group }) => group)).toContain(GROUP.x25519MlKem768);
    expect(signature?.time).toBe(1_700_000_000);
  });

  test("never makes the same hello twice", () => {
    expect(makeHello(signer).equals(makeHello(signer))).toBeFalse();
  });
});

test("makeForeignHello() is signed by nobody and as long as one that is", () => {
  const hello = makeForeignHello(signer);
  expect(hello).toHaveLength(makeHello(signer).length);
  expect(readHello(hello).signature).toBeUndefined();
});

describe("isSigned()", () => {
  test("tells the answer of somebody who has the key from another's", () => {
    const hello = makeHello(signer);
    const flight = answer(hello);
    expect(isSigned(flight, hello, signer.key)).toBeTrue();
    expect(isSigned(flight, hello, randomBytes(16))).toBeFalse();
    expect(isSigned(flight.fill(0, 50, 51), makeHello(signer), signer.key)).toBeFalse();
    expect(isSigned(Buffer.alloc(20), hello, signer.key)).toBeFalse();
  });
});

describe("FakeTlsStream", () => {
  test.each([1, 7, 700, 100_000])("reads what records hold, in chunks of %d bytes", async (chunkLength) => {
    const received: Buffer[] = [];
    const stream = new FakeTlsStream(signer, (fragment) => received.push(Buffer.from(fragment)));
    const flight = answer(stream.hello);
    const sent = [randomBytes(1), randomBytes(16_384), randomBytes(900)];
    for (let at = 0; at < flight.length; at += chunkLength)
      stream.push(flight.subarray(at, at + chunkLength));
    await stream.answered;
    const wire = Buffer.concat(sent.map((fragment) => record(0x17, fragment)));
    for (let at = 0; at < wire.length; at += chunkLength) stream.push(wire.subarray(at, at + chunkLength));
    expect(Buffer.concat(received).equals(Buffer.concat(sent))).toBeTrue();
  });

  test("refuses a flight that is not signed, and one with more behind it", () => {
    const stream = new FakeTlsStream(signer, () => {});
    expect(() => stream.push(answer(makeHello(signer)))).toThrow("not signed");
    const other = new FakeTlsStream(signer, () => {});
    const flight = Buffer.concat([answer(other.hello), record(0x17, randomBytes(3))]);
    expect(() => other.push(flight)).toThrow("Cannot accept first flight");
  });

  test("refuses a record of another type after the flight", () => {
    const stream = new FakeTlsStream(signer, () => {});
    stream.push(answer(stream.hello));
    expect(() => stream.push(record(0x15, Uint8Array.of(1, 0)))).toThrow("Cannot read record");
  });

  test("sends records of at most 2878 bytes, one change_cipher_spec before the first", () => {
    const stream = new FakeTlsStream(signer, () => {});
    const bytes = randomBytes(6_000);
    const wrapped = stream.wrap(bytes);
    const { types, encryptedLengths, length } = measureFlight(wrapped);
    expect(types).toEqual([0x14, 0x17, 0x17, 0x17]);
    expect(encryptedLengths).toEqual([2_878, 2_878, 244]);
    expect(length).toBe(wrapped.length);
    expect(measureFlight(stream.wrap(Buffer.from(bytes))).types).toEqual([0x17, 0x17, 0x17]);
  });
});
