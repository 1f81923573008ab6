import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SettingsJson } from "../../src/cli/config-show.ts";
import type { UserJson } from "../../src/cli/users-list.ts";
import { UsageStore } from "../../src/config/usage-store.ts";
import { runTgws } from "../support/command-line.ts";

const HEX = "00112233445566778899aabbccddeeff";
const OTHER = "ffeeddccbbaa99887766554433221100";

let home: string;
let file: string;
let homeBefore: string | undefined;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "tgws-commands-"));
  file = join(home, "config.toml");
  homeBefore = process.env["TGWS_HOME"];
  process.env["TGWS_HOME"] = home;
});
afterEach(() => {
  if (homeBefore === undefined) delete process.env["TGWS_HOME"];
  else process.env["TGWS_HOME"] = homeBefore;
  rmSync(home, { recursive: true, force: true });
});

const write = (text: string): void => writeFileSync(file, text, { mode: 0o600 });
const kept = (): string => readFileSync(file, "utf8");

describe("tgws config check", () => {
  test("says ok, and what to know", async () => {
    expect(await runTgws("config", "check")).toMatchObject({
      code: 0,
      stdout: "ok: there is no configuration file\n",
    });
    write(`[users.a]\nsecret = "${HEX}"\nenabled = false\n`);
    expect(await runTgws("config", "check")).toEqual({
      code: 0,
      stdout: `ok: ${file} (1 user)\n`,
      stderr: "tgws: every user is disabled: nobody is served\n",
      progress: "",
    });
  });

  test("says all problems of a file that it is given, and exits with 2", async () => {
    const other = join(home, "other.toml");
    writeFileSync(other, "port = 'x'\nprot = 1\n");
    expect(await runTgws("config", "check", other)).toEqual({
      code: 2,
      stdout: "",
      stderr:
        `tgws: ${other}:1: port: x: not a whole number from 0 to 65535\nhint: port = <port>; 1443 without it\n` +
        `tgws: ${other}:2: prot: unknown setting\nhint: did you mean port?\n`,
      progress: "",
    });
    expect((await runTgws("config", "check", join(home, "none"))).stderr).toContain("no such file");
    expect((await runTgws("config", "check", other, "stray")).stderr).toContain("stray: unexpected word");
  });

  test("looks at what only a start would find, too", async () => {
    write('tls-ca = "/none.pem"\n');
    expect(await runTgws("config", "check")).toMatchObject({ code: 1 });
    write('upstream-proxy = "ftp://x"\n');
    expect(await runTgws("config", "check")).toMatchObject({ code: 2 });
  });
});

describe("tgws config show", () => {
  test("prints values and where they come from, without secrets", async () => {
    write(
      `secret = ["ann:${HEX}"]\nstatus-token = "topsecret"\nroute = "direct-tcp"\n[users.bob]\nsecret = "${OTHER}"\n`,
    );
    const json = await runTgws("config", "show", "--json", "--port", "5");
    const { settings, users, file: shown } = JSON.parse(json.stdout) as SettingsJson;
    expect(shown).toBe(file);
    expect(settings["port"]).toEqual({ value: "5", source: "flag", place: "--port" });
    expect(settings["host"]).toEqual({ value: "127.0.0.1", source: "default", place: null });
    expect(settings["secret"]).toEqual({
      value: ["ann:(a secret)"],
      source: "file",
      place: `${file}:1: secret`,
    });
    expect(settings["status-token"]?.value).toBe("(a secret)");
    expect(settings["no-cfproxy"]?.value).toBe(false);
    expect(users).toEqual({ bob: { place: `${file}:4: users.bob`, settings: { secret: "(a secret)" } } });
    const text = await runTgws("config", "show");
    expect(text.stdout).toMatch(/^ {2}route +direct-tcp +.*config.toml:3: route$/m);
    for (const { stdout } of [json, text]) {
      for (const secret of [HEX, OTHER, "topsecret"]) expect(stdout).not.toContain(secret);
    }
  });
});

