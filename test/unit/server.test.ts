import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { StartError } from "../../src/core/errors.ts";
import type { SessionEvent } from "../../src/core/events.ts";
import { IpNetwork } from "../../src/core/ip-network.ts";
import type { ProxyServer } from "../../src/proxy/server.ts";
import type { SessionDeps } from "../../src/proxy/session.ts";
import { buildHello, type HelloOptions } from "../support/fake-tls-hello.ts";
import { type RecordingSink, settle } from "../support/memory-channel.ts";
import { makeInit } from "../support/obfuscated2.ts";
import {
  COVER_NAME,
  disguiseAt,
  FAMILY,
  startServer,
  TestClient,
  type TestUpstream,
} from "../support/test-server.ts";
import { eventually } from "./frame-server.ts";

const servers: ProxyServer[] = [];

afterEach(async () => {
  jest.useRealTimers();
  for (const server of servers.splice(0)) await server.stop(0);
});

interface Setup {
  readonly server: ProxyServer;
  readonly events: SessionEvent[];
  /** What Telegram hears, a sink for each connection. */
  readonly upstreams: readonly RecordingSink[];
  readonly connections: readonly TestUpstream[];
}

function start(port = 0, deps: Partial<SessionDeps> = {}): Setup {
  const { server, events, upstreams: connections } = startServer(deps, { port });
  servers.push(server);
  return {
    server,
    events,
    connections,
    get upstreams() {
      return connections.map(({ hears }) => hears);
    },
  };
}

