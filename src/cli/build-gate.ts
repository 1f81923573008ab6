import type { Config } from "../config/config.ts";
import { type UserPolicy, unlimitedUser } from "../core/users.ts";
import { processDescriptors } from "../net/descriptors.ts";
import { defaultBufferBytes } from "../net/memory-limit.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { connectionLimitOf } from "../proxy/connection-limit.ts";
import type { GateRules } from "../proxy/local-gate.ts";
import type { ServerLimits } from "../proxy/server.ts";

/** Returns who may come, and how many. A secret that stands for no user, such as the one that is kept, has no limits. */
export function gateRulesOf(config: Config, secrets: readonly NamedSecret[]): GateRules {
  const { maxPerAddress, addressRate } = config;
  const named = new Map<string, UserPolicy>(config.users.map((user) => [user.name, user]));
  const users = secrets.map(({ name, key }) => named.get(name) ?? unlimitedUser(name, key));
  return { users, limits: { maxConnections: undefined, maxPerAddress, addressRate } };
}

/** Returns what one process may use, and what the user should know about that. */
export function serverLimitsOf(config: Config): {
  readonly limits: ServerLimits;
  readonly warning: string | undefined;
} {
  const { maxConnections, warning } = connectionLimitOf(config.maxConnections, processDescriptors());
  return { limits: { maxConnections, bufferBytes: config.bufferBytes ?? defaultBufferBytes() }, warning };
}
