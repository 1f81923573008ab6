import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { testAuthority } from "../support/certificates.ts";
import { ConfigHome } from "../support/config-home.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { childrenOf } from "../support/process-tree.ts";
import { ProxyProcess } from "../support/proxy.ts";
import { RawClient, type RawClientOptions } from "../support/raw-client.ts";
import { ending, eventually, isCut, isServed, openSession, ping } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";

const LIMIT_MS = 60_000;
const RELOADED = /configuration reloaded: (.*)/;
const KEPT = /the configuration stays as it was: (.*)/;
const root = process.getuid?.() === 0;
if (root)
  console.warn("a file that may not be read is not tested here: root reads all. See privileges.test.ts");

let stub: StubDc;
let other: StubDc;

beforeAll(async () => {
  [stub, other] = await Promise.all([StubDc.start(), StubDc.start()]);
});

beforeEach(() => {
  for (const dc of [stub, other]) {
    dc.reset();
    dc.onPacket = ({ payload }) => [payload];
  }
});

afterAll(async () => {
  await stub[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
});

/** A user's table for the configuration file. */
function table(name: string, secret: Uint8Array, ...lines: readonly string[]): string {
  return [`[users.${name}]`, `secret = "${secret.toHex()}"`, ...lines, ""].join("\n");
}

function key(): Uint8Array {
  return new Uint8Array(randomBytes(16));
}

/** Starts a proxy that gets its settings from the file of `home`. */
function start(home: ConfigHome, workers: number, args: readonly string[] = []): Promise<ProxyProcess> {
  return ProxyProcess.start({
    stub,
    secrets: [],
    home: home.path,
    args: [
      "--workers",
      String(workers),
      ...(args.includes("--handshake-seconds") ? [] : ["--handshake-seconds", "1"]),
      ...args,
    ],
  });
}

/** Has the file read again, and returns what the log then says of it. */
async function reload(proxy: ProxyProcess, pattern = RELOADED): Promise<string> {
  const from = proxy.stderr.length;
  proxy.signal("SIGHUP");
  const [, what = ""] = await proxy.loggedSince(from, pattern);
  return what;
}

/** Writes the file, has it read, and returns what has changed. */
async function change(proxy: ProxyProcess, home: ConfigHome, text: string): Promise<string> {
  home.write(text);
  return reload(proxy);
}

/** Opens sessions, and tells how many of them are served, and how many end within a while. */
async function trySome(
  options: RawClientOptions,
): Promise<{ readonly served: number; readonly cut: number }> {
  const clients = await Promise.all(Array.from({ length: 24 }, () => RawClient.open(options)));
  for (const client of clients) client.sendPacket(Uint8Array.of(1, 2, 3, 4));
  // Somebody may have to wait for ever: the others are served, or have to end.
  const settled = (): boolean => clients.some((client) => client.received > 0) || clients.some(isCut);
  await eventually(settled, "an answer, or an end");
  await Bun.sleep(1_500); // a session that has to end does so by now, and so does one of a stranger
  const served = clients.filter((client) => client.received > 0 && !isCut(client)).length;
  const cut = clients.filter(isCut).length;
  for (const client of clients) client[Symbol.dispose]();
  return { served, cut };
}

for (const workers of process.platform === "linux" ? [1, 2] : [1]) {
  describe(workers === 1 ? "a reload" : `a reload with ${workers} workers`, () => {
    it(
      "lets new users in, and ends the sessions of those who are removed, disabled or have another key, alone",
      async () => {
        const keys = { ann: key(), bob: key(), cid: key(), dan: key() };
        const { ann, bob, cid, dan } = keys;
        using home = new ConfigHome(table("ann", ann) + table("bob", bob) + table("cid", cid));
        await using proxy = await start(home, workers);
        const { port } = proxy;
        expect(await isServed({ port, secret: dan })).toBe(false);
        const [ofAnn, ofBob, ofCid] = await Promise.all(
          [ann, bob, cid].map((secret) => openSession({ port, secret })),
        );
        if (ofAnn === undefined || ofBob === undefined || ofCid === undefined) throw new Error("unreachable");

        const newKey = key();
        const text = table("ann", ann) + table("bob", bob, "enabled = false") + table("cid", newKey);
        const changes = await change(proxy, home, text + table("dan", dan));
        // Under another key, it is somebody else with the same name.
        expect(changes).toBe("new users cid, dan; removed users cid; changed users bob");
        await Promise.all([ending(ofBob), ending(ofCid)]);
        expect(await isServed({ port, secret: dan })).toBe(true);
        expect(await isServed({ port, secret: newKey })).toBe(true);
        expect(await isServed({ port, secret: cid })).toBe(false);
        expect(await isServed({ port, secret: bob })).toBe(false);
        await ping(ofAnn);

        expect(await change(proxy, home, table("dan", dan))).toBe("removed users ann, bob, cid");
        await ending(ofAnn);
        for (const client of [ofAnn, ofBob, ofCid]) client[Symbol.dispose]();
        expect(await proxy.stop()).toBe(0);
        const revoked = [...proxy.stderr.matchAll(/user=(\w+) .*reason=revoked/g)].map(([, user]) => user);
        expect(revoked.sort()).toEqual(["ann", "bob", "cid"]);
        expect(proxy.stderr).toMatch(/refused user-disabled=1/);
      },
      LIMIT_MS,
    );

    it(
      "lets nobody in by an old key who was there before it changed, but had not shown it yet",
      async () => {
        const [ann, bob] = [key(), key()];
        using home = new ConfigHome(table("ann", ann) + table("bob", bob));
        await using proxy = await start(home, workers, ["--handshake-seconds", "60", "-v"]);
        const { port } = proxy;
        using ofAnn = await RawClient.connect({ port, secret: ann });
        using ofBob = await RawClient.connect({ port, secret: bob });
        // The kernel takes a connection before the proxy does.
        await eventually(() => proxy.countLogged(/debug +connected/g) === 2, "both connections in the log");
        const newKey = key();
        expect(await change(proxy, home, table("ann", newKey))).toBe("new users ann; removed users ann, bob");
        for (const client of [ofAnn, ofBob]) {
          client.write(client.init);
          client.sendPacket(Uint8Array.of(1, 2, 3, 4));
          await ending(client);
          expect(client.received).toBe(0);
        }
        expect(await isServed({ port, secret: newKey })).toBe(true);
      },
      LIMIT_MS,
    );

    it(
      "changes limits for those who come, not for those who are there",
      async () => {
        const secret = key();
        using home = new ConfigHome(table("ann", secret));
        await using proxy = await start(home, workers, ["--proxy-protocol"]);
        const { port } = proxy;
        const from = "203.0.113.7";
        using first = await openSession({ port, secret, from });
        using second = await openSession({ port, secret, from });
        expect(await change(proxy, home, table("ann", secret, "max-connections = 1"))).toBe(
          "changed users ann",
        );
        await ping(first);
        await ping(second);
        expect(await isServed({ port, secret, from })).toBe(false);

        const changes = await change(proxy, home, `max-per-address = 2\n${table("ann", secret)}`);
        expect(changes).toBe("changed max-per-address; changed users ann");
        // Those who came before there was that limit do not count.
        using third = await openSession({ port, secret, from });
        using fourth = await openSession({ port, secret, from });
        expect(await isServed({ port, secret, from })).toBe(false);
        expect(await isServed({ port, secret, from: "203.0.113.8" })).toBe(true);
        for (const client of [first, second, third, fourth]) client[Symbol.dispose]();
        await proxy.stop();
        expect(proxy.stderr).toMatch(/refused (?=.*user-connections=1)(?=.*address-connections=1)/);
      },
      LIMIT_MS,
    );

    it(
      "sends those who come by the new routes, and drops nobody",
      async () => {
        const secret = key();
        const text = (dc: StubDc): string =>
          `route = ["direct-ws"]\ndc-ip = ["2:127.0.0.1:${dc.port}"]\npool-size = 0\n${table("ann", secret)}`;
        using home = new ConfigHome(text(stub));
        await using proxy = await ProxyProcess.start({
          secrets: [],
          routes: [],
          home: home.path,
          args: ["--workers", String(workers)],
        });
        const { port } = proxy;
        const before = await Promise.all(Array.from({ length: 6 }, () => openSession({ port, secret })));
        expect(stub.connections).toHaveLength(6);
        expect(await change(proxy, home, text(other))).toBe("changed dc-ip");
        const after = await Promise.all(Array.from({ length: 6 }, () => openSession({ port, secret })));
        expect(stub.connections).toHaveLength(6);
        expect(other.connections).toHaveLength(6);
        for (const client of [...before, ...after]) await ping(client);
        expect(stub.connections.filter(({ closed }) => closed)).toEqual([]);
        for (const client of [...before, ...after]) client[Symbol.dispose]();
        await eventually(() => stub.connections.every(({ closed }) => closed), "the end of the old sessions");
        expect(await proxy.stop()).toBe(0);
        expect(proxy.stderr).toMatch(/total=12 active=0 /);
      },
      LIMIT_MS,
    );

    it(
      "changes what is logged",
      async () => {
        const secret = key();
        using home = new ConfigHome(table("ann", secret));
        await using proxy = await start(home, workers);
        const { port } = proxy;
        (await openSession({ port, secret }))[Symbol.dispose]();
        await proxy.logged(/session ended/);
        expect(proxy.stderr).not.toMatch(/route open/);
        await change(proxy, home, `log-level = "debug"\n${table("ann", secret)}`);
        (await openSession({ port, secret }))[Symbol.dispose]();
        await proxy.logged(/route open .*user=ann/);
        home.write(`log-level = "error"\n${table("ann", secret)}`);
        proxy.signal("SIGHUP");
        await eventually(async () => {
          const from = proxy.stderr.length;
          (await openSession({ port, secret }))[Symbol.dispose]();
          await Bun.sleep(100); // what it would say comes within that
          return proxy.stderr.length === from;
        }, "silence");
      },
      LIMIT_MS,
    );

    it(
      "reads the lists of addresses again when one of their files has changed",
      async () => {
        const secret = key();
        using home = new ConfigHome("");
        const list = home.add("deny.txt", "203.0.113.0/24\n");
        home.write(`deny = ["${list}"]\n${table("ann", secret)}`);
        await using proxy = await start(home, workers);
        const { port } = proxy;
        using here = await openSession({ port, secret });
        expect(await isServed({ port, secret, localAddress: "127.0.0.2" })).toBe(true);
        writeFileSync(list, "203.0.113.0/24\n127.0.0.2 # a stranger\n");
        await proxy.logged(RELOADED);
        expect(await isServed({ port, secret, localAddress: "127.0.0.2" })).toBe(false);
        expect(await isServed({ port, secret })).toBe(true);

        writeFileSync(list, "127.0.0.3\nnonsense\n");
        const [, why] = await proxy.logged(KEPT);
        expect(why).toContain(`${list}, line 2, "nonsense"`);
        expect(await isServed({ port, secret, localAddress: "127.0.0.2" })).toBe(false);
        expect(await isServed({ port, secret, localAddress: "127.0.0.3" })).toBe(true);
        await ping(here);
      },
      LIMIT_MS,
    );

    it(
      "ends with the last of 50 rewrites in force",
      async () => {
        const keys = Array.from({ length: 51 }, key);
        const at = (index: number): Uint8Array => keys[index] ?? key();
        using home = new ConfigHome(table("ann", at(0)));
        await using proxy = await start(home, workers);
        const { port } = proxy;
        for (let index = 1; index <= 50; index++) {
          home.write(table("ann", at(index)));
          if (index % 3 === 0) proxy.signal("SIGHUP"); // some by signal, the others are to be noticed
          await Bun.sleep(index % 7);
        }
        await eventually(() => isServed({ port, secret: at(50) }), "the last one");
        expect(await isServed({ port, secret: at(49) })).toBe(false);
        expect(proxy.stderr).not.toMatch(/stays as it was/);
      },
      LIMIT_MS,
    );
  });
}

describe.skipIf(process.platform !== "linux")("a worker that is just starting", () => {
  it(
    "hears of a reload, too",
    async () => {
      const [ann, bob] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 2);
      const { port } = proxy;
      const [first = 0, second = 0] = childrenOf(proxy.pid);
      process.kill(first, "SIGKILL");
      await eventually(
        () => childrenOf(proxy.pid).some((pid) => pid !== first && pid !== second),
        "another one",
      );
      const next = childrenOf(proxy.pid).find((pid) => pid !== first && pid !== second) ?? 0;
      process.kill(next, "SIGSTOP"); // it has its settings, and is not ready
      home.write(table("ann", ann) + table("bob", bob));
      proxy.signal("SIGHUP");
      await Bun.sleep(300);
      process.kill(next, "SIGCONT");
      await proxy.logged(/configuration reloaded: new users bob/);
      process.kill(second, "SIGKILL"); // from here on there are only those that have been started since
      await eventually(() => isServed({ port, secret: bob }), "a new user");
      for (let count = 0; count < 12; count++) expect(await isServed({ port, secret: bob })).toBe(true);
      expect(await proxy.stop()).toBe(0);
    },
    LIMIT_MS,
  );
});

