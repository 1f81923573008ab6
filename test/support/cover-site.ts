import { type Authority, type Certificates, testAuthority } from "./certificates.ts";
import { Daemon, findProgram } from "./real-proxies.ts";

/** How a {@link CoverSite} is set up. */
export interface CoverSiteOptions {
  /** Its names, each with a certificate and a page of its own; the first serves whoever asks for no name. */
  readonly names: readonly [string, ...string[]];
  /** Who signs the certificates. Without: the CA that the tests trust. */
  readonly authority?: Authority;
  /** As nginx calls them. Without: TLS 1.2 and 1.3. */
  readonly protocols?: readonly ("TLSv1.1" | "TLSv1.2" | "TLSv1.3")[];
  /** As OpenSSL calls them, the best first, such as `X25519` and `prime256v1`. Without: nginx's own. */
  readonly curves?: readonly string[];
  /** The suites of TLS 1.3, as OpenSSL calls them, such as `TLS_CHACHA20_POLY1305_SHA256`. */
  readonly cipherSuites?: readonly string[];
  /** How many tickets follow a handshake of TLS 1.3: zero turns them off. Without: OpenSSL's 2. */
  readonly tickets?: number;
  /** Without: HTTP/2 and HTTP/1.1. */
  readonly http?: "1.1" | "2";
  /** How long a request may take to come, the TLS handshake too. */
  readonly clientHeaderTimeoutMs?: number;
  /** How long a connection stays open between requests; zero closes it after one. */
  readonly keepaliveTimeoutMs?: number;
}

/** What the pages are like, for expectations. */
export const COVER_PAGES = {
  /** 1 MiB. */
  big: { path: "/big", body: "a line of a rather long page....\n".repeat(32_768).slice(0, 1024 * 1024) },
  moved: { path: "/moved", location: "/" },
  missing: { path: "/nothing-here" },
} as const;

const nginx = findProgram("nginx");

/** A web site with TLS that nobody would take for a proxy: nginx, as it comes with Debian. */
export class CoverSite implements AsyncDisposable {
  /** Why it cannot be used here. */
  static readonly missing: string | undefined = nginx === undefined ? "nginx is not installed" : undefined;
  readonly names: readonly [string, ...string[]];
  /** The certificate of the first name, with its CA. */
  readonly certificates: Certificates;
  readonly #daemon: Daemon;
  /** Connections to it that are none of its visitors'. */
  #own = 0;

  private constructor(daemon: Daemon, names: readonly [string, ...string[]], certificates: Certificates) {
    this.#daemon = daemon;
    this.names = names;
    this.certificates = certificates;
  }

  /** Starts it on a free port of 127.0.0.1. @throws {Error} With what nginx said. */
  static async start(options: CoverSiteOptions): Promise<CoverSite> {
    if (nginx === undefined) throw new Error(CoverSite.missing);
    const { names, authority = await testAuthority() } = options;
    const certificates = await Promise.all(names.map((name) => authority.issue([name])));
    const [first] = certificates;
    if (first === undefined) throw new Error("A site has a name");
    const daemon = await Daemon.start({
      files: (port, folder) => ({
        "nginx.conf": configure(port, folder, options),
        big: COVER_PAGES.big.body,
        ...Object.fromEntries(
          names.flatMap((name, index) => [
            [`${index}.html`, coverPage(name)],
            [`${index}.crt`, certificates[index]?.certificate ?? ""],
            [`${index}.key`, certificates[index]?.key ?? ""],
          ]),
        ),
      }),
      command: (folder) => [nginx, "-p", folder, "-e", `${folder}/error.log`, "-c", `${folder}/nginx.conf`],
    });
    const site = new CoverSite(daemon, names, first);
    await site.forget();
    return site;
  }

  get port(): number {
    return this.#daemon.port;
  }

  /** A line a request: `name protocol "request" status bytes`. */
  get accessLog(): string {
    return this.#daemon.read("access.log");
  }

