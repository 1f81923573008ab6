import { type Command, loadFor, NO_SWITCHES, takeOwnArgs } from "./command.ts";

const JSON_SWITCH: ReadonlyMap<string, string> = new Map([["--json", "Print JSON"]]);
const FORCE_SWITCH: ReadonlyMap<string, string> = new Map([["--force", "Replace the file that is there"]]);

/** `tgws config check`: whether the proxy would start with this. */
const check: Command = {
  usage: "tgws config check [FILE]",
  description: "Say everything that is wrong with the configuration",
  switches: NO_SWITCHES,
  fields: ["config"],
  takesAll: true,
  run: async (rawArgs) => {
    const { operands, rest } = takeOwnArgs(rawArgs, NO_SWITCHES, 1);
    const { checkConfig } = await import("./config-check.ts");
    await checkConfig(loadFor([...operands.flatMap((file) => ["--config", file]), ...rest]));
    return undefined;
  },
};

/** `tgws config show`: what counts, and where it was written. */
const show: Command = {
  usage: "tgws config show",
  description: "Print every setting with its value, and where that comes from",
  switches: JSON_SWITCH,
  fields: ["config"],
  takesAll: true,
  run: async (rawArgs) => {
    const { given, rest } = takeOwnArgs(rawArgs, JSON_SWITCH);
    const { formatSettings, settingsJson } = await import("./config-show.ts");
    const loaded = loadFor(rest, { own: ["--json"] });
    console.log(
      given.has("--json") ? JSON.stringify(settingsJson(loaded), null, 2) : formatSettings(loaded).join("\n"),
    );
    return undefined;
  },
};

/** `tgws config init`: a first file. */
const init: Command = {
  usage: "tgws config init",
  description: "Write a configuration file to start from, with a user in it, and the flags that are given",
  switches: FORCE_SWITCH,
  fields: ["config"],
  takesAll: true,
  run: async (rawArgs) => {
    const { given, rest } = takeOwnArgs(rawArgs, FORCE_SWITCH);
    const { initConfig } = await import("./config-init.ts");
    await initConfig(rest, { replace: given.has("--force") });
    return undefined;
  },
};

/** `tgws config import`: for who comes from tg-ws-proxy. */
const importFile: Command = {
  usage: "tgws config import FILE",
  description: "Make a configuration file of tg-ws-proxy's config.json, and of the flags that are given",
  switches: FORCE_SWITCH,
  fields: ["config"],
  takesAll: true,
  run: async (rawArgs) => {
    const args = takeOwnArgs(rawArgs, FORCE_SWITCH, 1);
    const { importConfig } = await import("./config-import.ts");
    await importConfig(args, { replace: args.given.has("--force") });
    return undefined;
  },
};

/** `tgws config ...`, by the second word. */
export const CONFIG_COMMANDS: ReadonlyMap<string, Command> = new Map([
  ["check", check],
  ["show", show],
  ["init", init],
  ["import", importFile],
]);
