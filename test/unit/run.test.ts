import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import type { DoctorJson } from "../../src/cli/doctor-json.ts";
import type { TargetRoutesJson } from "../../src/cli/routes-report.ts";
import { FIELDS } from "../../src/config/fields.ts";
import { DC_NUMBERS } from "../../src/protocol/mtproto/dc.ts";
import type { Way } from "../../src/upstream/route.ts";
import { Standings } from "../../src/upstream/standings.ts";
import { runTgws } from "../support/command-line.ts";

const HEX = "00112233445566778899aabbccddeeff";

let folder: string;
let homeBefore: string | undefined;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-run-"));
  homeBefore = process.env["TGWS_HOME"];
  process.env["TGWS_HOME"] = folder;
});
afterEach(() => {
  if (homeBefore === undefined) delete process.env["TGWS_HOME"];
  else process.env["TGWS_HOME"] = homeBefore;
  rmSync(folder, { recursive: true, force: true });
});

describe("run()", () => {
  test.each([[["--version"]], [["link", "--version"]], [["--port", "1", "--version"]]])(
    "prints the version for %j",
    async (argv) => {
      expect(await runTgws(...argv)).toMatchObject({
        code: 0,
        stdout: `${packageJson.version}\n`,
        stderr: "",
      });
    },
  );

  test.each(["--help", "-h"])("prints the help for %s, with every flag and command", async (flag) => {
    const { code, stdout, stderr } = await runTgws(flag);
    expect(code).toBe(0);
    expect(stderr).toBe("");
    for (const field of Object.values(FIELDS)) expect(stdout).toContain(`--${field.flag}`);
    for (const command of ["link", "secret", "doctor", "routes", "users", "config"])
      expect(stdout).toMatch(new RegExp(`^\\s+${command} `, "m"));
    expect(stdout).not.toMatch(/[ \t]$/m);
  });

  test("prints the help of a command, with its own flags only", async () => {
    const { code, stdout } = await runTgws("link", "--help");
    expect(code).toBe(0);
    expect(stdout).toContain("--secret");
    expect(stdout).not.toContain("--pool-size");
    expect(stdout).toContain("and the flags of the proxy: tgws --help");
  });

  test.each([
    ["doctor", ["--deep", "--json", "-h, --help", "--version", "and the flags of the proxy: tgws --help"]],
    ["routes", ["--json", "-h, --help", "--version", "and the flags of the proxy: tgws --help"]],
  ] as const)(
    "prints the help of %s, with its switches and where those of the proxy are",
    async (command, flags) => {
      const { code, stdout, stderr } = await runTgws(command, "--help");
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      for (const flag of flags) expect(stdout).toContain(flag);
      expect(stdout.includes("--deep")).toBe(command === "doctor");
      expect(stdout).not.toContain("--route");
    },
  );

  test("prints the help for tgws help, also that of a command", async () => {
    expect(await runTgws("help")).toEqual(await runTgws("--help"));
    expect(await runTgws("help", "link")).toEqual(await runTgws("link", "--help"));
    expect((await runTgws("help", "lnik")).stderr).toContain("did you mean link?");
  });

  test.each([
    [undefined, 80],
    [0, 80],
    [50, 50],
    [80, 80],
    [200, 120],
  ])("breaks the help for a terminal of %p columns at %d", async (columns, width) => {
    const before = Object.getOwnPropertyDescriptor(process.stdout, "columns");
    Object.defineProperty(process.stdout, "columns", { value: columns, configurable: true });
    try {
      const { stdout } = await runTgws("--help");
      const longest = Math.max(...stdout.split("\n").map((line) => line.length));
      expect(longest).toBeWithin(width - 9, width + 1);
      expect(stdout).toContain("\n  --cfproxy-worker-domain <domain[:port]>\n");
    } finally {
      if (before === undefined) Reflect.deleteProperty(process.stdout, "columns");
      else Object.defineProperty(process.stdout, "columns", before);
    }
  });

  test("says in the help what the defaults are, and what may be repeated", async () => {
    const { stdout } = await runTgws("--help");
    const text = stdout.replaceAll(/\s+/g, " ");
    expect(text).toContain("USAGE tgws [OPTIONS] tgws COMMAND [OPTIONS]");
    expect(text).toContain("(repeatable; Default: all)");
    expect(text).toContain("(repeatable; Default: plain,dd; with fake TLS: ee)");
    expect(text).toContain("the dd... or ee... of a link, or the link; up to 1000 of them");
    expect(text).toContain("http:// or socks5://, but for what NO_PROXY names");
    const lists = Object.values(FIELDS).filter(({ kind }) => kind === "list");
    expect(text.match(/repeatable/g)).toHaveLength(lists.length);
    expect(text).not.toMatch(/repeat for|times/);
  });

  test("prints a new secret for tgws secret", async () => {
    const [one, other] = [await runTgws("secret"), await runTgws("secret")];
    expect(one).toMatchObject({ code: 0, stderr: "" });
    expect(one.stdout).toMatch(/^[0-9a-f]{32}\n$/);
    expect(other.stdout).not.toBe(one.stdout);
  });
});

