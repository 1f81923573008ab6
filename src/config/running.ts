import { FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { parseHostName } from "./domain.ts";
import type { HostPort } from "./fake-tls.ts";
import type { FieldReader } from "./field-reader.ts";
import { parseInteger, parseNumber } from "./numbers.ts";
import { parseToken } from "./texts.ts";

/** How the program runs as a service of the system. */
export interface Running {
  /** Processes that share the port; `auto`: one for each processor. */
  readonly workers: number | "auto";
  /** How long sessions may go on in a worker that is being replaced, in milliseconds. */
  readonly drainMs: number;
  /** Where metrics and health are served; port 0 picks a free one. */
  readonly status: HostPort | undefined;
  /** Never logged. */
  readonly statusToken: string | undefined;
  /** Whom to become once the port is open: a name of the system, or a number. */
  readonly user: string | undefined;
  readonly group: string | undefined;
}

/** Each costs tens of MiB: more than this is a mistake. */
const MOST_WORKERS = 256;
const STATUS_HINT = "for example 9090, 127.0.0.1:9090 or [::]:9090";
const THIS_MACHINE = "127.0.0.1";

/** Reads what `--workers`, `--status`, `--user` and the like say. */
export function readRunning(reader: FieldReader): Running {
  return {
    workers: reader.value<number | "auto">("workers", 1, parseWorkers),
    drainMs: Math.round(reader.value("drainSeconds", 300, (text) => parseNumber(text, 0, 86_400)) * 1000),
    status: reader.value<HostPort | undefined>("status", undefined, parseStatus),
    statusToken: reader.value<string | undefined>("statusToken", undefined, parseToken),
    user: reader.value<string | undefined>("user", undefined, parseAccount),
    group: reader.value<string | undefined>("group", undefined, parseAccount),
  };
}

/** Whether only programs of this machine reach `host`. */
export function isThisMachine(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function parseWorkers(text: string): number | "auto" {
  return text.toLowerCase() === "auto" ? "auto" : parseInteger(text, 1, MOST_WORKERS);
}

/** Reads `host:port`, `[IPv6]:port`, or a port alone, which is that of this machine. */
function parseStatus(text: string): HostPort {
  const [, bracketed, plain, port] = /^(?:(?:\[([^\]]*)\]|([^:]*)):)?([^:]*)$/s.exec(text.trim()) ?? [];
  if (port === undefined) throw new FormatError("BAD_ADDRESS", "not of the form host:port", STATUS_HINT);
  const written = bracketed ?? plain ?? THIS_MACHINE;
  const host = hostOf(written === "" ? THIS_MACHINE : written, bracketed === undefined ? 4 : 6);
  if (host === undefined) throw new FormatError("BAD_ADDRESS", "not of the form host:port", STATUS_HINT);
  return { host, port: parseInteger(port, 0, 65_535, STATUS_HINT) };
}

/** @param version Of the IP address that may stand here. */
function hostOf(text: string, version: 4 | 6): string | undefined {
  if (ipVersion(text) === version) return text.toLowerCase();
  return version === 4 ? parseHostName(text) : undefined;
}

function parseAccount(text: string): string {
  if (/^(?:[a-z_][\w.-]{0,31}\$?|\d{1,9})$/i.test(text)) return text;
  throw new FormatError("BAD_VALUE", "not a name of the system, and no number");
}