describe("tgws config init", () => {
  test("writes a file with a user, that can be used, and prints the link", async () => {
    const { code, stdout } = await runTgws("config", "init");
    expect(code).toBe(0);
    expect(stdout).toStartWith(`Written: ${file}\n`);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const [, secret] = /^secret = "([0-9a-f]{32})"$/m.exec(kept()) ?? [];
    expect(stdout).toContain(`secret=dd${secret}`);
    expect(await runTgws("config", "check")).toMatchObject({ code: 0, stdout: `ok: ${file} (1 user)\n` });
  });

  test("goes on with the secret that was served so far", async () => {
    const before = await runTgws("link");
    await runTgws("config", "init");
    expect((await runTgws("link")).stdout).toBe(before.stdout);
    expect(kept()).toContain(readFileSync(join(home, "secret"), "utf8").trim());
  });

  test("replaces a file only with --force", async () => {
    write("port = 5\n");
    expect(await runTgws("config", "init")).toMatchObject({
      code: 2,
      stderr: `tgws: ${file}: is there already\nhint: --force replaces it; --config names another file\n`,
    });
    expect(kept()).toBe("port = 5\n");
    expect((await runTgws("config", "init", "--force")).code).toBe(0);
    expect(kept()).toContain("[users.default]");
  });

  test("sets what flags say, and nothing of the environment or the file before", async () => {
    write("max-connections = 5\n");
    process.env["TGWS_POOL_SIZE"] = "7";
    try {
      const flags = [
        "--port",
        "8443",
        "--route",
        "direct-tcp,direct-ws",
        "--dc-ip=2:192.0.2.1",
        "--no-cfproxy=false",
      ];
      const { code, stdout } = await runTgws("config", "init", "--force", "-v", ...flags);
      expect({ code, link: stdout.includes("port=8443&") }).toEqual({ code: 0, link: true });
    } finally {
      delete process.env["TGWS_POOL_SIZE"];
    }
    expect(
      kept()
        .split("\n")
        .filter((line) => /^[a-z]/.test(line)),
    ).toEqual([
      "port = 8443",
      'route = ["direct-tcp,direct-ws"]',
      'dc-ip = ["2:192.0.2.1"]',
      "no-cfproxy = false",
      "verbose = true",
      expect.stringMatching(/^secret = /),
    ]);
    write("port = 5\n");
    expect(await runTgws("config", "init", "--force", "--port", "x")).toMatchObject({ code: 2, stdout: "" });
    expect(kept()).toBe("port = 5\n");
  });

  test("writes a number only where it is read back as it was given", async () => {
    const { code } = await runTgws(
      "config",
      "init",
      "--status-token",
      "1.50",
      "--tls-ca",
      "5.0",
      "--buffer-mb",
      "1.5",
    );
    expect(code).toBe(0);
    const { settings } = JSON.parse((await runTgws("config", "show", "--json")).stdout) as SettingsJson;
    expect(kept()).toContain('\nstatus-token = "1.50"\n');
    expect(settings["tls-ca"]?.value).toBe("5.0");
    expect(kept()).toContain("\nbuffer-mb = 1.5\n");
  });

  test("writes the file that --config names", async () => {
    const other = join(home, "deep", "other.toml");
    expect((await runTgws("config", "init", "--config", other)).code).toBe(0);
    expect(existsSync(other)).toBe(true);
    expect(existsSync(file)).toBe(false);
  });
});