describe("run(), tgws link", () => {
  test("prints the links of the secret that is kept, the same each time", async () => {
    const [first, second] = [await runTgws("link"), await runTgws("link")];
    const kept = readFileSync(join(folder, "secret"), "utf8").trim();
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(first.stdout).toContain(`tg://proxy?server=127.0.0.1&port=1443&secret=dd${kept}\n`);
    expect(second.stdout).toBe(first.stdout);
  });

  test("prints those of given secrets, and keeps nothing", async () => {
    const { stdout } = await runTgws("link", "--host", "192.0.2.7", "--port=8443", "--secret", `ann:${HEX}`);
    expect(stdout).toContain(`https://t.me/proxy?server=192.0.2.7&port=8443&secret=dd${HEX}\n`);
    expect(() => readFileSync(join(folder, "secret"))).toThrow();
  });

  test("prints those for fake TLS, with the domain of a flag or of a secret", async () => {
    const secret = `ee${HEX}${Buffer.from("example.com").toString("hex")}`;
    const link = `tg://proxy?server=192.0.2.7&port=443&secret=${secret}\n`;
    const where = ["--host", "192.0.2.7", "--port", "443"];
    const byFlag = await runTgws("link", ...where, "--secret", HEX, "--fake-tls-domain", "Example.com");
    expect(byFlag).toMatchObject({ code: 0, stderr: "" });
    expect(byFlag.stdout).toContain(link);
    expect(byFlag.stdout).not.toContain(`dd${HEX}`);
    expect(await runTgws("link", ...where, "--secret", secret)).toEqual(byFlag);
    const both = await runTgws("link", ...where, "--secret", secret, "--accept", "ee,dd");
    expect(both.stdout).toContain(link);
    expect(both.stdout).toContain(`secret=dd${HEX}\n`);
  });

  test("prints what has no effect to standard error", async () => {
    const { code, stdout, stderr } = await runTgws(
      ...["link", "--secret", HEX, "--fake-tls-domain", "example.com", "--accept", "dd"],
    );
    expect(code).toBe(0);
    expect(stdout).toContain(`secret=dd${HEX}\n`);
    expect(stderr).toBe("tgws: --fake-tls-domain has no effect without ee in --accept\n");
  });

  test("takes every flag of the proxy: it may stand before them", async () => {
    const where = [
      "--host",
      "proxy.example",
      "--port",
      "443",
      "--secret",
      HEX,
      "--fake-tls-domain",
      "example.com",
    ];
    const others = ["--mask-host", "127.0.0.1:8443", "--proxy-protocol", "--pool-size=1", "-v"];
    expect(await runTgws("link", ...where, ...others)).toEqual(await runTgws("link", ...where));
  });

  test("says what to name behind a load balancer, of which nothing is known here", async () => {
    const { code, stdout, stderr } = await runTgws("link", "--proxy-protocol", "--secret", HEX);
    expect(code).toBe(0);
    expect(stdout).toContain("server=127.0.0.1");
    expect(stderr).toBe("tgws: people reach the proxy before this one: name it with --host and --port\n");
  });

  test("exits with 1 when the kept secret is damaged", async () => {
    writeFileSync(join(folder, "secret"), "?");
    const { code, stdout, stderr } = await runTgws("link");
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toStartWith(
      `tgws: Cannot use the secret in ${join(folder, "secret")}: it is damaged\nhint: `,
    );
    expect(stderr.split("\n")).toHaveLength(3);
  });
});

