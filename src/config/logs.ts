import type { FieldReader } from "./field-reader.ts";
import { parseInteger, parseNumber } from "./numbers.ts";
import { oneOf, parsePath } from "./texts.ts";

/** How much is logged; each level has those before it. */
export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;

/** One of {@link LOG_LEVELS}. */
export type ConfiguredLogLevel = (typeof LOG_LEVELS)[number];

/** How log lines look. `auto`: pretty on a terminal, else plain. */
export const LOG_FORMATS = ["auto", "pretty", "plain", "json"] as const;

/** One of {@link LOG_FORMATS}. */
export type ConfiguredLogFormat = (typeof LOG_FORMATS)[number];

/** What is logged, how, and where to. */
export interface LogSettings {
  readonly logFormat: ConfiguredLogFormat;
  readonly logLevel: ConfiguredLogLevel;
  readonly logFile:
    | { readonly path: string; readonly maxBytes: number; readonly backups: number }
    | undefined;
  /** Whether `logLevel` is `debug`. */
  readonly verbose: boolean;
}

/** Reads the settings of the log. `--verbose` is another word for `--log-level debug`. */
export function readLogs(reader: FieldReader): LogSettings {
  const written = reader.value("logLevel", "info", oneOf(LOG_LEVELS));
  const verbose = reader.given("verbose");
  if (verbose && reader.given("logLevel") && written !== "debug")
    reader.refuse("logLevel", `${written}: contradicts --verbose, which is debug`, "keep one of them");
  return {
    logFormat: reader.value("logFormat", "auto", oneOf(LOG_FORMATS)),
    logLevel: verbose ? "debug" : written,
    logFile: readLogFile(reader),
    verbose: verbose || written === "debug",
  };
}

function readLogFile(reader: FieldReader): LogSettings["logFile"] {
  const path = reader.value<string | undefined>("logFile", undefined, parsePath);
  const maxMb = reader.value("logMaxMb", 5, (text) => parseNumber(text, 0.03, 10_000));
  const backups = reader.value("logBackups", 0, (text) => parseInteger(text, 0, 100));
  return path === undefined ? undefined : { path, maxBytes: Math.round(maxMb * 1024 * 1024), backups };
}
