import { FIELDS, type Field, type FieldName } from "./fields.ts";
import type { UserFieldName } from "./user-fields.ts";

/** What kind of place a value was written in, the one that counts most first. */
export const SOURCES = ["flag", "environment", "file"] as const;

/** One of {@link SOURCES}. */
export type Source = (typeof SOURCES)[number];

/** Where a value was written. */
export interface Origin {
  readonly source: Source;
  /** As a message names it: `--port`, `TGWS_PORT`, or `/etc/tgws.toml:3: port`. */
  readonly path: string;
}

/** Where each value was written, by the field's name, or by what {@link userPlace} makes. */
export type Origins = ReadonlyMap<string, Origin>;

/** The key of a user, or of one of the user's settings, in {@link Origins}. Names have no slash in them. */
export function userPlace(name: string, key?: UserFieldName): string {
  return key === undefined ? `users/${name}` : `users/${name}/${key}`;
}

/** The variable of the environment that sets a field: `TGWS_PORT`. */
export function variableOf(name: FieldName): string {
  return `TGWS_${FIELDS[name].flag.replaceAll("-", "_").toUpperCase()}`;
}

/** How a value is written in `source`: `--port <port>`, `TGWS_PORT=<port>`, `port = <port>`. */
export function usageIn(source: Source, name: FieldName): string {
  const field: Field = FIELDS[name];
  const value = field.kind === "switch" ? "true" : `<${field.value ?? "value"}>`;
  if (source === "environment") return `${variableOf(name)}=${value}`;
  if (source === "file") return `${field.flag} = ${value}`;
  return field.kind === "switch" ? `--${field.flag}` : `--${field.flag} ${value}`;
}
