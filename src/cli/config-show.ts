import { FIELD_NAMES, FIELDS, type Field, type FieldName, SECTIONS, type Section } from "../config/fields.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { type Source, userPlace } from "../config/origin.ts";
import { disarm, quote } from "../config/quote.ts";
import type { RawUser, UserFieldName } from "../config/user-fields.ts";

/** One setting, for programs. */
export interface SettingJson {
  /** As it was written, or the default as the help has it; secrets are not shown. */
  readonly value: string | boolean | readonly string[] | null;
  readonly source: Source | "default";
  /** `--port`, `TGWS_PORT`, or the line of the file; null for a default. */
  readonly place: string | null;
}

/** What `tgws config show --json` prints. */
export interface SettingsJson {
  /** The configuration file, if there is one. */
  readonly file: string | null;
  readonly settings: Readonly<Record<string, SettingJson>>;
  readonly users: Readonly<Record<string, { readonly place: string | null; readonly settings: object }>>;
}

const MASK = "(a secret)";
const LONGEST_VALUE = 40;

/** What counts for every setting, and where it was written. */
export function settingsJson(loaded: LoadedConfig): SettingsJson {
  const { raw, origins, file } = loaded;
  return {
    file: file ?? null,
    settings: Object.fromEntries(FIELD_NAMES.map((name) => [FIELDS[name].flag, settingOf(loaded, name)])),
    users: Object.fromEntries(
      (raw.users ?? []).map((user) => [
        user.name,
        { place: origins.get(userPlace(user.name))?.path ?? null, settings: maskUser(user) },
      ]),
    ),
  };
}

/** The same for people: a line for each setting, in sections. */
export function formatSettings(loaded: LoadedConfig): string[] {
  const lines = [loaded.file === undefined ? "There is no configuration file." : `File: ${loaded.file}`];
  const width = Math.max(...FIELD_NAMES.map((name) => FIELDS[name].flag.length)) + 2;
  for (const section of Object.keys(SECTIONS) as Section[]) {
    lines.push("", SECTIONS[section]);
    for (const name of FIELD_NAMES.filter((field) => FIELDS[field].section === section)) {
      const { value, source, place } = settingOf(loaded, name);
      const text = disarm(formatValue(value)).padEnd(LONGEST_VALUE);
      lines.push(`  ${FIELDS[name].flag.padEnd(width)}${text}  ${place ?? source}`);
    }
    if (section === "users") lines.push(...formatUsers(loaded));
  }
  return lines;
}

function settingOf({ raw, origins }: LoadedConfig, name: FieldName): SettingJson {
  const field: Field = FIELDS[name];
  const texts = raw[name];
  const origin = origins.get(name);
  if (texts === undefined || origin === undefined) {
    const value = field.kind === "switch" ? false : (field.default ?? null);
    return { value, source: "default", place: null };
  }
  const { source, path: place } = origin;
  if (field.kind === "switch") return { value: texts.length > 0, source, place };
  const shown = texts.map((text) => mask(field, text));
  return { value: field.kind === "list" ? shown : (shown[0] ?? null), source, place };
}

/** The name before a secret is none. */
function mask(field: Field, text: string): string {
  if (field.sensitive !== true) return quote(text);
  const name = field.flag === "secret" ? /^([\w.-]{1,32}):(?!\/\/)/.exec(text)?.[1] : undefined;
  return name === undefined || quote(name) !== name ? MASK : `${name}:${MASK}`;
}

function maskUser({ settings }: RawUser): Partial<Record<UserFieldName, string>> {
  return settings.secret === undefined ? settings : { ...settings, secret: MASK };
}

function formatValue(value: SettingJson["value"]): string {
  if (value === null) return "-";
  if (typeof value === "object") return value.join(", ");
  return String(value);
}

function formatUsers({ raw, origins }: LoadedConfig): string[] {
  return (raw.users ?? []).map((user) => {
    const parts = Object.entries(maskUser(user)).map(([key, value]) => `${key} ${value}`);
    const place = origins.get(userPlace(user.name))?.path ?? "";
    return `  ${user.name}: ${disarm(parts.join(", "))}  ${place}`;
  });
}
