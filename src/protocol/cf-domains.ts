/**
 * The public list of domains that pass WebSockets on to Telegram through Cloudflare.
 *
 * One encoded name a line. A name is a label and `.com`: the letters of the label are rotated forward by as
 * many places as it has letters, and `.com` stands for `.co.uk`. A name with another suffix is plain.
 *
 *     virkgj.com  ->  6 letters: v-6 i-6 r-6 k-6 g-6 j-6  ->  pclead.co.uk
 *
 * @see https://github.com/Flowseal/tg-ws-proxy/blob/main/.github/cfproxy-domains.txt
 */

/** A list with fewer names is damaged, or no list at all. */
export const MIN_DOMAINS = 3;

/** Names beyond these are ignored: the list has a few dozen. */
export const MAX_DOMAINS = 200;

const MAX_LINES = 1_000;
const ENCODED_SUFFIX = ".com";
const DECODED_SUFFIX = ".co.uk";
const ALPHABET = 26;

/** The list as it was when this was built, for {@link parseDomainList}: it serves until a newer one has come. */
export const DEFAULT_CF_LIST = `
virkgj.com
vmmzovy.com
mkuosckvso.com
zaewayzmplad.com
twdmbzcm.com
awzwsldi.com
clngqrflngqin.com
tjacxbqtj.com
bxaxtxmrw.com
dmohrsgmohcrwb.com
vwbmtmoi.com
khgrre.com
ulihssf.com
tmhqsdqmfpmk.com
xwuwoqbm.com
orgcnunpj.com
zhkuldz.com
zypoljnslxa.com
efabnxaowuzs.com
zaftuzsftqdq.com
`;

/**
 * Reads the names of a list, decoded, in order.
 *
 * Blank lines, comments (`#`) and lines that give no domain name are skipped, and so is a name that was there
 * before, in whatever case. Reads {@link MAX_DOMAINS} names at most.
 */
export function parseDomainList(text: string): string[] {
  const domains = new Map<string, string>();
  for (const line of text.split("\n", MAX_LINES)) {
    const name = line.trim();
    if (name === "" || name.startsWith("#")) continue;
    const domain = decodeDomain(name);
    if (domain === undefined || domains.has(domain.toLowerCase())) continue;
    domains.set(domain.toLowerCase(), domain);
    if (domains.size === MAX_DOMAINS) break;
  }
  return [...domains.values()];
}

/** Returns the domain that one name of the list stands for, its case kept; `undefined` when it stands for none. */
export function decodeDomain(encoded: string): string | undefined {
  const domain = encoded.endsWith(ENCODED_SUFFIX)
    ? rotateBack(encoded.slice(0, -ENCODED_SUFFIX.length)) + DECODED_SUFFIX
    : encoded;
  return isDomainName(domain) ? domain : undefined;
}

/**
 * Whether `text` is a full host name in ASCII: two labels or more, at most 253 characters, no trailing dot.
 *
 * The last label holds a letter, which tells names from IPv4 addresses.
 */
export function isDomainName(text: string): boolean {
  if (text.length > 253) return false;
  const labels = text.split(".");
  if (labels.length < 2 || !/[a-z]/i.test(labels.at(-1) ?? "")) return false;
  return labels.every((label) => /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i.test(label));
}

function rotateBack(label: string): string {
  const places = label.match(/[a-z]/gi)?.length ?? 0;
  return label.replace(/[a-z]/gi, (letter) => {
    const first = letter < "a" ? 0x41 : 0x61;
    const place = (letter.charCodeAt(0) - first - (places % ALPHABET) + ALPHABET) % ALPHABET;
    return String.fromCharCode(first + place);
  });
}
