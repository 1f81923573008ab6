import type { DcTarget } from "../protocol/mtproto/dc.ts";

/** How a report is drawn. */
export interface ReportStyle {
  readonly color: boolean;
  /** Lines are at most this long where that is possible. */
  readonly width: number;
}

/** The most entries of a list that are written out. */
const LONGEST_LIST = 6;

/** Breaks `text` into lines at spaces. */
export function wrap(
  text: string,
  options: { readonly width: number; readonly first: string; readonly others: string },
): string[] {
  const lines: string[] = [];
  let line = options.first;
  let empty = true;
  for (const word of text.split(/ (?! )/)) {
    if (!empty && line.length + 1 + word.length > options.width) {
      lines.push(line.trimEnd());
      line = options.others;
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line];
}

/** Puts two spaces before each line. */
export function indent(lines: readonly string[]): string[] {
  return lines.map((line) => `  ${line}`);
}

/** Cuts the middle out of what is longer than `length`: endpoints differ at both ends. */
export function shorten(text: string, length: number): string {
  if (text.length <= length) return text;
  const tail = Math.floor((length - 1) / 2);
  return `${text.slice(0, length - 1 - tail)}…${text.slice(text.length - tail)}`;
}

/** `a, b and c`. */
export function joinWith(texts: readonly string[], word: "and" | "or"): string {
  const last = texts.at(-1) ?? "";
  return texts.length < 2 ? last : `${texts.slice(0, -1).join(", ")} ${word} ${last}`;
}

/** Joins each text once, and no more than six of them. */
export function listSome(texts: readonly string[]): string {
  const unique = [...new Set(texts)];
  const shown = unique.slice(0, LONGEST_LIST);
  const rest = unique.length - shown.length;
  return joinWith(rest > 0 ? [...shown, `${rest} more`] : shown, "and");
}

/** `DC 2 and 4 with media, DC 5 media`: names each data centre once, however many of its targets there are. */
export function listTargets(targets: readonly DcTarget[]): string {
  const name = targets.some(({ test }) => test) ? "test DC" : "DC";
  const messages = new Set(targets.filter(({ media }) => !media).map(({ dc }) => dc));
  const media = new Set(targets.filter((target) => target.media).map(({ dc }) => dc));
  const groups: [dcs: ReadonlySet<number>, suffix: string][] = [
    [messages.intersection(media), " with media"],
    [messages.difference(media), ""],
    [media.difference(messages), " media"],
  ];
  return groups
    .filter(([dcs]) => dcs.size > 0)
    .map(([dcs, suffix]) => `${name} ${joinWith([...dcs].map(String), "and")}${suffix}`)
    .join(", ");
}
