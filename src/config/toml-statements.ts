/** One statement of a TOML file: a table's header, or a key with its value. */
export interface TomlStatement {
  readonly kind: "table" | "key";
  /** The offset of its first character. */
  readonly start: number;
  /** Of its first character; the first line is 1. */
  readonly line: number;
  /** The offset after it: that of the line's end. */
  readonly end: number;
  /** What it is about, from the root: `["users", "alice", "secret"]`. */
  readonly path: readonly string[];
}

/**
 * Finds the statements of a TOML text, for messages that name a line: Bun's parser tells none.
 *
 * Any text will do. Where it is no TOML, what follows may be split in the wrong places, but never what is before.
 */
export function scanStatements(text: string): TomlStatement[] {
  const statements: TomlStatement[] = [];
  const start = text.startsWith("\ufeff") ? 1 : 0;
  const lines = new LineCounter(text);
  let table: readonly string[] = [];
  for (let at = skipBlank(text, start); at < text.length; ) {
    const line = lines.at(at);
    const header = /^\[\[?/.exec(text.slice(at, at + 2))?.[0].length ?? 0;
    const key = readKey(text, at + header);
    if (header > 0) table = key.parts;
    const path = header > 0 ? table : [...table, ...key.parts];
    const end = skipValue(text, Math.max(key.end, at + 1), header);
    statements.push({ kind: header > 0 ? "table" : "key", line, start: at, end, path });
    at = skipBlank(text, end);
  }
  return statements;
}

/** Counts lines up to offsets that only grow. */
class LineCounter {
  readonly #text: string;
  #line = 1;
  #next: number;

  constructor(text: string) {
    this.#text = text;
    this.#next = text.indexOf("\n");
  }

  at(offset: number): number {
    while (this.#next >= 0 && this.#next < offset) {
      this.#line += 1;
      this.#next = this.#text.indexOf("\n", this.#next + 1);
    }
    return this.#line;
  }
}

/** @returns Where the next statement begins, or the end of the text. */
function skipBlank(text: string, from: number): number {
  let at = from;
  for (;;) {
    const letter = text[at];
    if (letter === "#") at = endOfLine(text, at);
    else if (letter === " " || letter === "\t" || letter === "\r" || letter === "\n") at += 1;
    else return at;
  }
}

const KEY_PART = /[ \t]*(?:([\w-]+)|"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)')[ \t]*/y;

/** Reads a key, which may have dots between its parts. */
function readKey(text: string, from: number): { readonly parts: string[]; readonly end: number } {
  const parts: string[] = [];
  let end = from;
  for (;;) {
    KEY_PART.lastIndex = end;
    const match = KEY_PART.exec(text);
    if (match === null) return { parts, end };
    const [whole, bare, basic, literal] = match;
    parts.push(bare ?? (basic === undefined ? (literal ?? "") : decodeEscapes(basic)));
    end += whole.length;
    if (text[end] !== ".") return { parts, end };
    end += 1;
  }
}

function decodeEscapes(text: string): string {
  try {
    return String(JSON.parse(`"${text}"`));
  } catch {
    return text; // an escape that JSON does not know: it only names a place
  }
}

/**
 * @param depth How many brackets are open.
 * @returns The end of the line on which they are closed.
 */
function skipValue(text: string, from: number, depth: number): number {
  let open = depth;
  for (let at = from; at < text.length; ) {
    const letter = text[at] ?? "";
    if (letter === "\n" && open <= 0) return at;
    if (letter === '"' || letter === "'") {
      at = skipString(text, at);
      continue;
    }
    if (letter === "#") {
      at = endOfLine(text, at);
      continue;
    }
    if (letter === "[" || letter === "{") open += 1;
    if (letter === "]" || letter === "}") open -= 1;
    at += 1;
  }
  return text.length;
}

function skipString(text: string, from: number): number {
  const mark = text[from] ?? "";
  const triple = mark.repeat(3);
  const fence = text.startsWith(triple, from) ? triple : mark;
  for (let at = from + fence.length; at < text.length; ) {
    if (text[at] === "\\" && mark === '"') {
      at += 2;
    } else if (text.startsWith(fence, at)) {
      at += fence.length;
      while (fence.length === 3 && text[at] === mark) at += 1; // up to two more belong to the text
      return at;
    } else if (text[at] === "\n" && fence.length === 1) {
      return at;
    } else {
      at += 1;
    }
  }
  return text.length;
}

function endOfLine(text: string, from: number): number {
  const end = text.indexOf("\n", from);
  return end < 0 ? text.length : end;
}
