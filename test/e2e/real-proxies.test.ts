import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { resolve } from "node:path";
import { echoOnce, openAnswered } from "../support/asking.ts";
import { poll } from "../support/home.ts";
import { DCS, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { Daemon, type DaemonOptions, findProgram } from "../support/real-proxies.ts";
import type { RouteName } from "../support/route-failures.ts";
import { World } from "../support/world.ts";

const USER = "tgws-ann";
const PASSWORD = "s3cret-word";
/** `openssl passwd -6 -salt tgwstest`, of the password. */
const PASSWORD_HASH =
  "$6$tgwstest$7m1SbV0w6N/bN0Sa9xSkDZFN4yCaZPUSMUR.LCHQU9EAqGfkIfKy1A/OOnUQUIOQF459EHr8QoTBZJLp/SSN31";
const WRONG = "wr0ng-word";
const MIB = 1024 * 1024;
/** All ways have been tried, and given up, by then. */
const DROP_LIMIT_MS = 20_000;
const TEST_LIMIT_MS = 60_000;
const CARRIED = ["direct-ws", "fronted-ws", "cf-worker", "cf-domain", "direct-tcp"] as const;
const ENTRY = resolve(import.meta.dir, "../../src/main.ts");

/** A proxy program of others. */
interface Kind {
  readonly name: string;
  readonly scheme: "http" | "socks5";
  readonly password: boolean;
  /** Why it cannot be tested here. */
  readonly missing: string | undefined;
  options(world: World, allowedPorts: readonly number[]): DaemonOptions;
  /** Whether its log names a connection to `port`. */
  connectedTo(daemon: Daemon, port: number): boolean;
}

const tinyproxy = findProgram("tinyproxy");
const danted = findProgram("danted");
const haproxy = findProgram("haproxy");
const ROOT = process.platform === "linux" && process.getuid?.() === 0;
/** danted asks the system for passwords, so that it gets an /etc of its own. */
const CAN_MOUNT = ROOT && Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

function tinyproxyOf(name: string, password: boolean): Kind {
  return {
    name,
    scheme: "http",
    password,
    missing: tinyproxy === undefined ? "tinyproxy is not installed" : undefined,
    options: (_, allowedPorts) => ({
      files: (port, folder) => ({
        "tinyproxy.conf": [
          `Port ${port}`,
          "Listen 127.0.0.1",
          "Allow 127.0.0.1",
          "Timeout 60",
          "MaxClients 100",
          "LogLevel Info",
          `LogFile "${folder}/log"`,
          ...(password ? [`BasicAuth ${USER} ${PASSWORD}`] : []),
          ...allowedPorts.map((allowed) => `ConnectPort ${allowed}`),
          "",
        ].join("\n"),
      }),
      command: (folder) => [tinyproxy ?? "", "-d", "-c", `${folder}/tinyproxy.conf`],
    }),
    connectedTo: (daemon, port) => daemon.read("log").includes(`CONNECT 127.0.0.1:${port} HTTP/1.1`),
  };
}

function dantedOf(name: string, password: boolean): Kind {
  const without = danted === undefined ? "danted is not installed" : undefined;
  const cannotMount = password && !CAN_MOUNT ? "danted takes the system's passwords: root only" : undefined;
  return {
    name,
    scheme: "socks5",
    password,
    missing: without ?? (ROOT ? cannotMount : "danted is run as root"),
    options: (_, allowedPorts) => ({
      files: (port, folder) => ({
        "danted.conf": [
          `logoutput: ${folder}/log`,
          `internal: 127.0.0.1 port = ${port}`,
          "external: 127.0.0.1",
          `socksmethod: ${password ? "username" : "none"}`,
          "clientmethod: none",
          "user.privileged: root",
          "user.unprivileged: nobody",
          "client pass {\n  from: 127.0.0.0/8 to: 0.0.0.0/0\n}",
          ...allowedPorts.flatMap((allowed) => [
            "socks pass {",
            `  from: 127.0.0.0/8 to: 127.0.0.1/32 port = ${allowed}`,
            "  command: connect",
            "  log: connect",
            "}",
          ]),
          "",
        ].join("\n"),
        passwd:
          "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n" +
          `${USER}:x:60001:65534::/:/bin/false\n`,
        shadow: `root:*:19000::::::\nnobody:*:19000::::::\n${USER}:${PASSWORD_HASH}:19000::::::\n`,
      }),
      command: (folder) => {
        const run = [danted ?? "", "-f", `${folder}/danted.conf`];
        if (!password) return run;
        const mounts = ["passwd", "shadow"].map((file) => `mount --bind ${folder}/${file} /etc/${file}`);
        return ["unshare", "--mount", "sh", "-c", `${mounts.join(" && ")} && exec "$@"`, "sh", ...run];
      },
    }),
    connectedTo: (daemon, port) => new RegExp(`pass.*127\\.0\\.0\\.1\\.${port}\\b`).test(daemon.read("log")),
  };
}

const KINDS: readonly Kind[] = [
  tinyproxyOf("tinyproxy", false),
  tinyproxyOf("tinyproxy with a password", true),
  dantedOf("danted", false),
  dantedOf("danted with a password", true),
];

let world: World;

beforeAll(async () => {
  world = await World.start();
});

afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

function portOf(route: RouteName): number {
  if (route === "cf-worker") return world.worker.port;
  if (route === "cf-domain") return world.cloudflare.port;
  return route === "direct-tcp" ? world.tcp.port : world.telegram.port;
}

function allPorts(): number[] {
  return [world.worker.port, world.cloudflare.port, world.tcp.port, world.telegram.port];
}

function urlOf({ scheme, password }: Kind, { port }: Daemon, word = PASSWORD): string {
  return `${scheme}://${password ? `${USER}:${word}@` : ""}127.0.0.1:${port}`;
}

/** Has packets go both ways over one session. */
async function expectCarried(proxy: ProxyProcess, label: string): Promise<void> {
  try {
    using client = await openAnswered(proxy);
    await echoOnce(client, MIB);
    await echoOnce(client);
  } catch (error) {
    throw new Error(`${label}: not carried; the log is:\n${proxy.stderr}`, { cause: error });
  }
}

async function expectDropped(proxy: ProxyProcess): Promise<void> {
  using client = await RawClient.open({ port: proxy.port, secret: proxy.secret });
  client.sendPacket(new Uint8Array(8));
  await client.until(() => client.ended || client.closed, "the client is dropped", DROP_LIMIT_MS);
  expect(client.received).toBe(0);
}

for (const kind of KINDS) {
  const { name, missing } = kind;
  if (missing !== undefined) console.warn(`${name} is not tested: ${missing}`);
  describe.skipIf(missing !== undefined)(`through ${name}`, () => {
    for (const route of CARRIED) {
      it(
        `${route} carries bytes both ways`,
        async () => {
          await using daemon = await Daemon.start(kind.options(world, allPorts()));
          world.forget();
          const args = [...world.flags([route]), "--upstream-proxy", urlOf(kind, daemon)];
          await using proxy = await ProxyProcess.start({ args });
          await expectCarried(proxy, daemon.output);
          expect(world.peers(route).length).toBe(1);
          expect(world.attempts(route)).toBe(1);
          await poll(
            () => (kind.connectedTo(daemon, portOf(route)) ? true : undefined),
            "the connection in its log",
            4_000,
          );
          expect(proxy.stderr + proxy.stdout).not.toContain(PASSWORD);
          expect(proxy.stderr).toContain(`${kind.scheme}://127.0.0.1:${daemon.port}`);
        },
        TEST_LIMIT_MS,
      );
    }

    it(
      "NO_PROXY excepts one data centre's address, and the rest goes through it",
      async () => {
        await using daemon = await Daemon.start(kind.options(world, [world.telegram.port]));
        world.forget();
        const command = [
          "env",
          `NO_PROXY=127.0.0.1:${world.tcp.port}`,
          process.execPath,
          "run",
          ENTRY,
        ] as const;
        const upstream = ["--upstream-proxy", urlOf(kind, daemon)];
        // It does not let anybody connect to the port of direct-tcp.
        await using around = await ProxyProcess.start({
          command,
          args: [...world.flags(["direct-tcp"]), ...upstream],
        });
        await expectCarried(around, daemon.output);
        await using through = await ProxyProcess.start({
          command,
          args: [...world.flags(["direct-ws"]), ...upstream],
        });
        await expectCarried(through, daemon.output);
        await poll(
          () => (kind.connectedTo(daemon, world.telegram.port) ? true : undefined),
          "the connection in its log",
          4_000,
        );
        expect(kind.connectedTo(daemon, world.tcp.port)).toBe(false);
      },
      TEST_LIMIT_MS,
    );

    it(
      "a port that it does not allow makes way for the next route",
      async () => {
        await using daemon = await Daemon.start(kind.options(world, [world.tcp.port]));
        world.forget();
        const args = [
          ...world.flags(["direct-ws", "direct-tcp"]),
          "--upstream-proxy",
          urlOf(kind, daemon),
          "-v",
        ];
        await using proxy = await ProxyProcess.start({ args });
        await expectCarried(proxy, daemon.output);
        expect([world.attempts("direct-ws"), world.attempts("direct-tcp")]).toEqual([0, 1]);
        expect(proxy.stderr).toMatch(/debug .*kws2.*code=PROXY/);
      },
      TEST_LIMIT_MS,
    );

    if (!kind.password) return;

    it(
      "wrong credentials are named in the log, and the password is not",
      async () => {
        await using daemon = await Daemon.start(kind.options(world, allPorts()));
        world.forget();
        const url = urlOf(kind, daemon, WRONG);
        const args = [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", url, "-v"];
        await using proxy = await ProxyProcess.start({ args });
        await expectDropped(proxy);
        await proxy.logged(/warn .*DC 2.*(?:refused the user and the password|40[17])/);
        expect(proxy.stderr).toMatch(/direct-tcp .*code=PROXY|code=PROXY.*direct-tcp/);
        expect(proxy.stderr + proxy.stdout).not.toMatch(new RegExp(`${WRONG}|${PASSWORD}`));
        expect(proxy.stderr).not.toContain(Buffer.from(`${USER}:${WRONG}`).toString("base64"));
        expect(world.attempts("direct-ws") + world.attempts("direct-tcp")).toBe(0);
      },
      TEST_LIMIT_MS,
    );

    it(
      "wrong credentials are called that, whatever the status is",
      async () => {
        await using daemon = await Daemon.start(kind.options(world, allPorts()));
        const args = [...world.flags(["direct-tcp"]), "--upstream-proxy", urlOf(kind, daemon, WRONG)];
        await using proxy = await ProxyProcess.start({ args });
        await expectDropped(proxy);
        await proxy.logged(/warn .*DC 2/);
        expect(proxy.stderr).toMatch(/warn .*refused the user and the password/);
      },
      TEST_LIMIT_MS,
    );

    it(
      "missing credentials are named in the log",
      async () => {
        await using daemon = await Daemon.start(kind.options(world, allPorts()));
        const url = `${kind.scheme}://127.0.0.1:${daemon.port}`;
        const args = [...world.flags(["direct-tcp"]), "--upstream-proxy", url];
        await using proxy = await ProxyProcess.start({ args });
        await expectDropped(proxy);
        await proxy.logged(/warn .*DC 2.*(?:wants a user and a password|40[17])/);
      },
      TEST_LIMIT_MS,
    );
  });
}

if (haproxy === undefined) console.warn("haproxy is not tested: it is not installed");

describe.skipIf(haproxy === undefined)("behind haproxy, which passes TLS on by its name", () => {
  const options = (refused: string): DaemonOptions => ({
    files: (port) => ({
      "haproxy.cfg": [
        "global",
        "  maxconn 200",
        "defaults",
        "  mode tcp",
        "  timeout connect 5s",
        "  timeout client 60s",
        "  timeout server 60s",
        "frontend tls",
        `  bind 127.0.0.1:${port}`,
        "  tcp-request inspect-delay 5s",
        `  tcp-request content reject if { req.ssl_sni -i ${refused} }`,
        "  tcp-request content accept if { req.ssl_hello_type 1 }",
        "  default_backend telegram",
        "backend telegram",
        `  server stub 127.0.0.1:${world.telegram.port}`,
        "",
      ].join("\n"),
    }),
    command: (folder) => [haproxy ?? "", "-db", "-f", `${folder}/haproxy.cfg`],
  });

  function flagsFor(daemon: Daemon): string[] {
    return DCS.flatMap((dc) => ["--dc-ip", `${dc}:127.0.0.1:${daemon.port}`]);
  }

  it(
    "direct-ws carries bytes both ways, also when many come",
    async () => {
      await using daemon = await Daemon.start(options("nobody.example"));
      world.forget();
      await using proxy = await ProxyProcess.start({ args: flagsFor(daemon) });
      await Promise.all(Array.from({ length: 10 }, () => expectCarried(proxy, daemon.output)));
      expect(world.peers("direct-ws").length).toBe(10);
    },
    TEST_LIMIT_MS,
  );

  it(
    "a name that it refuses makes way for the other name",
    async () => {
      await using daemon = await Daemon.start(options("kws2.web.telegram.org"));
      world.forget();
      await using proxy = await ProxyProcess.start({ args: flagsFor(daemon) });
      await expectCarried(proxy, daemon.output);
      expect(world.requests("direct-ws").map(({ serverName }) => serverName)).toEqual([
        "kws2-1.web.telegram.org",
      ]);
    },
    TEST_LIMIT_MS,
  );
});
