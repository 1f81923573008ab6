import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeHome, Program } from "./proxy.ts";
import { SOON_MS } from "./waiting.ts";

/** A failure, as it is kept in `routes.json`. */
export interface KeptFailure {
  readonly code: string;
  /** `Date.now()` until when others go first. */
  until: number;
  readonly strikes: number;
  /** When it was. */
  readonly at: number;
}

/** What is kept in `routes.json`. Written anew here: tests must not share the code they test. */
export interface KeptRoutes {
  readonly version: number;
  readonly endpoints: Record<string, KeptFailure>;
  readonly groups: Record<string, KeptFailure>;
  readonly targets: Record<string, Record<string, { wonAt?: number; failure?: KeptFailure }>>;
}

/** What `tgws routes --json` says of one way. */
export interface LearnedWay {
  readonly route: string;
  readonly endpoint: string;
  readonly state: string;
  readonly openMs: number | null;
  readonly reason: string | null;
  readonly againMs: number | null;
  readonly wonAt: string | null;
}

/** What `tgws routes --json` says of one data centre. */
export interface LearnedTarget {
  readonly target: string;
  readonly ways: readonly LearnedWay[];
}

/** A folder that programs keep their things in, from one start to the next. */
export class Home implements Disposable {
  readonly path = makeHome();
  /** Where what was learned is kept. */
  readonly routesFile = join(this.path, "routes.json");

  /** What is kept; `undefined` when there is nothing yet. */
  kept(): KeptRoutes | undefined {
    if (!existsSync(this.routesFile)) return undefined;
    return JSON.parse(readFileSync(this.routesFile, "utf8")) as KeptRoutes;
  }

  /** Lets every wait have ended a moment ago. */
  endWaits(): void {
    const kept = this.kept();
    if (kept === undefined) throw new Error(`There is no ${this.routesFile}`);
    const records = Object.values(kept.targets).flatMap((ways) => Object.values(ways));
    const failures = records.flatMap(({ failure }) => failure ?? []);
    for (const failure of [...failures, ...Object.values(kept.endpoints), ...Object.values(kept.groups)]) {
      failure.until = Date.now() - 1;
    }
    writeFileSync(this.routesFile, JSON.stringify(kept));
  }

  /** What `tgws routes --json` prints. */
  async learned(flags: readonly string[]): Promise<LearnedTarget[]> {
    return JSON.parse(await this.print(["routes", "--json", ...flags])) as LearnedTarget[];
  }

  /** Runs a command, and returns what it printed. @throws {Error} When it failed. */
  async print(args: readonly string[]): Promise<string> {
    await using program = new Program({ args, home: this.path });
    const code = await program.exited();
    if (code !== 0) throw new Error(`${args[0]} ended with ${code}:\n${program.stderr}`);
    return program.stdout;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Asks again and again until there is something else than `undefined`, for what tells nobody that it changed. */
export async function poll<T>(look: () => T | undefined, what: string, limitMs = SOON_MS): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms`);
    await Bun.sleep(25);
  }
}
