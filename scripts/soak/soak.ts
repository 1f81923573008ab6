import { randomBytes } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { makeCertificates } from "../../test/support/certificates.ts";
import { stopChild } from "../bench/children.ts";
import { COVER_DOMAIN, type CoverSite, startSite, waitUntilMeasured } from "../bench/cover-site.ts";
import { type KnownPorts, takeCensus } from "./census.ts";
import type { SoakUser } from "./config-text.ts";
import { ENDING, FAULTS, type Rig, refuseForLoad } from "./faults.ts";
import { Judge } from "./judge.ts";
import { type Options, PARTS, type Part } from "./options.ts";
import type { DcOrder, DcReport, LoadFigures, LoadOrder, LoadReport } from "./orders.ts";
import { isWithin, type Phases, planPhases } from "./phases.ts";
import { type Features, findFeatures, SoakProxy } from "./proxy.ts";
import { Random } from "./random.ts";
import { formatProgress, type SoakResult } from "./report.ts";
import type { Sample } from "./samples.ts";
import { Talker } from "./talker.ts";
import {
  type Counted,
  type Criterion,
  isCalm,
  judgeCounts,
  judgeDescriptors,
  judgeFailures,
  judgeLoad,
  judgeLog,
  judgeMemory,
} from "./verdict.ts";

type Load = Talker<LoadOrder, LoadReport>;

const SAMPLE_MS = 1_000;
const PROGRESS_MS = 10_000;
/** Sessions and their data centres let go of each other within this time: 15 s where one side does not end. */
const CALM_WITHIN_MS = 60_000;
/** Before the baseline, so many sessions per worker make everything open that opens once. */
const TOUCH_SESSIONS = 40;
const TOUCH_MS = 8_000;
const STOPPED_WITHIN_MS = 60_000;
const EXIT_WITHIN_MS = 30_000;
const RESIDENTS = 10;
const GUESTS = 2;
const LIMIT = 5;
/** Hellos that the proxy remembers at most, and the bytes that it keeps of each. */
const HELLOS = 131_072;
const HELLO_LENGTH = 16;
const FAULT_PARTS = PARTS.filter((part) => FAULTS[part] !== undefined);
/** Data centres of which connections are kept. */
const DATA_CENTRES = 2;
/** Each has two names for WebSockets, of which the first to answer is kept. */
const WAYS = 2;
const NO_FIGURES: LoadFigures = {
  ...{ live: 0, started: 0, finished: 0, failed: 0, bytesUp: 0, bytesDown: 0, messages: 0, slowestMs: 0 },
  ...{ strangers: {}, habits: {}, users: {} },
};

/** One soak, from the start of everything to its end. */
export class Soak {
  readonly #options: Options;
  readonly #folder: string;
  readonly #random: Random;
  readonly #judge = new Judge();
  readonly #samples: Sample[] = [];
  readonly #faults: Record<string, number> = {};
  readonly #complaints: string[] = [];
  readonly #troubles: string[] = [];
  readonly #users = makeUsers();
  readonly #phases: Phases;
  #figures = NO_FIGURES;
  #parts: ReadonlySet<Part>;
  #stopped = false;

  /** @param folder For what the processes write. */
  constructor(options: Options, folder: string) {
    this.#options = options;
    this.#folder = folder;
    this.#random = new Random(options.seed);
    this.#phases = planPhases(options.durationMs);
    this.#parts = options.parts;
  }

  /** Ends the load at its next look. */
  stop(): void {
    this.#stopped = true;
  }

