import { type ClientHello, EXTENSION, GROUP, type KeyShare } from "./client-hello.ts";

/** TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256. */
export const TLS13_SUITES = [0x1301, 0x1302, 0x1303] as const;

/** How a web site answers the ClientHellos of TLS 1.3: what a first flight of ours is made to look like. */
export interface CoverProfile {
  /** Its suites, best first; `client` when it takes the client's first. */
  readonly suites: readonly number[] | "client";
  /** Which key exchange it prefers of those that it has, best first. */
  readonly groups: readonly number[];
  /** The extensions of its ServerHello in their order: 43 and 51. */
  readonly extensionOrder: readonly number[];
  /**
   * Bytes of the encrypted part of its flight as one record, without the header, as they were seen; a signature's
   * length changes from one connection to the next. Of a suite with SHA-256, for clients of today.
   */
  readonly flightSizes: readonly number[];
  /** The same for clients that do not offer ECH, to which some sites answer with less. */
  readonly olderFlightSizes: readonly number[];
}

/** How much longer the encrypted part is with SHA-384, as its Finished is. */
const SHA384_EXTRA = 16;
const SHA384_SUITE = 0x1302;

/** The suite that the site would choose; `undefined` when the client offers none of TLS 1.3. */
export function chooseSuite({ cipherSuites }: ClientHello, { suites }: CoverProfile): number | undefined {
  const offered = cipherSuites.filter((suite) => TLS13_SUITES.some((known) => known === suite));
  const preferred = suites === "client" ? undefined : suites.find((suite) => offered.includes(suite));
  return preferred ?? offered[0];
}

/** The client's key share that the site would answer; `undefined` when there is none that we can. */
export function chooseKeyShare({ keyShares }: ClientHello, { groups }: CoverProfile): KeyShare | undefined {
  for (const group of [...groups, GROUP.x25519]) {
    const share = keyShares.find((candidate) => candidate.group === group);
    if (share !== undefined && (group === GROUP.x25519 || group === GROUP.x25519MlKem768)) return share;
  }
  return undefined;
}

/**
 * The length of the encrypted part of an answer with `suite`: one of those that were seen.
 *
 * @param random From 0 to below 1.
 */
export function chooseFlightSize(
  hello: ClientHello,
  { flightSizes, olderFlightSizes }: CoverProfile,
  suite: number,
  random: number,
): number {
  const offersEch = hello.extensions.some(({ type }) => type === EXTENSION.encryptedClientHello);
  const sizes = offersEch ? flightSizes : olderFlightSizes;
  const size = sizes[Math.floor(random * sizes.length)] ?? 0;
  return suite === SHA384_SUITE ? size + SHA384_EXTRA : size;
}

/** What `size`, seen with `suite`, is with a suite of SHA-256. */
export function normalizeFlightSize(size: number, suite: number): number {
  return Math.max(1, suite === SHA384_SUITE ? size - SHA384_EXTRA : size);
}

/**
 * Returns what a site looks like that could not be measured: an ECDSA certificate with its chain, no server
 * preference, and the extensions in OpenSSL's order. The same for a domain at every start.
 */
export function defaultProfile(domain: string): CoverProfile {
  let hash = 0;
  for (const letter of domain) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) >>> 0;
  const base = 2_400 + (hash % 1_600);
  return {
    suites: "client",
    groups: [GROUP.x25519],
    extensionOrder: [EXTENSION.supportedVersions, EXTENSION.keyShare],
    flightSizes: [base, base + 1, base + 2],
    olderFlightSizes: [base, base + 1, base + 2],
  };
}
