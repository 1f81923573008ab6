import { parseConfig } from "../config/config.ts";
import { FIELDS, type FieldName } from "../config/fields.ts";
import type { Origins } from "../config/origin.ts";
import { quote } from "../config/quote.ts";
import { readTgWsProxyConfig } from "../config/tg-ws-proxy-config.ts";
import { readFileText } from "../config/toml-file.ts";
import { ConfigError, type ConfigIssue, FormatError } from "../core/errors.ts";
import { formatSecret, parseSecretText } from "../protocol/mtproto/secret.ts";
import { needOperand, type OwnArgs } from "./command.ts";
import { FIRST_USER, firstSecret, writeStarter } from "./config-init.ts";

/**
 * Makes a configuration file of tg-ws-proxy's `config.json`; its secret goes on, so that links do, too.
 *
 * @throws {ConfigError} With everything that is wrong with the file.
 * @throws {StartError} `FILE`
 */
export async function importConfig(args: OwnArgs, options: { readonly replace: boolean }): Promise<void> {
  const file = needOperand(args, "FILE", "tgws config import FILE");
  const { settings, secret, keys, left, issues } = readTgWsProxyConfig(file, readJson(file));
  const origins: Origins = new Map(
    [...keys].map(([name, key]) => [name, { source: "file", path: `${file}: ${key}` }] as const),
  );
  const raw = Object.fromEntries(settings) as Partial<Record<FieldName, readonly string[]>>;
  const parsed = secret === undefined ? undefined : readSecret(file, secret);
  parseConfig(raw, [...issues, ...(parsed?.issues ?? [])], origins);
  const key = parsed?.secret ?? firstSecret();
  await writeStarter(args.rest, { settings, user: { name: FIRST_USER, secret: key } }, options);
  const taken = [...settings.keys()].map((name) => `${keys.get(name)} as ${FIELDS[name].flag}`);
  if (parsed !== undefined) taken.push(`secret as the user ${FIRST_USER}`);
  console.log(taken.length === 0 ? "Nothing was taken over" : `Taken over: ${taken.join(", ")}`);
  if (left.length > 0) console.log(`Left out: ${left.join(", ")}`);
}

function readJson(file: string): unknown {
  const text = readFileText(file)?.text;
  if (text === undefined) throw new ConfigError([{ path: file, message: "no such file" }]);
  try {
    return JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (error) {
    const reason = error instanceof Error ? quote(error.message.replace(/^JSON Parse error: /, "")) : "";
    throw new ConfigError([
      { path: file, message: `not JSON: ${reason}`, hint: "tg-ws-proxy's config.json" },
    ]);
  }
}

/** @returns The secret in hexadecimal, or what is wrong with it. */
function readSecret(
  file: string,
  text: string,
): { readonly secret: string; readonly issues: readonly ConfigIssue[] } {
  try {
    const { key, domain } = parseSecretText(text);
    return { secret: formatSecret(key, domain === undefined ? "plain" : { fakeTls: domain }), issues: [] };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const hint = error.hint === undefined ? {} : { hint: error.hint };
    return { secret: "", issues: [{ path: `${file}: secret`, message: error.message, ...hint }] };
  }
}