describe("run(), tgws routes", () => {
  const WHERE = ["--route", "direct-tcp", "--dc-tcp", "2:192.0.2.2", "--dc-tcp", "2:192.0.2.1"];

  test("prints the ways to every data centre in the order of trying as JSON", async () => {
    const { code, stdout, stderr } = await runTgws("routes", "--json", ...WHERE);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const targets = JSON.parse(stdout) as TargetRoutesJson[];
    expect(targets.map(({ target }) => target)).toEqual(
      DC_NUMBERS.flatMap((dc) => [`DC ${dc}`, `DC ${dc} media`]),
    );
    expect(targets.find(({ target }) => target === "DC 2")?.ways).toMatchObject([
      { route: "direct-tcp", endpoint: "192.0.2.2:443", state: "untried" },
      { route: "direct-tcp", endpoint: "192.0.2.1:443", state: "untried" },
    ]);
  });

  test("says that nothing is learned where nothing is, and names the order of the routes", async () => {
    const { code, stdout } = await runTgws("routes", "--route", "direct-tcp,direct-ws");
    expect(code).toBe(0);
    expect(stdout).toBe("Nothing is learned yet: the order is direct-tcp, then direct-ws.\n");
  });

  test("knows what a proxy has learned and kept", async () => {
    const address = { host: "192.0.2.2", port: 443, webSocket: undefined };
    const way: Way = {
      route: "direct-tcp",
      endpoint: "192.0.2.2:443",
      group: "192.0.2.2:443",
      address,
      open: () => Promise.reject(new Error("not called")),
    };
    const standings = new Standings();
    standings.failedToCarry("DC 2", way, "STALLED");
    writeFileSync(join(folder, "routes.json"), standings.save());
    const text = (await runTgws("routes", ...WHERE)).stdout;
    expect(text).toMatch(/^DC 2\n +1\. direct-tcp +192\.0\.2\.1:443 /);
    expect(text).toContain("Nothing is learned yet of DC 1, DC 1 media, DC 2 media, ");
    const { code, stdout } = await runTgws("routes", "--json", ...WHERE);
    expect(code).toBe(0);
    const found = (JSON.parse(stdout) as TargetRoutesJson[]).find(({ target }) => target === "DC 2");
    expect(found?.ways).toMatchObject([
      { endpoint: "192.0.2.1:443", state: "untried" },
      { endpoint: "192.0.2.2:443", state: "failed", reason: "STALLED" },
    ]);
  });

  test("prints what has no effect to standard error", async () => {
    const { code, stdout, stderr } = await runTgws("routes", "--json", ...WHERE, "--log-backups", "3");
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: "tgws: --log-backups has no effect without --log-file\n",
    });
    expect(JSON.parse(stdout)).toBeArray();
  });

  test("takes every flag of the proxy, and those of the test servers", async () => {
    const { code, stdout } = await runTgws(
      ...[
        "routes",
        "--json",
        "-v",
        "--secret",
        HEX,
        "--port",
        "0",
        "--force-test-dc",
        "--pool-size=2",
        "--fake-tls-domain=example.com",
        "--mask-host=127.0.0.1:8443",
        "--proxy-protocol",
        ...WHERE,
      ],
    );
    expect(code).toBe(0);
    expect((JSON.parse(stdout) as TargetRoutesJson[]).map(({ target }) => target)).toEqual([
      "test DC 1",
      "test DC 1 media",
      "test DC 2",
      "test DC 2 media",
      "test DC 3",
      "test DC 3 media",
    ]);
  });

  test("exits with 2 when the outbound proxy cannot be read, and does not show its password", async () => {
    const { code, stdout, stderr } = await runTgws(
      "routes",
      "--upstream-proxy",
      "ftp://ann:hunter2@192.0.2.1",
    );
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toStartWith("tgws: --upstream-proxy: Cannot use a proxy of kind ftp://");
    expect(stderr).not.toContain("hunter2");
  });
});

