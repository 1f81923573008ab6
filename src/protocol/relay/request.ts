import { FormatError } from "../../core/errors.ts";
import { DC_NUMBERS } from "../mtproto/dc.ts";

/**
 * What a Worker is asked to connect to, in the path of the WebSocket upgrade:
 *
 *     GET /apiws?dst=149.154.167.51&dc=2
 *
 * The names `dst` and `dc` are fixed: deployed Workers read them, with `URL.searchParams`.
 */
export interface RelayRequest {
  /** An IPv4 or IPv6 address, without brackets. The port is always Telegram's. */
  readonly dst: string;
  /** 1-5 or 203, for the Worker's own routing and logs. */
  readonly dc: number;
}

const PATH = "/apiws";
/** More than a percent-encoded IPv6 address and both names need. */
const MAX_LENGTH = 512;

/** Formats the path and query of a request, the inverse of {@link parseRelayPath}. */
export function formatRelayPath({ dst, dc }: RelayRequest): string {
  return `${PATH}?dst=${encodeURIComponent(dst)}&dc=${dc}`;
}

/**
 * Reads the path and query of a request. Parameters may come in any order; others than the two are ignored.
 *
 * This checks the form only: whether `dst` is an address of Telegram's is the relay's to decide.
 *
 * @throws {FormatError} `BAD_VALUE` for another path, a parameter that is missing or there twice, or a data
 * centre that does not exist; `BAD_ADDRESS` when `dst` is not an IP address. The text is not quoted.
 */
export function parseRelayPath(path: string): RelayRequest {
  if (path.length > MAX_LENGTH) throw refusal("it is too long");
  const question = path.indexOf("?");
  if (question < 0 || path.slice(0, question) !== PATH) throw refusal("it is another path");
  const parameters = parseQuery(path.slice(question + 1));
  const dst = only(parameters, "dst");
  if (!isIpAddress(dst))
    throw new FormatError("BAD_ADDRESS", "Cannot parse relay path: dst is not an IP address");
  const dc = only(parameters, "dc");
  const number = DC_NUMBERS.find((known) => String(known) === dc);
  if (number === undefined) throw refusal("there is no such dc");
  return { dst, dc: number };
}

function parseQuery(query: string): Map<string, string[]> {
  const parameters = new Map<string, string[]>();
  for (const part of query.split("&")) {
    const equals = part.indexOf("=");
    const name = decode(equals < 0 ? part : part.slice(0, equals));
    const values = parameters.get(name) ?? [];
    values.push(equals < 0 ? "" : decode(part.slice(equals + 1)));
    parameters.set(name, values);
  }
  return parameters;
}

/** Of two values, one reader takes the first and another the last: neither can be trusted to be the checked one. */
function only(parameters: ReadonlyMap<string, readonly string[]>, name: string): string {
  const [value, ...more] = parameters.get(name) ?? [];
  if (value === undefined) throw refusal(`${name} is missing`);
  if (more.length > 0) throw refusal(`${name} is there twice`);
  return value;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw refusal("its escapes are broken");
  }
}

function refusal(why: string): FormatError {
  return new FormatError("BAD_VALUE", `Cannot parse relay path: ${why}`, "/apiws?dst=<IP>&dc=<number>");
}

const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);

function isIpAddress(text: string): boolean {
  return IPV4.test(text) || isIpv6(text);
}

/** Eight groups, of which `::` may stand for one or more, and an IPv4 address for the last two. */
function isIpv6(text: string): boolean {
  const halves = text.split("::");
  if (halves.length > 2 || text.length > 45) return false;
  const groups = halves.flatMap((half) => (half === "" ? [] : half.split(":")));
  const last = groups.at(-1) ?? "";
  const endsInIpv4 = last.includes(".") && text.endsWith(last);
  if (endsInIpv4 && !IPV4.test(last)) return false;
  const hexadecimal = endsInIpv4 ? groups.slice(0, -1) : groups;
  if (!hexadecimal.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return false;
  const count = hexadecimal.length + (endsInIpv4 ? 2 : 0);
  return halves.length === 2 ? count < 8 : count === 8;
}