  /** @throws {Error} When it cannot be carried out. */
  async run(): Promise<SoakResult> {
    const features = findFeatures(this.#options.binary);
    this.#parts = this.#possible(features);
    const { dc, ports, caFile } = await this.#startDc();
    const cover = this.#parts.has("fake-tls") ? await this.#startCover() : undefined;
    // As after months: what is full grows no more.
    if (cover !== undefined)
      await Bun.write(join(this.#folder, "hellos"), randomBytes(HELLOS * HELLO_LENGTH));
    const proxy = await SoakProxy.start(
      {
        ...{ binary: this.#options.binary, folder: this.#folder, workers: this.#options.workers },
        ...{ poolSize: this.#options.poolSize, caFile, ports, drainSeconds: this.#drainMs / 1000 },
        cover: cover && { port: cover.port, domain: COVER_DOMAIN },
      },
      features,
      this.#users.all,
    );
    if (cover !== undefined) await waitUntilMeasured(proxy.port, cover, this.#signer());
    const known: KnownPorts = {
      proxy: proxy.port,
      status: proxy.statusPort,
      site: cover?.port,
      dataCentres: [...Object.values(ports.calm), ...Object.values(ports.rough)],
    };
    const before = await this.#touch(proxy, dc, cover, known);
    const load = this.#startLoad("load.log");
    await this.#work(proxy, dc, load, cover);
    const after = await this.#calm(proxy, known);
    await load.kill();
    const state = await proxy.report();
    const criteria = [
      ...this.#criteria(before, after, await this.#end(proxy)),
      ...(state === undefined ? [] : [judgeCounts(state)]),
    ];
    await dc.kill();
    if (cover !== undefined) await stopChild(cover.child);
    return {
      ...{ seed: this.#options.seed, phases: this.#phases, figures: this.#figures, faults: this.#faults },
      ...{
        excused: this.#judge.excused,
        samples: this.#samples,
        atRest: { before, after },
        criteria,
        endings: state?.figures.connections.ended ?? countEndings(this.#log()),
      },
    };
  }

  get #drainMs(): number {
    return Math.max(3, Math.min(60, Math.round(this.#options.durationMs / 30_000))) * 1000;
  }

  get #isShort(): boolean {
    return this.#options.durationMs < 5 * 60_000;
  }

  /** What this proxy can do, of what is asked for. */
  #possible(features: Features): ReadonlySet<Part> {
    const needs: Readonly<Partial<Record<Part, boolean>>> = {
      reloads: features.config,
      limits: features.config,
      scrapes: features.status,
      kills: features.workers && this.#options.workers > 1,
      restarts: features.workers && this.#options.workers > 1,
    };
    const parts = [...this.#options.parts];
    const left = parts.filter((part) => needs[part] === false);
    if (left.length > 0) console.error(`left out, for lack of what they need: ${left.join(", ")}`);
    return new Set(parts.filter((part) => needs[part] !== false));
  }

  async #startDc() {
    const { caFile, certificate, key } = await makeCertificates(["*.web.telegram.org", "localhost"]);
    const files = { certificate: join(this.#folder, "dc.pem"), key: join(this.#folder, "dc.key") };
    await Bun.write(files.certificate, certificate);
    await Bun.write(files.key, key);
    const command = [process.execPath, join(import.meta.dirname, "stub-dc.ts"), files.certificate, files.key];
    const dc = new Talker<DcOrder, DcReport>(command, join(this.#folder, "dc.log"));
    dc.onReport = (report) => {
      if (report.type === "trouble" && this.#troubles.length < 100) this.#troubles.push(report.message);
    };
    const { ports } = await dc.next("ready");
    return { dc, ports, caFile };
  }

  #signer() {
    const [first] = this.#users.residents;
    return { key: Uint8Array.fromHex(first?.secret ?? ""), domain: COVER_DOMAIN, shape: "hybrid" as const };
  }

  #startCover(): Promise<CoverSite> {
    return startSite("Bun", this.#folder, this.#signer());
  }

  #startLoad(log: string): Load {
    const command = [process.execPath, join(import.meta.dirname, "load.ts")];
    const load: Load = new Talker(command, join(this.#folder, log));
    load.onReport = (report) => {
      if (report.type === "figures" || report.type === "stopped") this.#figures = report.figures;
      else if (report.type === "failure") this.#judge.hear(report.failure);
    };
    return load;
  }

  #startOrder(
    proxy: SoakProxy,
    cover: CoverSite | undefined,
  ): Extract<LoadOrder, { readonly type: "start" }> {
    const { seed, sessions, durationMs } = this.#options;
    return {
      ...{ type: "start", port: proxy.port, proxyPid: proxy.pid, seed, sessions },
      ramp: Math.max(20, sessions / (durationMs / 1000 / 8)),
      longestLifeMs: Math.min(10 * 60_000, durationMs / 2),
      domain: cover && COVER_DOMAIN,
      identities: [...this.#users.residents, ...(proxy.configurable ? this.#users.guests : [])],
      stalls: this.#parts.has("stalls"),
      strangers: this.#parts.has("strangers") ? (this.#isShort ? 4 : 2) : 0,
    };
  }

  #rig(proxy: SoakProxy, dc: Rig["dc"], load: Load): Rig {
    return {
      ...{ proxy, dc, load, judge: this.#judge, random: this.#random },
      ...{ residents: this.#users.residents, guests: this.#users.guests, limited: this.#users.limited },
      longestMs: this.#isShort ? 2_000 : 10_000,
      drainMs: this.#drainMs,
      liveOf: (user) => this.#figures.users[user] ?? 0,
      complain: (what) => {
        if (this.#complaints.length < 100)
          this.#complaints.push(`${new Date().toISOString().slice(11, 23)} ${what}`);
      },
    };
  }

  /** Lets everything happen once, so that what opens once is open, and counts descriptors when all is quiet again. */
  async #touch(proxy: SoakProxy, dc: Rig["dc"], cover: CoverSite | undefined, known: KnownPorts) {
    console.error("a first load, for the baseline");
    const load = this.#startLoad("touch.log");
    const sessions = TOUCH_SESSIONS * this.#options.workers;
    const order = this.#startOrder(proxy, cover);
    load.send({ ...order, sessions, ramp: 60, longestLifeMs: TOUCH_MS / 2, strangers: order.strangers * 2 });
    const until = performance.now() + TOUCH_MS;
    const rig = this.#rig(proxy, dc, load);
    if (this.#parts.has("routes")) await refuseForLoad(rig); // first: what fails otherwise is not tried again at once
    for (const part of FAULT_PARTS) {
      if (this.#parts.has(part) && !ENDING.includes(part)) await FAULTS[part]?.(rig);
    }
    await Bun.sleep(Math.max(0, until - performance.now()));
    await this.#leave(load);
    const before = await this.#calm(proxy, known);
    await load.kill();
    this.#judge.settle(Number.POSITIVE_INFINITY);
    return before;
  }

  /** The soak itself. */
  async #work(proxy: SoakProxy, dc: Rig["dc"], load: Load, cover: CoverSite | undefined): Promise<void> {
    console.error(`${this.#options.sessions} sessions for ${this.#options.durationMs / 60_000} min`);
    const startedAt = performance.now();
    this.#figures = NO_FIGURES;
    load.send(this.#startOrder(proxy, cover));
    const isOver = (): boolean => this.#stopped || performance.now() - startedAt >= this.#phases.end;
    const faults = this.#injectFaults(this.#rig(proxy, dc, load), startedAt, isOver);
    faults.catch(() => this.stop()); // it is thrown when the loop has ended
    let saidAt = 0;
    while (!isOver()) {
      await Bun.sleep(SAMPLE_MS);
      if (!proxy.running) throw new Error(`the proxy has ended: see ${this.#folder}`);
      const sample = {
        at: performance.now() - startedAt,
        live: this.#figures.live,
        processes: proxy.sample(),
      };
      this.#samples.push(sample);
      this.#judge.settle(Date.now());
      if (sample.at - saidAt < PROGRESS_MS) continue;
      saidAt = sample.at;
      const state = { faults: sum(this.#faults), unexcused: this.#judge.unexcusedCount };
      console.error(formatProgress(sample, this.#figures, state));
    }
    await faults;
    console.error("all leave");
    await this.#leave(load);
    this.#judge.settle(Number.POSITIVE_INFINITY);
  }

  async #injectFaults(rig: Rig, startedAt: number, isOver: () => boolean): Promise<void> {
    const gapMs = this.#isShort ? 1_000 : 5_000;
    const chosen = FAULT_PARTS.filter((part) => this.#parts.has(part));
    const lasting = chosen.filter((part) => !ENDING.includes(part));
    let due: readonly Part[] = [];
    /** However short the time for it is, each of these comes once. */
    let owed = chosen.filter((part) => ENDING.includes(part));
    await Bun.sleep(gapMs);
    while (!isOver()) {
      const now = performance.now() - startedAt;
      const endings = isWithin(this.#phases.kills, now);
      if (due.length === 0) due = endings ? chosen : lasting;
      if (!endings) due = due.filter((part) => !ENDING.includes(part));
      // What takes a while must be over when the load is.
      if (chosen.length === 0 || now > this.#phases.end - 4 * gapMs) return;
      if (due.length > 0) {
        const part = this.#random.pick(endings && owed.length > 0 ? owed : due);
        due = due.filter((one) => one !== part);
        owed = owed.filter((one) => one !== part);
        this.#faults[part] = (this.#faults[part] ?? 0) + 1;
        this.#note(`${part} begins`);
        await FAULTS[part]?.(rig);
        this.#note(`${part} is over`);
      }
      await Bun.sleep(this.#random.between(0.5, 2) * gapMs);
    }
  }

  /** Writes down when what was injected, for whoever looks into a failure. */
  #note(what: string): void {
    appendFileSync(join(this.#folder, "faults.log"), `${new Date().toISOString()} ${what}\n`);
  }

  async #leave(load: Load): Promise<void> {
    const stopped = load.next("stopped", STOPPED_WITHIN_MS);
    load.send({ type: "stop" });
    await stopped;
  }

  /** Waits until no session is left, and counts descriptors then. */
  async #calm(proxy: SoakProxy, known: KnownPorts): Promise<readonly Counted[]> {
    const count = (): readonly Counted[] =>
      proxy.sample().map(({ pid, role, rssKib }) => ({ pid, role, rssKib, census: takeCensus(pid, known) }));
    const late = performance.now() + CALM_WITHIN_MS;
    for (;;) {
      const counted = count();
      if (counted.every((one) => isCalm(one, this.#mostKept)) || performance.now() > late) return counted;
      await Bun.sleep(500);
    }
  }

  get #mostKept(): number {
    return this.#options.poolSize * DATA_CENTRES * WAYS;
  }

  /** Ends the proxy as an operator does. @returns Its exit code. */
  async #end(proxy: SoakProxy): Promise<number | undefined> {
    process.kill(proxy.pid, "SIGTERM");
    return await Promise.race([proxy.child.process.exited, Bun.sleep(EXIT_WITHIN_MS).then(() => undefined)]);
  }

  #log(): string {
    return readFileSync(join(this.#folder, "proxy.log"), "utf8");
  }

  #criteria(
    before: readonly Counted[],
    after: readonly Counted[],
    exitCode: number | undefined,
  ): Criterion[] {
    const { sessions } = this.#options;
    return [
      ...judgeFailures(this.#judge),
      {
        name: "whatever is tried has the effect that it should have",
        holds: this.#complaints.length === 0,
        details: this.#complaints,
      },
      {
        name: "data centres get only what clients have sent",
        holds: this.#troubles.length === 0,
        details: this.#troubles.slice(0, 20),
      },
      judgeLoad(this.#samples, this.#phases, sessions),
      judgeMemory(this.#samples, this.#phases),
      judgeDescriptors(before, after, this.#mostKept),
      judgeLog(this.#log()),
      { name: "it ends with code 0", holds: exitCode === 0, details: exitCode === 0 ? [] : [`${exitCode}`] },
    ];
  }
}

function makeUsers() {
  const make = (user: string): SoakUser => ({ user, secret: randomBytes(16).toString("hex") });
  const residents = Array.from({ length: RESIDENTS }, (_, at) => make(`resident-${at + 1}`));
  const guests = Array.from({ length: GUESTS }, (_, at) => make(`guest-${at + 1}`));
  const limited = { ...make("limited"), maxConnections: LIMIT };
  return { residents, guests, limited, all: [...residents, ...guests, limited] };
}

/** Reads how sessions ended from the log. */
function countEndings(log: string): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const [, reason = ""] of log.matchAll(/session ended\b.*?\breason=([\w-]+)/g)) {
    counts[reason] = (counts[reason] ?? 0) + 1;
  }
  return counts;
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}