describe("the configuration file", () => {
  it(
    "is read again when it has changed",
    async () => {
      const [ann, bob] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 1);
      home.write(table("ann", ann) + table("bob", bob));
      const [, changes] = await proxy.logged(RELOADED);
      expect(changes).toBe("new users bob");
      expect(await isServed({ port: proxy.port, secret: bob })).toBe(true);
    },
    LIMIT_MS,
  );

  const broken: readonly { readonly what: string; readonly text: string; readonly says: RegExp }[] = [
    { what: "is no TOML", text: "[users.ann\nsecret = 1\n", says: /config\.toml:1/ },
    {
      what: "has a wrong value",
      text: "\nmax-per-address = -1\n",
      says: /config\.toml:2: max-per-address: /,
    },
    { what: "has an unknown setting", text: "pot = 1\n", says: /config\.toml:1: pot: .*did you mean port/ },
    {
      what: "has a user without a secret",
      text: "[users.bob]\n",
      says: /config\.toml:1: users\.bob: .*secret/,
    },
    { what: "names a list that is not there", text: 'deny = ["/none/such"]\n', says: /deny.*\/none\/such/ },
  ];
  for (const { what, text, says } of broken) {
    it(
      `keeps the old one and says why when it ${what}`,
      async () => {
        const secret = key();
        using home = new ConfigHome(table("ann", secret));
        await using proxy = await start(home, 1);
        const { port } = proxy;
        using client = await openSession({ port, secret });
        home.write(text);
        proxy.signal("SIGHUP");
        const [line] = await proxy.logged(KEPT);
        expect(line).toMatch(says);
        await ping(client);
        expect(await isServed({ port, secret })).toBe(true);
        expect(await change(proxy, home, table("ann", secret, "max-connections = 5"))).toBe(
          "changed users ann",
        );
        await ping(client);
      },
      LIMIT_MS,
    );
  }

  it(
    "keeps the old one while it is missing, a folder, empty, or cut short, and goes on with the whole one",
    async () => {
      const [ann, bob] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 1);
      const { port } = proxy;
      using client = await openSession({ port, secret: ann });
      rmSync(home.file);
      expect(await reload(proxy, KEPT)).toMatch(/is gone/);
      mkdirSync(home.file);
      expect(await reload(proxy, KEPT)).toMatch(/config\.toml/);
      rmSync(home.file, { recursive: true });
      writeFileSync(home.file, "", { mode: 0o600 });
      expect(await reload(proxy, KEPT)).toMatch(/there is nothing in/);
      rmSync(home.file);

      const whole = table("ann", ann) + table("bob", bob);
      writeFileSync(home.file, whole.slice(0, -20), { mode: 0o600 });
      const why = await reload(proxy, KEPT);
      expect(why).toMatch(/config\.toml:\d/);
      expect(why).not.toContain(bob.toHex().slice(0, 8));
      await ping(client);
      writeFileSync(home.file, whole); // without a signal: it is noticed
      await proxy.logged(/configuration reloaded: new users bob/);
      expect(await isServed({ port, secret: bob })).toBe(true);
      await ping(client);
    },
    LIMIT_MS,
  );

  it.skipIf(root)(
    "keeps the old one when it may not be read",
    async () => {
      const secret = key();
      using home = new ConfigHome(table("ann", secret));
      await using proxy = await start(home, 1);
      chmodSync(home.file, 0);
      expect(await reload(proxy, KEPT)).toMatch(/config\.toml.*EACCES/);
      expect(await isServed({ port: proxy.port, secret })).toBe(true);
    },
    LIMIT_MS,
  );

  it(
    "says each problem once when it is broken, however it is read",
    async () => {
      const secret = key();
      using home = new ConfigHome(table("ann", secret));
      await using proxy = await start(home, 1);
      home.write("pot = 1\n");
      await reload(proxy, KEPT);
      await Bun.sleep(3_500); // its watch looks every second, and acts upon the second look
      expect(proxy.countLogged(/stays as it was/g)).toBe(1);
    },
    LIMIT_MS,
  );

  it(
    "survives a kill -9 of the program in the middle of a rewrite by an editor",
    async () => {
      const [ann, bob] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      {
        await using proxy = await start(home, 1);
        writeFileSync(`${home.file}.half`, table("bob", bob).slice(0, 30));
        proxy.signal("SIGHUP");
        proxy.signal("SIGKILL");
        await proxy.exited();
      }
      await using next = await start(home, 1);
      expect(await isServed({ port: next.port, secret: ann })).toBe(true);
    },
    LIMIT_MS,
  );

  it(
    "names what takes effect at the next start only, and uses the rest",
    async () => {
      const [ann, bob] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 1);
      const text = `host = "0.0.0.0"\nlog-format = "json"\n${table("ann", ann)}${table("bob", bob)}`;
      expect(await change(proxy, home, text)).toBe("new users bob");
      await proxy.logged(/takes effect at the next start only: host, log-format/);
      expect(await isServed({ port: proxy.port, secret: bob })).toBe(true);
    },
    LIMIT_MS,
  );

  it(
    "brings fake TLS and another secret while sessions run",
    async () => {
      const domain = "cover.example";
      const { certificate: cert, key: privateKey } = await (await testAuthority()).issue([domain]);
      const site = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        tls: { cert, key: privateKey },
        fetch: () => new Response("the page of the site"),
      });
      try {
        const [ann, bob] = [key(), key()];
        using home = new ConfigHome(table("ann", ann));
        await using proxy = await start(home, 1);
        const { port } = proxy;
        using before = await openSession({ port, secret: ann });
        const text = `fake-tls-domain = "${domain}"\nmask-host = "127.0.0.1:${site.port}"\n`;
        const changes = await change(proxy, home, text + table("ann", ann) + table("bob", bob));
        expect(changes).toBe("changed fake-tls-domain, mask-host; new users bob");
        await ping(before);
        for (const secret of [ann, bob]) {
          const hello = { shape: "tdlib", serverName: domain } as const;
          using client = await FakeTlsClient.open({ port, secret, hello });
          client.sendPacket(randomBytes(40));
          await client.until(() => client.received > 0, "an answer");
        }
        const response = await fetch(`https://127.0.0.1:${port}/`, { tls: { rejectUnauthorized: false } });
        expect(await response.text()).toBe("the page of the site");
        expect(isCut(before)).toBe(false);
      } finally {
        await site.stop(true);
      }
    },
    LIMIT_MS,
  );
});

