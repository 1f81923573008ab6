/**
 * Writes docs/CONFIG.md from the table of settings: `bun run scripts/config-reference.ts --write`.
 *
 * Without --write it is printed. A unit test sees to it that the file is what this makes.
 */
import {
  FIELD_NAMES,
  FIELDS,
  type Field,
  type FieldName,
  SECTIONS,
  type Section,
} from "../src/config/fields.ts";
import { variableOf } from "../src/config/origin.ts";
import { USER_FIELD_NAMES, USER_FIELDS, type UserField } from "../src/config/user-fields.ts";

/** Where the reference is kept, from the project's root. */
export const REFERENCE = "docs/CONFIG.md";

const INTRO = `# Configuration

This file is made from the table in \`src/config/fields.ts\`: \`bun run scripts/config-reference.ts --write\`.

## Where settings come from

Every setting can be a flag (\`--port 8443\`), a variable of the environment (\`TGWS_PORT=8443\`) or a line of the
configuration file (\`port = 8443\`). A flag counts more than a variable, and a variable more than the file; a list is
taken as a whole from the place that counts most. \`tgws config show\` prints what counts, and where it was written.

The file is TOML, up to 1 MiB: \`config.toml\` in the configuration folder (\`TGWS_HOME\`; else \`~/.config/tgws\` on
Linux, \`~/Library/Application Support/tgws\` on macOS, \`%APPDATA%\\tgws\` on Windows), or the one that \`--config\` or
\`TGWS_CONFIG\` names, which then must be there.

\`\`\`toml
port = 8443
fake-tls-domain = "www.example.com"
route = ["direct-ws", "cf-domain"]
no-cfproxy = false

[users.alice]
secret = "0123456789abcdef0123456789abcdef"
quota-gb = 50
expires = 2027-01-31
\`\`\`

- A list is an array of texts; a single text will do. In the environment its parts have commas, semicolons or spaces
  between them.
- A switch is \`true\` or \`false\` in the file. In the environment it is \`true\`, \`1\`, \`yes\` or \`on\`, or the opposite;
  \`--no-cfproxy=false\` turns off what the file turns on. An empty variable counts as not there.
- Everything that is wrong is said at once, each with its place, the value, the reason and what to do:
  \`tgws config check\`. Secrets are never repeated. A variable that begins with \`TGWS_\` and is no setting gets a
  warning.
- Where a file with secrets can be read by everybody, there is a warning.

## Commands

| Command | What it does |
|---|---|
| \`tgws config init [--port 8443 ...]\` | writes a file with every setting as a comment, those that are given as flags, and a user; \`--force\` replaces one |
| \`tgws config check [FILE]\` | says \`ok\`, or everything that is wrong (exit code 2) |
| \`tgws config show [--json]\` | prints every value and where it comes from; secrets are masked |
| \`tgws config import FILE [--port 8443 ...]\` | makes a file of tg-ws-proxy's \`config.json\`; a flag counts more; \`--force\` replaces one |
| \`tgws users add NAME [--quota-gb 50 ...]\` | adds a user, and prints the links |
| \`tgws users set NAME --quota-gb 80\` | changes limits, or the secret; \`none\` takes a limit away |
| \`tgws users list [--json]\` | prints users, limits and traffic |
| \`tgws users link NAME\` | prints the links again |
| \`tgws users enable NAME\`, \`disable NAME\` | turns a user on and off |
| \`tgws users reset NAME\` | counts the traffic from zero |
| \`tgws users remove NAME\` | takes a user out |

They replace the file as a whole, keep its rights, owner, comments and layout, follow a link to the file, and wait for
each other. When the first user is added, the secret that was served so far becomes the user \`default\`: links that
were given away go on working.

Traffic counts from zero when a user is added, and at a reset, exactly: nothing that was moved before comes back. A proxy
that runs notices it within two seconds, and does not count what moves until then.
`;

const USERS_INTRO = `### One user: \`[users.NAME]\`

A name has 1-32 letters, digits, dots, dashes or underscores; one with a dot needs quotes: \`[users."a.b"]\`. All of this
applies at a reload. What is not there has no limit. No two users have one name or one secret, and none has one of
\`--secret\`.
`;

const SECRETS_NOTE = `Up to 1,000 secrets, those of users included. Who connects is found by trying them in turn, which takes 1.8 µs a
secret (1.3 µs with fake TLS): 1.8 ms of a processor for a connection with the last of 1,000, or with none.
`;

/** The text of the reference. */
export function formatReference(): string {
  const parts = [INTRO, "## Settings\n"];
  for (const section of Object.keys(SECTIONS) as Section[]) {
    parts.push(`### ${SECTIONS[section]}\n`, table(section));
    if (section === "users") parts.push(SECRETS_NOTE, USERS_INTRO, userTable());
  }
  return parts.join("\n");
}

function table(section: Section): string {
  const names = FIELD_NAMES.filter((name) => FIELDS[name].section === section);
  const rows = names.map((name) => row(describe(name)));
  return `${[row(["Flag and key", "Variable", "Value", "Default", "Applies at", "What it does"]), "|---|---|---|---|---|---|", ...rows].join("\n")}\n`;
}

function describe(name: FieldName): string[] {
  const field: Field = FIELDS[name];
  const short = field.short === undefined ? "" : `, \`-${field.short}\``;
  const value = field.kind === "switch" ? "switch" : `\`${field.value ?? "value"}\``;
  return [
    `\`${field.flag}\`${short}`,
    `\`${variableOf(name)}\``,
    field.kind === "list" ? `${value}, list` : value,
    field.default === undefined ? (field.kind === "switch" ? "off" : "none") : field.default,
    field.live ? "reload" : "start",
    `${field.help}${field.outsideFile ? " (not in the file itself)" : ""}`,
  ];
}

function userTable(): string {
  const rows = USER_FIELD_NAMES.map((key) => {
    const field: UserField = USER_FIELDS[key];
    return row([`\`${key}\``, `\`${field.value}\``, field.default ?? "none", field.help]);
  });
  return `${[row(["Key", "Value", "Default", "What it does"]), "|---|---|---|---|", ...rows].join("\n")}\n`;
}

/** A bar in a cell would end it, and a bracket begin a tag. */
function row(cells: readonly string[]): string {
  const escaped = (text: string): string =>
    text.replaceAll("|", "\\|").replaceAll(/(?<!`[^`]*)<(?![^`]*`)/g, "&lt;");
  return `| ${cells.map(escaped).join(" | ")} |`;
}

if (import.meta.main) {
  if (process.argv.includes("--write"))
    await Bun.write(new URL(`../${REFERENCE}`, import.meta.url), formatReference());
  else process.stdout.write(formatReference());
}
