import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { buildRoutes, type RouteDeps, type RouteSet } from "../../src/cli/build-routes.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import { ConfigError } from "../../src/core/errors.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import type { RouteId, Way } from "../../src/upstream/route.ts";

const DC2: DcTarget = { dc: 2, media: false, test: false };
const sets: RouteSet[] = [];
let noProxyBefore: string | undefined;

beforeEach(() => {
  noProxyBefore = process.env["NO_PROXY"];
  delete process.env["NO_PROXY"];
});
afterEach(() => {
  if (noProxyBefore !== undefined) process.env["NO_PROXY"] = noProxyBefore;
  else delete process.env["NO_PROXY"];
  for (const set of sets.splice(0)) set.close();
});

async function build(raw: RawConfig, deps: Partial<RouteDeps> = {}): Promise<RouteSet> {
  const set = await buildRoutes(parseConfig(raw), {
    trust: { verify: true, ca: undefined },
    counts: { pool: { hits: 0, misses: 0 }, cfPool: { hits: 0, misses: 0 } },
    poolSize: 0,
    keptList: { read: () => undefined, write: () => {} },
    onListChanged: () => {},
    onListFailed: () => {},
    ...deps,
  });
  sets.push(set);
  return set;
}

const idsOf = ({ routes }: RouteSet): RouteId[] => routes.map(({ id }) => id);

function waysOf({ routes }: RouteSet, id: RouteId, target = DC2): readonly Way[] {
  const route = routes.find((one) => one.id === id);
  if (route === undefined) throw new Error(`there is no ${id}`);
  return route.ways(target);
}

describe("buildRoutes()", () => {
  const ALL: RawConfig = { frontDomain: ["front.example.org"], cfproxyWorkerDomain: ["w.example.org"] };

  test.each([
    { name: "nothing", raw: {}, ids: ["direct-ws", "cf-domain", "direct-tcp"] },
    {
      name: "a front",
      raw: { frontDomain: ["f.example.org"] },
      ids: ["direct-ws", "fronted-ws", "cf-domain", "direct-tcp"],
    },
    {
      name: "a Worker",
      raw: { cfproxyWorkerDomain: ["w.example.org"] },
      ids: ["direct-ws", "cf-worker", "cf-domain", "direct-tcp"],
    },
    {
      name: "everything",
      raw: ALL,
      ids: ["direct-ws", "fronted-ws", "cf-worker", "cf-domain", "direct-tcp"],
    },
    { name: "no public domains", raw: { noCfproxy: [""] }, ids: ["direct-ws", "direct-tcp"] },
    {
      name: "an order",
      raw: { ...ALL, route: ["direct-tcp,cf-worker", "fronted-ws"] },
      ids: ["direct-tcp", "cf-worker", "fronted-ws"],
    },
    { name: "one route", raw: { route: ["cf-domain"] }, ids: ["cf-domain"] },
  ] satisfies { name: string; raw: RawConfig; ids: RouteId[] }[])(
    "makes the routes in their order: $name",
    async ({ raw, ids }) => {
      expect(idsOf(await build(raw))).toEqual(ids);
      expect(idsOf(await build(raw, { poolSize: 2 }))).toEqual(ids);
    },
  );

  test("gives the same ways each time, so that they can be remembered", async () => {
    for (const poolSize of [0, 2]) {
      const { routes } = await build(ALL, { poolSize });
      for (const route of routes) {
        const ways = route.ways(DC2);
        expect(ways.length).toBeGreaterThan(0);
        for (const [at, way] of route.ways(DC2).entries()) expect(way).toBe(ways[at] as Way);
        for (const way of ways) expect(way.route).toBe(route.id);
      }
    }
  });

  test("takes addresses from the flags", async () => {
    const set = await build({ dcIp: ["2:192.0.2.2:8443"], dcTcp: ["2:192.0.2.3", "10002:192.0.2.4"] });
    expect(waysOf(set, "direct-ws").map(({ address }) => `${address.host}:${address.port}`)).toEqual([
      "192.0.2.2:8443",
      "192.0.2.2:8443",
    ]);
    expect(waysOf(set, "direct-tcp").map(({ address }) => address.host)).toEqual(["192.0.2.3"]);
    const test = { ...DC2, test: true };
    expect(waysOf(set, "direct-tcp", test).map(({ address }) => address.host)).toEqual(["192.0.2.4"]);
  });

  test("shows the front to the network, and Telegram in the request only", async () => {
    const [way] = waysOf(await build(ALL), "fronted-ws");
    expect(way?.address.webSocket).toMatchObject({
      serverName: "front.example.org",
      hostHeader: "kws2.web.telegram.org",
    });
  });

  test("gives the Worker its token", async () => {
    const set = await build({ ...ALL, cfproxyWorkerToken: ["abc"] });
    expect(waysOf(set, "cf-worker")[0]?.address).toMatchObject({
      host: "w.example.org",
      webSocket: { serverName: "w.example.org", token: "abc" },
    });
  });

  test("uses the user's own domains instead of the public list", async () => {
    const set = await build({
      cfproxyDomain: ["mine.example.org:8443"],
      resolve: ["*.mine.example.org=192.0.2.9"],
    });
    expect(set.domainList).toBeUndefined();
    const ways = waysOf(set, "cf-domain");
    expect(ways.map(({ address }) => address.webSocket?.serverName)).toEqual([
      "kws2.mine.example.org",
      "kws2-1.mine.example.org",
    ]);
    expect(ways.map(({ address: { host, port } }) => `${host}:${port}`)).toEqual([
      "192.0.2.9:8443",
      "192.0.2.9:8443",
    ]);
  });

  test("begins with the public list that was kept, and makes ways anew only when it changes", async () => {
    const names = ["one.example.org", "two.example.org", "three.example.org"];
    const set = await build({}, { keptList: { read: () => names.join("\n"), write: () => {} } });
    expect(new Set(set.domainList?.domains)).toEqual(new Set(names));
    const ways = waysOf(set, "cf-domain");
    expect(new Set(ways.map(({ address }) => address.webSocket?.serverName))).toEqual(
      new Set(names.flatMap((name) => [`kws2.${name}`, `kws2-1.${name}`])),
    );
    expect(waysOf(set, "cf-domain")).toBe(ways);
  });

  test("fetches a newer list only when told to, from where the flag says", async () => {
    const paths: string[] = [];
    using server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request) => {
        paths.push(new URL(request.url).pathname);
        return new Response("four.example.org\nfive.example.org\nsix.example.org\n");
      },
    });
    const written: string[] = [];
    const set = await build(
      { cfproxyList: [`http://127.0.0.1:${server.port}/mine.txt`] },
      { keptList: { read: () => undefined, write: (text) => void written.push(text) } },
    );
    const before = waysOf(set, "cf-domain");
    expect(paths).toEqual([]);
    await set.domainList?.refresh();
    expect(paths).toEqual(["/mine.txt"]);
    expect(written).toHaveLength(1);
    expect(waysOf(set, "cf-domain")).not.toBe(before);
    expect(waysOf(set, "cf-domain")).toHaveLength(6);
  });

  test("says why a list did not come", async () => {
    using server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response("", { status: 500 }),
    });
    const failures: unknown[] = [];
    const set = await build(
      { cfproxyList: [`http://127.0.0.1:${server.port}/`] },
      { onListFailed: (error) => failures.push(error) },
    );
    await set.domainList?.refresh();
    expect(failures).toHaveLength(1);
  });

  test("has no public list where no route uses it", async () => {
    expect((await build({ route: ["direct-ws"] })).domainList).toBeUndefined();
    expect((await build({ noCfproxy: [""] })).domainList).toBeUndefined();
  });

  test("can be dropped and closed more than once", async () => {
    const set = await build({ ...ALL, upstreamProxy: ["socks5://127.0.0.1:9"] }, { poolSize: 2 });
    waysOf(set, "direct-ws");
    set.drop();
    set.drop();
    set.close();
    set.close();
  });
});

