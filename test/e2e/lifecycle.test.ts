import { afterAll, afterEach, beforeAll, describe, expect, it } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { openTcp } from "../support/client-stream.ts";
import { makeHome, Program, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { eventually } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";

const TEST_LIMIT_MS = 60_000;
/** Less than the 5 s that sessions are given to end. */
const AT_ONCE_MS = 4_500;
/** SIGINT twice within less than this may be one Ctrl-C: `bun run` passes on what the terminal sent already. */
const CTRL_C_MS = 200;
const PING = Uint8Array.of(1, 2, 3, 4);

let stub: StubDc;

beforeAll(async () => {
  stub = await StubDc.start();
});

afterEach(() => stub.reset());

afterAll(() => stub[Symbol.asyncDispose]());

/** Starts a proxy and a session over it. */
async function startSession(): Promise<{ proxy: ProxyProcess; client: RawClient }> {
  stub.onPacket = ({ payload }) => [payload];
  const proxy = await ProxyProcess.start({ stub });
  const client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
  client.sendPacket(PING);
  await client.readPacket();
  return { proxy, client };
}

/** Waits until nobody accepts at `port` any more. */
async function untilRefused(port: number): Promise<void> {
  const refused = (): Promise<boolean> =>
    openTcp(port).then(
      (socket) => socket.destroy() && false,
      () => true,
    );
  await eventually(refused, `a port ${port} that nobody listens on`);
}

describe.each(["SIGTERM", "SIGINT"] as const)("%s", (signal) => {
  it("ends a proxy without sessions at once, with final stats and exit code 0", async () => {
    await using proxy = await ProxyProcess.start({ stub });
    proxy.signal(signal);
    expect(await proxy.exited(AT_ONCE_MS)).toBe(0);
    expect(proxy.stderr).toMatch(/stats: total=0 /);
  });

  it(
    "lets a session finish, but accepts no other",
    async () => {
      const { proxy, client } = await startSession();
      await using _ = proxy;
      using __ = client;
      proxy.signal(signal);
      await proxy.logged(/stopping/);
      await untilRefused(proxy.port);
      client.sendPacket(PING);
      expect((await client.readPacket()).payload.toHex()).toBe("01020304");
      client[Symbol.dispose]();
      expect(await proxy.exited()).toBe(0);
      expect(proxy.stderr).toMatch(/stats: total=\d+ active=0 ws=1 /);
      expect(proxy.stderr).not.toMatch(/reason=shutdown/); // it did not wait for the end of the sessions' time
    },
    TEST_LIMIT_MS,
  );

  it("ends the process at once when it comes twice", async () => {
    const { proxy, client } = await startSession();
    await using _ = proxy;
    using __ = client;
    proxy.signal(signal);
    await proxy.logged(/stopping/);
    await Bun.sleep(CTRL_C_MS);
    proxy.signal(signal);
    expect(await proxy.exited(AT_ONCE_MS)).not.toBe(0);
    await client.until(() => client.ended || client.closed, "the client is dropped");
  });
});

describe("a session that does not finish", () => {
  it(
    "is ended after a few seconds, and the exit code is 0 all the same",
    async () => {
      const { proxy, client } = await startSession();
      await using _ = proxy;
      using __ = client;
      proxy.signal("SIGTERM");
      expect(await proxy.exited()).toBe(0);
      await client.until(() => client.ended || client.closed, "the client is dropped");
      expect(proxy.stderr).toMatch(/reason=shutdown/);
      expect(proxy.stderr).toMatch(/stats: total=1 active=0 /);
    },
    TEST_LIMIT_MS,
  );
});

describe("the first start", () => {
  it("makes a secret that only its owner can read, and the next start prints the same link", async () => {
    const home = makeHome();
    try {
      const first = await startOnce(home);
      const files = readdirSync(home, { recursive: true, withFileTypes: true }).filter((file) =>
        file.isFile(),
      );
      expect(files.length).toBeGreaterThan(0);
      for (const { parentPath, name } of files) {
        if (process.platform === "win32") continue;
        expect(statSync(join(parentPath, name)).mode & 0o777).toBe(0o600);
      }
      const texts = files.map(({ parentPath, name }) => readFileSync(join(parentPath, name), "utf8"));
      expect(texts.join("\n")).toContain(first.slice(-32));
      expect(await startOnce(home)).toBe(first);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

  it("makes another secret in another folder", async () => {
    await using one = await ProxyProcess.start({ secrets: [] });
    await using other = await ProxyProcess.start({ secrets: [] });
    expect(one.secret.toHex()).not.toBe(other.secret.toHex());
  });

  it("creates the folder", async () => {
    const parent = makeHome();
    try {
      const home = join(parent, "deeper", "still");
      await startOnce(home);
      expect(existsSync(home)).toBe(true);
    } finally {
      rmSync(parent, { recursive: true, force: true });
    }
  });

  /** Starts and stops a proxy, and returns its link without the port, which differs. */
  async function startOnce(home: string): Promise<string> {
    await using proxy = await ProxyProcess.start({ home, secrets: [] });
    const link = proxy.link.replace(/port=\d+/, "port=");
    expect(await proxy.stop()).toBe(0);
    return link;
  }
});

describe("a start that cannot be", () => {
  it("because the port is in use is one clear line, and exit code 1", async () => {
    const server = createServer();
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    try {
      await using program = new Program({ args: ["--port", String(port)] });
      expect(await program.exited()).toBe(1);
      expect(program.stdout).toBe("");
      const [line = "", hint = "", ...more] = program.stderr.trim().split("\n");
      expect(line).toContain(`127.0.0.1:${port}: the port is in use`);
      expect(hint).toMatch(/^hint: /);
      expect(more).toEqual([]);
    } finally {
      server.close();
    }
  });

  it("because this machine has no such address is one clear line, and exit code 1", async () => {
    await using program = new Program({ args: ["--port", "0", "--host", "192.0.2.1"] });
    expect(await program.exited()).toBe(1);
    expect(program.stderr.trim().split("\n").length).toBe(2);
    expect(program.stderr).toContain("192.0.2.1");
    expect(program.stderr).not.toMatch(/^\s+at /m);
  });

  it("because the CA file is missing is one clear line, and exit code 1", async () => {
    await using program = new Program({ args: ["--port", "0", "--tls-ca", "/nowhere/ca.pem"] });
    expect(await program.exited()).toBe(1);
    expect(program.stderr).toContain("/nowhere/ca.pem");
    expect(program.stderr).not.toMatch(/^\s+at /m);
  });
});

describe("a wrong command line", () => {
  const cases: readonly (readonly [string, readonly string[], readonly RegExp[]])[] = [
    ["an unknown flag", ["--prot", "1443"], [/--prot\b/, /--port\b/]],
    ["a flag of a later version", ["--ad-tag", "4"], [/--ad-tag/]],
    ["a bad port", ["--port", "99999"], [/--port/, /99999/]],
    ["a bad data centre", ["--dc-ip", "9:127.0.0.1"], [/--dc-ip/, /9:127\.0\.0\.1/]],
    ["a bad address", ["--dc-ip", "2:example.org"], [/--dc-ip/, /example\.org/]],
    ["a flag without its value", ["--port"], [/--port/]],
    ["a flag that may come once, twice", ["--port", "1", "--port", "2"], [/--port/]],
    ["a bad secret", ["--secret", "c0ffee"], [/--secret/]],
    ["a stray word", ["serve"], [/serve/]],
  ];
  for (const [name, args, patterns] of cases) {
    it(`with ${name} is explained, and the exit code is 2`, async () => {
      await using program = new Program({ args });
      expect(await program.exited()).toBe(2);
      expect(program.stdout).toBe("");
      for (const pattern of patterns) expect(program.stderr).toMatch(pattern);
      expect(program.stderr).not.toMatch(/^\s+at /m);
    });
  }

  it("has all of its problems named at once", async () => {
    await using program = new Program({ args: ["--port", "x", "--pool-size", "-1", "--dc-ip", "7:"] });
    expect(await program.exited()).toBe(2);
    for (const flag of ["--port", "--pool-size", "--dc-ip"]) expect(program.stderr).toContain(flag);
  });

  it("never shows a secret", async () => {
    const secret = "0123456789abcdef0123456789abcdef01";
    await using program = new Program({ args: ["--secret", secret] });
    expect(await program.exited()).toBe(2);
    expect(program.stderr).not.toContain(secret);
  });
});
