import { clientPorts } from "./census.ts";
import type { ConfigValues, SoakUser } from "./config-text.ts";
import type { Judge } from "./judge.ts";
import type { Part } from "./options.ts";
import { type DcOrder, type DcReport, DOOR_FAILURES, type LoadOrder, type LoadReport } from "./orders.ts";
import type { SoakProxy, Telling } from "./proxy.ts";
import type { Random } from "./random.ts";
import type { Talker } from "./talker.ts";

/** What faults work on. */
export interface Rig {
  readonly proxy: SoakProxy;
  readonly dc: Talker<DcOrder, DcReport>;
  readonly load: Talker<LoadOrder, LoadReport>;
  readonly judge: Judge;
  readonly random: Random;
  /** Users that are always there. */
  readonly residents: readonly SoakUser[];
  /** Users that come and go. */
  readonly guests: readonly SoakUser[];
  /** Has `maxConnections`. */
  readonly limited: SoakUser;
  /** How long a fault lasts at most, in milliseconds. */
  readonly longestMs: number;
  readonly drainMs: number;
  /** Live sessions of a user at the last report. */
  liveOf(user: string): number;
  /** Something did not go as it should. */
  complain(what: string): void;
}

/** One kind of trouble. */
export type Fault = (rig: Rig) => Promise<void>;

/** How long a change may take until it holds on a busy machine, in milliseconds. */
const SETTLE_MS = 3_000;
const REVOKED_WITHIN_MS = 15_000;
const RESTARTED_WITHIN_MS = 30_000;
/** Clocks and timers may be off by so much. */
const PUNCTUAL_MS = 500;
/** Shorter than the proxy takes to give up on a data centre. */
const FREEZE_MS = 2_000;
/** Of the open connections. */
const DROP_SHARE = 0.03;

/** One route of the second data centre fails for new connections. No session may notice. */
async function breakRoute({ dc, random, longestMs }: Rig): Promise<void> {
  const door = random.chance(0.6) ? "ws" : "tcp";
  const state = random.pick(DOOR_FAILURES[door]);
  await orderDoor(dc, { type: "door", door, state });
  await Bun.sleep(random.between(0.3, 1) * longestMs);
  await orderDoor(dc, { type: "door", door, state: "serve" });
}

/**
 * Has the second data centre answer that there are too many requests, for so long that somebody notices.
 *
 * The proxy then asks again by HTTP, for which the runtime starts a thread that stays.
 */
export async function refuseForLoad({ dc }: Rig): Promise<void> {
  await orderDoor(dc, { type: "door", door: "ws", state: "429" });
  await Bun.sleep(SETTLE_MS);
  await orderDoor(dc, { type: "door", door: "ws", state: "serve" });
}

async function orderDoor(dc: Talker<DcOrder, DcReport>, order: DcOrder): Promise<void> {
  const done = dc.next("door");
  dc.send(order);
  await done;
}

/** The data centre breaks connections off. Their sessions may fail. */
async function dropSome({ dc, judge }: Rig): Promise<void> {
  const report = dc.next("dropped");
  const until = Date.now() + 10_000;
  dc.send({ type: "drop", share: DROP_SHARE });
  const victims = new Set((await report).sessions);
  judge.excuse({ fault: "drops", until, covers: ({ session }) => victims.has(session) });
}

/** Both data centres stand still. Whoever comes meanwhile may find no route. */
async function freeze({ dc, judge }: Rig): Promise<void> {
  const from = Date.now() - 1_000;
  process.kill(dc.pid, "SIGSTOP");
  await Bun.sleep(FREEZE_MS);
  process.kill(dc.pid, "SIGCONT");
  const to = Date.now();
  judge.excuse({
    fault: "freezes",
    until: to + 10_000,
    covers: ({ session, startedAt, failedAt }) =>
      session > 0 && startedAt <= to && failedAt - startedAt < 10_000 && failedAt >= from,
  });
}

/** A user opens more sessions than it may have. */
async function reachLimit({ load, limited, complain }: Rig): Promise<void> {
  const { maxConnections = 0 } = limited;
  const report = load.next("limit", 60_000);
  load.send({ type: "limit", identity: limited, attempts: maxConnections + 3 });
  const { served, refused } = await report;
  if (served === maxConnections && refused === 3) return;
  complain(`a user that may have ${maxConnections} sessions had ${served} of ${served + refused}`);
}

/** What a reload changes besides users. */
const CHANGES: readonly ConfigValues[] = [
  { "log-level": "warn" },
  { "log-level": "debug" },
  { "pool-size": 3 },
  { "buf-kb": 128 },
  { "handshake-seconds": 12 },
  { "max-per-address": 100 },
];

const TELLINGS: readonly Telling[] = ["signal", "file alone"];

