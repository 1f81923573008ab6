/** How much a line matters, the most first. */
export const LOG_LEVELS = ["error", "warn", "info", "debug"] as const;

/** See {@link LOG_LEVELS}. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/**
 * What lines look like.
 *
 * - `auto` `pretty` on a terminal, else `plain`
 * - `pretty` colours and signs for a person
 * - `plain` `12:34:56Z info  message key=value`
 * - `json` one object a line
 */
export type LogFormat = (typeof LOG_FORMATS)[number];

/** Every {@link LogFormat}. */
export const LOG_FORMATS = ["auto", "pretty", "plain", "json"] as const;

/** What a log line carries besides its text; printed as `key=value`. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/**
 * Where lines for a person go.
 *
 * Secrets never go here: name them instead.
 */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}
