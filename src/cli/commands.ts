import packageJson from "../../package.json" with { type: "json" };
import type { Config } from "../config/config.ts";
import { FIELD_NAMES, type FieldName } from "../config/fields.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { type OtherFlags, readFlags } from "../config/read-flags.ts";
import { generateSecret } from "../config/secret-store.ts";
import { ConfigError } from "../core/errors.ts";
import { formatLinks, loadQrCodes } from "./banner.ts";
import { type Command, flagOf, loadFor, NO_SWITCHES, takeOwnArgs } from "./command.ts";
import { CONFIG_COMMANDS } from "./config-commands.ts";
import { isLoopback } from "./lan-address.ts";
import { resolveSecrets } from "./secrets.ts";
import { serve } from "./serve.ts";
import { USERS_COMMANDS } from "./users-commands.ts";

/** The program's version, from package.json. */
export const VERSION: string = packageJson.version;

/** Those that shape links. */
const LINK_FIELDS: readonly FieldName[] = ["host", "port", "secret", "fakeTlsDomain", "accept"];

const DOCTOR_SWITCHES: ReadonlyMap<string, string> = new Map([
  ["--deep", "Move more than 64 KB over each way, to find flows that freeze"],
  ["--json", "Print JSON"],
]);
const ROUTES_SWITCHES: ReadonlyMap<string, string> = new Map([["--json", "Print JSON"]]);

/** `tgws link`: what to give to the people who should use the proxy. */
const link: Command = {
  usage: "tgws link",
  description: "Print the links and the QR code again",
  switches: NO_SWITCHES,
  fields: LINK_FIELDS,
  takesAll: true,
  run: async (rawArgs) => {
    const config = readConfig(rawArgs);
    if (config.port === 0)
      throw new ConfigError([{ path: "--port", message: "0: a link needs the real port" }]);
    const secrets = resolveSecrets(config);
    for (const warning of config.warnings) console.error(`tgws: ${warning}`);
    if (config.proxyProtocol && isLoopback(config.host))
      console.error("tgws: people reach the proxy before this one: name it with --host and --port");
    const drawQrCode = await loadQrCodes();
    console.log(formatLinks({ config, port: config.port, secrets, drawQrCode }).join("\n"));
    return undefined;
  },
};

/** `tgws secret`: one line that `--secret` takes. */
const secret: Command = {
  usage: "tgws secret",
  description: "Print a new random secret, for --secret",
  switches: NO_SWITCHES,
  fields: [],
  takesAll: false,
  run: (rawArgs) => {
    readFlags(rawArgs, []);
    console.log(generateSecret().toHex());
    return undefined;
  },
};

/** `tgws doctor`: what works from here, what does not, and what to do about it. */
const doctor: Command = {
  usage: "tgws doctor",
  description: "Try every way to every data centre, and say what to do",
  switches: DOCTOR_SWITCHES,
  fields: [],
  takesAll: true,
  run: async (rawArgs) => {
    const { given, rest } = takeOwnArgs(rawArgs, DOCTOR_SWITCHES);
    const config = readConfig(rest, DOCTOR_SWITCHES);
    const { diagnose } = await import("./diagnose.ts"); // a running proxy does without
    return diagnose(config, VERSION, { deep: given.has("--deep"), json: given.has("--json") });
  },
};

/** `tgws routes`: the order that serving clients has taught. */
const routes: Command = {
  usage: "tgws routes",
  description: "Print in which order ways are tried, and why",
  switches: ROUTES_SWITCHES,
  fields: [],
  takesAll: true,
  run: async (rawArgs) => {
    const { given, rest } = takeOwnArgs(rawArgs, ROUTES_SWITCHES);
    const config = readConfig(rest, ROUTES_SWITCHES);
    const { printRoutes } = await import("./diagnose.ts");
    await printRoutes(config, { json: given.has("--json") });
    return undefined;
  },
};

/** `tgws users`: who may use the proxy. */
const users = groupOf("tgws users", "Add, list, change and remove users", USERS_COMMANDS);

/** `tgws config`: the configuration file. */
const config = groupOf("tgws config", "Check, show and make the configuration file", CONFIG_COMMANDS);

/** The commands besides the main one, by name. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ["link", link],
  ["secret", secret],
  ["doctor", doctor],
  ["routes", routes],
  ["users", users],
  ["config", config],
]);

/** `tgws` without a command: run the proxy. */
export const MAIN_COMMAND: Command = {
  usage: "tgws",
  description: `Reach Telegram over WebSocket, from any Telegram app (tgws ${VERSION})`,
  switches: NO_SWITCHES,
  fields: FIELD_NAMES,
  takesAll: false,
  run: async (rawArgs) => {
    await serve(() => load(rawArgs), VERSION);
    return undefined;
  },
};

/** A command that does nothing without another word. */
function groupOf(usage: string, description: string, commands: ReadonlyMap<string, Command>): Command {
  return {
    usage,
    description,
    switches: NO_SWITCHES,
    fields: [],
    takesAll: false,
    commands,
    run: () => {
      const names = [...commands.keys()].join(", ");
      throw new ConfigError([
        { path: usage, message: "needs a command", hint: `the commands are ${names}; see ${usage} --help` },
      ]);
    },
  };
}

/** @throws {ConfigError} With every problem of flags, environment and configuration file. */
function readConfig(rawArgs: readonly string[], switches: ReadonlyMap<string, string> = NO_SWITCHES): Config {
  return load(rawArgs, switches).config;
}

function load(rawArgs: readonly string[], switches: ReadonlyMap<string, string> = NO_SWITCHES): LoadedConfig {
  return loadFor(rawArgs, otherFlags(switches));
}

/** Switches of this command, and of the others: `--deep` belongs to `tgws doctor`. */
function otherFlags(switches: ReadonlyMap<string, string>): OtherFlags {
  return { own: [...switches.keys()].map(flagOf), elsewhere: ownersOf };
}

/** The commands that have a flag of their own, `undefined` when none has. */
function ownersOf(flag: string): string | undefined {
  const all = [...COMMANDS.values()].flatMap((one) => [one, ...(one.commands?.values() ?? [])]);
  const owners = all.filter(({ switches }) => [...switches.keys()].some((label) => flagOf(label) === flag));
  return owners.length === 0 ? undefined : enumerate(owners.map(({ usage }) => usage));
}

/** `a`, `a and b`, `a, b and c`. */
function enumerate(words: readonly string[]): string {
  const others = words.slice(0, -1).join(", ");
  return others === "" ? words.join("") : `${others} and ${words.at(-1)}`;
}