/** Guests are removed, and come back; limits and the level of the log change; once in a while the file is broken. */
async function reload(rig: Rig): Promise<void> {
  const { proxy, load, judge, random, residents, guests, limited, complain } = rig;
  const leaving = random.pick(guests);
  const names = [leaving.user];
  if (random.chance(0.3)) {
    proxy.confuse(random.pick(TELLINGS)); // it must go on with what it has
    await Bun.sleep(SETTLE_MS);
  }
  load.send({ type: "absent", users: names });
  const from = Date.now();
  const staying = guests.filter((guest) => guest !== leaving);
  judge.excuse({
    fault: "reloads",
    until: from + REVOKED_WITHIN_MS + SETTLE_MS,
    covers: ({ who, failedAt }) => who === leaving.user && failedAt >= from - 1_000,
  });
  proxy.configure([...residents, ...staying, limited], random.pick(CHANGES), random.pick(TELLINGS));
  const gone = await waitFor(() => rig.liveOf(leaving.user) === 0, REVOKED_WITHIN_MS);
  if (!gone) complain(`${rig.liveOf(leaving.user)} sessions of the removed user ${leaving.user} went on`);
  proxy.configure([...residents, ...guests, limited], {}, random.pick(TELLINGS));
  await Bun.sleep(SETTLE_MS);
  load.send({ type: "absent", users: [] });
}

/** What monitoring asks for. */
async function scrape({ proxy, complain }: Rig): Promise<void> {
  for (const path of ["/metrics", "/api/status", "/stats", "/healthz", "/readyz"]) {
    try {
      const url = `http://127.0.0.1:${proxy.statusPort}${path}`;
      const response = await fetch(url, { signal: AbortSignal.timeout(10_000), keepalive: false });
      const text = await response.text();
      if (response.status !== 200 || text === "") complain(`${path}: HTTP ${response.status}`);
      if (path === "/api/status") JSON.parse(text);
    } catch (error) {
      complain(`${path}: ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** A worker is killed. Only the sessions that it has accepted may fail, and another one takes its place. */
async function killWorker({ proxy, judge, random, complain }: Rig): Promise<void> {
  const before = proxy.workers;
  const victim = random.pick(before);
  process.kill(victim, "SIGSTOP"); // it accepts no more while they are counted
  const ports = clientPorts(victim, proxy.port);
  const at = Date.now();
  judge.excuse({
    fault: "kills",
    until: at + 15_000,
    covers: ({ port, startedAt, failedAt }) => ports.has(port) && startedAt <= at && failedAt >= at - 1_000,
  });
  process.kill(victim, "SIGKILL");
  const back = await waitFor(() => {
    const now = proxy.workers;
    return now.length === before.length && !now.includes(victim);
  }, RESTARTED_WITHIN_MS);
  if (!back)
    complain(`no worker took the place of the one that was killed: ${proxy.workers.length} are left`);
  await Bun.sleep(SETTLE_MS);
}

/** All workers are replaced. Nobody may be refused, and sessions go on for as long as they are promised. */
async function restart({ proxy, judge, drainMs, complain }: Rig): Promise<void> {
  const before = proxy.workers;
  const at = Date.now();
  /** Clients of the old workers, and when they were last seen there: the ports are used again later. */
  const seen = new Map<number, number>();
  judge.excuse({
    fault: "restarts",
    until: at + drainMs + 2 * RESTARTED_WITHIN_MS,
    covers: ({ port, startedAt, failedAt }) =>
      failedAt >= at + drainMs - PUNCTUAL_MS && startedAt <= (seen.get(port) ?? 0),
  });
  process.kill(proxy.pid, "SIGUSR2");
  const areNew = (): boolean => {
    const now = proxy.workers;
    const old = before.filter((pid) => now.includes(pid));
    for (const port of old.flatMap((pid) => [...clientPorts(pid, proxy.port)])) seen.set(port, Date.now());
    return now.length === before.length && old.length === 0;
  };
  if (!(await waitFor(areNew, drainMs + 2 * RESTARTED_WITHIN_MS))) {
    complain(`workers were not replaced: ${before} before, ${proxy.workers} now`);
  }
  await Bun.sleep(SETTLE_MS);
}

/** All of them, by the part of the soak that they are. */
export const FAULTS: Readonly<Partial<Record<Part, Fault>>> = {
  routes: breakRoute,
  drops: dropSome,
  freezes: freeze,
  limits: reachLimit,
  reloads: reload,
  scrapes: scrape,
  kills: killWorker,
  restarts: restart,
};

/** Those that make processes end. */
export const ENDING: readonly Part[] = ["kills", "restarts"];

async function waitFor(holds: () => boolean, limitMs: number): Promise<boolean> {
  const late = performance.now() + limitMs;
  while (!holds()) {
    if (performance.now() > late) return false;
    await Bun.sleep(200);
  }
  return true;
}
