import { isIP } from "node:net";
import { ConfigError, type ConfigIssue, FormatError } from "../core/errors.ts";
import { DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import { type DcAddress, DEFAULT_DC_IPS, TELEGRAM_PORT } from "../protocol/mtproto/dc-addresses.ts";
import { looksLikeSecret, type NamedSecret, parseSecret, redact } from "../protocol/mtproto/secret.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";

/** Everything that can be set, checked. */
export interface Config {
  readonly host: string;
  readonly port: number;
  /** Empty: use the one that is kept on disk. */
  readonly secrets: readonly NamedSecret[];
  readonly dcAddresses: ReadonlyMap<number, DcAddress>;
  readonly poolSize: number;
  /** Bytes queued in one direction of a session from which on its source is paused. */
  readonly queueBytes: number;
  readonly forceTestDc: boolean;
  readonly tlsVerify: boolean;
  readonly tlsCaFile: string | undefined;
  readonly logFile:
    | { readonly path: string; readonly maxBytes: number; readonly backups: number }
    | undefined;
  readonly verbose: boolean;
  /** What the user should know about these settings; one line each. */
  readonly warnings: readonly string[];
}

/** How many secrets one proxy serves: each costs a hash and a block of AES for every connection. */
export const MAX_SECRETS = 16;

/**
 * Checks what was written and fills in the defaults.
 *
 * @param earlier Problems that were found before, to be reported with those found here.
 * @throws {ConfigError} With every problem at once: flag, value, reason, hint. Secrets are not quoted.
 */
export function parseConfig(raw: RawConfig, earlier: readonly ConfigIssue[] = []): Config {
  const issues: ConfigIssue[] = [...earlier];
  const check = <T>(name: FieldName, fallback: T, parse: (text: string) => T): T => {
    const text = raw[name]?.[0];
    if (text === undefined) return fallback;
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      issues.push(issueOf(name, text, error));
      return fallback;
    }
  };
  const config: Config = {
    host: check("host", "127.0.0.1", parseHost),
    port: check("port", 1443, (text) => parseInteger(text, 0, 65_535)),
    secrets: parseSecrets(raw.secret ?? [], issues),
    dcAddresses: parseDcAddresses(raw.dcIp, issues),
    poolSize: check("poolSize", 4, (text) => parseInteger(text, 0, 64)),
    queueBytes: check("bufKb", 256, (text) => parseInteger(text, 4, 16_384)) * 1024,
    forceTestDc: raw.forceTestDc !== undefined,
    tlsVerify: raw.noTlsVerify === undefined,
    tlsCaFile: check<string | undefined>("tlsCa", undefined, parsePath),
    logFile: parseLogFile(check),
    verbose: raw.verbose !== undefined,
    warnings: findIdle(raw),
  };
  if (issues.length > 0) throw new ConfigError(issues);
  return Object.freeze(config);
}

/** What is set but has no effect beside the rest: worth a warning, not a refusal of a command that used to work. */
function findIdle(raw: RawConfig): string[] {
  const idle: string[] = [];
  if (raw.noTlsVerify !== undefined && raw.tlsCa !== undefined) {
    idle.push("--tls-ca has no effect with --no-tls-verify");
  }
  for (const name of ["logMaxMb", "logBackups"] as const) {
    if (raw[name] === undefined || raw.logFile !== undefined) continue;
    idle.push(`--${FIELDS[name].flag} has no effect without --log-file`);
  }
  return idle;
}

function parseLogFile(
  check: <T>(name: FieldName, fallback: T, parse: (text: string) => T) => T,
): Config["logFile"] {
  const path = check<string | undefined>("logFile", undefined, parsePath);
  const maxMb = check("logMaxMb", 5, (text) => parseNumber(text, 0.03, 10_000));
  const backups = check("logBackups", 0, (text) => parseInteger(text, 0, 100));
  return path === undefined ? undefined : { path, maxBytes: Math.round(maxMb * 1024 * 1024), backups };
}

function parseSecrets(texts: readonly string[], issues: ConfigIssue[]): NamedSecret[] {
  const secrets: NamedSecret[] = [];
  const refuse = (message: string, hint?: string): void => {
    issues.push({ path: "--secret", message, ...(hint === undefined ? {} : { hint }) });
  };
  if (texts.length > MAX_SECRETS) refuse(`${texts.length} secrets, but ${MAX_SECRETS} is the most`);
  for (const [index, text] of texts.entries()) {
    const colon = text.indexOf(":");
    const name = colon < 0 ? `secret${index + 1}` : text.slice(0, colon);
    if (looksLikeSecret(name)) {
      refuse(`in secret ${index + 1}, name and secret are the wrong way round`, "alice:<secret>");
      continue;
    }
    if (!/^[\w.-]{1,32}$/.test(name)) {
      refuse(`the name of secret ${index + 1} is not 1-32 letters, digits, dots or dashes`, "alice:<secret>");
      continue;
    }
    try {
      const key = parseSecret(text.slice(colon + 1));
      if (secrets.some((other) => other.name === name)) refuse(`two secrets are named ${name}`);
      else if (secrets.some((other) => other.key.toHex() === key.toHex()))
        refuse(`${name} repeats another secret`);
      else secrets.push({ name, key });
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refuse(`${name}: ${error.message}`, error.hint);
    }
  }
  return secrets;
}

