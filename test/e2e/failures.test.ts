import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { createServer } from "node:net";
import { Authority, testAuthority } from "../support/certificates.ts";
import { type DcNumber, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { StubDc, type UpgradeBehaviour } from "../support/stub-dc.ts";

/** Both names of a data centre are tried, the second 1 s after the first, each for 4 s. */
const CHAIN_LIMIT_MS = 20_000;
const TEST_LIMIT_MS = 60_000;

let stub: StubDc;
let silentTcp: StubDc;
let silentTls: StubDc;
let stranger: StubDc;
let impostor: StubDc;
let proxy: ProxyProcess;

beforeAll(async () => {
  const wrongName = await (await testAuthority()).issue(["kws1.web.example.org"]);
  const unknownCa = await (await Authority.create()).issue();
  stub = await StubDc.start();
  silentTcp = await StubDc.start();
  silentTcp.accept = () => "hang";
  silentTls = await StubDc.start();
  silentTls.upgrade = () => ({ kind: "hang" });
  stranger = await StubDc.start(unknownCa);
  impostor = await StubDc.start(wrongName);
  const nobody = { port: await closedPort() };
  proxy = await ProxyProcess.start({
    stub,
    stubs: { 1: silentTcp, 3: silentTls, 4: stranger, 5: impostor, 203: nobody },
  });
});

afterAll(async () => {
  await proxy[Symbol.asyncDispose]();
  for (const each of [stub, silentTcp, silentTls, stranger, impostor]) await each[Symbol.asyncDispose]();
});

beforeEach(() => stub.reset());

/** A port of 127.0.0.1 that nobody listens on. */
async function closedPort(): Promise<number> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  const address = server.address();
  server.close();
  return typeof address === "object" && address !== null ? address.port : 1;
}

async function isDropped(by: ProxyProcess, dc: DcNumber): Promise<void> {
  using client = await RawClient.open({ port: by.port, secret: by.secret, dcId: dc });
  await client.until(() => client.ended || client.closed, "the client is dropped", CHAIN_LIMIT_MS);
  expect(client.received).toBe(0);
}

/** Lets three clients fail, and expects one line about it that matches `reason`. */
async function expectRefusal(by: ProxyProcess, dc: DcNumber, reason: RegExp): Promise<void> {
  await Promise.all([isDropped(by, dc), isDropped(by, dc)]);
  await isDropped(by, dc);
  await by.logged(new RegExp(`warn .*DC ${dc}:`));
  const lines = by.stderr.split("\n").filter((line) => line.includes(`DC ${dc}:`));
  expect(lines).toEqual([expect.stringMatching(reason)]);
  expect(by.running).toBe(true);
}

/** Has a client served, which shows that what came before has done no harm. */
async function expectService(by: ProxyProcess): Promise<void> {
  stub.reset();
  stub.onPacket = ({ payload }) => [payload];
  using client = await RawClient.open({ port: by.port, secret: by.secret, dcId: 2 });
  client.sendPacket(Uint8Array.of(1, 2, 3, 4));
  expect((await client.readPacket()).payload.toHex()).toBe("01020304");
}

function status(text: string, headers: Readonly<Record<string, string>> = {}): UpgradeBehaviour {
  return { kind: "status", status: text, headers };
}

describe.concurrent("a data centre that cannot be reached drops its client, and the log says once that", () => {
  const cases: readonly (readonly [string, DcNumber, RegExp])[] = [
    ["TCP is silent", 1, /no WebSocket within 4 s/],
    ["the upgrade is silent", 3, /no WebSocket within 4 s/],
    ["the certificate is of an unknown CA", 4, /CERT|certificate/i],
    ["the certificate is for another name", 5, /kws5.*(?:ALTNAME|name)/i],
    ["nobody listens", 203, /connection refused/],
  ];
  for (const [name, dc, reason] of cases) it(name, () => expectRefusal(proxy, dc, reason), 2 * TEST_LIMIT_MS);
});

