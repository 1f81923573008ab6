import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolveSecrets } from "../../src/cli/secrets.ts";
import { serve } from "../../src/cli/serve.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import { makeInit } from "../support/obfuscated2.ts";
import { eventually } from "./frame-server.ts";

const HEX = "00112233445566778899aabbccddeeff";
const KEY = Uint8Array.fromHex(HEX);
/** What `serve` listens for, as a program of its own would for as long as it runs. */
const EVENTS = ["SIGINT", "SIGTERM", "uncaughtException", "unhandledRejection", "exit"] as const;

let folder: string;
let homeBefore: string | undefined;
let before: ReadonlyMap<string, readonly unknown[]>;
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-serve-"));
  homeBefore = process.env["TGWS_HOME"];
  process.env["TGWS_HOME"] = folder;
  before = new Map(EVENTS.map((event) => [event, process.listeners(event as "SIGINT")]));
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const event of EVENTS) {
    for (const listener of process.listeners(event as "SIGINT")) {
      if (!before.get(event)?.includes(listener)) process.off(event, listener);
    }
  }
  if (homeBefore === undefined) delete process.env["TGWS_HOME"];
  else process.env["TGWS_HOME"] = homeBefore;
  rmSync(folder, { recursive: true, force: true });
});

/** A proxy that runs in this process. */
interface Served {
  readonly port: number;
  readonly banner: string;
  /** The log so far. */
  log(): string;
  /** Ends it as a signal would, and waits. */
  stop(signal?: "SIGINT" | "SIGTERM"): Promise<void>;
}

async function start(raw: RawConfig): Promise<Served> {
  const printed: string[] = [];
  const out = spyOn(console, "log").mockImplementation((text: string) => void printed.push(text));
  const path = join(folder, "log");
  const all: RawConfig = { port: ["0"], secret: [`ann:${HEX}`], logFile: [path], ...raw };
  const config = parseConfig(all);
  const loaded = {
    config,
    raw: all,
    origins: new Map(),
    file: undefined,
    place: undefined,
    blank: false,
    warnings: config.warnings,
  };
  const done = serve(() => loaded, "1.2.3");
  try {
    await Promise.race([done, (async () => eventually(() => printed.length > 0))()]);
  } finally {
    out.mockRestore();
  }
  const banner = printed.join("");
  return {
    banner,
    port: Number(/Listening on {2}127\.0\.0\.1:(\d+)/.exec(banner)?.[1]),
    log: () => readFileSync(path, "utf8"),
    stop: (signal = "SIGTERM") => {
      process.emit(signal);
      return done;
    },
  };
}

/** A client that asks for `dcId`, and has said what makes a data centre answer. */
function ask(port: number, dcId: number): Socket {
  const socket = connect({ host: "127.0.0.1", port });
  sockets.push(socket);
  socket.on("error", () => {}); // looked at as `close`
  socket.resume();
  const { bytes, up } = makeInit({ transport: "abridged", dcId }, KEY);
  socket.write(Buffer.concat([bytes, up.update(Uint8Array.of(1, 2, 3, 4, 5))]));
  return socket;
}

/** The port of loopback where nobody listens. */
function closedPort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

