import { type ConfigIssue, FormatError } from "../core/errors.ts";
import { FIELDS, type Field, type FieldName, type RawConfig } from "./fields.ts";
import { quote } from "./quote.ts";

/** Reads fields one by one and collects what is wrong with them, so that all of it is said at once. */
export class FieldReader {
  readonly raw: RawConfig;
  readonly issues: ConfigIssue[];

  /** @param earlier Problems that were found before. */
  constructor(raw: RawConfig, earlier: readonly ConfigIssue[]) {
    this.raw = raw;
    this.issues = [...earlier];
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
      this.refuse(name, message, error.hint ?? usage(field));
    }
  }

  /** Adds an issue about a field. `message` is shown as it is: it must not quote what may be secret. */
  refuse(name: FieldName, message: string, hint?: string): void {
    const path = `--${FIELDS[name].flag}`;
    this.issues.push({ path, message, ...(hint === undefined ? {} : { hint }) });
  }
}

/** Splits a text at commas, semicolons and spaces, as tg-ws-proxy does with its lists of domains. */
export function splitList(text: string): string[] {
  return text.split(/[\s,;]+/).filter((part) => part !== "");
}

/** `--port <port>; 1443 without it`. */
function usage(field: Field): string {
  const fallback = field.default === undefined ? "" : `; ${field.default} without it`;
  return `--${field.flag} <${field.value ?? "value"}>${fallback}`;
}
