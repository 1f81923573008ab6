import { afterAll, afterEach, beforeAll, describe, expect, it } from "bun:test";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import type { StubConnection } from "../support/stub-connection.ts";
import { StubDc } from "../support/stub-dc.ts";

const POOL_SIZE = 2;

let stub: StubDc;

beforeAll(async () => {
  stub = await StubDc.start();
});

afterEach(() => stub.reset());

afterAll(() => stub[Symbol.asyncDispose]());

/** Has one packet echoed for a client of `dcId`, and returns the connection that it went over. */
async function serve(proxy: ProxyProcess, dcId: number): Promise<StubConnection> {
  stub.onPacket = ({ payload }) => [payload];
  using client = await RawClient.open({ port: proxy.port, secret: proxy.secret, dcId });
  client.sendPacket(Uint8Array.of(1, 2, 3, 4));
  expect((await client.readPacket()).payload.toHex()).toBe("01020304");
  return stub.next();
}

/** Connections that are open and have no client yet. */
function warm(): StubConnection[] {
  return stub.connections.filter(({ init, closed }) => init === undefined && !closed);
}

async function untilFull(): Promise<void> {
  await stub.until(() => warm().length === POOL_SIZE, "a full pool");
}

describe("the pool", () => {
  it("opens nothing before a data centre is used, and then its size", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
    expect(stub.accepted).toBe(0);
    await serve(proxy, 4);
    await untilFull();
    for (const { request } of warm()) expect(request.serverName).toBe("kws4.web.telegram.org");
  });

  it("gives a client a connection that is open already, and opens another in its place", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
    await serve(proxy, -4);
    await untilFull();
    const ready = warm();
    const connection = await serve(proxy, -4);
    expect(ready).toContain(connection);
    expect(connection.init?.dcId).toBe(-4);
    await untilFull();
  });

  it("keeps data centres apart, but for 203, which shares with 2", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
    await serve(proxy, 2);
    await untilFull();
    const ready = warm();
    expect(ready).not.toContain(await serve(proxy, -2));
    expect(ready).not.toContain(await serve(proxy, 10_002));
    const shared = await serve(proxy, 203);
    expect(ready).toContain(shared);
    expect(shared.init?.dcId).toBe(203);
  });

  it.each(["end", "reset", "close"] as const)(
    "does not hand out what the data centre gave up by %s",
    async (how) => {
      await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
      await serve(proxy, 2);
      await untilFull();
      const dead = warm();
      for (const connection of dead) connection[how]();
      await stub.until(() => dead.every(({ closed }) => closed), "the end of both");
      expect(dead).not.toContain(await serve(proxy, 2));
    },
  );

  it("drops a connection over which the data centre speaks first", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
    await serve(proxy, 2);
    await untilFull();
    const dead = warm();
    for (const connection of dead) connection.sendRaw(Uint8Array.of(0x82, 4, 1, 2, 3, 4));
    await stub.until(() => dead.every(({ closed }) => closed), "the end of both");
    await serve(proxy, 2);
  });

  it("of size 0 opens nothing that no client asked for", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: 0 });
    for (let count = 1; count <= 3; count += 1) {
      await serve(proxy, 2);
      expect(stub.accepted).toBe(count);
    }
  });

  it("is counted in the stats, and closed when the proxy stops", async () => {
    await using proxy = await ProxyProcess.start({ stub, poolSize: POOL_SIZE });
    await serve(proxy, 2);
    await untilFull();
    await serve(proxy, 2);
    expect(await proxy.stop()).toBe(0);
    expect(proxy.stderr).toMatch(/stats: total=2 .* pool=1\/2 /);
    await stub.until(() => stub.connections.every(({ closed }) => closed), "the end of all connections");
  });
});
