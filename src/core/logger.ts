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