describe("a data centre that refuses drops its client, and the log says once that", () => {
  const upgrades: readonly (readonly [string, UpgradeBehaviour, RegExp])[] = [
    ["it redirects", status("302 Found", { Location: "https://telegram.org/" }), /302/],
    ["it forbids", status("403 Forbidden"), /403/],
    ["it has too many requests", status("429 Too Many Requests", { "Retry-After": "5" }), /429/],
    ["it is broken", status("500 Internal Server Error"), /500/],
    ["it answers with a page", status("200 OK"), /200/],
    ["it ends before it answers", { kind: "end" }, /kws2/],
    ["it does not prove that it speaks WebSocket", { kind: "wrong-accept-key" }, /kws2/],
  ];
  for (const [name, behaviour, reason] of upgrades) {
    it(name, async () => {
      await using fresh = await ProxyProcess.start({ stub });
      stub.upgrade = () => behaviour;
      await expectRefusal(fresh, 2, reason);
      await expectService(fresh);
    });
  }

  for (const [name, behaviour] of [
    ["it sends a TLS alert", "alert"],
    ["it speaks something else than TLS", "garbage"],
    ["it resets the connection", "reset"],
  ] as const) {
    it(
      name,
      async () => {
        await using fresh = await ProxyProcess.start({ stub });
        stub.accept = () => behaviour;
        await expectRefusal(fresh, 2, /kws2/);
        await expectService(fresh);
      },
      TEST_LIMIT_MS,
    );
  }
});

describe("a data centre that gives up", () => {
  it("right after the upgrade drops its client", async () => {
    stub.onOpen = (connection) => connection.end();
    await isDropped(proxy, 2);
    await expectService(proxy);
  });

  it("by a close frame right after the upgrade drops its client", async () => {
    stub.onOpen = (connection) => connection.close(1011);
    await isDropped(proxy, 2);
    await expectService(proxy);
  });

  it("after the init drops its client", async () => {
    stub.onInit = (connection) => connection.close();
    await isDropped(proxy, 2);
    await expectService(proxy);
  });

  it("by a reset after the init drops its client, and the log names the reason", async () => {
    await using fresh = await ProxyProcess.start({ stub });
    stub.onInit = (connection) => connection.reset();
    await isDropped(fresh, 2);
    await fresh.logged(/Cannot reach DC 2: .*closed before it answered/);
    await expectService(fresh);
  });

  it("by a reset after its first answer drops its client, and the log names the reason", async () => {
    await using fresh = await ProxyProcess.start({ stub });
    stub.onPacket = ({ payload }) => [payload];
    using client = await RawClient.open({ port: fresh.port, secret: fresh.secret, dcId: 2 });
    client.sendPacket(Uint8Array.of(1, 2, 3, 4));
    await client.readPacket();
    for (const connection of stub.connections) connection.reset();
    await client.until(() => client.ended || client.closed, "the client is dropped");
    client.end();
    await fresh.logged(/reason=upstream-(?:closed|error)/);
    await expectService(fresh);
  });

  it("by a reset in the middle of packets drops its client", async () => {
    stub.onPacket = (_, connection) => {
      connection.reset();
      return [];
    };
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret, dcId: 2 });
    for (let count = 0; count < 50; count += 1) client.sendPacket(new Uint8Array(1_000));
    await client.until(() => client.ended || client.closed, "the client is dropped");
    await expectService(proxy);
  });

  it("by sending what is no WebSocket frame drops its client", async () => {
    stub.onInit = (connection) => connection.sendRaw(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff));
    await isDropped(proxy, 2);
    await expectService(proxy);
  });

  it("by silence keeps its client until that leaves", async () => {
    const client = await RawClient.open({ port: proxy.port, secret: proxy.secret, dcId: 2 });
    const connection = await stub.next();
    client.sendPacket(new Uint8Array(40));
    await connection.until(() => connection.packets.length === 1, "the packet arrives");
    expect(client.ended).toBe(false);
    client[Symbol.dispose]();
    await connection.until(() => connection.closed, "the end at the data centre");
  });
});

describe("--no-tls-verify", () => {
  it("accepts any certificate, with a warning", async () => {
    await using careless = await ProxyProcess.start({
      stubs: { 2: stranger, 4: impostor },
      args: ["--no-tls-verify"],
    });
    await careless.logged(/warn .*certificates are not verified/);
    for (const [dcId, server] of [[2, stranger] as const, [4, impostor] as const]) {
      using client = await RawClient.open({ port: careless.port, secret: careless.secret, dcId });
      const connection = await server.next();
      client.sendPacket(Uint8Array.of(1, 2, 3, 4));
      await connection.until(() => connection.packets.length === 1, "the packet arrives");
    }
  });
});
