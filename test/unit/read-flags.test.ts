import { describe, expect, test } from "bun:test";
import { FIELDS, type FieldName } from "../../src/config/fields.ts";
import { readFlags, scanFlags } from "../../src/config/read-flags.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";

const ALL = Object.keys(FIELDS) as FieldName[];

function issuesOf(argv: readonly string[], names: readonly FieldName[] = ALL): readonly ConfigIssue[] {
  try {
    readFlags(argv, names);
  } catch (error) {
    if (error instanceof ConfigError) return error.issues;
    throw error;
  }
  throw new Error(`no complaint about ${argv.join(" ")}`);
}

describe("readFlags()", () => {
  test("reads nothing from nothing", () => {
    expect(readFlags([], ALL)).toEqual({});
  });

  test("reads a value after a space or an equals sign", () => {
    expect(readFlags(["--port", "8443", "--host=::"], ALL)).toEqual({ port: ["8443"], host: ["::"] });
  });

  test("keeps equals signs, spaces and emptiness of a value", () => {
    expect(readFlags(["--secret=AAAA==", "--log-file=a b", "--host="], ALL)).toEqual({
      secret: ["AAAA=="],
      logFile: ["a b"],
      host: [""],
    });
  });

  test("takes a value that begins with one dash", () => {
    expect(readFlags(["--port", "-1", "--log-file", "-"], ALL)).toEqual({ port: ["-1"], logFile: ["-"] });
  });

  test("collects the values of a list in order", () => {
    expect(readFlags(["--dc-ip", "2:1.2.3.4", "-v", "--dc-ip=4:1.2.3.4"], ALL)).toEqual({
      dcIp: ["2:1.2.3.4", "4:1.2.3.4"],
      verbose: [""],
    });
  });

  test.each(["--verbose", "-v"])("reads the switch %s", (flag) => {
    expect(readFlags([flag], ALL)).toEqual({ verbose: [""] });
  });

  test.each(ALL)("knows the flag of %s", (name) => {
    const { flag, kind } = FIELDS[name];
    expect(readFlags(kind === "switch" ? [`--${flag}`] : [`--${flag}`, "x"], ALL)).toEqual({
      [name]: [kind === "switch" ? "" : "x"],
    });
  });

  test.each([
    ["--prot", "did you mean --port?"],
    ["--secrets", "did you mean --secret?"],
    ["--pool_size", "did you mean --pool-size?"],
    ["--log-backup", "did you mean --log-backups?"],
    ["--hlep", "did you mean --help?"],
    ["--quite-another-thing", "tgws --help lists the flags"],
    ["-x", "tgws --help lists the flags"],
    ["--", "tgws --help lists the flags"],
    ["--toString", "tgws --help lists the flags"],
    ["--__proto__", "tgws --help lists the flags"],
  ])("does not know %s: %s", (flag, hint) => {
    expect(issuesOf([flag])).toEqual([{ path: flag, message: "unknown flag", hint }]);
  });

  test("does not know the flags of other commands, nor suggest them", () => {
    expect(issuesOf(["--pool-size", "3"], ["host", "port", "secret"])).toEqual([
      { path: "--pool-size", message: "unknown flag", hint: "tgws --help lists the flags" },
    ]);
  });

  test("says whose flag it is that this command does not know", () => {
    const { issues } = scanFlags(["--deep", "--jso"], ALL, {
      own: ["--json"],
      elsewhere: (flag) => (flag === "--deep" ? "tgws doctor" : undefined),
    });
    expect(issues.map(({ hint }) => hint)).toEqual(["--deep belongs to tgws doctor", "did you mean --json?"]);
  });

  test("leaves a terminal nothing to obey of a word", () => {
    expect(issuesOf(["a\u001b[2J\u202eb"])).toMatchObject([{ path: "a?[2J?b" }]);
    expect(issuesOf(["--x\r\n=1"])).toMatchObject([{ path: "--x??" }]);
  });

  test("takes the word after an unknown flag for its value, unless it is a flag", () => {
    expect(issuesOf(["--prot", "1443"])).toHaveLength(1);
    expect(issuesOf(["--prot=1443", "1443"])).toHaveLength(2);
    expect(issuesOf(["--prot", "--hots"]).map(({ path }) => path)).toEqual(["--prot", "--hots"]);
  });

  test.each([[["--port"]], [["--port", "--verbose"]]])("asks for the value that is missing in %j", (argv) => {
    expect(issuesOf(argv)).toEqual([{ path: "--port", message: "needs a value", hint: "--port <port>" }]);
  });

  test("refuses a value for a switch", () => {
    expect(issuesOf(["--verbose=yes"])).toEqual([
      { path: "--verbose", message: "takes no value, but got yes" },
    ]);
  });

  test.each([[["--port", "1", "--port", "2"]], [["--port=1", "--port=1"]]])(
    "refuses the repetition in %j",
    (argv) => {
      expect(issuesOf(argv)).toEqual([
        {
          path: "--port",
          message: expect.stringMatching(/^given more than once: [12]$/),
          hint: "keep one of them",
        },
      ]);
    },
  );

  test("refuses a switch that is repeated, also by its short name", () => {
    expect(issuesOf(["--verbose", "-v"])).toMatchObject([{ path: "-v", message: "given more than once" }]);
  });

  test.each(["port", "-"])("refuses the stray word %j", (word) => {
    expect(issuesOf(["--verbose", word])).toEqual([
      { path: word, message: "unexpected word", hint: "flags start with --; see tgws --help" },
    ]);
  });

  test("calls an empty word by what it is", () => {
    expect(issuesOf([""])).toMatchObject([{ path: "an empty word", message: "unexpected word" }]);
  });

  test("reads a switch that is turned off, or on in as many words", () => {
    expect(readFlags(["--verbose=false", "--no-cfproxy=true"], ALL)).toEqual({
      verbose: [],
      noCfproxy: [""],
    });
  });

  test("says everything at once, in the order of the words", () => {
    const argv = ["stray", "--prot=1", "--host", "a", "--host", "b", "--verbose=1", "--buf-kb"];
    expect(issuesOf(argv).map(({ path }) => path)).toEqual([
      "stray",
      "--prot",
      "--host",
      "--verbose",
      "--buf-kb",
    ]);
  });

  // A secret that was put down twice for one flag, or after a space too many.
  test("does not quote a stray word that is a secret", () => {
    const secret = "00112233445566778899aabbccddeeff";
    for (const argv of [["--secret", secret, secret], ["--secret", "alice:", secret], [`dd${secret}`]]) {
      expect(JSON.stringify(issuesOf(argv))).not.toContain(secret);
    }
  });

  test("does not quote the pieces of a secret that is torn", () => {
    expect(issuesOf(["--secret", "ee0123456789abcdef01", "23456789abcdef777777", "89"])).toEqual(
      ["", ""].map(() => ({
        path: "a word after --secret",
        message: "unexpected",
        hint: "quote a value with spaces; another one needs --secret before it, too",
      })),
    );
    for (const argv of [["ee0123456789abcdef0123456789ab"], ["-v", "23456789abcdef777777"]]) {
      expect(issuesOf(argv)).toMatchObject([{ path: "a secret", message: "without its flag" }]);
    }
    expect(JSON.stringify(issuesOf(["--secrte=0", "--0123456789abcdef"]))).not.toContain("0123456789");
  });

  test.each([
    [["--cfproxy-worker-token", "hunter2", "--cfproxy-worker-token", "hunter2"]],
    [["--cfproxy-worker-token=hunter2", "--cfproxy-worker-token=hunter2"]],
    [["--cfproxy-worker-token", "hunter", "hunter2"]],
    [["--upstream-proxy=socks5://ann:my", "hunter2@192.0.2.7"]],
    [["socks5://ann:hunter2@192.0.2.7"]],
    [["--verbose=socks5://ann:hunter2@192.0.2.7"]],
  ])("does not quote the password in %j", (argv) => {
    expect(JSON.stringify(issuesOf(argv))).not.toContain("hunter2");
  });
});
