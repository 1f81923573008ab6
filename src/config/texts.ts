import { FormatError } from "../core/errors.ts";

/** Reads what stands in a header of HTTP. @throws {FormatError} `BAD_VALUE` */
export function parseToken(text: string): string {
  if (/^[\x21-\x7e]{1,256}$/.test(text)) return text;
  throw new FormatError("BAD_VALUE", "not 1-256 visible ASCII characters");
}

/** Reads the name of a file. @throws {FormatError} `BAD_VALUE` */
export function parsePath(text: string): string {
  if (text.trim() !== "" && !text.includes("\0")) return text;
  throw new FormatError("BAD_VALUE", "not a file name");
}

/** Returns a parser for one of `words`, in any case. The parser throws {FormatError} `BAD_VALUE`. */
export function oneOf<T extends string>(words: readonly T[]): (text: string) => T {
  return (text) => {
    const word = words.find((candidate) => candidate === text.toLowerCase());
    if (word !== undefined) return word;
    throw new FormatError("BAD_VALUE", `not one of ${words.join(", ")}`);
  };
}
