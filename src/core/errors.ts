import type { RefusalReason } from "./events.ts";

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
 * - `BAD_CLIENT_HELLO` not a TLS ClientHello, or one whose lengths do not fit
 * - `BAD_SERVER_HELLO` a site's answer to a ClientHello that is not TLS
 * - `BAD_RECORD` after the handshake of fake TLS: a record of a kind or length that no client sends
 * - `BAD_PROXY_HEADER` the header of the PROXY protocol is missing or malformed
 */
export type HandshakeErrorCode =
  | "BAD_LENGTH"
  | "BAD_TRANSPORT_TAG"
  | "CLOSED"
  | "TIMEOUT"
  | "BAD_CLIENT_HELLO"
  | "BAD_SERVER_HELLO"
  | "BAD_RECORD"
  | "BAD_PROXY_HEADER";

/** A client's opening that cannot be understood, or did not come in time. */
export class HandshakeError extends TgwsError<HandshakeErrorCode> {}

/**
 * What is wrong with how a load balancer introduces its client.
 *
 * - `missing` the connection does not begin with a header of the PROXY protocol
 * - `malformed` it does, and the header cannot be read
 * - `untrusted` the connection does not come from a load balancer that is trusted
 */
export type ProxyHeaderFault = "missing" | "malformed" | "untrusted";

/** A connection that no load balancer of ours brings, or not as it should: `BAD_PROXY_HEADER`. */
export class ProxyHeaderError extends HandshakeError {
  readonly why: ProxyHeaderFault;

  constructor(why: ProxyHeaderFault, message: string) {
    super("BAD_PROXY_HEADER", message);
    this.why = why;
  }
}

/** A connection that is not served although it may be a client's: a limit was reached. */
export class RefusedError extends TgwsError<RefusalReason> {
  constructor(code: RefusalReason) {
    super(code, `Cannot serve the client: ${code}`);
  }
}

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
 * - `CLOSED` the connection ended during the opening, or before it carried anything back
 * - `PROXY` the outbound proxy refused or did not understand
 * - `SILENT` it opened, and nothing came back for what the client sent
 * - `STALLED` it stopped in the middle of a packet, early in the connection
 * - `ABORTED` the caller gave up first
 * - `LOCAL` file descriptors or memory are short on this machine, which says nothing of the way
 * - `UNKNOWN` anything else; the message quotes it
 */
export type RouteErrorCode = (typeof ROUTE_ERROR_CODES)[number];

/** Every {@link RouteErrorCode}. */
export const ROUTE_ERROR_CODES = [
  "REDIRECT",
  "STATUS",
  "PROTOCOL",
  "TLS",
  "REFUSED",
  "UNREACHABLE",
  "TIMEOUT",
  "DNS",
  "CLOSED",
  "PROXY",
  "SILENT",
  "STALLED",
  "ABORTED",
  "LOCAL",
  "UNKNOWN",
] as const;

/** Tells whether text from elsewhere, such as a file, is a {@link RouteErrorCode}. */
export function isRouteErrorCode(text: unknown): text is RouteErrorCode {
  return ROUTE_ERROR_CODES.some((code) => code === text);
}

/** One way to a data centre that did not open: try the next. Any other error is a bug. */
export class RouteError extends TgwsError<RouteErrorCode> {
  /** The HTTP status, where there was one. */
  readonly status: number | undefined;

  constructor(
    code: RouteErrorCode,
    message: string,
    details: { readonly status?: number; readonly cause?: unknown } = {},
  ) {
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

  /** @param otherwise What is to blame when no attempt is. */
  constructor(target: string, attempts: readonly RouteAttempt[], otherwise = "no route serves it") {
    super("NO_ROUTE", `Cannot reach ${target}: ${describeAttempts(attempts) || otherwise}`);
    this.attempts = attempts;
  }
}

/** Endpoints of a route that failed alike are named together, and not more of them than help. */
const MOST_NAMED = 2;

function describeAttempts(attempts: readonly RouteAttempt[]): string {
  const alike = new Map<string, { route: string; reason: string; endpoints: Set<string> }>();
  for (const { route, endpoint, error } of attempts) {
    const key = `${route} ${error.message}`;
    const one = alike.get(key) ?? { route, reason: error.message, endpoints: new Set() };
    one.endpoints.add(endpoint);
    alike.set(key, one);
  }
  const parts = [...alike.values()].map(({ route, reason, endpoints }) => {
    const named = [...endpoints].slice(0, MOST_NAMED).join(", ");
    const more = endpoints.size > MOST_NAMED ? ` and ${endpoints.size - MOST_NAMED} more` : "";
    return `${route} ${named}${more}: ${reason}`;
  });
  return parts.join("; ");
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
 * - `PRIVILEGES` it cannot become the user that it was asked to be
 * - `WORKER` a worker process does not start
 */
export type StartErrorCode =
  | "PORT_IN_USE"
  | "NO_PERMISSION"
  | "BAD_ADDRESS"
  | "FILE"
  | "PRIVILEGES"
  | "WORKER";

/** The program cannot start; `hint` says what to do. */
export class StartError extends TgwsError<StartErrorCode> {
  readonly hint: string;

  constructor(code: StartErrorCode, message: string, hint: string, cause?: unknown) {
    super(code, message, cause);
    this.hint = hint;
  }
}