describe("tgws config import", () => {
  test("lets a flag count more than what it takes over", async () => {
    const json = join(home, "config.json");
    writeFileSync(json, JSON.stringify({ port: 1, host: "0.0.0.0", secret: HEX }));
    const { code, stdout } = await runTgws("config", "import", json, "--port", "8443");
    expect({ code, link: stdout.includes(`port=8443&secret=dd${HEX}`) }).toEqual({ code: 0, link: true });
    expect(kept()).toContain("\nport = 8443\n");
    expect(kept()).toContain('\nhost = "0.0.0.0"\n');
  });

  const json = (): string => join(home, "config.json");

  test("makes a file that keeps port and secret, and says what it took and left", async () => {
    writeFileSync(json(), JSON.stringify({ port: 1555, secret: HEX, cfproxy: false, language: "en" }));
    const { code, stdout } = await runTgws("config", "import", json());
    expect(code).toBe(0);
    expect(stdout).toContain(`port=1555&secret=dd${HEX}`);
    expect(stdout).toContain("Taken over: port as port, cfproxy as no-cfproxy, secret as the user default\n");
    expect(stdout).toContain("Left out: language (not needed here)\n");
    expect((await runTgws("config", "check")).code).toBe(0);
  });

  test("says all that is wrong with the file, in its own words", async () => {
    writeFileSync(json(), JSON.stringify({ port: 99_999, dc_ip: ["x"], secret: `${HEX}00`, cfproxy: 1 }));
    const { code, stderr } = await runTgws("config", "import", json());
    expect(code).toBe(2);
    const lines = stderr.split("\n").filter((line) => line.startsWith("tgws: "));
    expect(lines).toEqual([
      `tgws: ${json()}: cfproxy: neither true nor false`,
      `tgws: ${json()}: secret: Cannot use secret: it is 17 bytes long`,
      `tgws: ${json()}: port: 99999: not a whole number from 0 to 65535`,
      `tgws: ${json()}: dc_ip: x: not of the form DC:IP[:port]`,
    ]);
    expect(stderr).not.toContain(HEX);
    expect(existsSync(file)).toBe(false);
  });

  test.each([
    ["nothing", undefined, "no such file"],
    ["no JSON", `{ "secret": ${HEX} `, "not JSON: "],
    ["no object", "[]", "not an object with settings"],
  ])("refuses %s", async (_what, text, message) => {
    if (text !== undefined) writeFileSync(json(), text);
    const { code, stderr } = await runTgws("config", "import", json());
    expect(code).toBe(2);
    expect(stderr).toContain(`${json()}: ${message}`);
    expect(stderr).not.toContain(HEX);
  });

  test("needs a file", async () => {
    expect(await runTgws("config", "import")).toMatchObject({
      code: 2,
      stderr: "tgws: FILE: is missing\nhint: tgws config import FILE\n",
    });
  });
});