describe("run(), tgws doctor", () => {
  /** Addresses of every data centre: this port of loopback. */
  const everywhere = (port: number): string[] => [
    "--route",
    "direct-tcp",
    ...DC_NUMBERS.flatMap((dc) => ["--dc-tcp", `${dc}:127.0.0.1:${port}`]),
  ];

  test("exits with its own code: 1 when nothing works", async () => {
    const closed = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = closed;
    closed.stop(true);
    const { code, stdout, stderr, progress } = await runTgws(
      "doctor",
      ...everywhere(port),
      "--log-max-mb",
      "1",
    );
    expect(code).toBe(1);
    expect(stderr).toBe("tgws: --log-max-mb has no effect without --log-file\n");
    expect(stdout).toContain("direct-tcp");
    expect(progress).toContain("FAIL");
  });

  test.each([
    ["127.0.0.0/8", "tcp"],
    ["192.0.2.0/24", "via proxy"],
  ])("shows the stages of what NO_PROXY=%s excepts: %s", async (noProxy, shown) => {
    const before = process.env["NO_PROXY"];
    process.env["NO_PROXY"] = noProxy;
    const closed = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { port } = closed;
    closed.stop(true);
    try {
      const proxy = ["--upstream-proxy", `http://127.0.0.1:${port}`];
      const json = await runTgws("doctor", "--json", ...proxy, ...everywhere(port));
      const { results, advice } = JSON.parse(json.stdout) as DoctorJson;
      const stages = new Set(results.map((result) => result.stages.map(({ name }) => name).join()));
      expect([...stages]).toEqual([shown === "tcp" ? "tcp" : ""]);
      const about = `The outbound proxy at 127.0.0.1:${port} cannot be reached: is it running?`;
      expect(advice.join("\n").includes(about)).toBe(shown === "via proxy");
    } finally {
      if (before === undefined) delete process.env["NO_PROXY"];
      else process.env["NO_PROXY"] = before;
    }
  });

  test("exits with its own code: 130 when Ctrl-C ends it, and prints what it knows as JSON", async () => {
    const { promise: asked, resolve } = Promise.withResolvers<void>();
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => resolve() } });
    const running = runTgws("doctor", "--json", ...everywhere(silent.port));
    await asked;
    process.emit("SIGINT");
    const { code, stdout } = await running;
    expect(code).toBe(130);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, complete: false, deep: false });
  });
});

