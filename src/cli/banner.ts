import { isatty } from "node:tty";
import type { Config } from "../config/config.ts";
import { DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import { webSocketDc } from "../protocol/mtproto/dc-addresses.ts";
import { formatProxyLinks } from "../protocol/mtproto/proxy-link.ts";
import type { NamedSecret, SecretForm } from "../protocol/mtproto/secret.ts";
import { wrap } from "./doctor-text.ts";
import { isLoopback, linkHost } from "./lan-address.ts";

/** What a banner is about. */
export interface BannerFacts {
  readonly version: string;
  readonly config: Config;
  /** The port that is really listened on. */
  readonly port: number;
  readonly secrets: readonly NamedSecret[];
  /** Without it, no QR code is drawn. */
  readonly drawQrCode: ((text: string) => readonly string[]) | undefined;
}

const STDOUT = 1;

/** What draws QR codes, loaded where somebody can see them; `undefined` unless standard output is a terminal. */
export async function loadQrCodes(): Promise<BannerFacts["drawQrCode"]> {
  if (!isatty(STDOUT)) return undefined; // a service does without
  const { drawQrCode } = await import("./qr-code.ts");
  return (text) => drawQrCode(text, process.stdout.columns);
}

/** Columns that lists are broken at; links are as long as they are. */
const WIDTH = 80;
/** What stands before the text of a line: two spaces and its label. */
const LABEL_WIDTH = 16;
const HTTPS_PORT = 443;
/** Whose links are printed at the start. */
const MOST_SHOWN = 8;

/** The text of the first minute: where the proxy is, how an app gets to it, and which way the data goes. */
export function formatBanner(facts: BannerFacts): string {
  const { version, config, port } = facts;
  const host = config.host.includes(":") ? `[${config.host}]` : config.host;
  return [
    `tgws ${version}`,
    "",
    `  Listening on  ${host}:${port}`,
    ...formatLooks(config),
    ...(config.proxyProtocol ? formatLinkCommand(config) : formatFirstLinks(facts)),
    "",
    ...formatTips(config, port),
    ...formatRoutes(config),
    "",
    "  Stop with Ctrl-C. Calls do not go through proxies of this kind.",
    "",
  ].join("\n");
}

/** The links of those who are served, unless there are too many to be looked at. */
function formatFirstLinks(facts: BannerFacts): string[] {
  const { config } = facts;
  const disabled = new Set(config.users.filter(({ enabled }) => !enabled).map(({ name }) => name));
  const served = facts.secrets.filter(({ name }) => !disabled.has(name));
  const more = served.length - MOST_SHOWN;
  const lines = formatLinks({ ...facts, secrets: served.slice(0, MOST_SHOWN) });
  return more > 0 ? [...lines, "", `  and ${more} more: tgws users link NAME`] : lines;
}

/** The links for every secret, in each form that it is accepted in; the QR code is for the first of all. */
export function formatLinks({ config, port, secrets, drawQrCode }: Omit<BannerFacts, "version">): string[] {
  const forms = listForms(config);
  const host = linkHost(config.host);
  const lines: string[] = [];
  let drawn = false;
  for (const { name, key } of secrets) {
    for (const form of forms) {
      const links = formatProxyLinks({ host, port, key, form });
      const labels = [
        ...(secrets.length > 1 ? [name] : []),
        ...(forms.length > 1 ? [describeForm(form)] : []),
      ];
      if (labels.length > 0) lines.push("", `  ${labels.join(", ")}`);
      lines.push(`  Open in app   ${links.tg}`, `  Share         ${links.https}`);
      if (!drawn && drawQrCode !== undefined) lines.push("", ...drawQrCode(links.https));
      drawn = true;
    }
  }
  return lines;
}

/** How to get the links where it is not known here what people reach: a proxy before this one. */
function formatLinkCommand(config: Config): string[] {
  const { fakeTlsDomains, fileUsers } = config;
  const secrets = config.secrets.filter(({ name }) => !fileUsers.includes(name)); // the others are found by it
  const words = ["tgws link --host <name> --port <port>"];
  for (const { name } of secrets)
    words.push(`--secret ${secrets.length > 1 ? `${name}:<secret>` : "<secret>"}`);
  if (fakeTlsDomains.length > 0) words.push(`--fake-tls-domain ${fakeTlsDomains.join(",")}`);
  const forms = [...new Set(listForms(config).map(prefixOf))].join(",");
  const usual = fakeTlsDomains.length > 0 ? "ee" : "dd";
  if (forms !== usual) words.push(`--accept ${forms}`);
  return [`  Links         ${words.join(" ")}`];
}

/** Fake TLS first: who has turned it on wants it used. Padding costs little, so plain is for who refuses it. */
function listForms({ accept, fakeTlsDomains }: Config): SecretForm[] {
  const forms: SecretForm[] = fakeTlsDomains.map((fakeTls) => ({ fakeTls }));
  if (accept.padded) forms.push("padded");
  else if (accept.plain) forms.push("plain");
  return forms;
}

/** As `--accept` names it. */
function prefixOf(form: SecretForm): string {
  if (typeof form === "object") return "ee";
  return form === "padded" ? "dd" : "plain";
}

function describeForm(form: SecretForm): string {
  return typeof form === "object" ? form.fakeTls : "without fake TLS";
}

/** Which site the proxy passes for, when it does. */
function formatLooks({ fakeTlsDomains }: Config): string[] {
  if (fakeTlsDomains.length === 0) return [];
  const sites = fakeTlsDomains.length === 1 ? "that site" : "those sites";
  return wrap(`${fakeTlsDomains.join(", ")} (strangers see ${sites})`, {
    width: WIDTH,
    first: "  Looks like".padEnd(LABEL_WIDTH),
    others: " ".repeat(LABEL_WIDTH),
  });
}

/** What a newcomer may not know, each in a paragraph of its own. */
function formatTips(config: Config, port: number): string[] {
  if (config.proxyProtocol) {
    const who = `Only proxies at ${config.trustedProxies.join(", ")} can use it, with the PROXY protocol.`;
    return [...wrap(who, { width: WIDTH, first: "  ", others: "  " }), ""];
  }
  if (isLoopback(config.host)) {
    return ["  Only apps on this computer can use it. For phones in the same network: --host 0.0.0.0", ""];
  }
  if (config.accept.fakeTls && port !== HTTPS_PORT)
    return ["  Web sites are at port 443: --port 443 looks real", ""];
  return [];
}

/** In which order ways are tried at first, and where the first leads. */
function formatRoutes({ routes, dcAddresses, forceTestDc }: Config): string[] {
  const lines = [`  Routes        ${routes.join(", then ")}`];
  if (forceTestDc) return [...lines, "                all clients go to the test servers"];
  if (!routes.includes("direct-ws")) return lines;
  const ways = new Map<string, number[]>();
  for (const dc of DC_NUMBERS) {
    const address = dcAddresses.get(dc) ?? dcAddresses.get(webSocketDc(dc));
    const port = address === undefined || address.port === 443 ? "" : `, port ${address.port}`;
    const way = address === undefined ? "found by DNS" : `at ${address.ip}${port}`;
    ways.set(way, [...(ways.get(way) ?? []), dc]);
  }
  for (const [way, dcs] of ways) lines.push(`                direct-ws for DC ${dcs.join(", ")} ${way}`);
  return lines;
}