describe("tgws users", () => {
  test("says so when the date is past, since the links look as well as others", async () => {
    const past =
      "tgws: ann has expired at 2020-01-02 00:00 UTC, and is not served: --expires sets another date\n";
    expect((await runTgws("users", "add", "ann", "--expires", "2020-01-01")).stderr).toBe(past);
    expect((await runTgws("users", "set", "ann", "--quota-gb", "1")).stderr).toBe("");
    expect((await runTgws("users", "disable", "ann")).stderr).not.toContain("expired");
    expect((await runTgws("users", "enable", "ann")).stderr).toBe(past);
    expect((await runTgws("users", "set", "ann", "--expires", "none")).stderr).toBe("");
    expect((await runTgws("users", "set", "ann", "--expires", "2020-01-01")).stderr).toBe(past);
  });

  test("adds, lists, links, changes and removes", async () => {
    const added = await runTgws(
      "users",
      "add",
      "ann",
      "--quota-gb",
      "5",
      "--expires=2027-01-31",
      "--host",
      "192.0.2.7",
    );
    expect(added).toMatchObject({ code: 0, stderr: "" });
    expect(added.stdout).toStartWith(`Added ann to ${file}\n\n  Open in app   tg://proxy?server=192.0.2.7`);
    const [, secret] = /secret=dd([0-9a-f]{32})/.exec(added.stdout) ?? [];
    expect(kept()).toEndWith(`\n[users.ann]\nsecret = "${secret}"\nquota-gb = 5\nexpires = 2027-01-31\n`);
    expect((await runTgws("users", "link", "ann")).stdout).toContain(`secret=dd${secret}`);

    expect((await runTgws("users", "set", "ann", "--quota-gb", "none", "--rate-kb", "10")).code).toBe(0);
    expect((await runTgws("users", "disable", "ann")).stdout).toBe("ann is disabled\n");
    expect((await runTgws("users", "disable", "ann")).stdout).toBe("ann was disabled already\n");
    const [ann] = JSON.parse((await runTgws("users", "list", "--json")).stdout) as UserJson[];
    expect(ann).toEqual({
      name: "ann",
      state: "disabled",
      enabled: false,
      maxConnections: null,
      maxAddresses: null,
      quotaBytes: null,
      expires: "2027-02-01T00:00:00.000Z",
      rateBytes: 10_240,
      up: 0,
      down: 0,
      place: `${file}:3: users.ann`,
    });
    expect((await runTgws("users", "enable", "ann")).stdout).toBe("ann is enabled\n");
    expect((await runTgws("users", "remove", "ann")).stdout).toStartWith(
      `Removed ann from ${file}\nNobody is left`,
    );
    expect(kept()).not.toContain("ann");
  });

  test("says what to know about the file", async () => {
    writeFileSync(file, "port = 5\n", { mode: 0o644 });
    const { stderr } = await runTgws("users", "add", "ann");
    expect(stderr).toBe(
      `tgws: ${file} holds secrets, and everybody on this machine can read it: chmod 640 ${file}\n`,
    );
  });

  test("takes a secret and its domain", async () => {
    const secret = `ee${HEX}${Buffer.from("example.com").toString("hex")}`;
    const { stdout } = await runTgws("users", "add", "ann", "--secret", secret);
    expect(stdout).toContain(`secret=${secret}`);
  });

  test("keeps the secret that was served so far, as another user", async () => {
    await runTgws("link");
    const secret = readFileSync(join(home, "secret"), "utf8").trim();
    const { stdout } = await runTgws("users", "add", "ann");
    expect(stdout).toContain("Added default, too: the secret that was served so far\n");
    expect(kept()).toContain(`[users.default]\nsecret = "${secret}"\n`);
    expect((await runTgws("users", "add", "bob")).stdout).not.toContain("default");
    rmSync(file);
    await runTgws("users", "add", "default");
    expect(kept()).toContain(`[users.default]\nsecret = "${secret}"\n`);
  });

  test("adds without links where the port is not known", async () => {
    write("port = 0\n");
    expect(await runTgws("users", "add", "ann")).toMatchObject({ code: 0, stdout: `Added ann to ${file}\n` });
    expect(await runTgws("users", "link", "ann")).toMatchObject({ code: 2 });
  });

  test("gives a user another secret, and takes back the old links", async () => {
    write(`[users.ann] # her\nsecret = "${HEX}" # s\nquota-gb = 1\n`);
    expect(await runTgws("users", "set", "ann", "--secret", OTHER, "--quota-gb", "2")).toMatchObject({
      code: 0,
      stdout: "Changed ann\nThe old links do not work any more: tgws users link ann prints new ones\n",
    });
    expect(kept()).toBe(`[users.ann] # her\nsecret = "${OTHER}" # s\nquota-gb = 2\n`);
  });

  test("does not say that links stop working which do not", async () => {
    write(`[users.ann]\nsecret = "${HEX}"\n`);
    expect((await runTgws("users", "set", "ann", "--secret", `dd${HEX}`)).stdout).toBe("Changed ann\n");
    const fakeTls = `ee${HEX}${Buffer.from("example.com").toString("hex")}`;
    expect((await runTgws("users", "set", "ann", "--secret", fakeTls)).stdout).toContain(
      "do not work any more",
    );
    expect((await runTgws("users", "set", "ann", "--secret", fakeTls)).stdout).toBe("Changed ann\n");
  });

  test("says of a damaged database what became of it, and of a locked one what to do", async () => {
    write(`[users.ann]\nsecret = "${HEX}"\n`);
    const database = join(home, "usage.db");
    writeFileSync(database, "this is no database, but it is long enough to be looked at".repeat(100));
    expect(await runTgws("users", "reset", "ann")).toEqual({
      code: 0,
      stdout: "The traffic of ann counts from zero\n",
      stderr: `tgws: Cannot use ${database}: damaged: moved aside, and made anew\n`,
      progress: "",
    });
    const other = new Database(database);
    other.run("BEGIN IMMEDIATE");
    const { code, stderr } = await runTgws("users", "reset", "ann");
    other.close();
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr:
        `tgws: Cannot use ${database}: SQLITE_BUSY\n` +
        "hint: another program keeps it locked: try again, or close that program\n",
    });
  }, 30_000);

  test("shows and resets what was used", async () => {
    write(
      `[users.ann]\nsecret = "${HEX}"\nquota-gb = 1\n[users.bob]\nsecret = "${OTHER}"\nexpires = 2020-01-01\n`,
    );
    const store = await UsageStore.open(join(home, "usage.db"), () => {});
    store.add(new Map([["ann", { up: 1, down: 1024 ** 3 }]]));
    store.close();
    expect((await runTgws("users", "list")).stdout).toBe(
      "NAME  STATE       USED  QUOTA  CONNECTIONS  ADDRESSES  RATE  EXPIRES\n" +
        "ann   over quota  1 GB  1 GB   -            -          -     -\n" +
        "bob   expired     0 B   -      -            -          -     2020-01-01\n",
    );
    expect((await runTgws("users", "reset", "ann")).stdout).toBe("The traffic of ann counts from zero\n");
    expect((await runTgws("users", "list")).stdout).toMatch(/^ann {3}active {3}0 B/m);
  });

  test("leaves a comment in a file that nobody else is in: an emptied one would not be taken for meant", async () => {
    write(`[users.ann]\nsecret = "${HEX}"\n`);
    expect((await runTgws("users", "remove", "ann")).code).toBe(0);
    expect(kept()).toStartWith("# ");
  });

  test("forgets the traffic of who is removed", async () => {
    write(`[users.ann]\nsecret = "${HEX}"\n[users.bob]\nsecret = "${OTHER}"\n`);
    const store = await UsageStore.open(join(home, "usage.db"), () => {});
    store.add(new Map([["ann", { up: 1, down: 1 }]]));
    await runTgws("users", "remove", "ann");
    expect(store.totals().size).toBe(0);
    store.close();
  });

  test("forgets what somebody has moved whose name a new user gets", async () => {
    write(`[users.bob]\nsecret = "${OTHER}"\n`);
    const store = await UsageStore.open(join(home, "usage.db"), () => {});
    store.add(new Map([["ann", { up: 1, down: 1 }]])); // she was taken out by hand
    expect((await runTgws("users", "add", "bob")).code).toBe(2);
    expect((await runTgws("users", "add", "ann", "--quota-gb", "0")).code).toBe(2);
    expect(store.totals().size).toBe(1);
    expect((await runTgws("users", "add", "ann")).code).toBe(0);
    expect(store.totals().size).toBe(0);
    store.close();
  });

  test("follows a link to the file, and leaves it one", async () => {
    const real = join(home, "real.toml");
    writeFileSync(real, "port = 5\n", { mode: 0o600 });
    symlinkSync("real.toml", file);
    expect((await runTgws("users", "add", "ann")).code).toBe(0);
    expect(readFileSync(real, "utf8")).toContain("[users.ann]");
  });

  test.each([
    [["users"], "tgws: tgws users: needs a command\nhint: the commands are add, list,"],
    [["users", "ad"], "tgws: tgws users ad: unknown command\nhint: did you mean add?\n"],
    [["users", HEX], "tgws: a secret: without its flag\n"],
    [["users", "add"], "tgws: NAME: is missing\nhint: tgws users add NAME\n"],
    [["users", "add", "a b"], "tgws: a b: cannot be a name\n"],
    [["users", "add", HEX], "tgws: (a secret): looks like a secret\n"],
    [["users", "add", "__proto__"], "tgws: __proto__: cannot be a name\n"],
    [["users", "add", "bob", "--quota-gb"], "tgws: --quota-gb: needs a value\nhint: --quota-gb <GB>\n"],
    [["users", "add", "bob", "--quota-gb", "x", "--expires", "x"], "tgws: --quota-gb: x: not a number from"],
    [["users", "add", "bob", "--rate-kb", "1", "--rate-kb", "2"], "tgws: --rate-kb: given more than once\n"],
    [["users", "add", "bob", "--secret", "x"], "tgws: --secret: Cannot use secret:"],
    [["users", "add", "bob", "--secret", HEX], "config.toml:6: users.bob.secret: is also the one of ann\n"],
    [["users", "add", "bob", "--prot", "1"], "tgws: --prot: unknown flag\nhint: did you mean --port?\n"],
    [["users", "add", "ann"], "tgws: ann: is there already\nhint: tgws users link ann prints the links;"],
    [["users", "add", "bob", "carol"], "tgws: carol: unexpected word\n"],
    [["users", "remove", "anm"], "tgws: anm: no such user\nhint: did you mean ann?\n"],
    [["users", "link", "carol"], "tgws: carol: no such user\nhint: tgws users list prints them\n"],
    [["users", "set", "ann"], "tgws: tgws users set: nothing to change is named\n"],
    [
      ["users", "set", "ann", "--quota", "5"],
      "tgws: --quota: unknown flag\nhint: did you mean --quota-gb?\n",
    ],
    [["users", "set", "ann", "--enabled", "false"], "tgws: --enabled: unknown flag\nhint: tgws --help"],
    [["users", "add", "bob", "--enabled", "false"], "tgws: --enabled: unknown flag\nhint: tgws --help"],
    [["users", "set", "ann", "--secret", "none"], "tgws: --secret: Cannot use secret:"],
    [["users", "add", ""], "tgws: NAME: is empty\n"],
    [
      ["users", "remove", "x", "--secret", `x:${OTHER}`],
      "tgws: x: stands in --secret, not in a table of its own\n",
    ],
    [["users", "list", "--json=1"], "tgws: --json: takes no value\nhint: --json\n"],
    [["users", "reset", "carol"], "tgws: carol: no such user\n"],
  ])("refuses %j, and changes nothing", async (argv, message) => {
    const text = `port = 5\n[users.ann]\nsecret = "${HEX}"\n`;
    write(text);
    const { code, stderr, stdout } = await runTgws(...argv);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr).not.toContain(HEX);
    expect(kept()).toBe(text);
  });

  test("does not touch a file that is wrong", async () => {
    write("port = \n");
    expect(await runTgws("users", "add", "ann")).toMatchObject({ code: 2 });
    write("prot = 1\n");
    expect((await runTgws("users", "add", "ann")).stderr).toContain("config.toml:1: prot: unknown setting");
    expect(kept()).toBe("prot = 1\n");
  });

  test("prints help for the group and for each of its commands", async () => {
    const group = await runTgws("users", "--help");
    for (const name of ["add", "list", "link", "set", "enable", "disable", "reset", "remove"]) {
      expect(group.stdout).toMatch(new RegExp(`^ {2}${name} `, "m"));
      const { stdout, code } = await runTgws("users", name, "--help");
      expect(code).toBe(0);
      expect(stdout).toContain(`USAGE  tgws users ${name}`);
      expect(await runTgws("help", "users", name)).toEqual(await runTgws("users", name, "--help"));
    }
    const add = (await runTgws("users", "add", "--help")).stdout;
    for (const flag of ["--secret <secret>", "--quota-gb <GB>", "--expires <date>"])
      expect(add).toContain(flag);
  });
});