describe.skipIf(process.platform !== "linux")("a reload of workers", () => {
  it(
    "lets new users in by a worker that knows them, before all of them do",
    async () => {
      const [ann, dan, eve] = [key(), key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 2);
      const { port } = proxy;
      const [, slow = 0] = childrenOf(proxy.pid);
      process.kill(slow, "SIGSTOP");
      try {
        home.write(table("ann", ann) + table("dan", dan) + table("eve", eve, "max-connections = 50"));
        proxy.signal("SIGHUP");
        await eventually(async () => (await trySome({ port, secret: dan })).served > 0, "the other's reload");
        for (const secret of [dan, eve]) {
          const { served, cut } = await trySome({ port, secret });
          expect(served).toBeGreaterThan(0);
          expect(cut).toBe(0);
        }
        expect(proxy.stderr).not.toMatch(/configuration reloaded/);
      } finally {
        process.kill(slow, "SIGCONT");
      }
      await proxy.logged(RELOADED);
    },
    LIMIT_MS,
  );

  it(
    "is for those that are just being started, too",
    async () => {
      const [ann, dan] = [key(), key()];
      using home = new ConfigHome(table("ann", ann));
      await using proxy = await start(home, 2);
      const { port } = proxy;
      home.write(table("dan", dan));
      proxy.signal("SIGUSR2"); // starts the first one with what there was before
      await reload(proxy);
      await proxy.logged(/all workers have been replaced/);
      const served = await Promise.all(Array.from({ length: 12 }, () => isServed({ port, secret: dan })));
      expect(served).not.toContain(false);
      const old = await Promise.all(Array.from({ length: 12 }, () => isServed({ port, secret: ann })));
      expect(old).not.toContain(true);
    },
    LIMIT_MS,
  );
});
