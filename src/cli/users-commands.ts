import type { FieldName } from "../config/fields.ts";
import { USER_FIELD_NAMES, USER_FIELDS, type UserFieldName } from "../config/user-fields.ts";
import { type Command, NO_SWITCHES, needOperand, takeOwnArgs } from "./command.ts";

const JSON_SWITCH: ReadonlyMap<string, string> = new Map([["--json", "Print JSON"]]);
/** Those that shape links, and where the file is. */
const LINK_FIELDS: readonly FieldName[] = ["config", "host", "port", "fakeTlsDomain", "accept"];

/** What can be said about a user, as flags. */
const USER_SWITCHES: ReadonlyMap<string, string> = userSwitches(
  USER_FIELD_NAMES.filter((key) => key !== "enabled"),
);

/** `tgws users add`. */
const add: Command = {
  usage: "tgws users add NAME",
  description: "Add a user to the configuration file, and print the links",
  switches: USER_SWITCHES,
  fields: LINK_FIELDS,
  takesAll: true,
  run: async (rawArgs) => {
    const args = takeOwnArgs(rawArgs, USER_SWITCHES, 1);
    const name = needOperand(args, "NAME", add.usage);
    const { addToFile } = await import("./users-edit.ts");
    await addToFile(name, args);
    return undefined;
  },
};

/** `tgws users set`. */
const set: Command = {
  usage: "tgws users set NAME",
  description: "Change the limits of a user, or the secret; the word none takes a limit away",
  switches: USER_SWITCHES,
  fields: ["config"],
  takesAll: false,
  run: async (rawArgs) => {
    const args = takeOwnArgs(rawArgs, USER_SWITCHES, 1);
    const name = needOperand(args, "NAME", set.usage);
    const { setInFile } = await import("./users-edit.ts");
    await setInFile(name, args);
    return undefined;
  },
};

/** `tgws users list`. */
const list: Command = {
  usage: "tgws users list",
  description: "Print the users with their limits, and what they have used",
  switches: JSON_SWITCH,
  fields: ["config"],
  takesAll: true,
  run: async (rawArgs) => {
    const { given, rest } = takeOwnArgs(rawArgs, JSON_SWITCH);
    const { printUsers } = await import("./users-list.ts");
    await printUsers(rest, { json: given.has("--json") });
    return undefined;
  },
};

/** `tgws users link`. */
const link: Command = {
  usage: "tgws users link NAME",
  description: "Print a user's links and QR code",
  switches: NO_SWITCHES,
  fields: LINK_FIELDS,
  takesAll: true,
  run: async (rawArgs) => {
    const args = takeOwnArgs(rawArgs, NO_SWITCHES, 1);
    const name = needOperand(args, "NAME", link.usage);
    const { printLinks } = await import("./users-list.ts");
    await printLinks(name, args.rest);
    return undefined;
  },
};

/** One that has a name and nothing else: `tgws users remove`. */
function simple(verb: "remove" | "reset" | "enable" | "disable", description: string): Command {
  const usage = `tgws users ${verb} NAME`;
  return {
    usage,
    description,
    switches: NO_SWITCHES,
    fields: ["config"],
    takesAll: false,
    run: async (rawArgs) => {
      const args = takeOwnArgs(rawArgs, NO_SWITCHES, 1);
      const name = needOperand(args, "NAME", usage);
      const edit = await import("./users-edit.ts");
      if (verb === "remove") await edit.removeFromFile(name, args);
      else if (verb === "reset") await edit.resetUsage(name, args);
      else await edit.switchInFile(name, args, verb);
      return undefined;
    },
  };
}

/** `tgws users ...`, by the second word. */
export const USERS_COMMANDS: ReadonlyMap<string, Command> = new Map([
  ["add", add],
  ["list", list],
  ["link", link],
  ["set", set],
  ["enable", simple("enable", "Serve a user again")],
  ["disable", simple("disable", "Serve a user no longer, but keep what the file says")],
  ["reset", simple("reset", "Set the traffic that a user has used to zero")],
  ["remove", simple("remove", "Take a user out of the configuration file")],
]);

function userSwitches(keys: readonly UserFieldName[]): ReadonlyMap<string, string> {
  return new Map(
    keys.map((key) => [`--${key} <${USER_FIELDS[key].value}>`, USER_FIELDS[key].help.replaceAll("`", "")]),
  );
}
