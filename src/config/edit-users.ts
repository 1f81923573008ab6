import { StartError } from "../core/errors.ts";
import { parseToml } from "./toml-file.ts";
import { endOfLineIn, insertRows, removeTable, replaceRow } from "./toml-tables.ts";
import { USER_FIELD_NAMES, USER_FIELDS, type UserFieldName } from "./user-fields.ts";

/** Settings of a user, as texts; `undefined` takes one out. */
export type UserChanges = Readonly<Partial<Record<UserFieldName, string | undefined>>>;

type Table = Record<string, unknown>;

/** Puts a user into the text of a configuration file, at its end. Everything else stays as it is. */
export async function addUser(text: string, name: string, values: UserChanges): Promise<string> {
  const wanted = (root: Table): void => {
    usersOf(root)[name] = toTable(values);
  };
  const eol = endOfLineIn(text);
  const gap = text.trim() === "" ? text : `${text.trimEnd()}${eol}${eol}`;
  const rows = formatRows(values).join(eol);
  const appended = `${gap}[users.${formatKey(name)}]${eol}${rows}${eol}`;
  if (isMeant(text, appended, wanted)) return appended;
  return patchText(text, wanted); // the users are written in another way, in which no table can be added
}

/** Changes settings of a user. Comments and layout stay. */
export async function changeUser(text: string, name: string, changes: UserChanges): Promise<string> {
  const there = usersOf(Bun.TOML.parse(text) as Table)[name] as Table | undefined;
  const keys = USER_FIELD_NAMES.filter((key) => key in changes);
  const [old, added] = [
    keys.filter((key) => there?.[key] !== undefined),
    keys.filter((key) => there?.[key] === undefined),
  ];
  const changed = await changeRows(text, name, pick(changes, old));
  const additions = pick(changes, added);
  const rows = formatRows(additions);
  if (rows.length === 0) return changed;
  // The library would put them below a comment that belongs to the next table.
  const inserted = insertRows(changed, ["users", name], rows);
  const wanted = changing(name, additions);
  return inserted !== undefined && isMeant(changed, inserted, wanted) ? inserted : patchText(changed, wanted);
}

/** Changes settings that are there. */
async function changeRows(text: string, name: string, changes: UserChanges): Promise<string> {
  let replaced: string | undefined = text;
  for (const key of USER_FIELD_NAMES) {
    if (!(key in changes) || replaced === undefined) continue;
    const value = changes[key];
    replaced = replaceRow(
      replaced,
      ["users", name, key],
      value === undefined ? undefined : formatValue(key, value),
    );
  }
  const wanted = changing(name, changes);
  return replaced !== undefined && isMeant(text, replaced, wanted) ? replaced : patchText(text, wanted);
}

/** Takes a user out, with the comments of the table. */
export async function removeUser(text: string, name: string): Promise<string> {
  const one = (root: Table): void => {
    delete usersOf(root)[name];
  };
  const wanted = (root: Table): void => {
    one(root);
    if (Object.keys(usersOf(root)).length === 0) delete root["users"];
  };
  // The library would take a comment along that belongs to the next table.
  const removed = removeTable(text, ["users", name]);
  // With the last user the header [users] may stay: what follows it need not go, too.
  if (removed !== undefined && (isMeant(text, removed, wanted) || isMeant(text, removed, one)))
    return removed;
  return patchText(text, wanted);
}

function changing(name: string, changes: UserChanges): (root: Table) => void {
  return (root) => {
    const user = usersOf(root)[name] as Table;
    for (const key of USER_FIELD_NAMES) {
      if (!(key in changes)) continue;
      const value = changes[key];
      if (value === undefined) delete user[key];
      else user[key] = toValue(key, value);
    }
  };
}

function pick(changes: UserChanges, keys: readonly UserFieldName[]): UserChanges {
  return Object.fromEntries(keys.map((key) => [key, changes[key]]));
}

/** The names of the users in the text. */
export function userNames(path: string, text: string): string[] {
  const { users } = parseToml(path, text).table;
  return typeof users === "object" && users !== null ? Object.keys(users) : [];
}

/**
 * Has a library change the text where the values differ, and checks what it made.
 *
 * @throws {StartError} `FILE` when the outcome would not say what was meant.
 */
async function patchText(text: string, change: (root: Table) => void): Promise<string> {
  const { parse, patch } = await import("@decimalturn/toml-patch");
  let patched: string | undefined;
  try {
    const root = parse(text, { temporal: true }) as Table;
    change(root);
    patched = patch(text, root);
  } catch {
    // It cannot: that is the same as a wrong outcome.
  }
  if (patched !== undefined && isMeant(text, patched, change)) return patched;
  throw new StartError(
    "FILE",
    "Cannot change the configuration file: its layout is not understood",
    "nothing was changed; edit it by hand",
  );
}

/** Whether `after` says what `before` says with `change`, and nothing else. */
function isMeant(before: string, after: string, change: (root: Table) => void): boolean {
  try {
    const expected = Bun.TOML.parse(before) as Table;
    change(expected);
    return canonical(expected) === canonical(Bun.TOML.parse(after));
  } catch {
    return false;
  }
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).toSorted(([one], [other]) => (one < other ? -1 : 1)))
      : inner,
  );
}

function usersOf(root: Table): Table {
  root["users"] ??= {};
  return root["users"] as Table;
}

function toTable(values: UserChanges): Table {
  const table: Table = {};
  for (const key of USER_FIELD_NAMES) {
    const value = values[key];
    if (value !== undefined) table[key] = toValue(key, value);
  }
  return table;
}

/** Dates are written as texts by the library, and as dates by us: both are read. */
function toValue(key: UserFieldName, text: string): string | number | boolean {
  const { kind } = USER_FIELDS[key];
  if (kind === "number") return Number(text);
  return kind === "switch" ? text === "true" : text;
}

function formatValue(key: UserFieldName, text: string): string {
  const { kind } = USER_FIELDS[key];
  if (kind === "date") return text;
  return kind === "text" ? JSON.stringify(text) : String(toValue(key, text));
}

function formatRows(values: UserChanges): string[] {
  return USER_FIELD_NAMES.flatMap((key) => {
    const value = values[key];
    return value === undefined ? [] : [`${key} = ${formatValue(key, value)}`];
  });
}

function formatKey(name: string): string {
  return /^[\w-]+$/.test(name) ? name : JSON.stringify(name);
}
