/** What knows the addresses of names without asking DNS. */
export interface AddressBook {
  /** Returns the IP address for a host name, without brackets; `undefined` means: ask DNS. */
  addressOf(name: string): string | undefined;
}

/** A host name and the port where it is served. */
export interface DomainPort {
  /** Lower-case ASCII (IDN as punycode), without a trailing dot. */
  readonly domain: string;
  readonly port: number;
}

/** Formats it as text for people, and for what is remembered: the port only where it is not 443. */
export function describeDomain({ domain, port }: DomainPort): string {
  return port === 443 ? domain : `${domain}:${port}`;
}
