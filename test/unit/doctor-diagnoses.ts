import type { TargetDiagnosis, WayDiagnosis } from "../../src/cli/doctor-diagnosis.ts";
import { RouteError, type RouteErrorCode } from "../../src/core/errors.ts";
import type { Inspection } from "../../src/net/inspect-endpoint.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";
import type { RouteId } from "../../src/upstream/route.ts";

export const PLAIN = { color: false, width: 100 };
export const DC2: DcTarget = { dc: 2, media: false, test: false };
export const DC2_MEDIA: DcTarget = { dc: 2, media: true, test: false };
export const DC5: DcTarget = { dc: 5, media: false, test: false };

export const fail = (code: RouteErrorCode, message: string = code, status?: number): RouteError =>
  new RouteError(code, message, status === undefined ? {} : { status });

/** `dns 12`, `tls TLS text`: stages as a test writes them. */
export function inspection(
  ...stages: readonly [name: "dns" | "tcp" | "tls" | "upgrade", ms: number, error?: RouteError][]
): Inspection {
  return {
    stages: stages.map(([name, ms, error]) => ({ name, ms, error, detail: undefined })),
    location: undefined,
    retryAfterMs: undefined,
  };
}

export const WHOLE = inspection(["tcp", 43], ["tls", 47.4], ["upgrade", 44]);

export function way(
  target: DcTarget,
  route: RouteId,
  outcome: WayDiagnosis["outcome"] | "ok",
  more: Partial<Pick<WayDiagnosis, "endpoint" | "inspection">> & { readonly host?: string } = {},
): WayDiagnosis {
  const { host = "149.154.167.220", endpoint = `${route}.example`, inspection = WHOLE } = more;
  return {
    target,
    route,
    endpoint,
    address: { host, port: 443, webSocket: undefined },
    inspection: "inspection" in more ? more.inspection : inspection,
    outcome: outcome === "ok" ? { openMs: 130, rttMs: 44.6, bytes: 104 } : outcome,
  };
}

export function diagnosis(target: DcTarget, ...ways: readonly WayDiagnosis[]): TargetDiagnosis {
  return { target, ways, leftOut: new Map(), missing: 0 };
}

/** Every target fails, or works, in the same way. */
export function everywhere(make: (target: DcTarget) => readonly WayDiagnosis[]): TargetDiagnosis[] {
  return [DC2, DC2_MEDIA, DC5].map((target) => diagnosis(target, ...make(target)));
}

export const MIXED: readonly TargetDiagnosis[] = [
  {
    target: DC2,
    ways: [
      way(DC2, "direct-ws", "ok", { endpoint: "kws2.web.telegram.org at 149.154.167.220" }),
      way(DC2, "cf-domain", fail("TIMEOUT", "no WebSocket within 4 s"), {
        endpoint: "kws2.example.co.uk",
        inspection: inspection(["dns", 12], ["tcp", 5_000, fail("TIMEOUT", "no answer within 5 s")]),
      }),
      way(DC2, "direct-tcp", fail("STALLED", "stopped after 16.2 KB"), {
        endpoint: "149.154.167.51:443",
        inspection: inspection(["tcp", 41]),
      }),
    ],
    leftOut: new Map([["cf-domain", 9]]),
    missing: 0,
  },
  {
    target: DC2_MEDIA,
    ways: [
      way(
        DC2_MEDIA,
        "direct-ws",
        { openMs: 100, rttMs: 61, bytes: 65_650 },
        { endpoint: "kws2-1.web.telegram.org at 149.154.167.220" },
      ),
    ],
    leftOut: new Map(),
    missing: 2,
  },
  { target: DC5, ways: [], leftOut: new Map(), missing: 0 },
];
