import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { concat, encodePacket, TRANSPORTS } from "../support/packets.ts";
import { DCS, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import type { StubConnection } from "../support/stub-connection.ts";
import { StubDc } from "../support/stub-dc.ts";

const ALICE = new Uint8Array(randomBytes(16));
const BOB = new Uint8Array(randomBytes(16));

let stub: StubDc;
let proxy: ProxyProcess;

beforeAll(async () => {
  stub = await StubDc.start();
  stub.onPacket = ({ payload }) => [payload];
  proxy = await ProxyProcess.start({
    stub,
    secrets: [
      `alice:${ALICE.toHex()}`,
      `bob:dd${BOB.toHex()}`,
      Buffer.from(randomBytes(16)).toString("base64url"),
    ],
  });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  await stub[Symbol.asyncDispose]();
});

/** Sends a packet, has it echoed, and returns the connection that it went over. */
async function roundTrip(client: RawClient): Promise<StubConnection> {
  const payload = new Uint8Array(randomBytes(40));
  client.sendPacket(payload);
  const { payload: echo } = await client.readPacket();
  expect(echo.toHex()).toBe(payload.toHex());
  const connection = await stub.next();
  expect(connection.violations).toEqual([]);
  return connection;
}

describe("a client's init", () => {
  for (const transport of TRANSPORTS) {
    it(`reaches every data centre over ${transport}`, async () => {
      for (const dc of DCS) {
        using client = await RawClient.open({ port: proxy.port, secret: ALICE, transport, dcId: dc });
        const connection = await roundTrip(client);
        expect(connection.init).toEqual({ transport, dcId: dc });
        expect(connection.request.serverName).toBe(`kws${dc === 203 ? 2 : dc}.web.telegram.org`);
        expect(connection.request.path).toBe("/apiws");
      }
    });

    it(`reaches the front ends for media over ${transport}`, async () => {
      for (const dc of DCS) {
        using client = await RawClient.open({ port: proxy.port, secret: ALICE, transport, dcId: -dc });
        const connection = await roundTrip(client);
        expect(connection.init).toEqual({ transport, dcId: -dc });
        expect(connection.request.serverName).toBe(`kws${dc === 203 ? 2 : dc}-1.web.telegram.org`);
      }
    });

    it(`reaches the test servers over ${transport}`, async () => {
      for (const dcId of [10_001, 10_002, 10_003, -10_002]) {
        using client = await RawClient.open({ port: proxy.port, secret: ALICE, transport, dcId });
        const connection = await roundTrip(client);
        expect(connection.init).toEqual({ transport, dcId });
        expect(connection.request.path).toBe("/apiws_test");
      }
    });
  }

  it("that names no data centre is served by DC 2", async () => {
    for (const dcId of [0, 6, -77, 9_999, 10_004, 32_767, -32_768]) {
      using client = await RawClient.open({ port: proxy.port, secret: ALICE, dcId });
      const connection = await roundTrip(client);
      expect(connection.init?.dcId).toBe(2);
      expect(connection.request.serverName).toBe("kws2.web.telegram.org");
    }
  });

  it("may come byte by byte", async () => {
    using client = await RawClient.connect({ port: proxy.port, secret: ALICE });
    await client.writeSegments(client.init, 1);
    await roundTrip(client);
  });

  it("may come cut anywhere", async () => {
    for (const cut of [1, 3, 8, 31, 55, 56, 60, 63]) {
      using client = await RawClient.connect({ port: proxy.port, secret: ALICE });
      await client.writeSegments(client.init, cut, 64);
      await roundTrip(client);
    }
  });

  it("may come in one segment with the first packets", async () => {
    using client = await RawClient.connect({ port: proxy.port, secret: ALICE, transport: "abridged" });
    const payloads = [40, 4, 600].map((length) => new Uint8Array(randomBytes(length)));
    const packets = payloads.map((payload) => encodePacket("abridged", payload));
    client.write(concat(client.init, client.encrypt(concat(...packets))));
    for (const payload of payloads) {
      expect((await client.readPacket()).payload.toHex()).toBe(payload.toHex());
    }
    const connection = await stub.next();
    expect(connection.sizes).toEqual([64, 41, 5, 604]);
  });

  it("may end within a segment that also has the start of a packet", async () => {
    using client = await RawClient.connect({ port: proxy.port, secret: ALICE });
    const payload = new Uint8Array(randomBytes(100));
    const bytes = concat(client.init, client.encrypt(encodePacket("intermediate", payload)));
    await client.writeSegments(bytes, 30, 50, 200);
    expect((await client.readPacket()).payload.toHex()).toBe(payload.toHex());
    const connection = await stub.next();
    expect(connection.sizes).toEqual([64, 104]);
  });
});

describe("a secret", () => {
  it("of any name is served, and the log names it without showing it", async () => {
    for (const secret of [ALICE, BOB, proxy.secret]) {
      using client = await RawClient.open({ port: proxy.port, secret });
      await roundTrip(client);
    }
    await proxy.logged(/bob/);
    expect(proxy.stderr).not.toContain(ALICE.toHex());
    expect(proxy.stderr).not.toContain(BOB.toHex());
  });

  it("of the padded form may be used over any transport", async () => {
    for (const transport of TRANSPORTS) {
      using client = await RawClient.open({ port: proxy.port, secret: BOB, transport });
      await roundTrip(client);
    }
  });
});

describe("the WebSocket's opening handshake", () => {
  it("names the data centre's host, asks for `binary` and for no extension", async () => {
    using client = await RawClient.open({ port: proxy.port, secret: ALICE, dcId: 4 });
    const { headers } = (await roundTrip(client)).request;
    expect(headers.get("host")?.split(":")[0]).toBe("kws4.web.telegram.org");
    expect(headers.get("sec-websocket-protocol")).toBe("binary");
    expect(headers.get("sec-websocket-extensions")).toBeUndefined();
    expect(headers.get("sec-websocket-version")).toBe("13");
  });

  it("falls back to the other name of the data centre on a redirect", async () => {
    const before = stub.requests.length;
    stub.upgrade = ({ serverName }) =>
      serverName === "kws5.web.telegram.org"
        ? { kind: "status", status: "302 Found", headers: { Location: "https://telegram.org/" } }
        : { kind: "accept" };
    using client = await RawClient.open({ port: proxy.port, secret: ALICE, dcId: 5 });
    const connection = await roundTrip(client);
    expect(connection.init?.dcId).toBe(5);
    const names = stub.requests.slice(before).map(({ serverName }) => serverName);
    expect(names).toEqual(["kws5.web.telegram.org", "kws5-1.web.telegram.org"]);
  });

  it("is not tried first under a name that failed lately", async () => {
    const before = stub.requests.length;
    using client = await RawClient.open({ port: proxy.port, secret: ALICE, dcId: 5 });
    await roundTrip(client);
    const names = stub.requests.slice(before).map(({ serverName }) => serverName);
    expect(names).toEqual(["kws5-1.web.telegram.org"]);
  });
});
