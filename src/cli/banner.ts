import { renderUnicodeCompact } from "uqr";
import type { Config } from "../config/config.ts";
import { DC_NUMBERS } from "../protocol/mtproto/dc.ts";
import { webSocketDc } from "../protocol/mtproto/dc-addresses.ts";
import { formatProxyLinks } from "../protocol/mtproto/proxy-link.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { isLoopback, linkHost } from "./lan-address.ts";

/** What a banner is about. */
export interface BannerFacts {
  readonly version: string;
  readonly config: Config;
  /** The port that is really listened on. */
  readonly port: number;
  readonly secrets: readonly NamedSecret[];
  /** Whether to draw a QR code. */
  readonly qr: boolean;
}

/** The text of the first minute: where the proxy is, how an app gets to it, and which way the data goes. */
export function formatBanner(facts: BannerFacts): string {
  const { version, config, port } = facts;
  const host = config.host.includes(":") ? `[${config.host}]` : config.host;
  const lines = [`tgws ${version}`, "", `  Listening on  ${host}:${port}`, ...formatLinks(facts), ""];
  if (isLoopback(config.host)) {
    lines.push("  Only apps on this computer can use it. For phones in the same network: --host 0.0.0.0", "");
  }
  lines.push(
    ...formatRoutes(config),
    "",
    "  Stop with Ctrl-C. Calls do not go through proxies of this kind.",
    "",
  );
  return lines.join("\n");
}

/** The links for every secret; the QR code is for the first. */
export function formatLinks({ config, port, secrets, qr }: Omit<BannerFacts, "version">): string[] {
  const lines: string[] = [];
  for (const [index, { name, key }] of secrets.entries()) {
    const links = formatProxyLinks({ host: linkHost(config.host), port, key, form: "padded" });
    if (secrets.length > 1) lines.push("", `  ${name}`);
    lines.push(`  Open in app   ${links.tg}`, `  Share         ${links.https}`);
    if (qr && index === 0) {
      lines.push(
        "",
        ...renderUnicodeCompact(links.https, { border: 2 })
          .split("\n")
          .map((row) => `  ${row}`),
      );
    }
  }
  return lines;
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
