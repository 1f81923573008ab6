import { type ConfigIssue, FormatError } from "../core/errors.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";
import { type Origins, usageIn, userPlace } from "./origin.ts";
import { quote } from "./quote.ts";
import type { UserFieldName } from "./user-fields.ts";

/** Reads fields one by one and collects what is wrong with them, so that all of it is said at once. */
export class FieldReader {
  readonly raw: RawConfig;
  readonly issues: ConfigIssue[];
  readonly #origins: Origins;

  /**
   * @param earlier Problems that were found before.
   * @param origins Where the values were written; what is not there is a flag.
   */
  constructor(raw: RawConfig, earlier: readonly ConfigIssue[] = [], origins: Origins = new Map()) {
    this.raw = raw;
    this.issues = [...earlier];
    this.#origins = origins;
  }

  /** Whether the user has written this field at all. */
  given(name: FieldName): boolean {
    return (this.raw[name]?.length ?? 0) > 0;
  }

  /** Returns what `parse` makes of a field; `fallback` when it is not there, or wrong. */
  value<T>(name: FieldName, fallback: T, parse: (text: string) => T): T {
    let value = fallback;
    const text = this.raw[name]?.[0];
    if (text !== undefined) {
      this.attempt(name, text, () => {
        value = parse(text);
      });
    }
    return value;
  }

  /** Lets `take` have each text of a list; one that is wrong does not keep it from the others. */
  each(name: FieldName, take: (text: string) => void): void {
    for (const text of this.raw[name] ?? []) this.attempt(name, text, () => take(text));
  }

  /**
   * Returns what `parse` makes of each part of a list, in order; a text may hold several parts. One that says the
   * same as another is refused, by what `toString` makes of both.
   *
   * @param hint What could be there, for a text without any part.
   */
  parts<T extends { toString(): string }>(name: FieldName, parse: (text: string) => T, hint: string): T[] {
    const found = new Map<string, T>();
    for (const text of this.raw[name] ?? []) {
      const parts = splitList(text);
      if (parts.length === 0) this.refuse(name, "is empty", hint);
      for (const part of parts) {
        this.attempt(name, part, () => {
          const value = parse(part);
          const key = value.toString();
          if (found.has(key)) throw new FormatError("BAD_VALUE", "named twice", "keep one of them");
          found.set(key, value);
        });
      }
    }
    return [...found.values()];
  }

  /** Runs `parse`; what it says about `text` becomes an issue of the field. */
  attempt(name: FieldName, text: string, parse: () => void): void {
    try {
      parse();
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      const field: Field = FIELDS[name];
      const said = field.sensitive === true ? error.message : `${quote(text)}: ${error.message}`;
      const message = text.trim() === "" ? "is empty" : said;
      this.refuse(name, message, error.hint ?? this.#usage(name));
    }
  }

  /** Adds an issue about a field. `message` is shown as it is: it must not quote what may be secret. */
  refuse(name: FieldName, message: string, hint?: string): void {
    this.issues.push({ path: this.pathOf(name), message, ...(hint === undefined ? {} : { hint }) });
  }

  /** Adds an issue about a user of the configuration file, or about one setting of the user. */
  refuseUser(
    name: string,
    key: UserFieldName | undefined,
    { message, hint }: { readonly message: string; readonly hint?: string | undefined },
  ): void {
    const whole = this.#origins.get(userPlace(name))?.path ?? `users.${quote(name)}`;
    const path = key === undefined ? whole : this.#origins.get(userPlace(name, key))?.path;
    this.issues.push({
      path: path ?? `${whole}.${key}`,
      message,
      ...(hint === undefined ? {} : { hint }),
    });
  }

  /** Whether a user's setting was written at all, be it of a wrong type, which has been said already. */
  mentions(user: string, key: UserFieldName): boolean {
    return this.#origins.has(userPlace(user, key));
  }

  /** Where a field was written, as a message names it. */
  pathOf(name: FieldName): string {
    return this.#origins.get(name)?.path ?? `--${FIELDS[name].flag}`;
  }

  /** `--port <port>; 1443 without it`. */
  #usage(name: FieldName): string {
    const field: Field = FIELDS[name];
    const fallback = field.default === undefined ? "" : `; ${field.default} without it`;
    return `${usageIn(this.#origins.get(name)?.source ?? "flag", name)}${fallback}`;
  }
}

/** Splits a text at commas, semicolons and spaces, as tg-ws-proxy does with its lists of domains. */
export function splitList(text: string): string[] {
  return text.split(/[\s,;]+/).filter((part) => part !== "");
}
