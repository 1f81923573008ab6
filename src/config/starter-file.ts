import { FIELD_NAMES, FIELDS, type Field, type FieldName, SECTIONS, type Section } from "./fields.ts";
import { usageIn } from "./origin.ts";
import { USER_FIELD_NAMES, USER_FIELDS } from "./user-fields.ts";

/** What a new configuration file says. */
export interface StarterFile {
  /** What is set, by the field's name, as for flags. */
  readonly settings: ReadonlyMap<FieldName, readonly string[]>;
  /** Whom it serves: a name, and a secret in hexadecimal. */
  readonly user: { readonly name: string; readonly secret: string };
}

/** What could be said about a user, as an example. */
const USER_EXAMPLES = {
  secret: undefined,
  enabled: "false",
  "max-connections": "100",
  "max-addresses": "3",
  "quota-gb": "50",
  expires: "2027-01-31",
  "rate-kb": "1024",
} as const satisfies Record<(typeof USER_FIELD_NAMES)[number], string | undefined>;

/**
 * Writes a configuration file in which every setting stands, with what it does; those that are not set are comments.
 *
 * The users come last, since what follows a table of TOML belongs to it.
 */
export function formatStarterFile({ settings, user }: StarterFile): string {
  const lines = [
    "# The configuration of tgws. A flag or a TGWS_* variable counts more than what stands here.",
    "# Take away the # before a setting to use it; `tgws config check` says whether all is right.",
  ];
  for (const section of Object.keys(SECTIONS) as Section[]) {
    if (section === "users") continue;
    lines.push("", `# ${SECTIONS[section]}`, "");
    for (const name of namesIn(section)) lines.push(...formatField(name, settings.get(name)));
  }
  lines.push("", `# ${SECTIONS.users}: tgws users add, list, link and remove work on what follows`, "");
  for (const name of namesIn("users")) lines.push(...formatField(name, settings.get(name)));
  lines.push("", `[users.${user.name}]`, `secret = "${user.secret}"`);
  for (const key of USER_FIELD_NAMES) {
    const example = USER_EXAMPLES[key];
    if (example !== undefined)
      lines.push(`#${key} = ${example} # ${USER_FIELDS[key].help.replaceAll("`", "")}`);
  }
  return `${lines.join("\n")}\n`;
}

/** A setting as it is written in TOML: `port = 1443`. */
export function formatSetting(name: FieldName, texts: readonly string[]): string {
  const field: Field = FIELDS[name];
  const [first = ""] = texts;
  if (field.kind === "switch") return `${field.flag} = ${texts.length > 0}`;
  if (field.kind === "list")
    return `${field.flag} = [${texts.map((text) => JSON.stringify(text)).join(", ")}]`;
  // As a number, where that is read back as it was written: a token may be 1.50.
  const isNumber = /^\d{1,9}(?:\.\d+)?$/.test(first) && String(Number(first)) === first;
  return `${field.flag} = ${isNumber ? first : JSON.stringify(first)}`;
}

function namesIn(section: Section): FieldName[] {
  return FIELD_NAMES.filter(
    (name) => FIELDS[name].section === section && !(FIELDS[name] as Field).outsideFile,
  );
}

function formatField(name: FieldName, texts: readonly string[] | undefined): string[] {
  const field: Field = FIELDS[name];
  const comment = `# ${field.help}${field.default === undefined ? "" : ` (without it: ${field.default})`}`;
  if (texts !== undefined) return [comment, formatSetting(name, texts)];
  const example = field.example ?? field.default;
  if (field.kind === "switch") return [comment, `#${usageIn("file", name)}`];
  return [comment, `#${formatSetting(name, [example ?? ""])}`];
}