describe("resolveSecrets()", () => {
  test("takes those that were given, and keeps nothing", () => {
    expect(resolveSecrets(parseConfig({ secret: [`ann:${HEX}`] }))).toEqual([{ name: "ann", key: KEY }]);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("makes one where none was given, and gives the same one again", () => {
    const [first, ...others] = resolveSecrets(parseConfig({}));
    expect(others).toEqual([]);
    expect(first).toMatchObject({ name: "default" });
    expect(readFileSync(join(folder, "secret"), "utf8").trim()).toBe(first?.key.toHex() ?? "");
    expect(resolveSecrets(parseConfig({}))).toEqual(first === undefined ? [] : [first]);
  });
});

describe("serve()", () => {
  test.each(["SIGINT", "SIGTERM"] as const)(
    "listens until %s, and says at the end what it did",
    async (signal) => {
      const proxy = await start({ route: ["direct-tcp"] });
      expect(proxy.banner).toStartWith("tgws 1.2.3\n");
      expect(proxy.banner).toContain(`secret=dd${HEX}`);
      expect(proxy.port).toBeGreaterThan(0);
      await proxy.stop(signal);
      expect(proxy.log()).toContain(
        "stats: total=0 active=0 ws=0 tcp_fb=0 cf=0 bad=0 masked=0 err=0 pool=n/a cf_pool=n/a up=0 B down=0 B\n",
      );
      const refused = connect({ host: "127.0.0.1", port: proxy.port });
      await new Promise((resolve) => refused.on("error", resolve));
    },
  );

  test("serves a client, counts it for its route, and keeps what it has learned", async () => {
    using telegram = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        data(socket) {
          socket.write(Uint8Array.of(9, 9, 9));
        },
      },
    });
    const proxy = await start({ route: ["direct-tcp"], dcTcp: [`4:127.0.0.1:${telegram.port}`] });
    const socket = ask(proxy.port, 4);
    await new Promise((resolve) => socket.once("data", resolve));
    socket.destroy();
    await eventually(() => proxy.log().includes("session ended"));
    await proxy.stop();
    const log = proxy.log();
    expect(log).toMatch(
      /session ended session=1 user=ann dc="DC 4" route=direct-tcp client=127\.0\.0\.1 reason=client-/,
    );
    expect(log).toMatch(/stats: total=1 active=0 ws=0 tcp_fb=1 /);
    expect(log).toMatch(
      /stats: route=direct-tcp dc=4 attempts=1 wins=1 failed=none open=\d+ms up=5 B down=\d+ B\n/,
    );
    const kept = readFileSync(join(folder, "routes.json"), "utf8");
    expect(kept).toContain(`127.0.0.1:${telegram.port}`);
    expect(kept).toContain("wonAt");
  });

  test("says why a data centre cannot be reached, and does not keep what may be the network", async () => {
    const port = closedPort();
    const proxy = await start({ route: ["direct-tcp"], dcTcp: [`2:127.0.0.1:${port}`] });
    const socket = ask(proxy.port, 2);
    await new Promise((resolve) => socket.once("close", resolve));
    await eventually(() => proxy.log().includes("Cannot reach"));
    await proxy.stop();
    expect(proxy.log()).toContain(`WARN  Cannot reach DC 2: direct-tcp 127.0.0.1:${port}: `);
    expect(proxy.log()).toContain("stats: route=direct-tcp dc=2 attempts=1 wins=0 failed=REFUSED:1 open=n/a");
    expect(readFileSync(join(folder, "routes.json"), "utf8")).not.toContain("REFUSED");
  });

  test("sends everybody to the test servers with --force-test-dc, whatever they ask for", async () => {
    const port = closedPort();
    const proxy = await start({
      route: ["direct-tcp"],
      dcTcp: [1, 2, 3].map((dc) => `1000${dc}:127.0.0.1:${port}`),
      forceTestDc: [""],
    });
    for (const dcId of [3, 5, -203]) {
      const socket = ask(proxy.port, dcId);
      await new Promise((resolve) => socket.once("close", resolve));
    }
    await proxy.stop();
    const targets = [...proxy.log().matchAll(/Cannot reach ([^:]+):/g)].map(([, target]) => target);
    expect(targets).toEqual(["test DC 3", "test DC 2", "test DC 2 media"]);
  });

  test("warns of what is dangerous or has no effect, and shows no password of a proxy", async () => {
    const proxy = await start({
      route: ["direct-tcp"],
      noTlsVerify: [""],
      frontDomain: ["front.example.org"],
      upstreamProxy: ["socks5://betty:hunter2@192.0.2.1:9"],
    });
    await proxy.stop();
    const log = proxy.log();
    expect(log).toContain("WARN  certificates are not verified");
    expect(log).toContain("WARN  --front-domain has no effect without the route fronted-ws");
    expect(log).toContain("everything goes through socks5://192.0.2.1:9\n");
    expect(`${log}${proxy.banner}`).not.toMatch(/hunter2|betty/);
  });

  test("outlives a bug elsewhere, and says so", async () => {
    const proxy = await start({ route: ["direct-tcp"] });
    process.emit("uncaughtException", new Error("a stray one"));
    await proxy.stop();
    expect(proxy.log()).toMatch(/ERROR a bug, please report it: .*a stray one\n/);
  });

  test("leaves no temporary files", async () => {
    const proxy = await start({ route: ["direct-tcp"] });
    await proxy.stop();
    expect(readdirSync(folder)).toEqual(["log"]);
  });
});
