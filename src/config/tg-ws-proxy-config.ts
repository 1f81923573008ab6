import type { ConfigIssue } from "../core/errors.ts";
import { splitList } from "./field-reader.ts";
import type { FieldName } from "./fields.ts";
import { quote } from "./quote.ts";

/** What tg-ws-proxy's `config.json` says, in our words. */
export interface ImportedSettings {
  readonly settings: ReadonlyMap<FieldName, readonly string[]>;
  readonly secret: string | undefined;
  /** The key that each setting was taken from; `secret` is not among them. */
  readonly keys: ReadonlyMap<FieldName, string>;
  /** Keys that were left out, and why. */
  readonly left: readonly string[];
  readonly issues: readonly ConfigIssue[];
}

/** Turns a value into the texts of a setting; `undefined` when it says what is the case anyway. */
type Take = (value: unknown) => readonly string[] | undefined;

/** A value of a type that its key cannot have. */
class WrongType extends Error {}

const KIB = 1024;

/**
 * Where each key goes. Its applications and its command line have several names for the same.
 *
 * @see https://github.com/Flowseal/tg-ws-proxy/blob/main/utils/default_config.py
 */
const TAKEN: ReadonlyMap<string, readonly [FieldName, Take]> = new Map<string, readonly [FieldName, Take]>([
  ["host", ["host", one]],
  ["port", ["port", one]],
  ["dc_ip", ["dcIp", addresses]],
  ["dc_ips", ["dcIp", addresses]],
  ["dc_redirects", ["dcIp", addresses]],
  ["buf_kb", ["bufKb", one]],
  ["buffer_size", ["bufKb", kilobytes]],
  ["pool_size", ["poolSize", one]],
  ["cfproxy", ["noCfproxy", unlessOn]],
  ["fallback_cfproxy", ["noCfproxy", unlessOn]],
  ["cfproxy_user_domain", ["cfproxyDomain", names]],
  ["cfproxy_user_domains", ["cfproxyDomain", names]],
  ["cfproxy_worker_domain", ["cfproxyWorkerDomain", names]],
  ["cfproxy_worker_domains", ["cfproxyWorkerDomain", names]],
  ["fake_tls_domain", ["fakeTlsDomain", names]],
  ["proxy_protocol", ["proxyProtocol", ifOn]],
  ["force_test_dc", ["forceTestDc", ifOn]],
  ["verbose", ["verbose", ifOn]],
  ["log_file", ["logFile", one]],
  ["log_max_mb", ["logMaxMb", one]],
  ["log_backups", ["logBackups", one]],
]);

/** A key that turns another one off: then that is kept by the application, but not used. */
const SWITCHED_BY: ReadonlyMap<FieldName, readonly string[]> = new Map<FieldName, readonly string[]>([
  ["cfproxyDomain", ["cfproxy_user_domain_enabled"]],
  ["cfproxyWorkerDomain", ["cfproxy_worker_enabled"]],
]);
const SWITCHES = [...SWITCHED_BY.values()].flat();

/** What only an application with windows needs. */
const FOREIGN = [
  "check_updates",
  "appearance",
  "language",
  "autostart",
  "first_run",
  "ws_keepalive_interval",
];

/**
 * Takes over what is known of a parsed `config.json`.
 *
 * @param file Its name, for the messages.
 */
export function readTgWsProxyConfig(file: string, parsed: unknown): ImportedSettings {
  const settings = new Map<FieldName, readonly string[]>();
  const keys = new Map<FieldName, string>();
  const left: string[] = [];
  const issues: ConfigIssue[] = [];
  let secret: string | undefined;
  if (!isRecord(parsed)) {
    const message = "not an object with settings";
    return { settings, keys, left, secret, issues: [{ path: file, message }] };
  }
  for (const [key, value] of Object.entries(parsed)) {
    const path = `${file}: ${quote(key)}`;
    if (key === "secret") {
      if (typeof value === "string") secret = value.trim() === "" ? undefined : value;
      else issues.push({ path, message: "not a text" });
      continue;
    }
    const taken = TAKEN.get(key);
    if (taken === undefined) {
      if (!SWITCHES.includes(key))
        left.push(`${quote(key)} (${FOREIGN.includes(key) ? "not needed here" : "not known"})`);
      continue;
    }
    const [name, take] = taken;
    const off = (SWITCHED_BY.get(name) ?? []).some((flag) => parsed[flag] === false);
    try {
      const texts = value === null ? undefined : take(value);
      if (texts === undefined || texts.length === 0) continue;
      if (off) left.push(`${quote(key)} (turned off)`);
      else if (settings.has(name))
        issues.push({ path, message: `says the same as ${keys.get(name)}`, hint: "keep one of them" });
      else {
        settings.set(name, texts);
        keys.set(name, key);
      }
    } catch (error) {
      if (!(error instanceof WrongType)) throw error;
      issues.push({ path, message: error.message });
    }
  }
  // The applications have a log file of their own; here there is one only where it was asked for.
  for (const name of ["logMaxMb", "logBackups"] as const) {
    if (settings.has("logFile") || !settings.delete(name)) continue;
    left.push(`${keys.get(name)} (there is no log file without log-file)`);
    keys.delete(name);
  }
  return { settings, keys, left, secret, issues };
}

function one(value: unknown): readonly string[] | undefined {
  if (typeof value === "number") return [String(value)];
  if (typeof value !== "string") throw new WrongType("neither a text nor a number");
  return value.trim() === "" ? undefined : [value];
}

function kilobytes(value: unknown): readonly string[] {
  if (typeof value !== "number") throw new WrongType("not a number");
  return [String(Math.max(4, Math.round(value / KIB)))];
}

function ifOn(value: unknown): readonly string[] | undefined {
  if (typeof value !== "boolean") throw new WrongType("neither true nor false");
  return value ? [""] : undefined;
}

function unlessOn(value: unknown): readonly string[] | undefined {
  return ifOn(value) === undefined ? [""] : undefined;
}

/** A list of texts, or one text with several names in it. */
function names(value: unknown): readonly string[] {
  const texts = Array.isArray(value) ? value : [value];
  return texts.flatMap((text: unknown) => {
    if (typeof text !== "string") throw new WrongType("not a text or a list of texts");
    return splitList(text);
  });
}

/** `["2:192.0.2.7"]`, a text with several of them, or `{ "2": "192.0.2.7" }`. */
function addresses(value: unknown): readonly string[] {
  if (!isRecord(value)) return names(value);
  return Object.entries(value).map(([dc, ip]) => {
    if (typeof ip !== "string") throw new WrongType("not a table of addresses");
    return `${dc}:${ip}`;
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
