import { existsSync } from "node:fs";
import { userPlace } from "../config/origin.ts";
import { type Usage, UsageStore } from "../config/usage-store.ts";
import type { UserPolicy } from "../core/users.ts";
import { loadFor } from "./command.ts";
import { usagePath } from "./state.ts";
import { notThere, printUserLinks } from "./users-edit.ts";

/** One user, for programs: what `tgws users list --json` prints a list of. */
export interface UserJson {
  readonly name: string;
  readonly state: UserState;
  readonly enabled: boolean;
  readonly maxConnections: number | null;
  readonly maxAddresses: number | null;
  readonly quotaBytes: number | null;
  /** RFC 3339, in UTC. */
  readonly expires: string | null;
  readonly rateBytes: number | null;
  /** Bytes since the count was last set to zero. */
  readonly up: number;
  readonly down: number;
  /** Where it is configured: `tgws.toml:12: users.alice`. */
  readonly place: string | null;
}

/** Why a user is served or not. */
export type UserState = "active" | "disabled" | "expired" | "over quota";

const USAGE_WAIT_MS = 5_000;
const KIB = 1024;
const HEADINGS = ["NAME", "STATE", "USED", "QUOTA", "CONNECTIONS", "ADDRESSES", "RATE", "EXPIRES"];

/** Prints all users. */
export async function printUsers(
  rest: readonly string[],
  { json }: { readonly json: boolean },
): Promise<void> {
  const { config, origins } = loadFor(rest, { own: ["--json"] });
  const usages = await readUsages();
  const users = config.users.map((user) => {
    const place = origins.get(userPlace(user.name)) ?? origins.get("secret");
    return describeUser(user, usages.get(user.name), place?.path);
  });
  if (json) console.log(JSON.stringify(users, null, 2));
  else console.log(formatUsers(users).join("\n"));
}

/** Prints the links of one user. @throws {ConfigError} When there is none of this name. */
export async function printLinks(name: string, rest: readonly string[]): Promise<void> {
  const { config } = loadFor(rest);
  if (!config.users.some((user) => user.name === name)) throw notThere(name, config);
  await printUserLinks(config, name);
}

/** A table for people. */
export function formatUsers(users: readonly UserJson[]): string[] {
  if (users.length === 0)
    return ["There are no users: the secret that is kept is served. tgws users add NAME adds one"];
  const rows = users.map((user) => [
    user.name,
    user.state,
    formatBytes(user.up + user.down),
    limit(user.quotaBytes, formatBytes),
    limit(user.maxConnections, String),
    limit(user.maxAddresses, String),
    limit(user.rateBytes, (bytes) => `${formatBytes(bytes)}/s`),
    user.expires === null ? "-" : formatExpiry(user.expires),
  ]);
  const widths = HEADINGS.map((heading, at) =>
    Math.max(heading.length, ...rows.map((row) => (row[at] ?? "").length)),
  );
  return [HEADINGS, ...rows].map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}

function describeUser(user: UserPolicy, usage: Usage | undefined, place: string | undefined): UserJson {
  const { up, down } = usage ?? { up: 0, down: 0 };
  return {
    name: user.name,
    state: stateOf(user, up + down),
    enabled: user.enabled,
    maxConnections: user.maxConnections ?? null,
    maxAddresses: user.maxAddresses ?? null,
    quotaBytes: user.quotaBytes ?? null,
    expires: user.expiresAt === undefined ? null : new Date(user.expiresAt).toISOString(),
    rateBytes: user.rateBytes ?? null,
    up,
    down,
    place: place ?? null,
  };
}

function stateOf({ enabled, expiresAt, quotaBytes }: UserPolicy, used: number): UserState {
  if (!enabled) return "disabled";
  if (expiresAt !== undefined && Date.now() >= expiresAt) return "expired";
  return quotaBytes !== undefined && used >= quotaBytes ? "over quota" : "active";
}

/** What is kept about traffic; nothing where nothing was. */
async function readUsages(): Promise<ReadonlyMap<string, Usage>> {
  const path = usagePath();
  if (path === undefined || !existsSync(path)) return new Map();
  const store = await UsageStore.open(
    path,
    (error) => console.error(`tgws: ${error.message}`),
    USAGE_WAIT_MS,
  );
  const totals = store.totals();
  store.close();
  return totals;
}

function limit(value: number | null, format: (value: number) => string): string {
  return value === null ? "-" : format(value);
}

/** A day that lasts to its end in UTC is shown as that day. */
function formatExpiry(text: string): string {
  if (!text.endsWith("T00:00:00.000Z")) return text.replace(/\.000Z$/, "Z");
  return new Date(Date.parse(text) - 1).toISOString().slice(0, 10);
}

/** `1.5 GB`; a KB is 1024 bytes here, as in the settings. */
function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  for (; value >= KIB && unit < units.length - 1; unit++) value /= KIB;
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[unit]}`;
}
