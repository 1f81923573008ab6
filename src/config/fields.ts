import type { RawUser } from "./user-fields.ts";

/** What settings belong together, in the order of the help text and of the reference. */
export const SECTIONS = {
  listening: "Listening",
  users: "Users and secrets",
  fakeTls: "Fake TLS",
  routes: "Routes",
  limits: "Limits",
  running: "Running",
  logs: "Logs",
} as const satisfies Record<string, string>;

/** One of {@link SECTIONS}. */
export type Section = keyof typeof SECTIONS;

/** One setting: how it is written, and what the help says about it. */
export interface Field {
  /** Without the leading dashes; so the key in the configuration file, and `TGWS_...` in the environment. */
  readonly flag: string;
  readonly section: Section;
  /** Whether it takes effect at a reload; else at the next start. */
  readonly live: boolean;
  /** It cannot stand in the configuration file. */
  readonly outsideFile?: true;
  /** One letter, without the dash. */
  readonly short?: string;
  /** `switch` takes no value; `list` may be repeated. */
  readonly kind: "value" | "list" | "switch";
  /** What stands for the value in the help text. */
  readonly value?: string;
  /** The default, as the help text shows it. */
  readonly default?: string;
  /** What could stand there, where the default is none. */
  readonly example?: string;
  /** The value is a secret, or holds one: no message may quote it. Keys that look like keys are cut out anyway. */
  readonly sensitive?: true;
  readonly help: string;
}

/**
 * Every setting, in the order of the help text: the one table behind flags, checks and `--help`.
 *
 * The flags of tg-ws-proxy mean here what they mean there.
 */
