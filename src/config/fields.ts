/** How a field is written on the command line. */
export interface Field {
  /** Without the leading dashes. */
  readonly flag: string;
  /** One letter, without the dash. */
  readonly short?: string;
  /** `switch` takes no value; `list` may be repeated. */
  readonly kind: "value" | "list" | "switch";
  /** What stands for the value in the help text. */
  readonly value?: string;
  /** The default, as the help text shows it. */
  readonly default?: string;
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
    kind: "value",
    value: "address",
    default: "127.0.0.1",
    help: "Address to listen on; 0.0.0.0 or :: for the whole network",
  },
  port: {
    flag: "port",
    kind: "value",
    value: "port",
    default: "1443",
    help: "Port to listen on; 0 picks a free one",
  },
  secret: {
    flag: "secret",
    kind: "list",
    value: "[name:]secret",
    sensitive: true,
    help: "16 bytes, hexadecimal or base64, the dd... or ee... of a link, or the link; up to 16 of them. Without: one is made and kept",
  },
  fakeTlsDomain: {
    flag: "fake-tls-domain",
    kind: "list",
    value: "domain",
    help: "Look like this web site (fake TLS); up to 16 of them",
  },
  accept: {
    flag: "accept",
    kind: "list",
    value: "forms",
    default: "plain,dd; with fake TLS: ee",
    help: "Forms of the secret that apps may use: plain, dd, ee; with commas between",
  },
  maskHost: {
    flag: "mask-host",
    kind: "value",
    value: "host[:port]",
    default: "the domain",
    help: "Where the web site is that strangers are shown",
  },
  maskMax: {
    flag: "mask-max",
    kind: "value",
    value: "number",
    default: "512",
    help: "Most strangers that are shown the web site at a time",
  },
  proxyProtocol: {
    flag: "proxy-protocol",
    kind: "switch",
    help: "Behind HAProxy or nginx: read the client's address from a PROXY header, v1 or v2",
  },
  trustedProxy: {
    flag: "trusted-proxy",
    kind: "list",
    value: "CIDR",
    default: "127.0.0.0/8,::1",
    help: "Who may send PROXY headers; with commas between",
  },
  route: {
    flag: "route",
    kind: "list",
    value: "name",
    default: "all",
    help: "Ways to Telegram, in the order of trying; with commas between",
  },
  dcIp: {
    flag: "dc-ip",
    kind: "list",
    value: "DC:IP[:port]",
    default: "2:149.154.167.220 4:149.154.167.220",
    help: "Where a data centre is; the ones not named go by DNS",
  },
  dcTcp: {
    flag: "dc-tcp",
    kind: "list",
    value: "DC:IP[:port]",
    help: "Where direct-tcp finds a data centre; the ones not named stay as built in",
  },
  frontDomain: {
    flag: "front-domain",
    kind: "value",
    value: "domain[:port]",
    help: "The name that fronted-ws shows to the network",
  },
  cfproxyWorkerDomain: {
    flag: "cfproxy-worker-domain",
    kind: "list",
    value: "domain[:port]",
    help: "Your Cloudflare Worker, for cf-worker",
  },
  cfproxyWorkerToken: {
    flag: "cfproxy-worker-token",
    kind: "value",
    value: "token",
    sensitive: true,
    help: "What your Worker asks for before it serves",
  },
  cfproxyDomain: {
    flag: "cfproxy-domain",
    kind: "list",
    value: "domain[:port]",
    help: "Your domain at Cloudflare, for cf-domain; without: the public list",
  },
  noCfproxy: { flag: "no-cfproxy", kind: "switch", help: "Leave out the route cf-domain" },
  cfproxyList: {
    flag: "cfproxy-list",
    kind: "value",
    value: "url",
    help: "Another list of public domains for cf-domain; without: the one of tg-ws-proxy",
  },
  upstreamProxy: {
    flag: "upstream-proxy",
    kind: "value",
    value: "url",
    sensitive: true,
    help: "Reach everything through this proxy, http:// or socks5://, but for what NO_PROXY names",
  },
  resolve: {
    flag: "resolve",
    kind: "list",
    value: "NAME=IP",
    help: "Do not ask DNS for this name; *.example.org=IP for all below it",
  },
  poolSize: {
    flag: "pool-size",
    kind: "value",
    value: "number",
    default: "4",
    help: "Connections kept ready for each data centre in use; 0: none",
  },
  bufKb: {
    flag: "buf-kb",
    kind: "value",
    value: "KB",
    default: "256",
    help: "Queue per connection and direction; when full, the sender waits",
  },
  forceTestDc: {
    flag: "force-test-dc",
    kind: "switch",
    help: "Send every client to Telegram's test servers",
  },
  tlsCa: {
    flag: "tls-ca",
    kind: "value",
    value: "file",
    help: "Also trust the certificates in this PEM file",
  },
  noTlsVerify: {
    flag: "no-tls-verify",
    kind: "switch",
    help: "Accept any certificate (dangerous: others can pose as Telegram)",
  },
  logFile: { flag: "log-file", kind: "value", value: "file", help: "Write the log to this file, too" },
  logMaxMb: {
    flag: "log-max-mb",
    kind: "value",
    value: "MB",
    default: "5",
    help: "Start a new log file when it is this big",
  },
  logBackups: {
    flag: "log-backups",
    kind: "value",
    value: "number",
    default: "0",
    help: "Old log files to keep, as file.1, file.2, ...",
  },
  verbose: { flag: "verbose", short: "v", kind: "switch", help: "Log every step, and stack traces" },
} as const satisfies Record<string, Field>;

/** The name of a setting in the program. */
export type FieldName = keyof typeof FIELDS;

/** What was written for each setting, as text, in order; a switch has an empty text. */
export type RawConfig = Readonly<Partial<Record<FieldName, readonly string[]>>>;
