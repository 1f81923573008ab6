import { describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import packageJson from "../../package.json" with { type: "json" };
import { ask } from "../support/asking.ts";
import { testCertificates } from "../support/certificates.ts";
import { Gate } from "../support/gate.ts";
import { Home, type LearnedTarget } from "../support/home.ts";
import { answerProbes } from "../support/probe-answers.ts";
import { DCS, Program, ProxyProcess } from "../support/proxy.ts";
import { RETRY_AFTER_S, ROUTES, type RouteName, STALL_BYTES } from "../support/route-failures.ts";
import { StubHttpProxy, StubSocksProxy } from "../support/stub-proxies.ts";
import { World } from "../support/world.ts";

const DEEP_BYTES = 64 * 1024;
/** A whole diagnosis that takes longer hangs. */
const LIMIT_MS = 110_000;
const TEST_LIMIT_MS = 120_000;
const gate = new Gate(5);

/** Runs beside the others, but not beside too many. */
function concurrently(name: string, test: () => Promise<void>): void {
  it.concurrent(name, () => gate.pass(test), TEST_LIMIT_MS);
}

interface Stage {
  readonly name: string;
  readonly ms: number;
  readonly error?: string;
  readonly code?: string;
  readonly detail?: string;
}

/** One way in the report. */
interface Result {
  readonly dc: number;
  readonly media: boolean;
  readonly test: boolean;
  readonly route: RouteName;
  readonly endpoint: string;
  readonly ok: boolean;
  readonly stages: readonly Stage[];
  readonly openMs: number | null;
  readonly rttMs: number | null;
  readonly bytes: number | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly location: string | null;
  readonly retryAfterMs: number | null;
}

/** What `tgws doctor --json` prints. */
interface Report {
  readonly version: string;
  readonly at: string;
  readonly deep: boolean;
  readonly ok: boolean;
  readonly complete: boolean;
  readonly results: readonly Result[];
  readonly leftOut: readonly unknown[];
  readonly advice: readonly string[];
  readonly routes: readonly LearnedTarget[];
}

/** A world that answers probes. */
async function startWorld(): Promise<World> {
  const world = await World.start();
  world.answer = answerProbes();
  return world;
}

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function runDoctor(args: readonly string[], home?: Home): Promise<Run> {
  const { caFile } = await testCertificates();
  const all = ["doctor", "--tls-ca", caFile, ...args];
  await using program = new Program({ args: all, ...(home === undefined ? {} : { home: home.path }) });
  const code = await program.exited(LIMIT_MS);
  return { code, stdout: program.stdout, stderr: program.stderr };
}

async function report(args: readonly string[], home?: Home): Promise<Report & { readonly code: number }> {
  const { code, stdout, stderr } = await runDoctor(["--json", ...args], home);
  try {
    return { ...(JSON.parse(stdout) as Report), code };
  } catch (cause) {
    throw new Error(`no report:\n${stdout}\n${stderr}`, { cause });
  }
}

/** The codes of a route's ways; `ok` for those that work. */
function codesOf({ results }: Report, route: RouteName, dcs: readonly number[] = DCS): string[] {
  const found = results.filter((result) => result.route === route && dcs.includes(result.dc));
  return [...new Set(found.map(({ error }) => error?.code ?? "ok"))];
}

describe("when everything works", () => {
  concurrently("the table says so, and the exit code is 0", async () => {
    await using world = await startWorld();
    const { code, stdout, stderr } = await runDoctor(world.flags(ROUTES));
    expect(code).toBe(0);
    expect(stdout).toMatch(/ DNS +TCP +TLS +upgrade\b/m);
    for (const dc of DCS) {
      expect(stdout).toMatch(new RegExp(`^DC ${dc}$`, "m"));
      expect(stderr).toMatch(new RegExp(`^ok +DC ${dc}: .*\\d+ ms.* media .*\\d+ ms$`, "m"));
    }
    for (const route of ROUTES) {
      expect(stdout).toMatch(new RegExp(`^  ${route} +\\S.* \\d+ +ok$`, "m"));
    }
    expect(stdout).toContain("Every data centre has a working route.");
    expect(stdout).not.toMatch(/^Why/m);
    expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(130);
    expect(stdout + stderr).not.toContain("\u001b");
  });

  concurrently("--json has every field, and nothing else is printed", async () => {
    await using world = await startWorld();
    const found = await report(world.flags(ROUTES));
    expect(found.code).toBe(0);
    expect(found).toMatchObject({ version: packageJson.version, deep: false, ok: true, complete: true });
    expect(Math.abs(Date.now() - Date.parse(found.at))).toBeLessThan(LIMIT_MS);
    expect(found.advice.length).toBe(1);
    expect(found.advice[0]).toMatch(/^Every data centre has a working route\./);
    expect(found.leftOut).toEqual([]);
    expect(found.routes.map(({ target }) => target)).toEqual(
      DCS.flatMap((dc) => [`DC ${dc}`, `DC ${dc} media`]),
    );
    // Two names each of direct-ws, fronted-ws and cf-domain; one Worker; one address.
    expect(found.results.length).toBe(2 * DCS.length * 8);
    for (const result of found.results) {
      const { stages, ...rest } = result;
      expect(rest).toMatchObject({ ok: true, test: false, error: null, location: null, retryAfterMs: null });
      expect(typeof rest.endpoint).toBe("string");
      for (const figure of [rest.openMs, rest.rttMs]) expect(figure).toBeGreaterThanOrEqual(0);
      expect(rest.bytes).toBeWithin(40, 1_000);
      const names = result.route === "direct-tcp" ? ["tcp"] : ["tcp", "tls", "upgrade"];
      expect(stages.map(({ name }) => name)).toEqual(names);
      for (const stage of stages) expect(stage.error).toBeUndefined();
    }
    expect(world.strangers).toEqual([]);
  });

  concurrently("through an HTTP proxy and a SOCKS proxy there are no stages, and all the rest", async () => {
    await using world = await startWorld();
    const credentials = { username: "ann", password: "s3cret-word" };
    for (const start of [
      () => StubHttpProxy.start({ credentials }),
      () => StubSocksProxy.start({ credentials }),
    ]) {
      await using outbound = await start();
      const args = [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", outbound.url];
      const found = await report(args);
      expect(found.code).toBe(0);
      expect(found.results.every(({ ok, stages }) => ok && stages.length === 0)).toBe(true);
      expect(outbound.requests.length).toBe(found.results.length);
      const { code, stdout, stderr } = await runDoctor(args);
      expect(code).toBe(0);
      expect(stdout).toMatch(/direct-ws .*via proxy +\d.* ok$/m);
      expect(stdout + stderr + JSON.stringify(found)).not.toContain("s3cret-word");
    }
  });

  concurrently("--force-test-dc looks at the test servers", async () => {
    await using world = await startWorld();
    const found = await report([...world.flags(["direct-ws", "cf-worker", "direct-tcp"]), "--force-test-dc"]);
    expect(found.code).toBe(0);
    expect(new Set(found.results.map(({ dc }) => dc))).toEqual(new Set([1, 2, 3]));
    expect(found.results.every(({ test }) => test)).toBe(true);
    const paths = world.requests("direct-ws").map(({ path }) => path);
    expect(new Set(paths)).toEqual(new Set(["/apiws_test"]));
  });

  concurrently("shows what a proxy has learned, and leaves it alone", async () => {
    await using world = await startWorld();
    world.break("direct-ws", "302");
    using home = new Home();
    const args = world.flags(["direct-ws", "direct-tcp"]);
    {
      await using proxy = await ProxyProcess.start({ home: home.path, args });
      await ask(proxy);
      expect(await proxy.stop()).toBe(0);
    }
    const before = readFileSync(home.routesFile, "utf8");
    const found = await report(args, home);
    const [first] = found.routes.find(({ target }) => target === "DC 2")?.ways ?? [];
    expect(first).toMatchObject({ route: "direct-tcp", state: "good" });
    const { stdout } = await runDoctor(args, home);
    expect(stdout).toMatch(/^ +1\. direct-tcp .* good/m);
    expect(readFileSync(home.routesFile, "utf8")).toBe(before);
  });
});

describe("when routes are broken", () => {
  concurrently("each says in its own way why, and the exit code is 0 as long as one works", async () => {
    await using world = await startWorld();
    world.break("direct-ws", "302");
    world.break("fronted-ws", "403");
    world.break("cf-worker", "tls-alert");
    world.break("cf-domain", "wrong-certificate");
    const found = await report(world.flags(ROUTES));
    expect(found).toMatchObject({ code: 0, ok: true, complete: true });
    expect(ROUTES.map((route) => codesOf(found, route))).toEqual([
      ["REDIRECT"],
      ["STATUS"],
      ["TLS"],
      ["TLS"],
      ["ok"],
    ]);
    const [redirect] = found.results.filter(({ route }) => route === "direct-ws");
    expect(redirect).toMatchObject({
      location: "https://telegram.org/",
      openMs: null,
      rttMs: null,
      bytes: null,
    });
    expect(redirect?.stages.at(-1)).toMatchObject({ name: "upgrade", code: "REDIRECT" });
    const [certificate] = found.results.filter(({ route }) => route === "cf-domain");
    expect(certificate?.stages.at(-1)).toMatchObject({ name: "tls", code: "TLS" });
    expect(found.advice.join("\n")).toMatch(/certificate .* cf-worker and cf-domain/);
    expect(found.advice.join("\n")).toMatch(/does not serve .*HTTP redirect/);
  });

  concurrently("each says in its own way why, and the exit code is 1 when none works", async () => {
    await using world = await startWorld();
    world.break("direct-ws", "reset");
    world.break("fronted-ws", "429");
    world.break("cf-worker", "101-then-close");
    world.break("cf-domain", "nxdomain");
    world.break("direct-tcp", "reset-after-init");
    const args = world.flags(ROUTES);
    const [found, { code, stdout, stderr }] = await Promise.all([report(args), runDoctor(args)]);
    expect(found).toMatchObject({ code: 1, ok: false, complete: true });
    expect(ROUTES.filter((route) => route !== "cf-domain").map((route) => codesOf(found, route))).toEqual([
      ["CLOSED"],
      ["STATUS"],
      ["CLOSED"],
      ["CLOSED"],
    ]);
    // Where DNS itself cannot be reached, nobody says that there is no such name.
    for (const reason of codesOf(found, "cf-domain")) expect(["DNS", "TIMEOUT"]).toContain(reason);
    const [limited] = found.results.filter(({ route }) => route === "fronted-ws");
    expect(limited?.retryAfterMs).toBe(RETRY_AFTER_S * 1_000);
    const [nameless] = found.results.filter(({ route }) => route === "cf-domain");
    expect(nameless?.stages.map(({ name }) => name)).toEqual(["dns"]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^ {2}cf-domain .* x +- .* (?:DNS|TIMEOUT)$/m);
    expect(stdout).toMatch(/^Why/m);
    expect(stdout).toContain("No data centre can be reached.");
    expect(stderr).toMatch(/^FAIL +DC 2: no working route/m);
    expect(stdout + stderr).not.toMatch(/^\s+at /m);
  });

  concurrently("one data centre without a way is enough for exit code 1", async () => {
    await using world = await startWorld();
    const usual = world.telegram.upgrade;
    world.telegram.upgrade = (request) =>
      /^kws5/.test(request.serverName ?? "") ? { kind: "status", status: "404 Not Found" } : usual(request);
    const found = await report(world.flags(["direct-ws"]));
    expect(found).toMatchObject({ code: 1, ok: false });
    expect(codesOf(found, "direct-ws", [5])).toEqual(["STATUS"]);
    expect(codesOf(found, "direct-ws", [1, 2, 3, 4, 203])).toEqual(["ok"]);
    expect(found.advice[0]).toMatch(/^No working route: DC 5\b(?!.*DC [1-4])/);
  });

  concurrently("silence and hanging are told apart", async () => {
    await using world = await startWorld();
    const { hello, onOpen } = world.cloudflare;
    world.cloudflare.hello = (from) => (/^kws3/.test(from.serverName ?? "") ? "hang" : hello(from));
    world.cloudflare.onOpen = (connection) => {
      onOpen(connection);
      if (/^kws1\b/.test(connection.request.serverName ?? "")) connection.stallAfter(0);
    };
    const found = await report(world.flags(["cf-domain"]));
    expect(found.code).toBe(1);
    expect(codesOf(found, "cf-domain", [3])).toEqual(["TIMEOUT"]);
    const silent = found.results.filter(({ dc, endpoint }) => dc === 1 && !endpoint.includes("kws1-1"));
    expect(silent.map(({ error }) => error?.code)).toEqual(["SILENT", "SILENT"]);
    expect(codesOf(found, "cf-domain", [2, 4, 5, 203])).toEqual(["ok"]);
  });

  concurrently("what answers, but is not Telegram, is seen through", async () => {
    await using world = await startWorld();
    world.answer = () => [new Uint8Array(randomBytes(84))];
    const found = await report(world.flags(["direct-ws", "direct-tcp"]));
    expect(found.code).toBe(1);
    expect(codesOf(found, "direct-ws")).toEqual(["PROTOCOL"]);
    expect(codesOf(found, "direct-tcp")).toEqual(["PROTOCOL"]);
    expect(found.advice.join("\n")).toMatch(/is not Telegram/);
  });

  concurrently("a proxy that refuses is named, without its password", async () => {
    await using world = await startWorld();
    await using outbound = await StubHttpProxy.start({ credentials: { username: "ann", password: "right" } });
    const url = outbound.url.replace("right", "wr0ng-word");
    const args = [...world.flags(["direct-ws", "direct-tcp"]), "--upstream-proxy", url];
    const { code, stdout, stderr } = await runDoctor(args);
    expect(code).toBe(1);
    expect(stdout).toMatch(/direct-tcp .* PROXY$/m);
    expect(stdout).toMatch(/direct-ws .* PROXY$/m);
    expect(stdout).toMatch(/outbound proxy refuses the name and password \(407\)/);
    expect(stdout + stderr).not.toContain("wr0ng-word");
    expect(world.attempts("direct-ws") + world.attempts("direct-tcp")).toBe(0);
  });
});

describe("--deep", () => {
  concurrently("finds a flow that freezes after 16 KiB, which looks fine without it", async () => {
    await using world = await startWorld();
    const usual = world.tcp.onInit;
    world.tcp.onInit = (connection) => {
      usual(connection);
      if (Math.abs(connection.init?.dcId ?? 0) === 4) connection.stallAfter(STALL_BYTES);
    };
    const args = world.flags(["direct-tcp"]);
    const [light, deep] = await Promise.all([report(args), report(["--deep", ...args])]);
    expect(light).toMatchObject({ code: 0, ok: true, deep: false });
    expect(deep).toMatchObject({ code: 1, ok: false, deep: true });
    expect(codesOf(deep, "direct-tcp", [4])).toEqual(["STALLED"]);
    expect(codesOf(deep, "direct-tcp", [1, 2, 3, 5, 203])).toEqual(["ok"]);
    for (const { ok, bytes } of deep.results) if (ok) expect(bytes).toBeGreaterThan(DEEP_BYTES);
    expect(deep.advice.join("\n")).toMatch(/freezes flows on direct-tcp \(DC 4/);
  });

  concurrently("moves more than 64 KiB over every kind of route", async () => {
    await using world = await startWorld();
    const found = await report(["--deep", ...world.flags(ROUTES)]);
    expect(found).toMatchObject({ code: 0, ok: true, deep: true });
    for (const route of ROUTES) expect(codesOf(found, route)).toEqual(["ok"]);
    expect(Math.min(...found.results.map(({ bytes }) => bytes ?? 0))).toBeGreaterThan(DEEP_BYTES);
  });
});

describe("an interrupted diagnosis", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    concurrently(`(${signal}) prints what is known, and the exit code is 130`, async () => {
      await using world = await startWorld();
      world.break("direct-tcp", "accept-and-hang");
      const args = ["doctor", "--json", ...world.flags(["direct-tcp"])];
      await using program = new Program({ args });
      await world.until(() => world.attempts("direct-tcp") > 2, "a diagnosis under way", 10_000);
      program.signal(signal);
      expect(await program.exited(4_000)).toBe(130);
      const found = JSON.parse(program.stdout) as Report;
      expect(found).toMatchObject({ ok: false, complete: false });
      expect(found.advice.join("\n")).toMatch(/stopped before everything was tried/);
    });
  }
});

describe("a wrong command line", () => {
  const cases: readonly (readonly [string, readonly string[], RegExp])[] = [
    ["an unknown flag", ["--prot"], /--prot\b[\s\S]*--port/],
    ["a bad route", ["--route", "direct-wss"], /direct-wss[\s\S]*direct-ws/],
    ["a route without its domain", ["--route", "cf-worker"], /--cfproxy-worker-domain/],
    ["a bad proxy", ["--upstream-proxy", "ftp://ann:s3cret-word@127.0.0.1"], /--upstream-proxy/],
    ["a stray word", ["deep"], /deep/],
    ["a value for a switch", ["--json=yes"], /--json/],
  ];
  for (const [name, args, pattern] of cases) {
    concurrently(`with ${name} is explained, and the exit code is 2`, async () => {
      const { code, stdout, stderr } = await runDoctor(args);
      expect(stderr).toMatch(pattern);
      expect(code).toBe(2);
      expect(stdout).toBe("");
      expect(stderr).not.toContain("s3cret-word");
      expect(stderr).not.toMatch(/^\s+at /m);
    });
  }

  it("with a mistyped switch of its own gets that one as a hint", async () => {
    const { stderr } = await runDoctor(["--depp"]);
    expect(stderr).toMatch(/hint: .*--deep/);
  });
});
