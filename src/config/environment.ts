import { splitList } from "./field-reader.ts";
import { FIELD_NAMES, FIELDS, type Field } from "./fields.ts";
import { nearestOf } from "./nearest.ts";
import { variableOf } from "./origin.ts";
import { quote } from "./quote.ts";
import type { Environment } from "./secret-store.ts";
import { type Written, WrittenBuilder } from "./written.ts";

/** Variables of tgws that are no settings. */
const OTHERS = ["TGWS_HOME"];
const ON = ["1", "true", "yes", "on"];
const OFF = ["0", "false", "no", "off"];

/**
 * Takes the settings out of the environment: `TGWS_PORT` is `--port`. One that is empty counts as not there; a list
 * has commas, semicolons or spaces between its parts.
 */
export function readEnvironment(environment: Environment): Written {
  const written = new WrittenBuilder();
  // Windows does not tell small letters from capitals in their names.
  if (!Object.keys(environment).some((name) => name.toUpperCase().startsWith("TGWS_"))) return written;
  for (const name of FIELD_NAMES) {
    const path = variableOf(name);
    const text = environment[path];
    if (text === undefined || text.trim() === "") continue;
    const texts = readTexts(FIELDS[name], text);
    if (texts === undefined) {
      const message = `${quote(text)}: neither true nor false`;
      written.refuse(path, message, `${path}=true, or leave it out`);
    } else {
      written.set(name, texts, { source: "environment", path });
    }
  }
  const known = [...FIELD_NAMES.map(variableOf), ...OTHERS];
  for (const variable of Object.keys(environment)) {
    if (!variable.startsWith("TGWS_") || known.includes(variable)) continue;
    const near = nearestOf(variable, known);
    const hint = near === undefined ? "" : `; did you mean ${near}?`;
    written.warnings.push(`${quote(variable)} is in the environment, but no setting${hint}`);
  }
  return written;
}

/** The texts that a flag would have been given; `undefined` for a switch that says neither. */
function readTexts({ kind }: Field, text: string): readonly string[] | undefined {
  if (kind === "list") return splitList(text);
  if (kind === "value") return [text];
  const word = text.trim().toLowerCase();
  if (ON.includes(word)) return [""];
  return OFF.includes(word) ? [] : undefined;
}
