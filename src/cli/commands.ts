import { isatty } from "node:tty";
import packageJson from "../../package.json" with { type: "json" };
import type { Config } from "../config/config.ts";
import { FIELDS, type FieldName } from "../config/fields.ts";
import { loadConfig } from "../config/load-config.ts";
import { type OtherFlags, readFlags } from "../config/read-flags.ts";
import { generateSecret } from "../config/secret-store.ts";
import { ConfigError } from "../core/errors.ts";
import { formatLinks } from "./banner.ts";
import { isLoopback } from "./lan-address.ts";
import { resolveSecrets, serve } from "./serve.ts";

/** The program's version, from package.json. */
export const VERSION: string = packageJson.version;

/** A command, and what its help says. */
export interface Command {
  /** What stands before its flags. */
  readonly usage: string;
  readonly description: string;
  /** Flags that are its own and no setting. */
  readonly switches: ReadonlyMap<string, string>;
  /** The settings that its help lists. */
  readonly fields: readonly FieldName[];
  /** It takes every flag of the proxy besides. */
  readonly takesAll: boolean;
  /** @returns The exit code; without one it is 0. @throws {ConfigError} */
  run(rawArgs: readonly string[]): Promise<number | undefined> | number | undefined;
}

/** Every setting. The commands accept those of no interest to them, too: people put a command before their flags. */
const ALL_FIELDS = Object.keys(FIELDS) as FieldName[];
/** Those that shape links. */
const LINK_FIELDS: readonly FieldName[] = ["host", "port", "secret", "fakeTlsDomain", "accept"];

const NO_SWITCHES: ReadonlyMap<string, string> = new Map();
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
  run: (rawArgs) => {
    const config = readConfig(rawArgs);
    if (config.port === 0)
      throw new ConfigError([{ path: "--port", message: "0: a link needs the real port" }]);
    const secrets = resolveSecrets(config);
    const qr = isatty(1);
    for (const warning of config.warnings) console.error(`tgws: ${warning}`);
    if (config.proxyProtocol && isLoopback(config.host))
      console.error("tgws: people reach the proxy before this one: name it with --host and --port");
    console.log(formatLinks({ config, port: config.port, secrets, qr }).join("\n"));
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
    const { given, rest } = takeSwitches(rawArgs, DOCTOR_SWITCHES);
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
    const { given, rest } = takeSwitches(rawArgs, ROUTES_SWITCHES);
    const config = readConfig(rest, ROUTES_SWITCHES);
    const { printRoutes } = await import("./diagnose.ts");
    await printRoutes(config, { json: given.has("--json") });
    return undefined;
  },
};

/** The commands besides the main one, by name. */
export const COMMANDS: ReadonlyMap<string, Command> = new Map([
  ["link", link],
  ["secret", secret],
  ["doctor", doctor],
  ["routes", routes],
]);

/** `tgws` without a command: run the proxy. */
export const MAIN_COMMAND: Command = {
  usage: "tgws",
  description: `Reach Telegram over WebSocket, from any Telegram app (tgws ${VERSION})`,
  switches: NO_SWITCHES,
  fields: ALL_FIELDS,
  takesAll: false,
  run: async (rawArgs) => {
    await serve(readConfig(rawArgs), VERSION);
    return undefined;
  },
};

/** Takes the switches out that are a command's own and no setting. @throws {ConfigError} When one has a value. */
function takeSwitches(
  rawArgs: readonly string[],
  switches: ReadonlyMap<string, string>,
): { readonly given: ReadonlySet<string>; readonly rest: readonly string[] } {
  for (const path of switches.keys()) {
    if (rawArgs.some((word) => word.startsWith(`${path}=`))) {
      throw new ConfigError([{ path, message: "takes no value", hint: path }]);
    }
  }
  return {
    given: new Set(rawArgs.filter((word) => switches.has(word))),
    rest: rawArgs.filter((word) => !switches.has(word)),
  };
}

/** @throws {ConfigError} With every problem of flags, environment and configuration file. */
function readConfig(rawArgs: readonly string[], switches: ReadonlyMap<string, string> = NO_SWITCHES): Config {
  const { env: environment, platform } = process;
  return loadConfig(rawArgs, { environment, platform, flags: otherFlags(switches) }).config;
}

/** Switches of this command, and of the others: `--json` belongs to `tgws doctor` and `tgws routes`. */
function otherFlags(switches: ReadonlyMap<string, string>): OtherFlags {
  const elsewhere = new Map<string, string>();
  for (const { usage, switches: known } of COMMANDS.values()) {
    for (const path of known.keys()) {
      const before = elsewhere.get(path);
      elsewhere.set(path, before === undefined ? usage : `${before} and ${usage}`);
    }
  }
  return { own: [...switches.keys()], elsewhere };
}
