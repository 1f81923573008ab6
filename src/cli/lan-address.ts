import { networkInterfaces } from "node:os";

/** Interfaces of containers, virtual machines and tunnels: other devices at home do not see their addresses. */
const VIRTUAL =
  /^(?:docker|br-|veth|virbr|vmnet|vboxnet|vEthernet|tun|tap|utun|wg|tailscale|zt|podman|cni|lxc|lxd)/i;

/** Every way to write "all addresses". */
const UNSPECIFIED = /^(?:0+(?:\.0+){0,3}|[0:]*::?[0:]*)$/;

/**
 * The address to put into a link for a proxy that listens on `host`.
 *
 * For 0.0.0.0 and :: it is the address that this machine has in its network, IPv4 first; 127.0.0.1 when it
 * is in none. Any other host is returned as it is.
 */
export function linkHost(host: string): string {
  if (!UNSPECIFIED.test(host)) return host;
  const addresses = Object.entries(networkInterfaces())
    .sort(([a], [b]) => Number(VIRTUAL.test(a)) - Number(VIRTUAL.test(b)))
    .flatMap(([, entries]) => entries ?? [])
    .filter(
      ({ internal, address }) => !internal && !address.startsWith("fe80:") && !address.startsWith("169.254."),
    );
  const ipv4 = addresses.find(({ family }) => family === "IPv4");
  const ipv6 = host.includes(":") ? addresses.find(({ family }) => family === "IPv6") : undefined;
  return (ipv4 ?? ipv6)?.address ?? "127.0.0.1";
}

/** Whether only programs on this machine can reach `host`. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}
