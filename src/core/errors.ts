/**
 * Base of every error that tgws throws on purpose.
 *
 * Branch on the class or on `code`, which are stable; `message` is free text of the form
 * "Cannot <verb> <object>: <why>".
 */
export abstract class TgwsError<Code extends string = string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.name = new.target.name;
  }
}

/**
 * What a client's first bytes can fail on.
 *
 * - `BAD_LENGTH` an init that is not 64 bytes
 * - `BAD_TRANSPORT_TAG` the tag names no transport: a wrong secret, or not a Telegram client
 * - `CLOSED` the client left before its init was complete
 * - `TIMEOUT` the init was not complete at the handshake deadline
 */
export type HandshakeErrorCode = "BAD_LENGTH" | "BAD_TRANSPORT_TAG" | "CLOSED" | "TIMEOUT";

/** A client's opening that cannot be understood, or did not come in time. */
export class HandshakeError extends TgwsError<HandshakeErrorCode> {}

/** What a secret, an address or another piece of text can fail on. */
export type FormatErrorCode = "BAD_SECRET" | "BAD_ADDRESS" | "BAD_VALUE";

/** Text from a person that cannot be parsed; `hint` says what would be accepted. */
export class FormatError extends TgwsError<FormatErrorCode> {
  readonly hint: string | undefined;

  constructor(code: FormatErrorCode, message: string, hint?: string) {
    super(code, message);
    this.hint = hint;
  }
}

/**
 * Why one way to a data centre did not open.
 *
 * - `REDIRECT` HTTP 3xx: this address does not serve this data centre
 * - `STATUS` another HTTP status than 101
 * - `PROTOCOL` the answer to the upgrade is not a WebSocket's
 * - `TLS` handshake or certificate
 * - `REFUSED` connection refused
 * - `UNREACHABLE` no way to the host or network
 * - `TIMEOUT` nothing within the connect deadline
 * - `DNS` the name has no address
 * - `CLOSED` the connection ended during the opening
 * - `ABORTED` the caller gave up first
 * - `UNKNOWN` anything else; the message quotes it
 */
export type RouteErrorCode =
  | "REDIRECT"
  | "STATUS"
  | "PROTOCOL"
  | "TLS"
  | "REFUSED"
  | "UNREACHABLE"
  | "TIMEOUT"
  | "DNS"
  | "CLOSED"
  | "ABORTED"
  | "UNKNOWN";

/** One way to a data centre that did not open: try the next. Any other error is a bug. */
export class RouteError extends TgwsError<RouteErrorCode> {
  /** The HTTP status, where there was one. */
  readonly status: number | undefined;

  constructor(code: RouteErrorCode, message: string, details: { status?: number; cause?: unknown } = {}) {
    super(code, message, details.cause);
    this.status = details.status;
  }
}

/** One refused attempt of a chain. */
export interface RouteAttempt {
  readonly route: string;
  readonly endpoint: string;
  readonly error: RouteError;
}

/** No route opened; `attempts` keeps what each one said, in the order in which they failed. */
export class NoRouteError extends TgwsError<"NO_ROUTE"> {
  readonly attempts: readonly RouteAttempt[];

  constructor(target: string, attempts: readonly RouteAttempt[]) {
    const reasons = attempts.map(({ route, endpoint, error }) => `${route} ${endpoint}: ${error.message}`);
    super("NO_ROUTE", `Cannot reach ${target}: ${reasons.join("; ") || "no route serves it"}`);
    this.attempts = attempts;
  }
}

/** One problem of the configuration: where it stands, what is wrong, and what to do about it. */
export interface ConfigIssue {
  /** The flag or key, as the user wrote it: `--port`. */
  readonly path: string;
  readonly message: string;
  readonly hint?: string;
}

/** A command line or configuration that cannot be used; every problem is in `issues`. Exit code 2. */
export class ConfigError extends TgwsError<"BAD_CONFIG"> {
  readonly issues: readonly ConfigIssue[];

  constructor(issues: readonly ConfigIssue[]) {
    super("BAD_CONFIG", issues.map(({ path, message }) => `${path}: ${message}`).join("\n"));
    this.issues = issues;
  }
}

/**
 * Something that stops the program from starting although it was asked for correctly. Exit code 1.
 *
 * - `PORT_IN_USE`, `NO_PERMISSION`, `BAD_ADDRESS` the listener cannot be opened
 * - `FILE` a file cannot be read or written
 */
export type StartErrorCode = "PORT_IN_USE" | "NO_PERMISSION" | "BAD_ADDRESS" | "FILE";

/** The program cannot start; `hint` says what to do. */
export class StartError extends TgwsError<StartErrorCode> {
  readonly hint: string;

  constructor(code: StartErrorCode, message: string, hint: string, cause?: unknown) {
    super(code, message, cause);
    this.hint = hint;
  }
}