function parseDcAddresses(
  texts: readonly string[] | undefined,
  issues: ConfigIssue[],
): Map<number, DcAddress> {
  if (texts === undefined)
    return new Map([...DEFAULT_DC_IPS].map(([dc, ip]) => [dc, { ip, port: TELEGRAM_PORT }]));
  const addresses = new Map<number, DcAddress>();
  for (const text of texts) {
    try {
      const { dc, ...address } = parseDcAddress(text);
      if (addresses.has(dc))
        throw new FormatError("BAD_VALUE", `DC ${dc} has an address already`, "keep one of them");
      addresses.set(dc, address);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      issues.push(issueOf("dcIp", text, error));
    }
  }
  return addresses;
}

const DC_ADDRESS = /^(?<dc>\d+):(?:\[(?<ipv6>[^\]]+)\]|(?<ipv4>[^:]+))(?::(?<port>\d+))?$/;

/** Reads `DC:IP`, `DC:IP:port` and `DC:[IPv6]:port`; an IPv6 address without a port may go without brackets. */
function parseDcAddress(text: string): { dc: number } & DcAddress {
  const bare = /^(\d+):(.+)$/.exec(text);
  const groups =
    bare !== null && isIP(bare[2] ?? "") === 6
      ? { dc: bare[1] ?? "", ip: bare[2] ?? "", port: undefined }
      : pickGroups(DC_ADDRESS.exec(text));
  const hint = `for example 2:149.154.167.220, 2:149.154.167.220:8443 or 2:[2001:67c:4e8:f002::a]:443`;
  if (groups === undefined) throw new FormatError("BAD_ADDRESS", "not of the form DC:IP[:port]", hint);
  const dc = Number(groups.dc);
  if (!DC_NUMBERS.some((known) => known === dc)) {
    throw new FormatError(
      "BAD_ADDRESS",
      `there is no DC ${groups.dc}`,
      `the data centres are ${DC_NUMBERS.join(", ")}`,
    );
  }
  if (isIP(groups.ip) === 0 || groups.ip.includes("%"))
    throw new FormatError("BAD_ADDRESS", `${groups.ip} is not an IP address`, hint);
  const port = groups.port === undefined ? TELEGRAM_PORT : parseInteger(groups.port, 1, 65_535);
  return { dc, ip: groups.ip, port };
}

function pickGroups(
  match: RegExpExecArray | null,
): { dc: string; ip: string; port: string | undefined } | undefined {
  const { dc, ipv4, ipv6, port } = match?.groups ?? {};
  const ip = ipv6 ?? ipv4;
  return dc === undefined || ip === undefined ? undefined : { dc, ip, port };
}

function parseHost(text: string): string {
  const host = /^\[(.*)\]$/.exec(text)?.[1] ?? text;
  if (/^[\w.:%-]+$/.test(host)) return host;
  throw new FormatError(
    "BAD_VALUE",
    "not an address",
    "for example 127.0.0.1, 0.0.0.0, :: or a name of this machine",
  );
}

function parsePath(text: string): string {
  if (text.length > 0) return text;
  throw new FormatError("BAD_VALUE", "not a file name");
}

function parseInteger(text: string, least: number, most: number): number {
  if (/^\d{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
  throw new FormatError("BAD_VALUE", `not a whole number from ${least} to ${most}`);
}

function parseNumber(text: string, least: number, most: number): number {
  if (/^\d{1,9}(?:\.\d{1,9})?$/.test(text) && Number(text) >= least && Number(text) <= most)
    return Number(text);
  throw new FormatError("BAD_VALUE", `not a number from ${least} to ${most}`);
}

function issueOf(name: FieldName, text: string, { message, hint = usage(name) }: FormatError): ConfigIssue {
  return { path: `--${FIELDS[name].flag}`, message: `${redact(text)}: ${message}`, hint };
}

/** `--port <port>; 1443 without it`. */
function usage(name: FieldName): string {
  const field: Field = FIELDS[name];
  const fallback = field.default === undefined ? "" : `; ${field.default} without it`;
  return `--${field.flag} <${field.value ?? "value"}>${fallback}`;
}
