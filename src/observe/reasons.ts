import type { ProxyHeaderFault } from "../core/errors.ts";
import type { EndReason, MaskReason } from "../core/events.ts";

/** Every {@link EndReason}: counters of those that have not happened yet are shown as 0. */
export const END_REASONS = namesOf<EndReason>({
  "client-closed": true,
  "upstream-closed": true,
  "client-error": true,
  "upstream-error": true,
  idle: true,
  stalled: true,
  "network-changed": true,
  stranger: true,
  masked: true,
  "bad-proxy-header": true,
  "left-early": true,
  "no-route": true,
  refused: true,
  revoked: true,
  overload: true,
  shutdown: true,
  "internal-error": true,
});

/** Every {@link MaskReason}. */
export const MASK_REASONS = namesOf<MaskReason>({
  "not-tls": true,
  "bad-hello": true,
  digest: true,
  skew: true,
  "server-name": true,
  replay: true,
  unsupported: true,
  silent: true,
  refused: true,
});

/** Every {@link ProxyHeaderFault}. */
export const PROXY_HEADER_FAULTS = namesOf<ProxyHeaderFault>({
  missing: true,
  malformed: true,
  untrusted: true,
});

/** The compiler sees that no name is missing. */
function namesOf<Name extends string>(names: Readonly<Record<Name, true>>): readonly string[] {
  return Object.keys(names);
}
