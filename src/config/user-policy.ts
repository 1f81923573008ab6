import { FormatError } from "../core/errors.ts";
import type { UserPolicy } from "../core/users.ts";
import { parseInteger, parseNumber } from "./numbers.ts";
import type { UserFieldName } from "./user-fields.ts";

/** Reads one setting of a user; what is wrong with it is kept for later, and `undefined` returned. */
export type ReadUserField = <T>(key: UserFieldName, parse: (text: string) => T) => T | undefined;

const MOST = 10_000_000;
const GIB = 1024 ** 3;
const KIB = 1024;
const DAY_MS = 24 * 60 * 60_000;
const DATE_HINT = "for example 2027-01-31 (to its end, in UTC) or 2027-01-31T12:00:00Z";

/** Reads everything about a user but name and key. */
export function readPolicy(read: ReadUserField): Omit<UserPolicy, "name" | "key"> {
  return {
    enabled: read("enabled", parseSwitch) ?? true,
    maxConnections: read("max-connections", (text) => parseInteger(text, 1, MOST)),
    maxAddresses: read("max-addresses", (text) => parseInteger(text, 1, MOST)),
    quotaBytes: read("quota-gb", (text) => Math.round(parseNumber(text, 0.001, 1_000_000) * GIB)),
    expiresAt: read("expires", parseExpiry),
    rateBytes: read("rate-kb", (text) => Math.round(parseNumber(text, 1, MOST) * KIB)),
  };
}

/**
 * Reads a date, which lasts to its end in UTC, or a time of RFC 3339 with its offset.
 *
 * @returns Milliseconds since 1970: the first moment at which it is over.
 * @throws {FormatError} `BAD_VALUE`, also for a day that no calendar has.
 */
export function parseExpiry(text: string): number {
  const [, date, time, offset] =
    /^(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)([Zz]|[+-]\d{2}:\d{2})?)?$/.exec(text) ??
    [];
  if (date === undefined) throw new FormatError("BAD_VALUE", "not a date", DATE_HINT);
  const midnight = Date.parse(`${date}T00:00:00Z`);
  if (Number.isNaN(midnight) || !new Date(midnight).toISOString().startsWith(date))
    throw new FormatError("BAD_VALUE", "no calendar has this day", DATE_HINT);
  if (time === undefined) return midnight + DAY_MS;
  if (offset === undefined)
    throw new FormatError("BAD_VALUE", "it does not say in which time zone", `${date}T${time}Z is UTC`);
  const moment = Date.parse(`${date}T${time.slice(0, 12)}${offset.toUpperCase()}`);
  if (Number.isNaN(moment)) throw new FormatError("BAD_VALUE", "no clock shows this time", DATE_HINT);
  return moment;
}

/** Reads `true` and `false`. @throws {FormatError} `BAD_VALUE` */
export function parseSwitch(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new FormatError("BAD_VALUE", "neither true nor false");
}
