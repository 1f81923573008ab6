import { editFile } from "../config/edit-file.ts";
import { FIELD_NAMES, FIELDS, type Field, type FieldName } from "../config/fields.ts";
import { configFilePath } from "../config/load-config.ts";
import { generateSecret, readKeptSecret } from "../config/secret-store.ts";
import { formatStarterFile, type StarterFile } from "../config/starter-file.ts";
import { ConfigError } from "../core/errors.ts";
import { formatLinks, loadQrCodes } from "./banner.ts";
import { loadFor, surroundingsOf } from "./command.ts";
import { stateFolder } from "./state.ts";

/** What the user of the secret is called that was served without a name. */
export const FIRST_USER = "default";

/** Writes a file to start from. A secret that is kept is taken over: links that were given away go on working. */
export async function initConfig(
  rawArgs: readonly string[],
  options: { readonly replace: boolean },
): Promise<void> {
  await writeStarter(
    rawArgs,
    { settings: new Map(), user: { name: FIRST_USER, secret: firstSecret() } },
    options,
  );
}

/** The secret that was served so far, or a new one; in hexadecimal. */
export function firstSecret(): string {
  return (keptSecret() ?? generateSecret()).toHex();
}

/** The secret that is served as long as no other is configured. @throws {StartError} `FILE` when it is damaged. */
export function keptSecret(): Uint8Array | undefined {
  const folder = stateFolder();
  return folder === undefined ? undefined : readKeptSecret(folder);
}

/**
 * Writes a new configuration file, and prints how to use it. Flags that are given are set in it.
 *
 * @param replace Whether one that is there may be replaced.
 * @throws {ConfigError} When one is there and may not, or when what is written could not be used.
 * @throws {StartError} `FILE`
 */
export async function writeStarter(
  rawArgs: readonly string[],
  starter: StarterFile,
  { replace }: { readonly replace: boolean },
): Promise<void> {
  const path = configFilePath(rawArgs, surroundingsOf());
  if (path === undefined)
    throw new ConfigError([{ path: "--config", message: "is needed: there is no home folder" }]);
  const settings = new Map([...starter.settings, ...settingsOfFlags(rawArgs)]);
  const text = formatStarterFile({ ...starter, settings });
  const { config } = loadFor(rawArgs, {}, text);
  await editFile(path, (before) => {
    if (before === undefined || replace) return text;
    throw new ConfigError([
      { path, message: "is there already", hint: "--force replaces it; --config names another file" },
    ]);
  });
  console.log(`Written: ${path}`);
  const { name, key } = config.secrets.find((secret) => secret.name === starter.user.name) ?? {
    name: starter.user.name,
    key: Uint8Array.fromHex(starter.user.secret),
  };
  if (config.port === 0) return; // a link needs the real port
  const links = { config, port: config.port, secrets: [{ name, key }], drawQrCode: await loadQrCodes() };
  console.log(["", ...formatLinks(links)].join("\n"));
}

/** What flags say that can stand in a file. @throws {ConfigError} */
function settingsOfFlags(rawArgs: readonly string[]): Map<FieldName, readonly string[]> {
  const { raw, origins } = loadFor(rawArgs, {}, "");
  const given = FIELD_NAMES.filter((name) => origins.get(name)?.source === "flag");
  const settings = given.filter((name) => !(FIELDS[name] as Field).outsideFile);
  return new Map(settings.map((name) => [name, raw[name] ?? []]));
}
