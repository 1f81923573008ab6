import type { LoadedConfig } from "../config/load-config.ts";
import { readProxy } from "./build-routes.ts";
import { readAddressLists } from "./read-address-lists.ts";
import { readTrust } from "./trust.ts";

/** Says that a configuration can be used, and what to know about it; one that cannot has been refused before. */
export async function checkConfig({ config, file, warnings }: LoadedConfig): Promise<void> {
  readProxy(config);
  await readTrust(config);
  await readAddressLists(config);
  for (const warning of warnings) console.error(`tgws: ${warning}`);
  const users = config.users.length === 1 ? "1 user" : `${config.users.length} users`;
  console.log(file === undefined ? "ok: there is no configuration file" : `ok: ${file} (${users})`);
}
