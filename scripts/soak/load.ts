/** The clients and strangers of the soak. `bun load.ts`, with an IPC channel; ends when that does. */
import { Crowd } from "./crowd.ts";
import type { Failure, Identity, LoadFigures, LoadOrder, LoadReport } from "./orders.ts";
import { Random } from "./random.ts";
import { Strangers } from "./strangers.ts";
import { KIND } from "./wire.ts";

const FIGURES_MS = 1_000;
/** How long a session that should be refused may take to find out, in milliseconds. */
const REFUSED_WITHIN_MS = 15_000;

let crowd: Crowd | undefined;
let strangers: Strangers | undefined;
let timers: ReturnType<typeof setInterval>[] = [];
let proxyPid = 0;

function tell(report: LoadReport): void {
  process.send?.(report);
}

function onFailure(failure: Failure): void {
  tell({ type: "failure", failure });
}

function figures(): LoadFigures {
  const { live = 0, started = 0, finished = 0, failed = 0, habits = {}, users = {} } = crowd ?? {};
  const traffic = crowd?.traffic ?? { bytesUp: 0, bytesDown: 0, messages: 0, slowestMs: 0 };
  const now = {
    ...traffic,
    live,
    started,
    finished,
    failed,
    habits,
    users,
    strangers: strangers?.counts ?? {},
  };
  if (crowd !== undefined) crowd.traffic.slowestMs = 0;
  return now;
}

function start(order: Extract<LoadOrder, { readonly type: "start" }>): void {
  proxyPid = order.proxyPid;
  crowd = new Crowd({ ...order, onFailure });
  const [identity] = order.identities;
  if (order.strangers > 0 && identity !== undefined) {
    const { port, domain } = order;
    const crew = new Strangers({ port, domain, identity, onFailure }, new Random(order.seed + 1));
    strangers = crew;
    timers.push(setInterval(() => crew.send(), 1000 / order.strangers));
  }
  timers.push(setInterval(() => tell({ type: "figures", figures: figures() }), FIGURES_MS));
  crowd.start().catch((error: unknown) => console.error(error));
}

/** Opens sessions of one user and keeps them until it is known which are served. */
async function reachLimit(identity: Identity, attempts: number): Promise<void> {
  if (crowd === undefined) return;
  const here = crowd;
  const clients = Array.from({ length: attempts }, (_, slot) => here.makeClient(identity, slot));
  const served = await Promise.all(
    clients.map(async (client) => {
      const timer = setTimeout(() => client.fail(new Error("no answer")), REFUSED_WITHIN_MS);
      try {
        await client.connect();
        await client.ask({ kind: KIND.echo, bodyLength: 40 });
        return true;
      } catch {
        return false;
      } finally {
        clearTimeout(timer);
      }
    }),
  );
  for (const client of clients) client.leave("fin");
  const count = served.filter(Boolean).length;
  tell({ type: "limit", served: count, refused: attempts - count });
}

async function stop(): Promise<void> {
  for (const timer of timers) clearInterval(timer);
  timers = [];
  await Promise.all([crowd?.stop(), strangers?.stop()]);
  tell({ type: "stopped", figures: figures() });
}

process.on("message", (order: LoadOrder) => {
  if (order.type === "start") start(order);
  else if (order.type === "absent" && crowd !== undefined) crowd.absent = new Set(order.users);
  else if (order.type === "limit") void reachLimit(order.identity, order.attempts);
  else if (order.type === "stop") void stop();
});
process.on("disconnect", () => {
  // Nobody is left to end the proxy.
  if (proxyPid > 0) process.kill(proxyPid, "SIGKILL");
  process.exit();
});