describe("run(), wrong use", () => {
  test.each([
    [["lnik"], "tgws: lnik: unknown command\nhint: did you mean link?\n"],
    [["secrets"], "tgws: secrets: unknown command\nhint: did you mean secret?\n"],
    [
      ["serve"],
      "tgws: serve: unknown command\nhint: without a command tgws runs the proxy; the commands are link, secret, doctor, routes, users, config\n",
    ],
    [["route"], "tgws: route: unknown command\nhint: did you mean routes?\n"],
    [["doktor", "--deep"], "tgws: doktor: unknown command\nhint: did you mean doctor?\n"],
    [["routes", "--deep"], "tgws: --deep: unknown flag\nhint: --deep belongs to tgws doctor\n"],
    [["--deep"], "tgws: --deep: unknown flag\nhint: --deep belongs to tgws doctor\n"],
    [
      ["run"],
      "tgws: run: unknown command\nhint: without a command tgws runs the proxy; the commands are link, secret, doctor, routes, users, config\n",
    ],
    [
      ["st\u001b[2Jart"],
      "tgws: st?[2Jart: unknown command\nhint: without a command tgws runs the proxy; the commands are link, secret, doctor, routes, users, config\n",
    ],
    [["doctor", "--prot", "1"], "tgws: --prot: unknown flag\nhint: did you mean --port?\n"],
    [["doctor", "--json=yes"], "tgws: --json: takes no value\nhint: --json\n"],
    [["routes", "all"], "tgws: all: unexpected word\nhint: flags start with --; see tgws --help\n"],
    [
      ["--json"],
      "tgws: --json: unknown flag\nhint: --json belongs to tgws doctor, tgws routes, tgws users list and tgws config show\n",
    ],
    [["lnik", "--help"], "tgws: lnik: unknown command\nhint: did you mean link?\n"],
    [["--prot", "1443"], "tgws: --prot: unknown flag\nhint: did you mean --port?\n"],
    [
      ["link", "--pool-size", "x"],
      "tgws: --pool-size: x: not a whole number from 0 to 64\nhint: --pool-size <number>; 4 without it\n",
    ],
    [["link", "--deep"], "tgws: --deep: unknown flag\nhint: --deep belongs to tgws doctor\n"],
    [
      ["link", "ee0123456789abcdef0123456789ab"],
      "tgws: a secret: without its flag\nhint: --secret <secret>, and once more for each\n",
    ],
    [["ee0123456789abcdef01"], "tgws: a secret: without its flag\nhint: --secret <secret>\n"],
    [["secret", "more"], "tgws: more: unexpected word\nhint: flags start with --; see tgws --help\n"],
    [["--port"], "tgws: --port: needs a value\nhint: --port <port>\n"],
    [["--port", "1", "link"], "tgws: link: unexpected word\nhint: flags start with --; see tgws --help\n"],
    [
      ["--prot", "1", "--port", "x"],
      "tgws: --prot: unknown flag\nhint: did you mean --port?\ntgws: --port: x: not a whole number from 0 to 65535\nhint: --port <port>; 1443 without it\n",
    ],
    [
      ["--port", "70000"],
      "tgws: --port: 70000: not a whole number from 0 to 65535\nhint: --port <port>; 1443 without it\n",
    ],
    [
      ["--verbose", "--port", "x"],
      "tgws: --port: x: not a whole number from 0 to 65535\nhint: --port <port>; 1443 without it\n",
    ],
  ])("exits with 2 for %j, with a line for what is wrong and one for what to do", async (argv, stderr) => {
    expect(await runTgws(...argv)).toEqual({ code: 2, stdout: "", stderr, progress: "" });
  });

  test("says everything that is wrong at once", async () => {
    const { code, stderr } = await runTgws("--buf-kb", "0", "--pool-size", "x", "--dc-ip", "9:1.2.3.4");
    expect(code).toBe(2);
    expect(stderr.match(/^tgws: --[a-z-]+/gm)).toEqual([
      "tgws: --dc-ip",
      "tgws: --pool-size",
      "tgws: --buf-kb",
    ]);
  });

  test.each(["constructor", "toString", "__proto__"])("does not take %s for a command", async (word) => {
    expect(await runTgws(word)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("unknown command"),
    });
  });
});

describe("run(), a proxy that cannot start", () => {
  test("exits with 1 when its port is taken, and says which to take", async () => {
    using other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const { code, stdout, stderr } = await runTgws("--port", String(other.port));
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain(`tgws: Cannot listen on 127.0.0.1:${other.port}: the port is in use\nhint: `);
    expect(stderr).not.toContain(" at ");
  });

  test("exits with 1 when this machine has no such address", async () => {
    const { code, stderr } = await runTgws("--host", "192.0.2.1", "--port", "0");
    expect(code).toBe(1);
    expect(stderr).toContain("this machine has no such address");
  });

  test.each(["missing.pem", "empty.pem"])("exits with 1 without certificates in %s", async (name) => {
    writeFileSync(join(folder, "empty.pem"), "nothing");
    const { code, stderr } = await runTgws("--port", "0", "--tls-ca", join(folder, name));
    expect(code).toBe(1);
    expect(stderr).toContain(join(folder, name));
    expect(stderr).toContain("hint: --tls-ca takes a PEM file");
  });

  test("exits with 1 when its secret cannot be kept", async () => {
    writeFileSync(join(folder, "file"), "");
    process.env["TGWS_HOME"] = join(folder, "file");
    const { code, stderr } = await runTgws("--port", "0");
    expect(code).toBe(1);
    expect(stderr).toContain("hint: set TGWS_HOME to a folder of your own, or give one with --secret");
  });

  test("exits with 1 when its log cannot be written", async () => {
    const { code, stderr } = await runTgws("--port", "0", "--log-file", folder);
    expect(code).toBe(1);
    expect(stderr).toContain(`tgws: Cannot write the log file ${folder}: `);
  });

  test("adds the stack for those who asked for details", async () => {
    const { stderr } = await runTgws("-v", "--port", "0", "--tls-ca", join(folder, "missing.pem"));
    expect(stderr).toMatch(/^\s+at /m);
  });
});