async function connectClient({ server, events }: Setup): Promise<Socket> {
  const before = events.filter(({ type }) => type === "connected").length;
  const socket = connect({ host: "127.0.0.1", port: server.port });
  socket.on("error", () => {}); // looked at as `close`
  const client = makeInit({ transport: "abridged", dcId: 2 }, FAMILY.key);
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

  test("looks at its sessions every few seconds: pings the quiet ones, and ends the idle ones", async () => {
    jest.useFakeTimers();
    const setup = start();
    const socket = await connectClient(setup);
    await setup.upstreams[0]?.until(({ length }) => length === 5);
    jest.advanceTimersByTime(30_000);
    expect(setup.connections[0]?.own.pings).toBe(0);
    jest.advanceTimersByTime(5_000);
    expect(setup.connections[0]?.own.pings).toBe(1);
    jest.advanceTimersByTime(30_000);
    await eventually(() => socket.closed);
    expect(reasons(setup.events)).toEqual(["idle"]);
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

  /** Has Telegram answer, until the client hears it. */
  async function answer({ connections }: Setup, socket: Socket): Promise<void> {
    const heard = new Promise((resolve) => socket.once("data", resolve));
    connections.at(-1)?.telegram.write(Uint8Array.of(1));
    await heard;
  }

  test("waits for sessions that end by themselves", async () => {
    const setup = start();
    const socket = await connectClient(setup);
    await answer(setup, socket);
    const stopped = setup.server.stop(60_000);
    socket.end();
    await stopped;
    expect(reasons(setup.events)).toEqual(["client-closed"]);
  });

  test("ends those at once that nobody has answered yet", async () => {
    const setup = start();
    await connectClient(setup);
    await setup.server.stop(60_000);
    expect(reasons(setup.events)).toEqual(["shutdown"]);
  });

  test("ends those that do not, as shutdown", async () => {
    const setup = start();
    const sockets = [await connectClient(setup)];
    await answer(setup, sockets[0] as Socket);
    sockets.push(await connectClient(setup));
    await setup.server.stop(50);
    expect(reasons(setup.events)).toEqual(["shutdown", "shutdown"]);
    await eventually(() => sockets.every(({ closed }) => closed));
  });
});

describe("ProxyServer.recover()", () => {
  const SIGN_OF_LIFE_MS = 6_000;
  /** What `Bun.listen` made, so that a test can take it away. */
  const listen = spyOn(Bun, "listen");

  beforeEach(() => {
    listen.mockClear();
    jest.useFakeTimers();
  });

  /** Takes away the listener under a server, as some systems do while the machine sleeps. */
  function killListener(): void {
    const made = listen.mock.results.at(-1)?.value as { stop(force: boolean): void };
    made.stop(false);
  }

  async function canConnect(port: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
    return promise.finally(() => socket.destroy());
  }

  test("drops the sessions, and only those, whose data centre gave no sign of life for 6 s", async () => {
    const setup = start();
    const sockets = [await connectClient(setup), await connectClient(setup), await connectClient(setup)];
    const [dead, pongs, speaks] = setup.connections;
    for (const hears of setup.upstreams) await hears.until(({ length }) => length === 5);
    await setup.server.recover({ withoutPings: false });
    expect(setup.connections.map(({ own }) => own.pings)).toEqual([1, 1, 1]);
    const late = await connectClient(setup);
    const [, , , latest] = setup.connections;
    for (const connection of [dead, speaks, latest])
      if (connection !== undefined) connection.own.unanswered = true;
    expect(pongs?.own.unanswered).toBe(false);
    speaks?.telegram.write(Uint8Array.of(1));
    await settle();
    jest.advanceTimersByTime(SIGN_OF_LIFE_MS - 1);
    await settle();
    expect(reasons(setup.events)).not.toContain("network-changed");
    jest.advanceTimersByTime(1);
    await eventually(() => reasons(setup.events).includes("network-changed"));
    await eventually(() => sockets[0]?.closed === true);
    await settle(50);
    expect([...sockets, late].map(({ closed }) => closed)).toEqual([true, false, false, false]);
    expect(reasons(setup.events).filter((reason) => reason === "network-changed")).toHaveLength(1);
  });

  test.each([true, false])(
    "drops quiet ones that cannot be asked when withoutPings is %p",
    async (withoutPings) => {
      const setup = start();
      await connectClient(setup);
      const [connection] = setup.connections;
      if (connection === undefined) throw new Error("unreachable");
      Object.assign(connection.own, { unanswered: true, answersPings: false }); // as TCP
      await setup.server.recover({ withoutPings });
      jest.advanceTimersByTime(SIGN_OF_LIFE_MS);
      await settle(50);
      expect(reasons(setup.events).includes("network-changed")).toBe(withoutPings);
    },
  );

  test("counts the 6 s anew when the network changes again", async () => {
    const setup = start();
    await connectClient(setup);
    const [connection] = setup.connections;
    if (connection === undefined) throw new Error("unreachable");
    connection.own.unanswered = true;
    await setup.server.recover({ withoutPings: false });
    jest.advanceTimersByTime(SIGN_OF_LIFE_MS - 1);
    await setup.server.recover({ withoutPings: false });
    jest.advanceTimersByTime(SIGN_OF_LIFE_MS - 1);
    await settle();
    expect(reasons(setup.events)).not.toContain("network-changed");
    jest.advanceTimersByTime(1);
    await eventually(() => reasons(setup.events).includes("network-changed"));
  });

  test("keeps a listener that works", async () => {
    const { server } = start();
    await server.recover({ withoutPings: false });
    expect(listen).toHaveBeenCalledTimes(1);
    expect(await canConnect(server.port)).toBe(true);
  });

  test("listens again on the same port when the listener is dead", async () => {
    const setup = start();
    const { port } = setup.server;
    killListener();
    expect(await canConnect(port)).toBe(false);
    await setup.server.recover({ withoutPings: false });
    expect(setup.server.port).toBe(port);
    const socket = await connectClient(setup);
    expect(setup.events.at(-1)?.session.id).toBe(1);
    socket.destroy();
    await setup.server.stop(0);
    expect(await canConnect(port)).toBe(false);
  });

  test("throws when it cannot listen again", async () => {
    const { server } = start();
    killListener();
    listen.mockImplementationOnce(() => {
      throw Object.assign(new Error("no"), { code: "EADDRINUSE" });
    });
    await expect(server.recover({ withoutPings: false })).rejects.toMatchObject({ code: "PORT_IN_USE" });
  });

  test("does not listen again when it was stopped meanwhile, and leaves no timer", async () => {
    const { server } = start();
    const { port } = server;
    killListener();
    const recovered = server.recover({ withoutPings: false });
    await server.stop(0);
    await recovered;
    expect(listen).toHaveBeenCalledTimes(1);
    expect(await canConnect(port)).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("does nothing once it was stopped", async () => {
    const { server } = start();
    await server.stop(0);
    await server.recover({ withoutPings: false });
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe("ProxyServer with fake TLS", () => {
  const sites: Server[] = [];

  afterEach(() => {
    for (const site of sites.splice(0)) site.close();
  });

  /** A site on loopback. */
  interface Site {
    readonly port: number;
    readonly visits: { readonly socket: Socket; readonly heard: () => string }[];
  }

  async function openSite(): Promise<Site> {
    const visits: { socket: Socket; heard: () => string }[] = [];
    const site = createServer({ allowHalfOpen: true }, (socket) => {
      const chunks: Buffer[] = [];
      socket.on("data", (chunk: Buffer) => chunks.push(chunk));
      socket.on("error", () => {});
      visits.push({ socket, heard: () => Buffer.concat(chunks).toString("latin1") });
    });
    sites.push(site);
    const { promise, resolve } = Promise.withResolvers<void>();
    site.listen(0, "127.0.0.1", resolve);
    await promise;
    return { port: (site.address() as AddressInfo).port, visits };
  }

  function startDisguised(sitePort: number, deps: Partial<SessionDeps> = {}): Setup {
    const forms = { plain: false, padded: false };
    return start(0, { forms, disguise: disguiseAt(sitePort), ...deps });
  }

  const hello = (options: Partial<HelloOptions> = {}): Uint8Array =>
    buildHello({ secret: FAMILY.key, serverName: COVER_NAME, ...options }).bytes;

  const record = (bytes: Uint8Array): Uint8Array =>
    Buffer.concat([Uint8Array.of(0x17, 3, 3, bytes.length >> 8, bytes.length & 0xff), bytes]);

  const types = ({ events }: Setup): string[] => events.map(({ type }) => type);

  test("serves a client through records", async () => {
    const setup = startDisguised((await openSite()).port);
    const client = new TestClient(setup);
    const { socket } = client;
    const { bytes, up } = makeInit({ transport: "abridged", dcId: 2 }, FAMILY.key);
    socket.write(hello());
    await eventually(() => client.heard.length > 0);
    socket.write(record(Buffer.concat([bytes, up.update(Buffer.from("hello"))])));
    await eventually(() => setup.upstreams[0]?.length === 5);
    const before = client.heard.length;
    setup.connections[0]?.telegram.write(Uint8Array.of(1, 2, 3));
    await eventually(() => client.heard.length === before + 8);
    expect(client.heard.subarray(before, before + 5).toHex()).toBe("1703030003");
    socket.destroy();
  });

  test("shows a stranger the site until that closes, by FIN", async () => {
    const site = await openSite();
    const setup = startDisguised(site.port);
    const caller = new TestClient(setup);
    caller.socket.write("GET / HTTP/1.1\r\n\r\n");
    await eventually(() => site.visits[0]?.heard() === "GET / HTTP/1.1\r\n\r\n");
    site.visits[0]?.socket.end("HTTP/1.1 200 OK\r\n\r\n");
    await eventually(() => caller.signs.includes("end"));
    expect(caller.heard.toString()).toBe("HTTP/1.1 200 OK\r\n\r\n");
    caller.socket.end();
    await eventually(() => reasons(setup.events).length === 1);
    expect(reasons(setup.events)).toEqual(["masked"]);
    expect(types(setup)).toEqual(["started", "masked", "ended"]);
    await eventually(() => caller.signs.includes("close"));
    expect(caller.signs).toEqual(["end", "close"]);
  });

  test("resets a stranger when the site does", async () => {
    const site = await openSite();
    const setup = startDisguised(site.port);
    const caller = new TestClient(setup);
    caller.socket.write(hello({ secret: new Uint8Array(16) }));
    await eventually(() => (site.visits[0]?.heard().length ?? 0) > 0);
    site.visits[0]?.socket.resetAndDestroy();
    await eventually(() => caller.signs.includes("close"));
    expect(caller.signs).toEqual(["ECONNRESET", "close"]);
    await eventually(() => reasons(setup.events).length === 1);
  });

  test("sends the alert and a FIN, and no reset, when the init is wrong", async () => {
    const setup = startDisguised((await openSite()).port);
    const caller = new TestClient(setup);
    caller.socket.write(hello());
    await eventually(() => caller.heard.length > 0);
    const before = caller.heard.length;
    caller.socket.write(record(new Uint8Array(64).fill(1)));
    await eventually(() => caller.signs.length > 0);
    expect(caller.signs[0]).toBe("end");
    expect(caller.heard.subarray(before, before + 5).toHex()).toBe("1703030013");
    expect(caller.heard).toHaveLength(before + 24);
    expect(reasons(setup.events)).toEqual(["stranger"]);
    caller.socket.destroy();
  });

  test("answers the FIN of one that has said nothing with a FIN, as web servers do", async () => {
    const setup = startDisguised((await openSite()).port);
    const caller = new TestClient(setup);
    await eventually(() => types(setup).includes("started"));
    caller.socket.end();
    await eventually(() => caller.signs.includes("close"));
    expect(caller.signs).toEqual(["end", "close"]);
    expect(reasons(setup.events)).toEqual(["left-early"]);
  });

  test("passes the site's close on to one that says nothing", async () => {
    const site = await openSite();
    const setup = startDisguised(site.port);
    const caller = new TestClient(setup);
    await eventually(() => site.visits.length === 1);
    site.visits[0]?.socket.end();
    await eventually(() => caller.signs.includes("end"));
    expect(setup.events.find(({ type }) => type === "masked")).toMatchObject({ why: "silent" });
    caller.socket.destroy();
  });

  test("ends the strangers at once when it stops", async () => {
    const site = await openSite();
    const setup = startDisguised(site.port);
    const callers = [new TestClient(setup), new TestClient(setup)];
    for (const { socket } of callers) socket.write("GET /");
    await eventually(() => site.visits.length === 2 && site.visits.every(({ heard }) => heard() === "GET /"));
    await setup.server.stop(60_000);
    expect(reasons(setup.events)).toEqual(["shutdown", "shutdown"]);
    await eventually(() => callers.every(({ signs }) => signs.includes("end")));
  });

  test("numbers clients behind a load balancer by their own addresses", async () => {
    const trustedProxies = [IpNetwork.parse("127.0.0.1")];
    const setup = start(0, { trustedProxies });
    const { socket } = new TestClient(setup);
    const { bytes, up } = makeInit({ transport: "abridged", dcId: 2 }, FAMILY.key);
    const header = Buffer.from("PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n");
    socket.write(Buffer.concat([header, bytes, up.update(Buffer.from("hello"))]));
    await eventually(() => types(setup).includes("connected"));
    expect(setup.events.at(-1)?.session.client).toBe("203.0.113.9");
    socket.destroy();
    const refused = new TestClient(start(0, { trustedProxies: [IpNetwork.parse("192.0.2.1")] }));
    await eventually(() => refused.signs.includes("end"));
    expect(refused.heard).toHaveLength(0);
    refused.socket.destroy();
  });
});
