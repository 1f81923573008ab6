import { scanStatements } from "./toml-statements.ts";

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

/**
 * Takes a table out that has a header, with the comments that follow its last row without an empty line between,
 * unless the next header follows these at once: then they are that one's.
 *
 * @returns `undefined` when there is no such header; the outcome is to be checked, since any text will do.
 */
export function removeTable(text: string, path: readonly string[]): string | undefined {
  const table = findTable(text, path);
  if (table === undefined) return undefined;
  const before = text.slice(0, table.start);
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
  return { start: header.start, end: text[last.end - 1] === "\r" ? last.end - 1 : last.end, indent };
}
