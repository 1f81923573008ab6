import { isatty } from "node:tty";
import type { ArgDef, CommandDef } from "citty";
import packageJson from "../../package.json" with { type: "json" };
import { type Config, parseConfig } from "../config/config.ts";
import { FIELDS, type Field, type FieldName } from "../config/fields.ts";
import { readFlags, scanFlags } from "../config/read-flags.ts";
import { generateSecret } from "../config/secret-store.ts";
import { ConfigError } from "../core/errors.ts";
import { formatLinks } from "./banner.ts";
import { resolveSecrets, serve } from "./serve.ts";

/** The program's version, from package.json. */
export const VERSION: string = packageJson.version;

const SERVE_FIELDS = Object.keys(FIELDS) as FieldName[];
const LINK_FIELDS: readonly FieldName[] = ["host", "port", "secret"];
/** What the proxy's command line may have and is of no interest to who only looks at routes is accepted, too. */
const ROUTE_FIELDS = SERVE_FIELDS;

const DOCTOR_SWITCHES = ["--deep", "--json"] as const;
const ROUTES_SWITCHES = ["--json"] as const;

/** `tgws link`: what to give to the people who should use the proxy. */
const link: CommandDef = {
  meta: { name: "link", description: "Print the links and the QR code again" },
  args: describeFlags(LINK_FIELDS),
  run: ({ rawArgs }) => {
    const config = readConfig(rawArgs, LINK_FIELDS);
    if (config.port === 0)
      throw new ConfigError([{ path: "--port", message: "0: a link needs the real port" }]);
    const secrets = resolveSecrets(config);
    const qr = isatty(1);
    console.log(formatLinks({ config, port: config.port, secrets, qr }).join("\n"));
  },
};

/** `tgws secret`: one line that `--secret` takes. */
const secret: CommandDef = {
  meta: { name: "secret", description: "Print a new random secret, for --secret" },
  run: ({ rawArgs }) => {
    readFlags(rawArgs, []);
    console.log(generateSecret().toHex());
  },
};

/** `tgws doctor`: what works from here, what does not, and what to do about it. */
const doctor: CommandDef = {
  meta: { name: "doctor", description: "Try every way to every data centre, and say what to do" },
  args: {
    deep: { type: "boolean", description: "Move more than 64 KB over each, to find flows that freeze" },
    json: { type: "boolean", description: "Print JSON" },
    ...describeFlags(ROUTE_FIELDS),
  },
  run: async ({ rawArgs }) => {
    const { given, rest } = takeSwitches(rawArgs, DOCTOR_SWITCHES);
    const config = readConfig(rest, ROUTE_FIELDS, DOCTOR_SWITCHES);
    const { diagnose } = await import("./diagnose.ts"); // a running proxy does without
    return diagnose(config, VERSION, { deep: given.has("--deep"), json: given.has("--json") });
  },
};

/** `tgws routes`: the order that serving clients has taught. */
const routes: CommandDef = {
  meta: { name: "routes", description: "Print in which order ways are tried, and why" },
  args: { json: { type: "boolean", description: "Print JSON" }, ...describeFlags(ROUTE_FIELDS) },
  run: async ({ rawArgs }) => {
    const { given, rest } = takeSwitches(rawArgs, ROUTES_SWITCHES);
    const config = readConfig(rest, ROUTE_FIELDS, ROUTES_SWITCHES);
    const { printRoutes } = await import("./diagnose.ts");
    return printRoutes(config, { json: given.has("--json") });
  },
};

/** The commands besides the main one, by name. A number that one returns is its exit code. */
export const COMMANDS: ReadonlyMap<string, CommandDef> = new Map<string, CommandDef>([
  ["link", link],
  ["secret", secret],
  ["doctor", doctor],
  ["routes", routes],
]);

/** `tgws` without a command: run the proxy. */
export const MAIN_COMMAND: CommandDef = {
  meta: {
    name: "tgws",
    version: VERSION,
    description: "Reach Telegram over WebSocket, from any Telegram app",
  },
  args: describeFlags(SERVE_FIELDS),
  run: ({ rawArgs }) => serve(readConfig(rawArgs, SERVE_FIELDS), VERSION),
};

/** {@link MAIN_COMMAND} for the help text: run like this, citty would take a flag's value for a command. */
export const MAIN_HELP: CommandDef = { ...MAIN_COMMAND, subCommands: Object.fromEntries(COMMANDS) };

/** Takes the switches out that are a command's own and no setting. @throws {ConfigError} When one has a value. */
function takeSwitches(
  rawArgs: readonly string[],
  switches: readonly string[],
): { readonly given: ReadonlySet<string>; readonly rest: readonly string[] } {
  for (const path of switches) {
    if (rawArgs.some((word) => word.startsWith(`${path}=`))) {
      throw new ConfigError([{ path, message: "takes no value", hint: path }]);
    }
  }
  return {
    given: new Set(rawArgs.filter((word) => switches.includes(word))),
    rest: rawArgs.filter((word) => !switches.includes(word)),
  };
}

/** @throws {ConfigError} With every problem of the flags and of their values. */
function readConfig(
  rawArgs: readonly string[],
  names: readonly FieldName[],
  others: readonly string[] = [],
): Config {
  const { raw, issues } = scanFlags(rawArgs, names, others);
  return parseConfig(raw, issues);
}

/** Fields as citty wants them, which makes the help text of them. It parses loosely; `readFlags` does not. */
function describeFlags(names: readonly FieldName[]): Record<string, ArgDef> {
  return Object.fromEntries(
    names.map((name) => {
      const field: Field = FIELDS[name];
      return [
        field.flag,
        {
          type: field.kind === "switch" ? "boolean" : "string",
          description: field.help,
          ...(field.value === undefined ? {} : { valueHint: field.value }),
          ...(field.short === undefined ? {} : { alias: field.short }),
          ...(field.default === undefined ? {} : { default: field.default }),
        } as ArgDef,
      ];
    }),
  );
}
