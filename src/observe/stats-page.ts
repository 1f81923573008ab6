import { snapshotOf } from "./stats-text.ts";
import type { StatusReport } from "./status-report.ts";

/**
 * The lines of `/stats`, as MTProxy's page has them: `key<TAB>value`.
 *
 * Where the meaning is the same, the key is MTProxy's; the other keys begin with `tgws_`. Bytes, seconds, and
 * seconds since 1970. What is not known, or has no limit, is left out.
 */
export function statsOf(report: StatusReport): ReadonlyMap<string, string | number> {
  const { figures, limits, config, process } = report;
  const { connections, log } = figures;
  const users = Object.values(figures.users);
  const lines: readonly (readonly [string, string | number | undefined])[] = [
    ["pid", process.pid],
    ["start_time", seconds(report.startedAt)],
    ["current_time", seconds(report.time)],
    ["uptime", seconds(report.time - report.startedAt)],
    ["vmrss_bytes", process.rssBytes],
    ["config_filename", config.file],
    ["config_loaded_at", seconds(config.loadedAt)],
    // One process that does everything is none, as there.
    ["workers", report.workers.length > 1 ? report.workers.length : 0],
    ["total_special_connections", connections.active],
    ["total_max_special_connections", limits.maxConnections],
    ["ext_connections", users.reduce((sum, { active }) => sum + active, 0)],
    ["ext_connections_created", users.reduce((sum, { sessions }) => sum + sessions, 0)],
    ["total_network_buffers_used_size", figures.queuedBytes],
    ["connections_failed_lru", connections.ended["overload"] ?? 0],
    ["version", `tgws-${report.version}`],
    ...Object.entries(snapshotOf(figures)).map(([key, value]) => [`tgws_${key}`, value] as const),
    ["tgws_connections_shed", connections.shed],
    ["tgws_log_lines_written", log.written],
    ["tgws_log_lines_folded", log.folded],
    ["tgws_log_lines_dropped", log.dropped],
  ];
  return new Map(lines.flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const])));
}

/** The page: {@link statsOf}, then connections by reason, then the users. */
export function formatStatsPage(report: StatusReport): string {
  const { ended, masked, refused } = report.figures.connections;
  const lines = [...statsOf(report)].map(([key, value]) => `${key}\t${clean(value)}`);
  for (const [what, tally] of Object.entries({ ended, masked, refused })) {
    for (const [reason, count] of Object.entries(tally))
      lines.push(`tgws_${what}_${snake(reason)}\t${count}`);
  }
  for (const { name, connections, addresses, up, down } of report.users) {
    const user = `tgws_user_${name}`;
    lines.push(`${user}_connections\t${connections}`, `${user}_addresses\t${addresses}`);
    lines.push(`${user}_bytes_up\t${up}`, `${user}_bytes_down\t${down}`);
  }
  return `${lines.join("\n")}\n`;
}

function seconds(ms: number): number {
  return Math.floor(ms / 1_000);
}

function snake(name: string): string {
  return name.replaceAll("-", "_");
}

/** A file's name may hold anything. */
function clean(value: string | number): string {
  return String(value).replaceAll(/\p{Cc}/gu, " ");
}
