import { createHash, timingSafeEqual } from "node:crypto";
import { StartError } from "../core/errors.ts";
import { type HttpAnswer, type HttpRequest, type HttpServer, listenHttp } from "./http-server.ts";
import { readMetrics } from "./metrics.ts";
import { formatMetrics, METRICS_CONTENT_TYPE } from "./prometheus-text.ts";
import { formatStatsPage } from "./stats-page.ts";
import type { Readiness, StatusReport } from "./status-report.ts";

/** Where the status server gets its answers. */
export interface StatusSource {
  report(): Promise<StatusReport>;
  ready(): Readiness;
}

/** How the status server is reached. */
export interface StatusServerOptions {
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** Whoever asks must know it; not for `/healthz` and `/readyz`. */
  readonly token: string | undefined;
  readonly source: StatusSource;
}

/** An answer serves everybody who asks for the same within this time, in milliseconds. */
const FRESH_MS = 250;
/** A scrape comes every few seconds, and from a few places. */
const LIMITS = { connections: 64, deadlineMs: 10_000 } as const;
const PLAIN = "text/plain; charset=utf-8";

interface Page {
  readonly type: string;
  readonly make: (report: StatusReport) => string;
}

/** What needs the report, with its type and how it is made. */
const PAGES: ReadonlyMap<string, Page> = new Map<string, Page>([
  ["/metrics", { type: METRICS_CONTENT_TYPE, make: (report) => formatMetrics(readMetrics(report)) }],
  ["/stats", { type: PLAIN, make: formatStatsPage }],
  [
    "/api/status",
    { type: "application/json; charset=utf-8", make: (report) => `${JSON.stringify(report)}\n` },
  ],
]);
const INDEX = "tgws: /metrics /stats /api/status /healthz /readyz\n";

/**
 * Answers `GET` and `HEAD` for `/metrics`, `/stats`, `/api/status`, `/healthz` and `/readyz`.
 *
 * @throws {StartError} When the address cannot be listened on.
 */
export function startStatusServer(options: StatusServerOptions): HttpServer {
  const { host, port } = options;
  const answers = new Answers(options);
  try {
    return listenHttp({ host, port, limits: LIMITS }, (request) => answers.to(request));
  } catch (error) {
    throw startErrorOf(error, host, port);
  }
}

/** Decides who gets what. */
class Answers {
  readonly #source: StatusSource;
  readonly #token: Buffer | undefined;
  /** On loopback, a page in a browser must not get here by a name of its own. */
  readonly #localOnly: boolean;
  readonly #host: string;
  readonly #pages = new Map<string, { readonly madeAt: number; readonly body: Promise<string> }>();
  #report: { readonly madeAt: number; readonly value: Promise<StatusReport> } | undefined;

  constructor({ source, token, host }: StatusServerOptions) {
    this.#source = source;
    this.#token = token === undefined ? undefined : digest(token);
    this.#host = host.toLowerCase();
    this.#localOnly = isLocal(this.#host);
  }

  async to({ method, url, authorization }: HttpRequest): Promise<HttpAnswer> {
    const { pathname, searchParams, hostname } = url;
    if (this.#localOnly && !isLocal(hostname) && hostname !== this.#host) {
      return text(403, `Cannot answer for ${hostname}: only for this machine's own names\n`);
    }
    if (method !== "GET" && method !== "HEAD") {
      return text(405, "only GET and HEAD\n", { Allow: "GET, HEAD" });
    }
    if (pathname === "/healthz") return text(200, "ok\n");
    if (pathname === "/readyz") {
      const { ok, reason } = this.#source.ready();
      return text(ok ? 200 : 503, `${reason}\n`);
    }
    if (!this.#mayRead(authorization, searchParams.get("token"))) {
      return text(401, "this needs the token: Authorization: Bearer TOKEN\n", {
        "WWW-Authenticate": 'Bearer realm="tgws"',
      });
    }
    if (pathname === "/") return text(200, INDEX);
    const page = PAGES.get(pathname);
    if (page === undefined) return text(404, INDEX);
    try {
      return { status: 200, type: page.type, body: await this.#fresh(pathname, page.make) };
    } catch (error) {
      return text(503, `Cannot tell: ${error instanceof Error ? error.message : String(error)}\n`);
    }
  }

  #fresh(path: string, make: (report: StatusReport) => string): Promise<string> {
    const now = performance.now();
    const known = this.#pages.get(path);
    if (known !== undefined && now - known.madeAt < FRESH_MS) return known.body;
    if (this.#report === undefined || now - this.#report.madeAt >= FRESH_MS) {
      this.#report = { madeAt: now, value: this.#source.report() };
    }
    const body = this.#report.value.then(make);
    this.#pages.set(path, { madeAt: this.#report.madeAt, body });
    return body;
  }

  /** Takes as long for each wrong token as for another. */
  #mayRead(header: string | undefined, parameter: string | null): boolean {
    if (this.#token === undefined) return true;
    const [, bearer] = /^Bearer +(\S+) *$/i.exec(header ?? "") ?? [];
    return timingSafeEqual(this.#token, digest(bearer ?? parameter ?? ""));
  }
}

function digest(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** @param host As in a URL, with or without the brackets of IPv6. */
function isLocal(host: string): boolean {
  return host === "localhost" || host === "[::1]" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

function text(status: HttpAnswer["status"], body: string, headers = {}): HttpAnswer {
  return { status, type: PLAIN, body, headers };
}

function startErrorOf(error: unknown, host: string, port: number): StartError {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const named = host.includes(":") ? `[${host}]` : host;
  const where = `${named}:${port}`;
  if (code === "EADDRINUSE") {
    return new StartError(
      "PORT_IN_USE",
      `Cannot listen on ${where} for --status: the port is in use`,
      `choose another one: --status ${named}:${port < 65_535 ? port + 1 : 9_100}`,
      error,
    );
  }
  if (code === "EACCES" || code === "EPERM") {
    return new StartError(
      "NO_PERMISSION",
      `Cannot listen on ${where} for --status: no permission`,
      `choose a port from 1024 on: --status ${named}:9100`,
      error,
    );
  }
  return new StartError(
    "BAD_ADDRESS",
    `Cannot listen on ${where} for --status: this machine has no such address${code === "" ? "" : ` (${code})`}`,
    `use --status 127.0.0.1:${port === 0 ? 9_100 : port} for this machine only`,
    error,
  );
}