export const FIELDS = {
  host: {
    flag: "host",
    section: "listening",
    live: false,
    kind: "value",
    value: "address",
    default: "127.0.0.1",
    help: "Address to listen on; 0.0.0.0 or :: for the whole network",
  },
  port: {
    flag: "port",
    section: "listening",
    live: false,
    kind: "value",
    value: "port",
    default: "1443",
    help: "Port to listen on; 0 picks a free one",
  },
  proxyProtocol: {
    flag: "proxy-protocol",
    section: "listening",
    live: true,
    kind: "switch",
    help: "Behind HAProxy or nginx: read the client's address from a PROXY header, v1 or v2",
  },
  trustedProxy: {
    flag: "trusted-proxy",
    section: "listening",
    live: true,
    kind: "list",
    value: "CIDR",
    default: "127.0.0.0/8,::1",
    example: "127.0.0.0/8",
    help: "Who may send PROXY headers; with commas between",
  },
  secret: {
    flag: "secret",
    section: "users",
    live: true,
    kind: "list",
    value: "[name:]secret",
    sensitive: true,
    example: "alice:0123456789abcdef0123456789abcdef",
    help: "16 bytes, hexadecimal or base64, the dd... or ee... of a link, or the link; up to 1000 of them. Without: one is made and kept",
  },
  fakeTlsDomain: {
    flag: "fake-tls-domain",
    section: "fakeTls",
    live: true,
    kind: "list",
    value: "domain",
    example: "www.example.com",
    help: "Look like this web site (fake TLS); up to 16 of them",
  },
  accept: {
    flag: "accept",
    section: "fakeTls",
    live: true,
    kind: "list",
    value: "forms",
    default: "plain,dd; with fake TLS: ee",
    example: "ee",
    help: "Forms of the secret that apps may use: plain, dd, ee; with commas between",
  },
  maskHost: {
    flag: "mask-host",
    section: "fakeTls",
    live: true,
    kind: "value",
    value: "host[:port]",
    default: "the domain",
    example: "127.0.0.1:8443",
    help: "Where the web site is that strangers are shown",
  },
  maskMax: {
    flag: "mask-max",
    section: "fakeTls",
    live: true,
    kind: "value",
    value: "number",
    default: "512",
    help: "Most strangers that are shown the web site at a time",
  },
  route: {
    flag: "route",
    section: "routes",
    live: true,
    kind: "list",
    value: "name",
    default: "all",
    example: "direct-ws",
    help: "Ways to Telegram, in the order of trying; with commas between",
  },
  dcIp: {
    flag: "dc-ip",
    section: "routes",
    live: true,
    kind: "list",
    value: "DC:IP[:port]",
    default: "2:149.154.167.220 4:149.154.167.220",
    example: "2:149.154.167.220",
    help: "Where a data centre is; the ones not named go by DNS",
  },
  dcTcp: {
    flag: "dc-tcp",
    section: "routes",
    live: true,
    kind: "list",
    value: "DC:IP[:port]",
    example: "2:149.154.167.51:443",
    help: "Where direct-tcp finds a data centre; the ones not named stay as built in",
  },
  frontDomain: {
    flag: "front-domain",
    section: "routes",
    live: true,
    kind: "value",
    value: "domain[:port]",
    example: "front.example.org",
    help: "The name that fronted-ws shows to the network",
  },
  cfproxyWorkerDomain: {
    flag: "cfproxy-worker-domain",
    section: "routes",
    live: true,
    kind: "list",
    value: "domain[:port]",
    example: "tg.example.workers.dev",
    help: "Your Cloudflare Worker, for cf-worker",
  },
  cfproxyWorkerToken: {
    flag: "cfproxy-worker-token",
    section: "routes",
    live: true,
    kind: "value",
    value: "token",
    sensitive: true,
    example: "a-token-of-yours",
    help: "What your Worker asks for before it serves",
  },
  cfproxyDomain: {
    flag: "cfproxy-domain",
    section: "routes",
    live: true,
    kind: "list",
    value: "domain[:port]",
    example: "example.org",
    help: "Your domain at Cloudflare, for cf-domain; without: the public list",
  },
  noCfproxy: {
    flag: "no-cfproxy",
    section: "routes",
    live: true,
    kind: "switch",
    help: "Leave out the route cf-domain",
  },
  cfproxyList: {
    flag: "cfproxy-list",
    section: "routes",
    live: true,
    kind: "value",
    value: "url",
    example: "https://example.org/domains.txt",
    help: "Another list of public domains for cf-domain; without: the one of tg-ws-proxy",
  },
  upstreamProxy: {
    flag: "upstream-proxy",
    section: "routes",
    live: true,
    kind: "value",
    value: "url",
    sensitive: true,
    example: "socks5://127.0.0.1:1080",
    help: "Reach everything through this proxy, http:// or socks5://, but for what NO_PROXY names",
  },
  resolve: {
    flag: "resolve",
    section: "routes",
    live: true,
    kind: "list",
    value: "NAME=IP",
    example: "kws2.web.telegram.org=149.154.167.220",
    help: "Do not ask DNS for this name; *.example.org=IP for all below it",
  },
  poolSize: {
    flag: "pool-size",
    section: "routes",
    live: true,
    kind: "value",
    value: "number",
    default: "4",
    help: "Connections kept ready for each data centre in use; 0: none",
  },
  forceTestDc: {
    flag: "force-test-dc",
    section: "routes",
    live: true,
    kind: "switch",
    help: "Send every client to Telegram's test servers",
  },
  tlsCa: {
    flag: "tls-ca",
    section: "routes",
    live: true,
    kind: "value",
    value: "file",
    example: "/etc/ssl/own-ca.pem",
    help: "Also trust the certificates in this PEM file",
  },
  noTlsVerify: {
    flag: "no-tls-verify",
    section: "routes",
    live: true,
    kind: "switch",
    help: "Accept any certificate (dangerous: others can pose as Telegram)",
  },
  maxConnections: {
    flag: "max-connections",
    section: "limits",
    live: true,
    kind: "value",
    value: "number",
    default: "what ulimit -n leaves room for",
    example: "10000",
    help: "Most connections of clients at a time",
  },
  maxPerAddress: {
    flag: "max-per-address",
    section: "limits",
    live: true,
    kind: "value",
    value: "number",
    example: "200",
    help: "Most connections of one IP address at a time",
  },
  addressRate: {
    flag: "address-rate",
    section: "limits",
    live: true,
    kind: "value",
    value: "number",
    example: "20",
    help: "Most new connections of one IP address per second",
  },
  handshakeSeconds: {
    flag: "handshake-seconds",
    section: "limits",
    live: true,
    kind: "value",
    value: "seconds",
    default: "10",
    help: "How long a client may take to show its secret",
  },
  bufKb: {
    flag: "buf-kb",
    section: "limits",
    live: true,
    kind: "value",
    value: "KB",
    default: "256",
    help: "Queue per connection and direction; when full, the sender waits",
  },
  bufferMb: {
    flag: "buffer-mb",
    section: "limits",
    live: true,
    kind: "value",
    value: "MB",
    default: "a quarter of the memory",
    example: "512",
    help: "Most bytes queued for all connections together; when reached, the longest stalled go",
  },
  allow: {
    flag: "allow",
    section: "limits",
    live: true,
    kind: "list",
    value: "CIDR|file",
    example: "192.168.0.0/16",
    help: "Only clients from these networks, with commas between; a file has one a line",
  },
  deny: {
    flag: "deny",
    section: "limits",
    live: true,
    kind: "list",
    value: "CIDR|file",
    example: "203.0.113.0/24",
    help: "No clients from these networks, also when they are allowed",
  },
  workers: {
    flag: "workers",
    section: "running",
    live: false,
    kind: "value",
    value: "number|auto",
    default: "1",
    help: "Processes that share the port (Linux); auto: one for each processor",
  },
  drainSeconds: {
    flag: "drain-seconds",
    section: "running",
    live: true,
    kind: "value",
    value: "seconds",
    default: "300",
    help: "How long sessions may go on in a worker that is being replaced",
  },
  status: {
    flag: "status",
    section: "running",
    live: false,
    kind: "value",
    value: "[host:]port",
    example: "127.0.0.1:9090",
    help: "Serve metrics and health at this address; a port alone is this machine only",
  },
  statusToken: {
    flag: "status-token",
    section: "running",
    live: false,
    kind: "value",
    value: "token",
    sensitive: true,
    example: "a-token-of-yours",
    help: "What readers of the status must show, as Authorization: Bearer <token>",
  },
  user: {
    flag: "user",
    section: "running",
    live: false,
    kind: "value",
    value: "name",
    example: "tgws",
    help: "Become this user of the system once the port is open",
  },
  group: {
    flag: "group",
    section: "running",
    live: false,
    kind: "value",
    value: "name",
    default: "the group of --user",
    example: "tgws",
    help: "Become this group of the system",
  },
  config: {
    flag: "config",
    section: "running",
    live: false,
    outsideFile: true,
    kind: "value",
    value: "file",
    default: "config.toml in the configuration folder",
    example: "/etc/tgws/config.toml",
    help: "Read settings from this file",
  },
  logLevel: {
    flag: "log-level",
    section: "logs",
    live: true,
    kind: "value",
    value: "error|warn|info|debug",
    default: "info",
    help: "Which log lines to write",
  },
  verbose: {
    flag: "verbose",
    short: "v",
    section: "logs",
    live: true,
    kind: "switch",
    help: "The same as --log-level debug, with stack traces",
  },
  logFormat: {
    flag: "log-format",
    section: "logs",
    live: false,
    kind: "value",
    value: "auto|pretty|plain|json",
    default: "auto",
    help: "How log lines look; auto: pretty on a terminal, else plain",
  },
  logFile: {
    flag: "log-file",
    section: "logs",
    live: false,
    kind: "value",
    value: "file",
    example: "/var/log/tgws.log",
    help: "Write the log to this file, too",
  },
  logMaxMb: {
    flag: "log-max-mb",
    section: "logs",
    live: false,
    kind: "value",
    value: "MB",
    default: "5",
    help: "Start a new log file when it is this big",
  },
  logBackups: {
    flag: "log-backups",
    section: "logs",
    live: false,
    kind: "value",
    value: "number",
    default: "0",
    help: "Old log files to keep, as file.1, file.2, ...",
  },
} as const satisfies Record<string, Field>;

/** The name of a setting in the program. */
export type FieldName = keyof typeof FIELDS;

/** Every setting, in the order of {@link FIELDS}. */
export const FIELD_NAMES = Object.keys(FIELDS) as readonly FieldName[];

/**
 * What was written for each setting, as text, in order; a switch has an empty text, and an empty list where it was
 * turned off. It is plain JSON: another process makes the same configuration of it.
 */
export type RawConfig = Readonly<Partial<Record<FieldName, readonly string[]>>> & {
  readonly users?: readonly RawUser[];
};
