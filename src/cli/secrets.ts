import type { Config } from "../config/config.ts";
import { configFolder, loadOrCreateSecret } from "../config/secret-store.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";

/** The name of the user whose secret was made and kept. */
export const KEPT_USER = "default";

/** The secrets to serve: those that were given, or the one that is kept. @throws {StartError} */
export function resolveSecrets(config: Config): readonly NamedSecret[] {
  if (config.secrets.length > 0) return config.secrets;
  return [{ name: KEPT_USER, key: loadOrCreateSecret(configFolder(process.env, process.platform)) }];
}
