import { describe, expect, test } from "bun:test";
import { ByteReader } from "../../src/channel/byte-reader.ts";
import {
  type AcceptedForms,
  ANY_FORM,
  type Handshake,
  readClientHandshake,
} from "../../src/proxy/handshake.ts";
import { type MemoryChannel, memoryChannelPair, toOutput } from "../support/memory-channel.ts";
import { makeInit } from "../support/obfuscated2.ts";
import { TRANSPORTS } from "../support/packets.ts";

const FIRST = { name: "first", key: new Uint8Array(16).fill(1) };
const SECOND = { name: "second", key: new Uint8Array(16).fill(2) };
const never = new AbortController().signal;

function start(
  secrets = [FIRST, SECOND],
  forms: AcceptedForms = ANY_FORM,
): {
  app: MemoryChannel;
  reader: ByteReader;
  handshake: Promise<Handshake>;
} {
  const [app, channel] = memoryChannelPair();
  const reader = new ByteReader(channel);
  return { app, reader, handshake: readClientHandshake(reader, secrets, forms, never) };
}

async function clientOf(handshake: Promise<Handshake>): Promise<Handshake & { kind: "client" }> {
  const result = await handshake;
  if (result.kind !== "client") throw new Error("a stranger");
  return result;
}

describe("readClientHandshake()", () => {
  test("says what the client asks for, and by which secret", async () => {
    for (const transport of TRANSPORTS) {
      const { app, handshake } = start();
      app.write(makeInit({ transport, dcId: -4 }, SECOND.key).bytes);
      const { secret, target } = await clientOf(handshake);
      expect(secret).toBe("second");
      expect(target).toEqual({ dc: 4, media: true, test: false, transport });
    }
  });

  test("sends a client whose dc id names nothing to the default data centre", async () => {
    const { app, handshake } = start();
    app.write(makeInit({ transport: "abridged", dcId: -21_555 }, FIRST.key).bytes);
    expect((await clientOf(handshake)).target).toEqual({
      dc: 2,
      media: false,
      test: false,
      transport: "abridged",
    });
  });

  test("reads an init that comes byte by byte, and leaves what follows", async () => {
    const { app, reader, handshake } = start();
    const client = makeInit({ transport: "abridged", dcId: 2 }, FIRST.key);
    const more = client.up.update(Buffer.from("and more"));
    for (const byte of [...client.bytes, ...more]) app.write(Uint8Array.of(byte));
    await clientOf(handshake);
    expect(await reader.read(more.length, never)).toEqual(new Uint8Array(more));
  });

  test("goes on decrypting and encrypting where the init ended", async () => {
    const { app, reader, handshake } = start();
    const client = makeInit({ transport: "padded", dcId: 2 }, FIRST.key);
    app.write(Buffer.concat([client.bytes, client.up.update(Buffer.from("upwards"))]));
    const { link } = await clientOf(handshake);
    const up: string[] = [];
    link.up.push(
      reader.rest(),
      toOutput((plain) => up.push(Buffer.from(plain).toString())),
    );
    expect(up).toEqual(["upwards"]);
    const down: string[] = [];
    link.down.push(
      Buffer.from("downwards"),
      toOutput((sealed) => down.push(Buffer.from(client.down.update(sealed)).toString())),
    );
    expect(down).toEqual(["downwards"]);
  });

  test("calls 64 bytes that no secret fits a stranger's", async () => {
    const { app, handshake } = start();
    app.write(makeInit({ transport: "abridged", dcId: 2 }, new Uint8Array(16).fill(3)).bytes);
    expect(await handshake).toEqual({ kind: "stranger" });
  });

  test("calls everybody a stranger without secrets", async () => {
    const { app, handshake } = start([]);
    app.write(makeInit({ transport: "abridged", dcId: 2 }, FIRST.key).bytes);
    expect(await handshake).toEqual({ kind: "stranger" });
  });

  test("throws CLOSED when the client leaves at byte 63", async () => {
    const { app, handshake } = start();
    app.write(makeInit({ transport: "abridged", dcId: 2 }, FIRST.key).bytes.subarray(0, 63));
    app.end();
    await expect(handshake).rejects.toMatchObject({ code: "CLOSED" });
  });

  test.each([
    [{ plain: true, padded: false }, ["abridged", "intermediate"]],
    [{ plain: false, padded: true }, ["padded"]],
    [{ plain: true, padded: true }, ["abridged", "intermediate", "padded"]],
    [{ plain: false, padded: false }, []],
  ] as const)("with %j lets %j in, and calls the others strangers", async (forms, welcome) => {
    for (const transport of TRANSPORTS) {
      const { app, reader, handshake } = start([FIRST, SECOND], forms);
      app.write(makeInit({ transport, dcId: 2 }, SECOND.key).bytes);
      const isClient = welcome.some((one) => one === transport);
      expect((await handshake).kind).toBe(isClient ? "client" : "stranger");
      expect(reader.heldBytes).toBe(isClient ? 0 : 64);
    }
  });
});
