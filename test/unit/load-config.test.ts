import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseConfig } from "../../src/config/config.ts";
import { FIELD_NAMES, FIELDS, type Field } from "../../src/config/fields.ts";
import { configFilePath, type LoadedConfig, loadConfig } from "../../src/config/load-config.ts";
import { variableOf } from "../../src/config/origin.ts";
import type { Environment } from "../../src/config/secret-store.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";

const HEX = "00112233445566778899aabbccddeeff";
const OTHER = "ffeeddccbbaa99887766554433221100";

let home: string;
let file: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "tgws-load-"));
  file = join(home, "config.toml");
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

interface Sources {
  readonly args?: readonly string[];
  readonly environment?: Environment;
  readonly toml?: string;
}

function load({ args = [], environment = {}, toml }: Sources): LoadedConfig {
  if (toml !== undefined) writeFileSync(file, toml, { mode: 0o600 });
  return loadConfig(args, { environment: { TGWS_HOME: home, ...environment }, platform: "linux" });
}

function issuesOf(sources: Sources): readonly ConfigIssue[] {
  try {
    load(sources);
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  throw new Error("no complaint");
}

const places = (sources: Sources): string[] =>
  issuesOf(sources).map(({ path, message }) => `${path.replace(file, "FILE")}: ${message}`);

describe("loadConfig()", () => {
  test("is what flags alone say where there is nothing else", () => {
    const loaded = load({ args: ["--port", "1", "-v"] });
    expect(loaded.config).toEqual(parseConfig({ port: ["1"], verbose: [""] }));
    expect(loaded.file).toBeUndefined();
    expect(loaded.warnings).toEqual([]);
  });

  test("lets a flag count more than the environment, and that more than the file", () => {
    const toml = "port = 1\npool-size = 1\nbuf-kb = 5\n";
    const environment = { TGWS_PORT: "2", TGWS_POOL_SIZE: "2" };
    const { config, origins, file: read } = load({ args: ["--port", "3"], environment, toml });
    expect(config).toMatchObject({ port: 3, poolSize: 2, queueBytes: 5 * 1024 });
    expect(read).toBe(file);
    expect([origins.get("port"), origins.get("poolSize"), origins.get("bufKb")]).toEqual([
      { source: "flag", path: "--port" },
      { source: "environment", path: "TGWS_POOL_SIZE" },
      { source: "file", path: `${file}:3: buf-kb` },
    ]);
  });

  test("takes a list as a whole from the place that counts most", () => {
    const toml = `route = ["direct-tcp"]\nsecret = ["a:${HEX}", "b:${OTHER}"]\n`;
    const { config } = load({ args: ["--secret", HEX], environment: { TGWS_ROUTE: "direct-ws" }, toml });
    expect(config.routes).toEqual(["direct-ws"]);
    expect(config.secrets.map(({ name }) => name)).toEqual(["secret1"]);
  });

  test("reads all types of TOML that make sense for a setting", () => {
    const toml = `
port = "8443"
host = "::1"
log-file = "x.log"
log-max-mb = 0.5
no-cfproxy = true
force-test-dc = false
dc-ip = ["2:192.0.2.1", "4:192.0.2.2"]
accept = "dd"
status = 9090
`;
    expect(load({ toml }).config).toMatchObject({
      port: 8443,
      host: "::1",
      logFile: { maxBytes: 512 * 1024 },
      routes: ["direct-ws", "direct-tcp"],
      forceTestDc: false,
      accept: { plain: false, padded: true },
      status: { host: "127.0.0.1", port: 9090 },
    });
  });

  test("turns off in a higher place what a lower one turns on", () => {
    const toml = "no-cfproxy = true\nverbose = true\n";
    expect(load({ toml }).config).toMatchObject({ verbose: true, routes: ["direct-ws", "direct-tcp"] });
    const environment = { TGWS_NO_CFPROXY: "false" };
    const { config } = load({ args: ["--verbose=false"], environment, toml });
    expect(config).toMatchObject({ verbose: false, routes: ["direct-ws", "cf-domain", "direct-tcp"] });
  });

  test("lets -v overrule the level of the file, but not contradict one beside it", () => {
    expect(load({ args: ["-v"], toml: 'log-level = "error"\n' }).config.logLevel).toBe("debug");
    expect(load({ args: ["--log-level", "warn"], toml: "verbose = true\n" }).config.logLevel).toBe("warn");
    expect(places({ args: ["-v", "--log-level", "warn"] })).toEqual([
      "--log-level: warn: contradicts --verbose, which is debug",
    ]);
  });

  test.each([
    ["1", true],
    ["Yes", true],
    ["on", true],
    ["0", false],
    ["no", false],
    ["", false],
  ])("reads a switch from the environment: %j", (text, on) => {
    expect(load({ environment: { TGWS_FORCE_TEST_DC: text } }).config.forceTestDc).toBe(on);
  });

  test("reads lists from the environment, with commas or spaces", () => {
    const environment = { TGWS_DC_IP: "2:192.0.2.1 4:192.0.2.2", TGWS_SECRET: `a:${HEX},b:${OTHER}` };
    const { config } = load({ environment });
    expect([...config.dcAddresses.keys()]).toEqual([2, 4]);
    expect(config.secrets.map(({ name }) => name)).toEqual(["a", "b"]);
  });

  test("warns of variables that are no settings, and of none that is", () => {
    const known = Object.fromEntries(FIELD_NAMES.map((name) => [variableOf(name), ""]));
    const environment = { ...known, TGWS_PROT: "1", TGWS_ABC: "", OTHER: "x" };
    expect(load({ environment }).warnings).toEqual([
      "TGWS_PROT is in the environment, but no setting; did you mean TGWS_PORT?",
      "TGWS_ABC is in the environment, but no setting",
    ]);
  });

  test("says every problem of all places at once, those of the file from its top to its bottom", () => {
    const toml = `port = 70000
hosst = "x"
no-cfproxy = "yes"
pool-size = [1]
config = "other.toml"
dc-ip = 2027-01-01
quota-gb = 5
users = 1
`;
    const environment = { TGWS_BUF_KB: "x", TGWS_VERBOSE: "maybe" };
    expect(places({ args: ["--mask-max", "0", "--prot"], environment, toml })).toEqual([
      "--prot: unknown flag",
      "TGWS_VERBOSE: maybe: neither true nor false",
      "--mask-max: 0: not a whole number from 1 to 65535",
      "TGWS_BUF_KB: x: not a whole number from 4 to 16384",
      "FILE:1: port: 70000: not a whole number from 0 to 65535",
      "FILE:2: hosst: unknown setting",
      "FILE:3: no-cfproxy: is a text, but needs true or false",
      "FILE:4: pool-size: is a list, but needs a text or a number",
      "FILE:5: config: cannot stand in the file itself",
      "FILE:6: dc-ip: is a date, but needs a list of texts",
      "FILE:7: quota-gb: unknown setting",
      "FILE:8: users: is a number, but needs a table for each user",
    ]);
  });

  test("gives hints in the words of the place", () => {
    const hints = (sources: Sources): unknown => issuesOf(sources)[0]?.hint;
    expect(hints({ toml: "prot = 1" })).toBe("did you mean port?");
    expect(hints({ toml: "quota-gb = 1" })).toBe("for a user: [users.<name>], with quota-gb below it");
    expect(hints({ toml: "port = 'x'" })).toBe("port = <port>; 1443 without it");
    expect(hints({ toml: "no-cfproxy = 1" })).toBe("no-cfproxy = true");
    rmSync(file);
    expect(hints({ environment: { TGWS_PORT: "x" } })).toBe("TGWS_PORT=<port>; 1443 without it");
    expect(hints({ environment: { TGWS_CONFIG: join(home, "none") } })).toBe("tgws config init makes one");
  });

  test.each([["--config"], ["TGWS_CONFIG"]])("reads the file that %s names, which must be there", (from) => {
    const other = join(home, "other.toml");
    const sources =
      from === "--config" ? { args: ["--config", other] } : { environment: { TGWS_CONFIG: other } };
    expect(issuesOf(sources)).toMatchObject([{ path: from, message: `${other}: no such file` }]);
    writeFileSync(other, "port = 5", { mode: 0o600 });
    expect(load({ ...sources, toml: "port = 6" })).toMatchObject({ config: { port: 5 }, file: other });
  });

  test("does without a file where nothing names a folder", () => {
    const loaded = loadConfig(["--port", "5"], { environment: { HOME: home }, platform: "linux" });
    expect(loaded.config.port).toBe(5);
    expect(configFilePath([], { environment: { HOME: home }, platform: "linux" })).toBe(
      join(home, ".config", "tgws", "config.toml"),
    );
  });

  test("does not blame others for what a broken file may have said", () => {
    expect(places({ args: ["--route", "fronted-ws", "--port", "x"], toml: "front-domain = " })).toEqual([
      "--port: x: not a whole number from 0 to 65535",
      "FILE:1: not TOML: Missing value after '='",
    ]);
  });

  test("warns where everybody can read a file with secrets", () => {
    for (const [toml, mode, warns] of [
      [`secret = "${HEX}"`, 0o644, true],
      ['upstream-proxy = "socks5://192.0.2.1:1"', 0o604, true],
      [`[users.a]\nsecret = "${HEX}"`, 0o644, true],
      [`secret = "${HEX}"`, 0o640, false],
      ["port = 1", 0o644, false],
    ] as const) {
      writeFileSync(file, toml);
      chmodSync(file, mode);
      const { warnings } = load({});
      expect(warnings).toHaveLength(warns ? 1 : 0);
      if (warns) expect(warnings[0]).toEndWith(`can read it: chmod ${mode === 0o604 ? 600 : 640} ${file}`);
    }
  });

  test("makes a configuration that another process makes again of its JSON", () => {
    const toml = `
port = 8443
fake-tls-domain = ["a.example", "b.example"]
secret = ["x:${HEX}"]
resolve = "*.example.org=192.0.2.1"
allow = ["192.0.2.0/24"]
no-cfproxy = false
[users.alice]
secret = "${OTHER}"
quota-gb = 1.5
expires = 2027-01-31
enabled = false
`;
    const { config, raw } = load({ toml, args: ["-v"] });
    expect(parseConfig(JSON.parse(JSON.stringify(raw)))).toEqual(config);
    expect(config.users).toHaveLength(2);
  });

  test("can set every field from every place", () => {
    for (const name of FIELD_NAMES) {
      const { flag, kind, outsideFile }: Field = FIELDS[name];
      if (name === "config" || outsideFile) continue;
      const problems = (sources: Sources): boolean => {
        try {
          return load(sources).raw[name] === undefined;
        } catch (error) {
          // A bad value is one that was read.
          const expected = [`--${flag}`, variableOf(name), `${file}:1: ${flag}`];
          return (
            !(error instanceof ConfigError) || !error.issues.every(({ path }) => expected.includes(path))
          );
        }
      };
      rmSync(file, { force: true });
      expect([name, problems({ args: kind === "switch" ? [`--${flag}`] : [`--${flag}`, "7"] })]).toEqual([
        name,
        false,
      ]);
      expect([name, problems({ environment: { [variableOf(name)]: "1" } })]).toEqual([name, false]);
      expect([name, problems({ toml: `${flag} = ${kind === "switch" ? "true" : "7"}` })]).toEqual([
        name,
        false,
      ]);
    }
  });
});

describe("loadConfig(), users", () => {
  test("reads everything about a user", () => {
    const toml = `
[users.alice]
secret = "${HEX}"
enabled = false
max-connections = 100
max-addresses = 3
quota-gb = 0.5
expires = 2027-01-31
rate-kb = 1024
[users."b.c"]
secret = "dd${OTHER}"
`;
    const { config } = load({ toml });
    expect(config.users).toEqual([
      {
        name: "alice",
        key: Uint8Array.fromHex(HEX),
        enabled: false,
        maxConnections: 100,
        maxAddresses: 3,
        quotaBytes: 512 * 1024 * 1024,
        expiresAt: Date.UTC(2027, 1, 1),
        rateBytes: 1024 * 1024,
      },
      {
        name: "b.c",
        key: Uint8Array.fromHex(OTHER),
        enabled: true,
        maxConnections: undefined,
        maxAddresses: undefined,
        quotaBytes: undefined,
        expiresAt: undefined,
        rateBytes: undefined,
      },
    ]);
    expect(config.secrets.map(({ name }) => name)).toEqual(["alice", "b.c"]);
  });

  test.each([
    ["2027-01-31", Date.UTC(2027, 1, 1)],
    ['"2027-01-31"', Date.UTC(2027, 1, 1)],
    ["2028-02-29", Date.UTC(2028, 2, 1)],
    ["2027-01-31T12:00:00Z", Date.UTC(2027, 0, 31, 12)],
    ["2027-01-31T12:00:00+03:00", Date.UTC(2027, 0, 31, 9)],
    ['"2027-01-31 12:00:00.5-01:00"', Date.UTC(2027, 0, 31, 13, 0, 0, 500)],
  ])("reads the expiry %s", (written, moment) => {
    const { config } = load({ toml: `[users.a]\nsecret = "${HEX}"\nexpires = ${written}\n` });
    expect(config.users[0]?.expiresAt).toBe(moment);
  });

  test.each([
    ['"2027-02-29"', "2027-02-29: no calendar has this day"],
    ['"tomorrow"', "tomorrow: not a date"],
    ["2027-01-31T12:00:00", "2027-01-31T12:00:00: it does not say in which time zone"],
    ["12:00:00", "12:00:00: not a date"],
    ["5", "is a number, but needs a date"],
  ])("refuses the expiry %s", (written, message) => {
    const toml = `[users.a]\nsecret = "${HEX}"\nexpires = ${written}\n`;
    expect(places({ toml })).toEqual([`FILE:3: users.a.expires: ${message}`]);
  });

  test("says everything that is wrong with users, with its line", () => {
    const toml = `[users.alice]
secret = "${HEX}"
quota-gb = -1
max_connections = 3
port = 5
[users.bob]
enabled = true
[users.carol]
secret = 5
[users."d e"]
secret = "${OTHER}"
[users.eve]
secret = "dd${HEX}"
[users.f.g]
secret = "x"
[users.${OTHER}]
secret = "alice"
`;
    const issues = issuesOf({ toml });
    expect(places({ toml })).toEqual([
      "FILE:3: users.alice.quota-gb: -1: not a number from 0.001 to 1000000",
      "FILE:4: users.alice.max_connections: unknown setting of a user",
      "FILE:5: users.alice.port: unknown setting of a user",
      "FILE:6: users.bob: has no secret",
      "FILE:9: users.carol.secret: is a number, but needs a text",
      'FILE:10: users."d e": the name is not 1-32 letters, digits, dots, dashes or underscores',
      "FILE:13: users.eve.secret: is also the one of alice",
      "FILE:14: users.f.g: unknown setting of a user",
      "FILE:14: users.f: has no secret",
      "FILE:16: users.(a secret): the name is not 1-32 letters, digits, dots, dashes or underscores",
      "FILE:17: users.(a secret).secret: Cannot use secret: it is neither hexadecimal nor base64",
    ]);
    const hints = issues.map(({ hint }) => hint);
    expect(hints).toContain("did you mean max-connections?");
    expect(hints).toContain("it is no setting of a user: put port before the first [users.<name>]");
    expect(hints).toContain('a name with a dot needs quotes: [users."f.g"]');
    expect(JSON.stringify(issues)).not.toContain(OTHER);
  });

  test("brings the domain of an ee secret, as --secret does", () => {
    const toml = `[users.a]\nsecret = "ee${HEX}${Buffer.from("example.com").toString("hex")}"\n`;
    expect(load({ toml }).config).toMatchObject({
      fakeTlsDomains: ["example.com"],
      accept: { fakeTls: true },
    });
  });

  test("refuses a name or a key that --secret has, too", () => {
    const toml = `[users.a]\nsecret = "${HEX}"\n`;
    expect(places({ toml, args: ["--secret", `a:${OTHER}`] })).toEqual([
      "FILE:1: users.a: a --secret has this name already",
    ]);
    expect(places({ toml, args: ["--secret", `b:${HEX}`] })).toEqual([
      "FILE:2: users.a.secret: is also the one of b",
    ]);
  });

  test("warns where nobody is served", () => {
    const user = (name: string, key: string): string =>
      `[users.${name}]\nsecret = "${key}"\nenabled = false\n`;
    const { warnings } = load({ toml: user("a", HEX) + user("b", OTHER) });
    expect(warnings).toEqual(["every user is disabled: nobody is served"]);
  });

  test("serves a thousand users, and no more", () => {
    const table = (at: number): string => `[users.u${at}]\nsecret = "${at.toString(16).padStart(32, "0")}"\n`;
    const toml = Array.from({ length: 1_000 }, (_, at) => table(at)).join("");
    expect(load({ toml }).config.users).toHaveLength(1_000);
    expect(places({ toml: toml + table(1_000) })).toEqual(["users: 1001 secrets, but 1000 is the most"]);
  });
});
