import type { Config } from "../config/config.ts";
import { type UserPolicy, unlimitedUser } from "../core/users.ts";
import { type ProcessDescriptors, processDescriptors } from "../net/descriptors.ts";
import { defaultBufferBytes } from "../net/memory-limit.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { connectionLimitOf } from "../proxy/connection-limit.ts";
import type { GateRules } from "../proxy/local-gate.ts";
import type { ServerLimits } from "../proxy/server.ts";
import type { RemoteRules } from "../workers/remote-gate.ts";

/** Returns who may come, and how many. A secret that stands for no user, such as the one that is kept, has no limits. */
export function gateRulesOf(config: Config, secrets: readonly NamedSecret[]): GateRules {
  const { maxConnections, maxPerAddress, addressRate } = config;
  const named = new Map<string, UserPolicy>(config.users.map((user) => [user.name, user]));
  const users = secrets.map(({ name, key }) => named.get(name) ?? unlimitedUser(name, key));
  return { users, limits: { maxConnections, maxPerAddress, addressRate } };
}

/** What a worker has to ask its supervisor about. */
export function remoteRulesOf({ maxConnections, maxPerAddress, addressRate, users }: Config): RemoteRules {
  const limited = users.filter((user) => {
    const { enabled, maxConnections: connections, maxAddresses, quotaBytes, expiresAt, rateBytes } = user;
    const limits = [connections, maxAddresses, quotaBytes, expiresAt, rateBytes];
    return !enabled || limits.some((limit) => limit !== undefined);
  });
  return {
    limitsAddresses: [maxConnections, maxPerAddress, addressRate].some((limit) => limit !== undefined),
    limitedUsers: new Set(limited.map(({ name }) => name)),
  };
}

/** What a process has room for, as it is at its start: later, its sessions would be taken for what else it needs. */
export class ProcessRoom {
  readonly #descriptors: ProcessDescriptors | undefined = processDescriptors();

  /** What one process may use. Several of them may have fewer connections together: that is the gate's to say. */
  limitsOf({ maxConnections, bufferBytes, queueBytes }: Config): ServerLimits {
    const limit = connectionLimitOf(maxConnections, this.#descriptors);
    return {
      maxConnections: limit.maxConnections,
      bufferBytes: bufferBytes ?? defaultBufferBytes(),
      queueBytes,
    };
  }

  /** What the user should know about that. @param processes How many there are of this kind. */
  warningOf({ maxConnections }: Config, processes: number): string | undefined {
    const share = maxConnections === undefined ? undefined : Math.ceil(maxConnections / processes);
    return connectionLimitOf(share, this.#descriptors).warning;
  }
}
