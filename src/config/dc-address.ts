import { FormatError } from "../core/errors.ts";
import { ipVersion } from "../core/ip-address.ts";
import { type DcAddress, TELEGRAM_PORT } from "../protocol/mtproto/dc-addresses.ts";
import { parseInteger } from "./numbers.ts";
import { quote } from "./quote.ts";

const DC_ADDRESS = /^(?<dc>\d+):(?:\[(?<ipv6>[^\]]+)\]|(?<ipv4>[^:]+))(?::(?<port>\d+))?$/;

/**
 * Reads `DC:IP`, `DC:IP:port` and `DC:[IPv6]:port`; an IPv6 address without a port may go without brackets.
 *
 * @param known The numbers that name a data centre.
 * @throws {FormatError} `BAD_ADDRESS`; `BAD_VALUE` for the port.
 */
export function parseDcAddress(text: string, known: readonly number[]): { dc: number } & DcAddress {
  const bare = /^(\d+):(.+)$/.exec(text);
  const groups =
    bare !== null && ipVersion(bare[2] ?? "") === 6
      ? { dc: bare[1] ?? "", ip: bare[2] ?? "", port: undefined }
      : pickGroups(DC_ADDRESS.exec(text));
  const hint = /[,;]/.test(text)
    ? "repeat the flag for each"
    : "for example 2:149.154.167.220, 2:149.154.167.220:8443 or 2:[2001:67c:4e8:f002::a]:443";
  if (groups === undefined || /[,;]/.test(text))
    throw new FormatError("BAD_ADDRESS", "not of the form DC:IP[:port]", hint);
  const dc = Number(groups.dc);
  if (!known.includes(dc)) {
    throw new FormatError(
      "BAD_ADDRESS",
      `there is no DC ${groups.dc}`,
      `the data centres are ${known.join(", ")}`,
    );
  }
  if (ipVersion(groups.ip) === 0 || groups.ip.includes("%"))
    throw new FormatError("BAD_ADDRESS", `${quote(groups.ip)} is not an IP address`, hint);
  const port = groups.port === undefined ? TELEGRAM_PORT : parseInteger(groups.port, 1, 65_535);
  return { dc, ip: groups.ip, port };
}

function pickGroups(
  match: RegExpExecArray | null,
): { dc: string; ip: string; port: string | undefined } | undefined {
  const { dc, ipv4, ipv6, port } = match?.groups ?? {};
  const ip = ipv6 ?? ipv4;
  return dc === undefined || ip === undefined ? undefined : { dc, ip, port };
}
