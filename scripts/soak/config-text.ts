import type { Identity } from "./orders.ts";

/** A user with what limits it. */
export interface SoakUser extends Identity {
  readonly maxConnections?: number;
}

/** Settings of the proxy by their names, which are the same in files and on the command line. */
export type ConfigValues = Readonly<Record<string, string | number | readonly string[]>>;

/** Returns the flags that say the same. Limits of users cannot be said so. */
export function formatFlags(values: ConfigValues, users: readonly SoakUser[]): string[] {
  const flags = Object.entries(values).flatMap(([name, value]) => {
    const list = Array.isArray(value) ? value : [value];
    return list.flatMap((one) => [`--${name}`, String(one)]);
  });
  return [...flags, ...users.flatMap(({ user, secret }) => ["--secret", `${user}:${secret}`])];
}

/** Returns the configuration file that says the same. */
export function formatToml(values: ConfigValues, users: readonly SoakUser[]): string {
  const lines = Object.entries(values).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  for (const { user, secret, maxConnections } of users) {
    lines.push("", `[users.${user}]`, `secret = "${secret}"`);
    if (maxConnections !== undefined) lines.push(`max-connections = ${maxConnections}`);
  }
  return `${lines.join("\n")}\n`;
}
