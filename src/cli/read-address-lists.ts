import type { Config } from "../config/config.ts";

export async function readAddressLists(
  _config: Config,
): Promise<{ lists: undefined; files: readonly string[] }> {
  return { lists: undefined, files: [] };
}
