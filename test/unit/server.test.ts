import { afterEach, describe, expect, test } from "bun:test";
import { connect, type Socket } from "node:net";
import { StartError } from "../../src/core/errors.ts";
import type { SessionEvent } from "../../src/core/events.ts";
import { ProxyServer } from "../../src/proxy/server.ts";
import { Cooldowns } from "../../src/upstream/cooldowns.ts";
import type { Route } from "../../src/upstream/route.ts";
import { memoryChannelPair, plainLink, RecordingSink } from "../support/memory-channel.ts";
import { makeInit } from "../support/obfuscated2.ts";
import { eventually } from "./frame-server.ts";

const SECRET = { name: "family", key: new Uint8Array(16).fill(9) };
const servers: ProxyServer[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop(0);
});

interface Setup {
  readonly server: ProxyServer;
  readonly events: SessionEvent[];
  /** What Telegram hears, a sink for each connection. */
  readonly upstreams: RecordingSink[];
}

function start(port = 0): Setup {
  const events: SessionEvent[] = [];
  const upstreams: RecordingSink[] = [];
  const route: Route = {
    id: "direct-ws",
    endpoint: () => "memory",
    open: () => {
      const [telegram, channel] = memoryChannelPair();
      const hears = new RecordingSink();
      telegram.attach(hears);
      void hears.until((sink) => sink.heard("end")).then(() => telegram.end());
      upstreams.push(hears);
      return Promise.resolve({ channel, link: plainLink, warm: false });
    },
  };
  const server = new ProxyServer(
    {
      host: "127.0.0.1",
      port,
      highWater: 64 * 1024,
      quiet: { idleMs: 60_000, closingMs: 60_000, pingMs: 60_000 },
    },
    {
      secrets: [SECRET],
      routes: [route],
      cooldowns: new Cooldowns(),
      observe: (event) => events.push(event),
      handshakeTimeoutMs: 5_000,
      adjustTarget: (target) => target,
    },
  );
  servers.push(server);
  return { server, events, upstreams };
}

async function connectClient({ server, events }: Setup): Promise<Socket> {
  const before = events.filter(({ type }) => type === "connected").length;
  const socket = connect({ host: "127.0.0.1", port: server.port });
  socket.on("error", () => {}); // looked at as `close`
  const client = makeInit({ transport: "abridged", dcId: 2 }, SECRET.key);
  socket.write(Buffer.concat([client.bytes, client.up.update(Buffer.from("hello"))]));
  await eventually(() => events.filter(({ type }) => type === "connected").length > before);
  return socket;
}

const reasons = (events: readonly SessionEvent[]): string[] =>
  events.flatMap((event) => (event.type === "ended" ? [event.reason] : []));

describe("ProxyServer", () => {
  test("runs a session for every client, numbered and with its address", async () => {
    const setup = start();
    const sockets = [await connectClient(setup), await connectClient(setup)];
    const started = setup.events.filter(({ type }) => type === "started");
    expect(started.map(({ session: { id, client } }) => [id, client])).toEqual([
      [1, "127.0.0.1"],
      [2, "127.0.0.1"],
    ]);
    for (const hears of setup.upstreams) await hears.until(({ length }) => length === 5);
    for (const socket of sockets) socket.end();
    await eventually(() => reasons(setup.events).length === 2);
  });

  test("throws PORT_IN_USE when another one listens there", () => {
    const { server } = start();
    expect(() => start(server.port)).toThrow(StartError);
    expect(() => start(server.port)).toThrow(expect.objectContaining({ code: "PORT_IN_USE" }));
  });
});

describe("ProxyServer.stop()", () => {
  test("is done at once when nobody is there, and accepts nobody any more", async () => {
    const { server } = start();
    const { port } = server;
    await server.stop(60_000);
    const { promise, resolve } = Promise.withResolvers<unknown>();
    connect({ host: "127.0.0.1", port }).on("error", resolve);
    expect(await promise).toMatchObject({ code: "ECONNREFUSED" });
  });

  test("waits for sessions that end by themselves", async () => {
    const setup = start();
    const socket = await connectClient(setup);
    const stopped = setup.server.stop(60_000);
    socket.end();
    await stopped;
    expect(reasons(setup.events)).not.toContain("shutdown");
    expect(reasons(setup.events)).toHaveLength(1);
  });

  test("ends those that do not, as shutdown", async () => {
    const setup = start();
    const sockets = [await connectClient(setup), await connectClient(setup)];
    await setup.server.stop(50);
    expect(reasons(setup.events)).toEqual(["shutdown", "shutdown"]);
    await eventually(() => sockets.every(({ closed }) => closed));
  });
});
