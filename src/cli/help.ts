import { stripVTControlCharacters } from "node:util";
import type { ArgDef } from "citty";
import { FIELDS, type Field, type FieldName, SECTIONS, type Section } from "../config/fields.ts";
import type { Command } from "./command.ts";
import { COMMANDS, MAIN_COMMAND } from "./commands.ts";
import { wrap } from "./doctor-text.ts";

/** Columns of a terminal that does not say how many it has, and the least and the most that help uses. */
const USUAL_WIDTH = 80;
const WIDTHS = { least: 40, most: 120 } as const;
/** The longest flag, with its value, that has its text beside it. */
const LONGEST_LABEL = 24;
/** Narrower than this, all texts are below their flags. */
const NARROW = 60;

/** A space where no line is broken. */
const TIED = "\u00a0";

/** One flag or command, and what it does. */
type Entry = readonly [label: string, text: string];

/**
 * Formats the help of a command: citty's, laid out for the terminal, since its own lines have any length.
 *
 * @param columns Of the terminal; lines are at most that long where possible.
 */
export async function formatHelp(command: Command, columns: number = USUAL_WIDTH): Promise<string[]> {
  const width = columns < WIDTHS.least ? USUAL_WIDTH : Math.min(columns, WIDTHS.most);
  const plain = { width, first: "", others: "" };
  const isMain = command === MAIN_COMMAND;
  const choices = isMain ? COMMANDS : command.commands;
  const names = [...(choices?.keys() ?? [])];
  const own: Entry[] = [
    ...command.switches,
    ["-h, --help", "Print this help"],
    ["--version", "Print the version"],
  ];
  const groups: Group[] = isMain
    ? [...sectionsOf(command.fields), { title: "OTHER OPTIONS", entries: own }]
    : [
        {
          title: "OPTIONS",
          entries: [...command.switches, ...command.fields.map(describeField), ...own.slice(-2)],
        },
      ];
  const listed = await Promise.all(
    groups.map(async ({ title, entries }) => ({ title, entries: await listOptions(command, entries) })),
  );
  const commands = names.map((name): Entry => [name, choices?.get(name)?.description ?? ""]);
  const column = columnFor([...listed.flatMap(({ entries }) => entries), ...commands], width);
  const format = (entries: readonly Entry[]): string[] => formatEntries(entries, { width, column });
  return [
    ...wrap(command.description, plain),
    "",
    ...formatUsage(command),
    ...listed.flatMap(({ title, entries }) => ["", title, ...format(entries)]),
    ...(command.takesAll ? ["", "and the flags of the proxy: tgws --help"] : []),
    ...(names.length > 0 ? ["", "COMMANDS", ...format(commands), ""] : []),
    ...(names.length > 0
      ? wrap(`${command.usage} <command> --help lists the flags of a command.`, plain)
      : []),
    ...(isMain
      ? wrap("Each flag is a setting of the configuration file, too, and a TGWS_ variable.", plain)
      : []),
  ];
}

/** Options that belong together. */
interface Group {
  readonly title: string;
  readonly entries: readonly Entry[];
}

function sectionsOf(fields: readonly FieldName[]): Group[] {
  return (Object.keys(SECTIONS) as Section[]).map((section) => ({
    title: SECTIONS[section].toUpperCase(),
    entries: fields.filter((name) => FIELDS[name].section === section).map(describeField),
  }));
}

function formatUsage({ usage, commands }: Command): string[] {
  if (usage === MAIN_COMMAND.usage) return [`USAGE  ${usage} [OPTIONS]`, `       ${usage} COMMAND [OPTIONS]`];
  return [`USAGE  ${usage}${commands === undefined ? "" : " COMMAND"} [OPTIONS]`];
}

function describeField(name: FieldName): Entry {
  const field: Field = FIELDS[name];
  const { help, default: usual } = field;
  const value = field.kind === "switch" ? "" : ` <${field.value ?? "value"}>`;
  const short = field.short === undefined ? "" : `-${field.short}, `;
  const notes = [
    ...(field.kind === "list" ? ["repeatable"] : []),
    ...(usual === undefined ? [] : [`Default:${TIED}${usual}`]),
  ];
  const note = notes.length === 0 ? "" : ` (${notes.join("; ")})`;
  return [`${short}--${field.flag}${value}`, `${help}${note}`];
}

/** Where the texts begin. */
function columnFor(entries: readonly Entry[], width: number): number {
  const fitting = entries.map(([label]) => label.length).filter((length) => length <= LONGEST_LABEL);
  return width < NARROW ? 6 : 2 + Math.max(0, ...fitting) + 2;
}

/** One entry a line; the text of one with a long label stands below it. */
function formatEntries(
  entries: readonly Entry[],
  { width, column }: { readonly width: number; readonly column: number },
): string[] {
  return entries.flatMap(([label, text]) => {
    const others = " ".repeat(column);
    const start = `  ${label}`;
    const below = start.length + 2 > column;
    const first = below ? others : start.padEnd(column);
    const lines = wrap(text, { width, first, others }).map((line) => line.replaceAll(TIED, " "));
    return below ? [start, ...lines] : lines;
  });
}

/** Has citty write the flags: `--flag=<value>` and its text, two columns apart. */
async function listOptions(command: Command, options: readonly Entry[]): Promise<Entry[]> {
  const { renderUsage } = await import("citty");
  const args = Object.fromEntries(options.map(([label, description]) => argOf(label, description)));
  const usage = stripVTControlCharacters(await renderUsage({ meta: { name: command.usage }, args }));
  const rows = usage.split("\n").map((line) => /^ +(-\S.*?) {4,}(\S.*)$/.exec(line.trimEnd()));
  return rows.flatMap((row): Entry[] => {
    const [, label, text] = row ?? [];
    return label === undefined || text === undefined ? [] : [[label.replace("=<", " <"), text]];
  });
}

/** `-v, --verbose` or `--host <address>` as citty wants it. */
function argOf(label: string, description: string): [string, ArgDef] {
  const [, alias, name = "", valueHint] = /^(?:-(\w), )?--([\w-]+)(?: <(.*)>)?$/.exec(label) ?? [];
  return [
    name,
    {
      type: valueHint === undefined ? "boolean" : "string",
      description,
      ...(valueHint === undefined ? {} : { valueHint }),
      ...(alias === undefined ? {} : { alias }),
    } as ArgDef,
  ];
}
