import { describe, expect, test } from "bun:test";
import { OPEN_GATE } from "../../src/proxy/gate.ts";
import { endings, startServer, TestClient } from "../support/test-server.ts";
import { eventually } from "./frame-server.ts";

const MIB = 1024 * 1024;
const GATE = { gate: OPEN_GATE };

describe("ProxyServer's bound on buffered bytes", () => {
  test("drops those that have taken nothing for longest, until there is room, and nobody who reads", async () => {
    const limits = { maxConnections: undefined, bufferBytes: 6 * MIB, queueBytes: 16 * MIB };
    await using proxy = startServer(GATE, { limits });
    const clients = Array.from({ length: 6 }, () => new TestClient(proxy));
    for (const client of clients) client.ask();
    await eventually(() => proxy.upstreams.filter(({ hears }) => hears.length === 5).length === 6);
    const [reader, ...stalled] = clients;
    for (const { socket } of stalled) socket.pause();
    const chunk = new Uint8Array(256 * 1024);
    let turns = 0;
    while (endings(proxy).length < 2 && turns < 400) {
      for (const { telegram } of proxy.upstreams) if (!telegram.congested) telegram.write(chunk);
      await Bun.sleep(10);
      turns += 1;
    }
    expect(new Set(endings(proxy))).toEqual(new Set(["overload"]));
    expect(proxy.server.shed.sessions).toBe(endings(proxy).length);
    expect(proxy.server.queuedBytes).toBeLessThanOrEqual(6 * MIB);
    expect(proxy.server.size).toBeGreaterThanOrEqual(1);
    expect(reader?.signs).toEqual([]);
    for (const client of clients) client[Symbol.dispose]();
  }, 20_000);

  test("lets everybody be without a limit", async () => {
    await using proxy = startServer(GATE, {
      limits: { maxConnections: undefined, bufferBytes: undefined, queueBytes: 16 * MIB },
    });
    using client = new TestClient(proxy);
    client.ask();
    await eventually(() => proxy.upstreams[0]?.hears.length === 5);
    client.socket.pause();
    for (let count = 0; count < 40; count += 1)
      proxy.upstreams[0]?.telegram.write(new Uint8Array(256 * 1024));
    await Bun.sleep(700);
    expect(endings(proxy)).toEqual([]);
    expect(proxy.server.queuedBytes).toBeGreaterThan(MIB);
  });
});
