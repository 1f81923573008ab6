import { formatBytes } from "../core/bytes.ts";
import { type Figures, type PoolFigures, type RouteFigures, sumOf, type Tally } from "./figures.ts";
import { averageMs } from "./histogram.ts";

/** The counters of tg-ws-proxy, by their names there. */
export interface StatsSnapshot {
  readonly connections_total: number;
  readonly connections_active: number;
  /** Served over Telegram's own WebSocket front ends. */
  readonly connections_ws: number;
  readonly connections_tcp_fallback: number;
  /** Served through a Worker or a domain behind Cloudflare. */
  readonly connections_cfproxy: number;
  /** Strangers: a wrong secret, or no Telegram client. */
  readonly connections_bad: number;
  /** Those that were shown the cover site. */
  readonly connections_masked: number;
  /** Attempts to open a WebSocket for a client that failed. */
  readonly ws_errors: number;
  readonly bytes_up: number;
  readonly bytes_down: number;
  /** Between strangers and the cover site: in none of the other two. */
  readonly masked_bytes_up: number;
  readonly masked_bytes_down: number;
  readonly pool_hits: number;
  readonly pool_misses: number;
  readonly cf_pool_hits: number;
  readonly cf_pool_misses: number;
}

const CF_ROUTES: readonly string[] = ["cf-worker", "cf-domain"];
const WS_ROUTES: readonly string[] = ["direct-ws", "fronted-ws"];

/** The figures in tg-ws-proxy's words. */
export function snapshotOf({ connections, bytes, routes, pools }: Figures): StatsSnapshot {
  return {
    connections_total: connections.total,
    connections_active: connections.active,
    connections_ws: winsOf(routes, WS_ROUTES),
    connections_tcp_fallback: winsOf(routes, ["direct-tcp"]),
    connections_cfproxy: winsOf(routes, CF_ROUTES),
    connections_bad: connections.ended["stranger"] ?? 0,
    connections_masked: sumOf(connections.masked),
    ws_errors: webSocketErrorsOf(routes),
    bytes_up: bytes.up,
    bytes_down: bytes.down,
    masked_bytes_up: bytes.maskedUp,
    masked_bytes_down: bytes.maskedDown,
    pool_hits: pools.routes.hits,
    pool_misses: pools.routes.misses,
    cf_pool_hits: pools.cf.hits,
    cf_pool_misses: pools.cf.misses,
  };
}

/** One line for a person, in tg-ws-proxy's format. */
export function formatSummary(figures: Figures): string {
  const now = snapshotOf(figures);
  return [
    `total=${now.connections_total}`,
    `active=${now.connections_active}`,
    `ws=${now.connections_ws}`,
    `tcp_fb=${now.connections_tcp_fallback}`,
    `cf=${now.connections_cfproxy}`,
    `bad=${now.connections_bad}`,
    `masked=${now.connections_masked}`,
    `err=${now.ws_errors}`,
    `pool=${formatHits(figures.pools.routes)}`,
    `cf_pool=${formatHits(figures.pools.cf)}`,
    `up=${formatBytes(now.bytes_up)}`,
    `down=${formatBytes(now.bytes_down)}`,
  ].join(" ");
}

/** One line for those who were not served, where there are any, and for each route and data centre. */
export function formatStatLines({ connections, bytes, routes }: Figures): string[] {
  const { masked, refused, badHeaders } = connections;
  const lines: string[] = [];
  if (sumOf(masked) > 0) {
    const [up, down] = [formatBytes(bytes.maskedUp), formatBytes(bytes.maskedDown)];
    lines.push(`masked ${formatTally(masked)} up=${up} down=${down}`);
  }
  const notServed = { ...badHeaders, ...refused };
  if (sumOf(notServed) > 0) lines.push(`refused ${formatTally(notServed)}`);
  return [...lines, ...routes.map(formatRoute)];
}

function formatRoute(figures: RouteFigures): string {
  const { route, dc, attempts, sessions, lost, failures, opening, bytesUp, bytesDown } = figures;
  const failed = Object.entries(failures).map(([code, count]) => `${code}:${count}`);
  const average = averageMs(opening);
  return [
    `route=${route}`,
    `dc=${dc}`,
    `attempts=${attempts}`,
    `wins=${sessions - lost}`,
    `failed=${failed.join(",") || "none"}`,
    `open=${average === undefined ? "n/a" : `${Math.round(average)}ms`}`,
    `up=${formatBytes(bytesUp)}`,
    `down=${formatBytes(bytesDown)}`,
  ].join(" ");
}

function winsOf(all: readonly RouteFigures[], routes: readonly string[]): number {
  let wins = 0;
  for (const { route, sessions, lost } of all) if (routes.includes(route)) wins += sessions - lost;
  return wins;
}

function webSocketErrorsOf(routes: readonly RouteFigures[]): number {
  let errors = 0;
  for (const { route, failures } of routes) if (route !== "direct-tcp") errors += sumOf(failures);
  return errors;
}

function formatTally(tally: Tally): string {
  return Object.entries(tally)
    .map(([name, count]) => `${name}=${count}`)
    .join(" ");
}

function formatHits({ hits, misses }: PoolFigures): string {
  return hits + misses === 0 ? "n/a" : `${hits}/${hits + misses}`;
}
