import { FormatError } from "../core/errors.ts";
import { formatIp, parseIp } from "../core/ip-address.ts";
import type { AddressBook } from "../core/names.ts";
import { parseHostName } from "./domain.ts";

/** One name, or all names below one, with its address. */
export interface Pin {
  /** Lower-case ASCII, without a trailing dot; of a suffix, what stands after `*.`. */
  readonly name: string;
  readonly scope: "name" | "suffix";
  /** IPv4, or IPv6 in its shortest form, without brackets. */
  readonly ip: string;
}

const HINT = "for example example.org=192.0.2.7, *.example.org=192.0.2.7 or example.org=[2001:db8::7]";

/**
 * Reads `NAME=IP` or `*.SUFFIX=IP`.
 *
 * @throws {FormatError} `BAD_ADDRESS`
 */
export function parsePin(text: string): Pin {
  if (/[,;]/.test(text))
    throw new FormatError("BAD_ADDRESS", "not of the form NAME=IP", "repeat the flag for each");
  const equals = text.indexOf("=");
  if (equals < 0) throw new FormatError("BAD_ADDRESS", "not of the form NAME=IP", HINT);
  const pattern = text.slice(0, equals).trim();
  const scope = pattern.startsWith("*.") ? "suffix" : "name";
  const name = parseHostName(scope === "suffix" ? pattern.slice(2) : pattern);
  if (name === undefined) throw new FormatError("BAD_ADDRESS", "what stands before = is not a name", HINT);
  const ip = readIp(text.slice(equals + 1).trim());
  if (ip === undefined)
    throw new FormatError("BAD_ADDRESS", "what stands after = is not an IP address", HINT);
  return { name, scope, ip };
}

/** Addresses that the user gave for names, so that DNS is not asked for them. */
export class Pins implements AddressBook {
  readonly #names = new Map<string, string>();
  readonly #suffixes = new Map<string, string>();

  /** @throws {FormatError} `BAD_VALUE` when one name has two addresses. */
  constructor(pins: Iterable<Pin> = []) {
    for (const pin of pins) this.#add(pin);
  }

  /** The name itself counts most, then its longest suffix. Case and a trailing dot do not matter. */
  addressOf(name: string): string | undefined {
    const plain = name.toLowerCase().replace(/\.$/, "");
    const own = this.#names.get(plain);
    if (own !== undefined || this.#suffixes.size === 0) return own;
    for (let dot = plain.indexOf("."); dot >= 0; dot = plain.indexOf(".", dot + 1)) {
      const address = this.#suffixes.get(plain.slice(dot + 1));
      if (address !== undefined) return address;
    }
    return undefined;
  }

  #add({ name, scope, ip }: Pin): void {
    const addresses = scope === "name" ? this.#names : this.#suffixes;
    const earlier = addresses.get(name);
    if (earlier !== undefined && earlier !== ip) {
      const pattern = scope === "name" ? name : `*.${name}`;
      throw new FormatError("BAD_VALUE", `${pattern} has the address ${earlier} already`, "keep one of them");
    }
    addresses.set(name, ip);
  }
}

/** IPv6 has many spellings of one address: two of them are no contradiction. */
function readIp(text: string): string | undefined {
  const bracketed = /^\[(.*)\]$/.exec(text)?.[1];
  const bytes = parseIp(bracketed ?? text);
  if (bytes === undefined || (bytes.length === 4 && bracketed !== undefined)) return undefined;
  return formatIp(bytes);
}
