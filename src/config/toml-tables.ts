import { scanStatements, type TomlStatement } from "./toml-statements.ts";

/** How lines end in a text: as on Windows where one does. */
export function endOfLineIn(text: string): "\r\n" | "\n" {
  return text.includes("\r\n") ? "\r\n" : "\n";
}

/**
 * Puts rows below the last one of a table that has a header, as far from the margin as that.
 *
 * @returns `undefined` when there is no such header; the outcome is to be checked, since any text will do.
 */
export function insertRows(
  text: string,
  path: readonly string[],
  rows: readonly string[],
): string | undefined {
  const table = findTable(text, path);
  if (table === undefined) return undefined;
  const start = `${endOfLineIn(text)}${table.indent}`;
  return `${text.slice(0, table.end)}${rows.map((row) => `${start}${row}`).join("")}${text.slice(table.end)}`;
}

/** `key = `, a value in one line, and what follows it. */
const ROW = /^([^=]*=[ \t]*)("[^"\\\n]*"|'[^'\n]*'|[^\s#"'[{][^\n#"'[{]*?)([ \t]*)(#[^\n]*)?$/;

/**
 * Writes another value in the place of a key's, or takes the row out; a comment after it stays in its column if it can.
 *
 * @param path As it is written: with the header of its table.
 * @param value As TOML; `undefined` takes the row out.
 * @returns `undefined` when there is no such row, or its value is no simple one; the outcome is to be checked, since any
 * text will do.
 */
export function replaceRow(
  text: string,
  path: readonly string[],
  value: string | undefined,
): string | undefined {
  const wanted = JSON.stringify(path);
  const row = scanStatements(text).find((one) => one.kind === "key" && JSON.stringify(one.path) === wanted);
  if (row === undefined) return undefined;
  if (value === undefined) {
    const start = text.lastIndexOf("\n", row.start) + 1;
    return text.slice(0, start) + text.slice(row.end).replace(/^\n/, "");
  }
  const end = endOfRow(text, row);
  const [whole, key = "", old = "", gap = "", comment = ""] = ROW.exec(text.slice(row.start, end)) ?? [];
  if (whole === undefined) return undefined;
  const spaces = gap.startsWith("  ") ? " ".repeat(Math.max(1, gap.length + old.length - value.length)) : gap;
  return `${text.slice(0, row.start)}${key}${value}${comment === "" ? gap : spaces}${comment}${text.slice(end)}`;
}

/**
 * Takes a table out that has a header, with the comments that follow its last row without an empty line between,
 * unless the next header follows these at once: then they are that one's.
 *
 * @returns `undefined` when there is no such header; the outcome is to be checked, since any text will do.
 */
export function removeTable(text: string, path: readonly string[]): string | undefined {
  const table = findTable(text, path);
  if (table === undefined) return undefined;
  const before = text.slice(0, table.start).replace(/[ \t]+$/, ""); // what stood before its header
  const rest = text.slice(table.end).replace(/^\r?\n/, "");
  const comments = /^(?:[ \t]*#[^\n]*(?:\n|$))+/.exec(rest)?.[0] ?? "";
  const after = /^[ \t]*\[/.test(rest.slice(comments.length)) ? rest : rest.slice(comments.length);
  const gap = before === "" || /\n[ \t]*\r?\n$/.test(before);
  return before + (gap ? after.replace(/^(?:[ \t]*\r?\n)+/, "") : after);
}

interface FoundTable {
  readonly start: number;
  readonly end: number;
  /** What stands before its last row. */
  readonly indent: string;
}

/** From its header to the end of its last row, without the line's end. */
function findTable(text: string, path: readonly string[]): FoundTable | undefined {
  const statements = scanStatements(text);
  const wanted = JSON.stringify(path);
  const at = statements.findIndex((one) => one.kind === "table" && JSON.stringify(one.path) === wanted);
  const header = statements[at];
  if (header === undefined) return undefined;
  const following = statements.slice(at + 1);
  const next = following.findIndex(({ kind }) => kind === "table");
  const last = (next < 0 ? following : following.slice(0, next)).at(-1) ?? header;
  const indent = /[ \t]*$/.exec(text.slice(0, last.start))?.[0] ?? "";
  return { start: header.start, end: endOfRow(text, last), indent };
}

/** Without the line's end. */
function endOfRow(text: string, { end }: TomlStatement): number {
  return text[end - 1] === "\r" ? end - 1 : end;
}
