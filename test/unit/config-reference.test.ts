import { describe, expect, test } from "bun:test";
import { formatReference, REFERENCE } from "../../scripts/config-reference.ts";
import { parseConfig } from "../../src/config/config.ts";
import { FIELD_NAMES, FIELDS, type Field } from "../../src/config/fields.ts";
import { loadConfig } from "../../src/config/load-config.ts";
import { usageIn, variableOf } from "../../src/config/origin.ts";
import { formatStarterFile } from "../../src/config/starter-file.ts";
import { USER_FIELD_NAMES } from "../../src/config/user-fields.ts";

const HEX = "00112233445566778899aabbccddeeff";

/** What a file with this text says. */
const load = (fileText: string) =>
  loadConfig([], { environment: { TGWS_HOME: "/none" }, platform: "linux", fileText });

describe("docs/CONFIG.md", () => {
  test("is what the table of settings makes: bun run scripts/config-reference.ts --write", async () => {
    const file = Bun.file(new URL(`../../${REFERENCE}`, import.meta.url));
    expect(await file.text()).toBe(formatReference());
  });

  test("names every setting, and every one of a user", () => {
    const text = formatReference();
    for (const name of FIELD_NAMES) {
      expect(text).toContain(`| \`${FIELDS[name].flag}\``);
      expect(text).toContain(`\`${variableOf(name)}\``);
    }
    for (const key of USER_FIELD_NAMES) expect(text).toContain(`| \`${key}\` |`);
  });

  test("has an example that can be used", () => {
    const [, example = ""] = /```toml\n(.*?)```/s.exec(formatReference()) ?? [];
    expect(load(example).config).toMatchObject({ port: 8443, users: [{ name: "alice" }] });
  });
});

describe("the table of settings", () => {
  test("names every flag once, and only restarts for what needs one", () => {
    const flags: string[] = FIELD_NAMES.map((name) => FIELDS[name].flag);
    expect(new Set(flags).size).toBe(flags.length);
    const atStart: string[] = FIELD_NAMES.filter((name) => !FIELDS[name].live).map(
      (name) => FIELDS[name].flag,
    );
    const expected = ["host", "port", "workers", "user", "group", "status", "status-token", "config"];
    expected.push("log-file", "log-max-mb", "log-backups", "log-format");
    expect(atStart.toSorted()).toEqual(expected.toSorted());
  });

  test("has examples that can be used", () => {
    for (const name of FIELD_NAMES) {
      const { kind, example, default: usual }: Field = FIELDS[name];
      if (kind === "switch") continue;
      const text = example ?? usual;
      expect(text).toBeDefined();
      const needs = name === "accept" ? { fakeTlsDomain: ["example.com"] } : {};
      expect(() => parseConfig({ [name]: [text ?? ""], ...needs })).not.toThrow();
    }
  });

  test("says how a setting is written in each place", () => {
    expect(usageIn("flag", "port")).toBe("--port <port>");
    expect(usageIn("environment", "maxConnections")).toBe("TGWS_MAX_CONNECTIONS=<number>");
    expect(usageIn("file", "noCfproxy")).toBe("no-cfproxy = true");
    expect(usageIn("flag", "noCfproxy")).toBe("--no-cfproxy");
  });
});

describe("formatStarterFile()", () => {
  const text = formatStarterFile({
    settings: new Map([
      ["port", ["8443"]],
      ["noCfproxy", [""]],
      ["cfproxyDomain", ["a.example", "b.example:8443"]],
    ]),
    user: { name: "default", secret: HEX },
  });

  test("sets what is given, and nothing else", () => {
    const { raw, config } = load(text);
    expect(raw).toEqual({
      port: ["8443"],
      noCfproxy: [""],
      cfproxyDomain: ["a.example", "b.example:8443"],
      users: [{ name: "default", settings: { secret: HEX } }],
    });
    expect(config.port).toBe(8443);
  });

  test("has every setting, which is right as soon as the # is taken away", () => {
    for (const name of FIELD_NAMES) {
      if (name === "config") continue;
      const pattern = new RegExp(`^#?${FIELDS[name].flag} = .*$`, "m");
      const [line = ""] = pattern.exec(text) ?? [];
      const accept = name === "accept" ? 'fake-tls-domain = "example.com"\n' : "";
      const settings = `${accept}${line.replace(/^#/, "")}`;
      expect([name, Object.keys(load(settings).raw)]).toEqual([
        name,
        name === "accept" ? expect.arrayContaining(["accept"]) : [name],
      ]);
    }
    const [, table = ""] = /^(\[users\.default\][\s\S]*)$/m.exec(text) ?? [];
    const uncommented = table.replaceAll(/^#/gm, "");
    expect(Object.keys(load(uncommented).raw.users?.[0]?.settings ?? {})).toEqual([...USER_FIELD_NAMES]);
  });
});
