import { FormatError } from "../core/errors.ts";

/** Reads a whole number from `least` to `most`, digits only. @throws {FormatError} `BAD_VALUE`, with `hint` */
export function parseInteger(text: string, least: number, most: number, hint?: string): number {
  if (/^\d{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
  throw new FormatError("BAD_VALUE", `not a whole number from ${least} to ${most}`, hint);
}

/** Reads a decimal number from `least` to `most`. @throws {FormatError} `BAD_VALUE` */
export function parseNumber(text: string, least: number, most: number): number {
  if (/^\d{1,9}(?:\.\d{1,9})?$/.test(text) && Number(text) >= least && Number(text) <= most)
    return Number(text);
  throw new FormatError("BAD_VALUE", `not a number from ${least} to ${most}`);
}
