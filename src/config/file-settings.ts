import { FIELD_NAMES, FIELDS, type Field, type FieldName } from "./fields.ts";
import { nearestOf } from "./nearest.ts";
import { usageIn, userPlace } from "./origin.ts";
import { quote } from "./quote.ts";
import type { TomlDocument } from "./toml-file.ts";
import { USER_FIELD_NAMES, USER_FIELDS, type UserField, type UserFieldName } from "./user-fields.ts";
import { type Written, WrittenBuilder } from "./written.ts";

/** The table of the users. */
const USERS = "users";

/** What a value of TOML is, for a message. */
type Kind = "text" | "number" | "switch" | "date" | "list" | "table";

const CALLED: Readonly<Record<Kind, string>> = {
  text: "a text",
  number: "a number",
  switch: "true or false",
  date: "a date",
  list: "a list",
  table: "a table",
};

/**
 * Takes the settings out of a configuration file: flat keys that are called as the flags, and a table for each user.
 *
 * @param file Its name, for the messages.
 */
export function readFileSettings(file: string, document: TomlDocument): Written {
  const written = new WrittenBuilder();
  for (const [key, value] of Object.entries(document.table)) {
    const path = placeOf(file, document, [key]);
    if (key === USERS) readUserTables(written, { file, document, value });
    else readSetting(written, { key, value, path });
  }
  return written;
}

/** `tgws.toml:3: users.alice.quota-gb` */
function placeOf(file: string, { lineOf }: TomlDocument, keys: readonly string[]): string {
  const line = lineOf(keys);
  const where = line === undefined ? file : `${file}:${line}`;
  return `${where}: ${keys.map(formatKey).join(".")}`;
}

/** A key as it is written in a file, unless it may be a secret. */
function formatKey(key: string): string {
  return /^[\w-]+$/.test(key) ? quote(key) : `"${quote(key)}"`;
}

function readSetting(
  written: WrittenBuilder,
  { key, value, path }: { readonly key: string; readonly value: unknown; readonly path: string },
): void {
  const name = FIELD_NAMES.find((candidate) => FIELDS[candidate].flag === key);
  if (name === undefined) {
    written.refuse(path, "unknown setting", hintOnUnknown(key));
    return;
  }
  const field: Field = FIELDS[name];
  if (field.outsideFile) {
    written.refuse(
      path,
      "cannot stand in the file itself",
      `--${field.flag} or ${usageIn("environment", name)}`,
    );
    return;
  }
  const texts = readTexts(name, value);
  if (texts === undefined) {
    const message = `is ${CALLED[kindOf(value)]}, but needs ${needOf(field)}`;
    written.refuse(path, message, usageIn("file", name));
    return;
  }
  written.set(name, texts, { source: "file", path });
}

function hintOnUnknown(key: string): string {
  if (USER_FIELD_NAMES.some((name) => name === key))
    return `for a user: [users.<name>], with ${key} below it`;
  const near = nearestOf(key, [...FIELD_NAMES.map((name) => FIELDS[name].flag), USERS]);
  return near === undefined ? "tgws --help lists the settings" : `did you mean ${near}?`;
}

/** The texts that a flag would have been given; `undefined` when the type is wrong. */
function readTexts(name: FieldName, value: unknown): readonly string[] | undefined {
  const { kind } = FIELDS[name];
  if (kind === "switch") {
    if (typeof value !== "boolean") return undefined;
    return value ? [""] : [];
  }
  if (kind === "list" && Array.isArray(value)) {
    const texts = value.map(textOf);
    return texts.some((text) => text === undefined) ? undefined : texts.filter((text) => text !== undefined);
  }
  const text = textOf(value);
  return text === undefined ? undefined : [text];
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function needOf({ kind }: Field): string {
  if (kind === "switch") return "true or false";
  return kind === "list" ? "a list of texts" : "a text or a number";
}

function kindOf(value: unknown): Kind {
  if (typeof value === "string") return "text";
  if (typeof value === "number") return "number";
  if (typeof value === "boolean") return "switch";
  if (Array.isArray(value)) return "list";
  return dateOf(value) === undefined ? "table" : "date";
}

/** TOML's dates and times come as objects of `Temporal`. */
function dateOf(value: unknown): string | undefined {
  const tag = Object.prototype.toString.call(value);
  return tag.startsWith("[object Temporal.") ? String(value) : undefined;
}

interface UserTables {
  readonly file: string;
  readonly document: TomlDocument;
  readonly value: unknown;
}

function readUserTables(written: WrittenBuilder, { file, document, value }: UserTables): void {
  if (kindOf(value) !== "table") {
    const path = placeOf(file, document, [USERS]);
    written.refuse(path, `is ${CALLED[kindOf(value)]}, but needs a table for each user`, "[users.alice]");
    return;
  }
  for (const [name, table] of Object.entries(value as Record<string, unknown>)) {
    const path = placeOf(file, document, [USERS, name]);
    if (kindOf(table) !== "table") {
      written.refuse(path, `is ${CALLED[kindOf(table)]}, but needs a table`, `[users.${formatKey(name)}]`);
      continue;
    }
    written.origins.set(userPlace(name), { source: "file", path });
    const settings: Partial<Record<UserFieldName, string>> = {};
    for (const [key, setting] of Object.entries(table as Record<string, unknown>)) {
      const place = placeOf(file, document, [USERS, name, key]);
      const known = USER_FIELD_NAMES.find((candidate) => candidate === key);
      if (known === undefined) {
        written.refuse(place, "unknown setting of a user", hintOnUnknownOfUser(name, key, setting));
        continue;
      }
      written.origins.set(userPlace(name, known), { source: "file", path: place });
      const text = readUserText(USER_FIELDS[known], setting);
      if (text !== undefined) {
        settings[known] = text;
        continue;
      }
      const message = `is ${CALLED[kindOf(setting)]}, but needs ${CALLED[USER_FIELDS[known].kind]}`;
      written.refuse(place, message, `${known} = <${USER_FIELDS[known].value}>`);
    }
    written.users.push({ name, settings });
  }
}

function hintOnUnknownOfUser(name: string, key: string, setting: unknown): string {
  if (kindOf(setting) === "table")
    return `a name with a dot needs quotes: [users."${quote(`${name}.${key}`)}"]`;
  if (FIELD_NAMES.some((field) => FIELDS[field].flag === key))
    return `it is no setting of a user: put ${key} before the first [users.<name>]`;
  const near = nearestOf(key, USER_FIELD_NAMES);
  return near === undefined
    ? `the settings of a user are ${USER_FIELD_NAMES.join(", ")}`
    : `did you mean ${near}?`;
}

/** `undefined` when the type is wrong. */
function readUserText({ kind }: UserField, value: unknown): string | undefined {
  if (kind === "switch") return typeof value === "boolean" ? String(value) : undefined;
  if (kind === "date") return typeof value === "string" ? value : dateOf(value);
  if (kind === "number") return textOf(value);
  return typeof value === "string" ? value : undefined;
}
