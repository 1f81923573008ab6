import type { Config } from "../config/config.ts";
import type { ServerLimits } from "../proxy/server.ts";

/** What the server of one process may use. */
export function limitsOfProcess(config: Config): ServerLimits {
  return { maxConnections: config.maxConnections, bufferBytes: config.bufferBytes };
}