describe("buildRoutes(), with an outbound proxy", () => {
  test("names none without the flag", async () => {
    expect((await build({})).proxy).toBeUndefined();
  });

  test("reads the proxy and the exceptions of the environment", async () => {
    process.env["NO_PROXY"] = "localhost,.example.org";
    const { proxy } = await build({ upstreamProxy: ["socks5://betty:hunter2@192.0.2.1"] });
    expect(proxy).toEqual({
      kind: "socks5",
      host: "192.0.2.1",
      port: 1080,
      username: "betty",
      password: "hunter2",
      bypass: ["localhost", ".example.org"],
    });
  });

  test.each(["http", "socks5"] as const)("opens ways through it: %s", async (kind) => {
    const { promise, resolve } = Promise.withResolvers<string>();
    using server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket, bytes) {
          resolve(bytes.toString("latin1"));
          socket.end();
        },
      },
    });
    const set = await build({
      route: ["direct-tcp"],
      dcTcp: ["2:192.0.2.3"],
      upstreamProxy: [`${kind}://127.0.0.1:${server.port}`],
    });
    const opened = waysOf(set, "direct-tcp")[0]?.open(
      { ...DC2, transport: "abridged" },
      new AbortController().signal,
    );
    await expect(opened).rejects.toMatchObject({ code: "PROXY" });
    expect(await promise).toStartWith(kind === "http" ? "CONNECT 192.0.2.3:443 " : "\x05");
  });

  test.each([
    "ftp://betty:hunter2@192.0.2.1",
    "betty:hunter2@192.0.2.1",
    "socks5://betty:hunter2@",
    "socks5://betty:hunter2@192.0.2.1:99999",
    "socks5://betty:hunter2@192.0.2.1:x",
    "socks5://betty:hunter2@192.0.2.1/x",
    "socks5://betty:hunter2@a b",
    "socks5://betty:%zzhunter2@192.0.2.1",
    "http://betty:hunt/er2@192.0.2.1",
    `socks5://betty:${"hunter2".repeat(40)}@192.0.2.1`,
  ])("throws a ConfigError that names the flag and no credentials: %s", async (url) => {
    const error = await build({ upstreamProxy: [url] }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof ConfigError)) throw new Error("no ConfigError");
    expect(error.issues.map(({ path, hint }) => [path, typeof hint])).toEqual([
      ["--upstream-proxy", "string"],
    ]);
    const text = JSON.stringify([error.message, error.issues]);
    for (const credential of ["hunter2", "hunt/", "er2", "betty"]) expect(text).not.toContain(credential);
  });

  test("shows no password either when the host was forgotten", async () => {
    const error = await build({ upstreamProxy: ["socks5://betty:hunter2"] }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (!(error instanceof ConfigError)) throw new Error("no ConfigError");
    expect(error.message).not.toContain("hunter2");
  });
});
