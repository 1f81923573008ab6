import { afterAll, afterEach, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { DCS, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { ROUTES, type RouteName } from "../support/route-failures.ts";
import {
  type OutboundProxyOptions,
  SOCKS_REPLY,
  StubHttpProxy,
  StubSocksProxy,
} from "../support/stub-proxies.ts";
import { CF_DOMAIN, WORKER_DOMAIN, World } from "../support/world.ts";

const CREDENTIALS = { username: "ann", password: "p@ss/wörd" };
const MIB = 1024 * 1024;
/** All ways have been tried, and given up, by then. */
const DROP_LIMIT_MS = 20_000;

let world: World;
let table: Readonly<Record<string, number>>;

beforeAll(async () => {
  world = await World.start();
  const names = DCS.flatMap((dc) => [`kws${dc}.${CF_DOMAIN}`, `kws${dc}-1.${CF_DOMAIN}`]);
  table = {
    [WORKER_DOMAIN]: world.worker.port,
    ...Object.fromEntries(names.map((name) => [name, world.cloudflare.port])),
  };
});

afterEach(() => world.forget());

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

/** The flags for `route` without addresses of names, which the proxy is to look up. */
function unpinned(route: RouteName): string[] {
  const flags = world.flags([route]);
  return flags.filter((flag, at) => flag !== "--resolve" && flags[at - 1] !== "--resolve");
}

const KINDS = [
  ["an HTTP proxy", (options: OutboundProxyOptions) => StubHttpProxy.start(options)],
  ["a SOCKS5 proxy", (options: OutboundProxyOptions) => StubSocksProxy.start(options)],
] as const;

describe.each(KINDS)("through %s", (_, start) => {
  for (const route of ROUTES) {
    it(`${route} carries bytes both ways, and names are looked up there`, async () => {
      await using outbound = await start({ table, credentials: CREDENTIALS });
      await using proxy = await ProxyProcess.start({
        args: [...unpinned(route), "--upstream-proxy", outbound.url],
      });
      using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
      for (const size of [40, MIB]) {
        const payload = new Uint8Array(randomBytes(size));
        client.sendPacket(payload);
        expect(Buffer.compare((await client.readPacket()).payload, payload)).toBe(0);
      }
      const named: Partial<Record<RouteName, string>> = {
        "cf-worker": WORKER_DOMAIN,
        "cf-domain": `kws2.${CF_DOMAIN}`,
      };
      const [request] = outbound.requests;
      expect(outbound.requests.length).toBe(1);
      expect(request?.host).toBe(named[route] ?? "127.0.0.1");
      expect(request?.credentials).toEqual(CREDENTIALS);
      expect(world.attempts(route)).toBe(1);
      expect(proxy.stderr + proxy.stdout).not.toMatch(/p@ss|p%40ss/);
    });
  }

  it("reaches nothing when the proxy refuses, and never goes around it", async () => {
    await using outbound = await start({ credentials: CREDENTIALS });
    const url = outbound.url.replace("ann", "bob");
    await using proxy = await ProxyProcess.start({
      args: [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", url],
    });
    await expectDropped(proxy);
    expect(world.attempts("direct-ws") + world.attempts("direct-tcp")).toBe(0);
    expect(outbound.accepted).toBeGreaterThan(0);
    await proxy.logged(/warn .*DC 2/);
    expect(proxy.stderr).not.toMatch(/p@ss|p%40ss/);
  });

  for (const behaviour of ["hang", "close", "reset", "garbage"] as const) {
    it(`drops its client when the proxy does this: ${behaviour}`, async () => {
      await using outbound = await start({});
      outbound.accept = () => behaviour;
      await using proxy = await ProxyProcess.start({
        args: [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", outbound.url],
      });
      await expectDropped(proxy);
      expect(world.attempts("direct-ws") + world.attempts("direct-tcp")).toBe(0);
      outbound.reset();
      using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
      client.sendPacket(new Uint8Array(8));
      expect((await client.readPacket()).payload.length).toBe(8);
    }, 20_000);
  }
});

describe("through a SOCKS5 proxy", () => {
  it("goes on to the next route when the proxy cannot reach the first", async () => {
    await using outbound = await StubSocksProxy.start({});
    outbound.behave = ({ port }) =>
      port === world.tcp.port ? { kind: "forward" } : { kind: "reply", code: SOCKS_REPLY.hostUnreachable };
    await using proxy = await ProxyProcess.start({
      args: [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", outbound.url],
    });
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    client.sendPacket(new Uint8Array(8));
    expect((await client.readPacket()).payload.length).toBe(8);
    expect(world.peers("direct-tcp").length).toBe(1);
  });
});

describe("through an HTTP proxy", () => {
  it("goes on to the next route when the proxy does not allow the first", async () => {
    await using outbound = await StubHttpProxy.start({});
    outbound.behave = ({ port }) =>
      port === world.tcp.port ? { kind: "forward" } : { kind: "status", status: "403 Forbidden" };
    await using proxy = await ProxyProcess.start({
      args: [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", outbound.url],
    });
    using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
    client.sendPacket(new Uint8Array(8));
    expect((await client.readPacket()).payload.length).toBe(8);
    expect(world.peers("direct-tcp").length).toBe(1);
  });
});

async function expectDropped(proxy: ProxyProcess): Promise<void> {
  using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
  client.sendPacket(new Uint8Array(8));
  await client.until(() => client.ended || client.closed, "the client is dropped", DROP_LIMIT_MS);
  expect(client.received).toBe(0);
}
