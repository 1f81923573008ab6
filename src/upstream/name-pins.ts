/** Names whose addresses the user gave, so that DNS is not asked. */
export interface Pins {
  addressOf(name: string): string | undefined;
}

/** A server of the user's choice. */
export interface DomainPort {
  readonly domain: string;
  readonly port: number;
}

/** Text for people and for cooldowns: the port only where it is not the usual one. */
export function describeDomain({ domain, port }: DomainPort): string {
  return port === 443 ? domain : `${domain}:${port}`;
}