  get errorLog(): string {
    return this.#daemon.read("error.log");
  }

  /** How many connections it has accepted, whatever came over them. */
  async accepted(): Promise<number> {
    const accepted = await this.#accepted();
    return accepted - this.#own;
  }

  /** How many connections are open. */
  async open(): Promise<number> {
    const { open } = await this.#ask();
    return open - 1;
  }

  /** Counts the accepted connections from zero again. */
  async forget(): Promise<void> {
    this.#own = await this.#accepted();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#daemon[Symbol.asyncDispose]();
  }

  async #accepted(): Promise<number> {
    const { accepted } = await this.#ask();
    return accepted;
  }

  async #ask(): Promise<{ readonly accepted: number; readonly open: number }> {
    const response = await fetch("http://localhost/status", {
      unix: `${this.#daemon.folder}/status.sock`,
      headers: { connection: "close" },
    });
    const text = await response.text();
    this.#own += 1;
    const { open, accepted } =
      /^Active connections: (?<open>\d+)\s[^\n]*\n[^\n]*\n\s*(?<accepted>\d+)/.exec(text)?.groups ?? {};
    if (accepted === undefined) throw new Error(`nginx tells its status so: ${text}`);
    return { accepted: Number(accepted), open: Number(open) };
  }
}

/** What the site shows at `/` under one of its names. */
export function coverPage(name: string): string {
  return `<!doctype html><html><head><title>${name}</title></head><body>Welcome to ${name}.</body></html>\n`;
}

function configure(port: number, folder: string, options: CoverSiteOptions): string {
  const { names, protocols = ["TLSv1.2", "TLSv1.3"], curves, cipherSuites, tickets, http } = options;
  const { clientHeaderTimeoutMs, keepaliveTimeoutMs } = options;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const optional = [
    curves === undefined ? "" : `ssl_ecdh_curve ${curves.join(":")};`,
    cipherSuites === undefined ? "" : `ssl_conf_command Ciphersuites ${cipherSuites.join(":")};`,
    tickets === undefined ? "" : `ssl_conf_command NumTickets ${tickets};`,
    clientHeaderTimeoutMs === undefined ? "" : `client_header_timeout ${clientHeaderTimeoutMs}ms;`,
    keepaliveTimeoutMs === undefined ? "" : `keepalive_timeout ${keepaliveTimeoutMs}ms;`,
  ];
  const listen = http === "1.1" ? "ssl" : "ssl http2";
  return `
daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
lock_file ${folder}/nginx.lock;
${process.getuid?.() === 0 ? "user root;" : "" /* who is nobody else stays who he is */}
events { worker_connections 1024; }
http {
  log_format visits '$server_name $ssl_protocol "$request" $status $body_bytes_sent';
  access_log ${folder}/access.log visits;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join("\n  ")}
  default_type text/html;
  ssl_protocols ${protocols.join(" ")};
  ${optional.filter((line) => line !== "").join("\n  ")}
  ${names.map((name, index) => serverBlock({ port, folder, listen, name, index })).join("")}
  server {
    listen unix:${folder}/status.sock;
    access_log off;
    location / { stub_status; }
  }
}
`;
}

function serverBlock(fields: {
  readonly port: number;
  readonly folder: string;
  readonly listen: string;
  readonly name: string;
  readonly index: number;
}): string {
  const { port, folder, listen, name, index } = fields;
  return `
  server {
    listen 127.0.0.1:${port} ${listen}${index === 0 ? " default_server" : ""};
    server_name ${name};
    ssl_certificate ${folder}/${index}.crt;
    ssl_certificate_key ${folder}/${index}.key;
    root ${folder};
    location = / { try_files /${index}.html =404; }
    location = ${COVER_PAGES.big.path} { default_type text/plain; }
    location = ${COVER_PAGES.moved.path} { return 301 ${COVER_PAGES.moved.location}; }
    location / { return 404; }
  }`;
}
