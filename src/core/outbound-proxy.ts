/** A proxy of the user's own that connections to the outside go through. */
export interface OutboundProxy {
  /** `http` is HTTP CONNECT; `socks5` sends names to the proxy, as `socks5h` elsewhere. */
  readonly kind: "http" | "socks5";
  /** An IP address, IPv6 without brackets, or a name. */
  readonly host: string;
  readonly port: number;
  readonly username: string | undefined;
  readonly password: string | undefined;
  /** The entries of NO_PROXY, in lower case. */
  readonly bypass: readonly string[];
}
