import { existsSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { editFile } from "../config/edit-file.ts";
import { addUser, changeUser, removeUser, type UserChanges, userNames } from "../config/edit-users.ts";
import { configFilePath } from "../config/load-config.ts";
import { nearestOf } from "../config/nearest.ts";
import { hintOnDisk, reasonOf } from "../config/private-file.ts";
import { quote } from "../config/quote.ts";
import { generateSecret } from "../config/secret-store.ts";
import type { StateFileError } from "../config/state-file.ts";
import { UsageStore } from "../config/usage-store.ts";
import { USER_FIELD_NAMES, USER_FIELDS, type UserFieldName } from "../config/user-fields.ts";
import { readPolicy } from "../config/user-policy.ts";
import { isUserName, mayBePartOfKey } from "../config/users.ts";
import { ConfigError, type ConfigIssue, FormatError, StartError } from "../core/errors.ts";
import { looksLikeSecret, parseSecretText } from "../protocol/mtproto/secret.ts";
import { formatLinks, loadQrCodes } from "./banner.ts";
import { loadFor, type OwnArgs, surroundingsOf } from "./command.ts";
import { FIRST_USER, keptSecret } from "./config-init.ts";
import { usagePath } from "./state.ts";

/** What a file begins with that `tgws users add` makes. */
const HEADER = "# The configuration of tgws: `tgws config show` prints every setting.\n";
/** They may have been meant by a flag that is not known. */
const OWN_FLAGS = { own: USER_FIELD_NAMES.filter((key) => key !== "enabled").map((key) => `--${key}`) };
/** In the place of a limit: there is none. */
const NONE = "none";
/** Another process may be writing. */
const USAGE_WAIT_MS = 5_000;

/** Adds a user, and prints the links. @throws {ConfigError | StartError} */
export async function addToFile(name: string, { given, rest }: OwnArgs): Promise<void> {
  checkName(name);
  const path = pathOf(rest);
  const changes = readChanges(given);
  let kept = false;
  await editFile(path, async (before) => {
    let text = before ?? HEADER;
    if (userNames(path, text).includes(name))
      throw notAdded(name, `tgws users link ${name} prints the links; tgws users set ${name} changes limits`);
    const served = loadFor(rest, OWN_FLAGS, text).config.users.length === 0 ? keptSecret() : undefined;
    kept = served !== undefined && name !== FIRST_USER;
    if (served !== undefined && kept) text = await addUser(text, FIRST_USER, { secret: served.toHex() });
    const secret = (kept ? undefined : served) ?? generateSecret();
    text = await addUser(text, name, { secret: secret.toHex(), ...changes });
    loadFor(rest, OWN_FLAGS, text); // refuses what could not be used
    await forgetUsage(name); // somebody else's, who had that name and was taken out by hand
    return text;
  });
  const config = reload(rest);
  console.log(`Added ${name} to ${path}`);
  if (kept) console.log(`Added ${FIRST_USER}, too: the secret that was served so far`);
  warnOfExpiry(name, config);
  if (config.port !== 0) await printUserLinks(config, name); // a link needs the real port
}

/** Changes the limits of a user, or the secret. @throws {ConfigError | StartError} */
export async function setInFile(name: string, { given, rest }: OwnArgs): Promise<void> {
  loadFor(rest, OWN_FLAGS); // says which flags there are not
  if (given.size === 0) {
    const hint = OWN_FLAGS.own.join(", ");
    throw new ConfigError([{ path: "tgws users set", message: "nothing to change is named", hint }]);
  }
  const changes = readChanges(given);
  let links: readonly string[] = [];
  const { config } = await change(name, rest, (text, before) => {
    links = linksOf(before, name);
    return changeUser(text, name, changes);
  });
  console.log(`Changed ${name}`);
  if (changes.expires !== undefined) warnOfExpiry(name, config);
  const now = linksOf(config, name);
  if (links.some((line) => !now.includes(line)))
    console.log(`The old links do not work any more: tgws users link ${name} prints new ones`);
}

/** A line for each link of a user. */
function linksOf(config: Config, name: string): string[] {
  const secrets = config.secrets.filter((secret) => secret.name === name);
  const lines = formatLinks({ config, port: config.port, secrets, drawQrCode: undefined });
  return lines.filter((line) => line.includes("tg://"));
}

/** Serves a user again, or no longer. @throws {ConfigError | StartError} */
export async function switchInFile(
  name: string,
  { rest }: OwnArgs,
  verb: "enable" | "disable",
): Promise<void> {
  const enabled = verb === "enable";
  let done = false;
  const { config } = await change(name, rest, (text, before) => {
    done = before.users.find((user) => user.name === name)?.enabled !== enabled;
    return done ? changeUser(text, name, { enabled: String(enabled) }) : text;
  });
  console.log(done ? `${name} is ${verb}d` : `${name} was ${verb}d already`);
  if (enabled) warnOfExpiry(name, config);
}

/** Takes a user out of the file, and forgets the traffic. @throws {ConfigError | StartError} */
export async function removeFromFile(name: string, { rest }: OwnArgs): Promise<void> {
  // Without a word in it a proxy that runs would take the file for one that is about to be written.
  const remove = async (text: string): Promise<string> => {
    const left = await removeUser(text, name);
    return left.trim() === "" ? HEADER : left;
  };
  const { config, path } = await change(name, rest, remove);
  await forgetUsage(name);
  console.log(`Removed ${name} from ${path}`);
  if (config.users.length === 0)
    console.log("Nobody is left in it: whoever has the secret that tgws makes and keeps is served now");
}

/** Sets the traffic of a user to zero. @throws {ConfigError | StartError} */
export async function resetUsage(name: string, { rest }: OwnArgs): Promise<void> {
  const { config } = loadFor(rest);
  if (!config.users.some((user) => user.name === name)) throw notThere(name, config);
  await forgetUsage(name);
  console.log(`The traffic of ${name} counts from zero`);
}

/** A year that was not typed right is not seen in links that look well. */
function warnOfExpiry(name: string, { users }: Config): void {
  const expiresAt = users.find((user) => user.name === name)?.expiresAt;
  if (expiresAt === undefined || expiresAt > Date.now()) return;
  const time = new Date(expiresAt).toISOString().slice(0, 16).replace("T", " ");
  console.error(`tgws: ${name} has expired at ${time} UTC, and is not served: --expires sets another date`);
}

/** Prints the links of one user. */
export async function printUserLinks(config: Config, name: string): Promise<void> {
  const secrets = config.secrets.filter((secret) => secret.name === name);
  if (config.port === 0)
    throw new ConfigError([{ path: "--port", message: "0: a link needs the real port" }]);
  const drawQrCode = await loadQrCodes();
  console.log(["", ...formatLinks({ config, port: config.port, secrets, drawQrCode })].join("\n"));
}

/** @throws {ConfigError} That there is no such user, and who may be meant. */
export function notThere(name: string, { users }: Config): ConfigError {
  const names = users.map((user) => user.name);
  const near = nearestOf(name, names);
  const hint = near === undefined ? "tgws users list prints them" : `did you mean ${near}?`;
  return new ConfigError([{ path: quote(name), message: "no such user", hint }]);
}

/** @returns The configuration with the change, and where it is. */
async function change(
  name: string,
  rest: readonly string[],
  edit: (text: string, config: Config) => string | Promise<string>,
): Promise<{ readonly config: Config; readonly path: string }> {
  const path = pathOf(rest);
  await editFile(path, async (before) => {
    const text = before ?? "";
    const loaded = loadFor(rest, {}, text);
    if (!userNames(path, text).includes(name)) {
      const elsewhere = loaded.config.users.some((user) => user.name === name);
      if (!elsewhere) throw notThere(name, loaded.config);
      const message = `stands in ${loaded.origins.get("secret")?.path ?? "--secret"}, not in a table of its own`;
      throw new ConfigError([{ path: quote(name), message, hint: `[users.${name}] can be changed` }]);
    }
    const after = await edit(text, loaded.config);
    loadFor(rest, {}, after); // refuses what could not be used
    return after;
  });
  return { config: reload(rest), path };
}

/** Reads what is in the file now, and says what to know about it: that others can read it, or nobody is served. */
function reload(rest: readonly string[]): Config {
  const { config, warnings } = loadFor(rest);
  for (const warning of warnings) console.error(`tgws: ${warning}`);
  return config;
}

function pathOf(rest: readonly string[]): string {
  const path = configFilePath(rest, surroundingsOf());
  if (path !== undefined) return path;
  throw new ConfigError([{ path: "--config", message: "is needed: there is no home folder" }]);
}

function checkName(name: string): void {
  if (name === "")
    throw new ConfigError([{ path: "NAME", message: "is empty", hint: "tgws users add alice" }]);
  if (isUserName(name) && !looksLikeSecret(name) && !mayBePartOfKey(name)) return;
  const message = looksLikeSecret(name) || mayBePartOfKey(name) ? "looks like a secret" : "cannot be a name";
  const hint = "1-32 letters, digits, dots, dashes or underscores; a secret goes to --secret";
  throw new ConfigError([{ path: quote(name), message, hint }]);
}

function notAdded(name: string, hint: string): ConfigError {
  return new ConfigError([{ path: quote(name), message: "is there already", hint }]);
}

/** @throws {ConfigError} With everything that is wrong with the values, by flag. */
function readChanges(given: ReadonlyMap<string, string>): UserChanges {
  const issues: ConfigIssue[] = [];
  const read = <T>(key: UserFieldName, parse: (text: string) => T): T | undefined => {
    const text = given.get(`--${key}`);
    if (text === undefined || (text === NONE && key !== "secret")) return undefined;
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      const message = key === "secret" ? error.message : `${quote(text)}: ${error.message}`;
      issues.push({ path: `--${key}`, message, hint: error.hint ?? `--${key} <${USER_FIELDS[key].value}>` });
      return undefined;
    }
  };
  const { expiresAt } = readPolicy(read);
  read("secret", parseSecretText);
  if (issues.length > 0) throw new ConfigError(issues);
  const changes: Partial<Record<UserFieldName, string | undefined>> = {};
  for (const key of USER_FIELD_NAMES) {
    const text = given.get(`--${key}`);
    if (text === undefined) continue;
    changes[key] = text === NONE && key !== "secret" ? undefined : text;
  }
  // A time in another zone is written in UTC, as whoever reads it back gets it.
  if (expiresAt !== undefined && changes.expires?.includes(":"))
    changes.expires = new Date(expiresAt).toISOString().replace(/\.000Z$/, "Z");
  return changes;
}

async function forgetUsage(name: string): Promise<void> {
  const path = usagePath();
  if (path === undefined || !existsSync(path)) return;
  let failure: StateFileError | undefined;
  const store = await UsageStore.open(path, (error) => (failure = error), USAGE_WAIT_MS);
  store.reset(name);
  store.close();
  if (failure === undefined) return;
  if (failure.code === "READ") {
    console.error(`tgws: ${failure.message}`); // nobody's traffic is in the new one
    return;
  }
  const hint = reasonOf(failure.cause).startsWith("SQLITE_BUSY")
    ? "another program keeps it locked: try again, or close that program"
    : (hintOnDisk(failure.cause) ?? "run this as the user that tgws runs as, or as root");
  throw new StartError("FILE", failure.message, hint, failure);
}
