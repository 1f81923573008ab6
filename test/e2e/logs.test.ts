import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { childrenOf } from "../support/process-tree.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { eventually, openSession } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";
import { SOON_MS } from "../support/waiting.ts";

const LIMIT_MS = 60_000;
const INIT_LENGTH = 64;
/** A clock tick of the kernel's accounts, in milliseconds. */
const TICK_MS = 10;
/** Of `debug`: what passes at once, and in a second. */
const BUDGET = { burst: 1_000, perSecond: 100 };
const LONGEST_LINE = 400;

let stub: StubDc;
let folder: string;

beforeAll(async () => {
  stub = await StubDc.start();
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-logs-"));
  stub.reset();
  stub.keepMessages = false;
  stub.onPacket = ({ payload }) => [payload];
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

afterAll(() => stub[Symbol.asyncDispose]());

function start(workers: number, args: readonly string[]): Promise<ProxyProcess> {
  const secrets = [`ann:${randomBytes(16).toHex()}`];
  return ProxyProcess.start({ stub, secrets, args: ["--workers", String(workers), ...args] });
}

/** Opens so many sessions, one after the other, and waits until the log has the end of each. */
async function visit(proxy: ProxyProcess, times: number): Promise<void> {
  const before = proxy.countLogged(/session ended/g);
  for (let count = 0; count < times; count++) {
    using _client = await openSession({ port: proxy.port, secret: proxy.secret });
  }
  await eventually(() => proxy.countLogged(/session ended/g) === before + times, "the end of all sessions");
}

/** The lines of a file, without what tells them from those of standard error. */
function messagesIn(path: string): string[] {
  return linesOf(readFileSync(path, "utf8")).map((line) => line.replace(/^\S+ \w+ +/, ""));
}

/** The lines that went to standard error, likewise. */
function messagesOn(proxy: ProxyProcess): string[] {
  return linesOf(proxy.stderr).map((line) => line.replace(/^\S+ \w+ +/, ""));
}

function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

for (const workers of process.platform === "linux" ? [1, 2] : [1]) {
  describe(workers === 1 ? "the log" : `the log of ${workers} workers`, () => {
    it(
      "is one JSON object a line with --log-format json",
      async () => {
        const file = join(folder, "log");
        await using proxy = await start(workers, ["-v", "--log-format", "json", "--log-file", file]);
        await visit(proxy, 3);
        using stranger = await RawClient.open({ port: proxy.port, secret: randomBytes(16) });
        stranger.end();
        await proxy.logged(/"reason":"stranger"/);
        expect(await proxy.stop()).toBe(0);
        const lines = linesOf(proxy.stderr);
        expect(linesOf(readFileSync(file, "utf8"))).toEqual(lines);
        const records = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
        for (const { time, level, message } of records) {
          expect(new Date(String(time)).toISOString()).toBe(String(time));
          expect(["debug", "info", "warn", "error"]).toContain(String(level));
          expect(message).toBeString();
        }
        const ended = records.filter(({ message, user }) => message === "session ended" && user === "ann");
        expect(ended).toHaveLength(3);
        for (const record of ended) {
          expect(record).toMatchObject({
            level: "info",
            session: expect.any(Number),
            user: "ann",
            dc: "DC 2",
            route: "direct-ws",
            client: "127.0.0.1",
            reason: "client-closed",
            up: 8,
            down: 8,
            ...(workers === 1 ? {} : { worker: expect.any(Number) }),
          });
        }
      },
      LIMIT_MS,
    );

    it(
      "begins a new file when one is full, and keeps as many old ones as it is told",
      async () => {
        const file = join(folder, "log");
        const most = 0.03 * 1024 * 1024;
        const args = ["-v", "--log-file", file, "--log-max-mb", "0.03", "--log-backups", "2"];
        await using proxy = await start(workers, args);
        for (let round = 0; round < 12 && !readdirSync(folder).includes("log.2"); round++)
          await visit(proxy, 40);
        await visit(proxy, 60); // more than there is room for
        expect(await proxy.stop()).toBe(0);
        expect(readdirSync(folder).sort()).toEqual(["log", "log.1", "log.2"]);
        for (const name of readdirSync(folder)) {
          expect(statSync(join(folder, name)).size).toBeLessThan(most * 1.5);
          expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
        }
        const kept = ["log.2", "log.1", "log"].flatMap((name) => messagesIn(join(folder, name)));
        const all = messagesOn(proxy);
        expect(kept).toEqual(all.slice(-kept.length)); // the newest ones, in order, and all of them
        expect(kept.length).toBeLessThan(all.length);
      },
      LIMIT_MS,
    );

    it(
      "goes on in a new file after SIGUSR1, and loses nothing when the old one was moved",
      async () => {
        const file = join(folder, "log");
        await using proxy = await start(workers, ["-v", "--log-file", file]);
        await visit(proxy, 5);
        for (let round = 0; round < 3; round++) {
          const from = proxy.stderr.length;
          const visiting = visit(proxy, 10);
          renameSync(file, join(folder, `old${round}`));
          proxy.signal("SIGUSR1");
          await proxy.loggedSince(from, /the log file has been opened again/);
          await visiting;
        }
        expect(await proxy.stop()).toBe(0);
        const kept = ["old0", "old1", "old2", "log"].flatMap((name) => messagesIn(join(folder, name)));
        expect(kept).toEqual(messagesOn(proxy));
        expect(messagesIn(file).length).toBeGreaterThan(0);
      },
      LIMIT_MS,
    );

    it(
      "folds a flood of strangers: it takes little room and little of the processor",
      async () => {
        const costs: number[] = [];
        for (const flags of [[], ["-v"]]) {
          await using proxy = await start(workers, flags);
          const before = processorTime(proxy);
          const { count, seconds } = await flood(proxy.port, 3_000, 600);
          costs.push((processorTime(proxy) - before) / count);
          await proxy.stop();
          const lines = linesOf(proxy.stderr);
          const most = Math.ceil((flags.length === 0 ? 10 : 60 * workers) * Math.max(seconds, 3));
          expect(lines.length).toBeLessThan(most);
          expect(lines.length).toBeLessThan(count);
          expect(proxy.stderr.length).toBeLessThan(most * LONGEST_LINE);
          if (flags.length > 0)
            expect(proxy.stderr).toMatch(/not a client: dropped ×\d+ in \d+ s reason=stranger/);
        }
        const [quiet = 0, verbose = 0] = costs;
        expect(verbose).toBeLessThan(quiet * 1.5 + 0.05); // in milliseconds for each of them
      },
      LIMIT_MS,
    );

    it(
      "takes no more lines than its budget from clients that come again and again",
      async () => {
        await using proxy = await start(workers, ["-v"]);
        const { port, secret } = proxy;
        const debug = (): number => proxy.countLogged(/^\S+ debug /gm);
        const from = performance.now();
        await Promise.all(
          Array.from({ length: 8 }, async () => {
            while (performance.now() - from < 3_000 || debug() <= 500)
              (await openSession({ port, secret }))[Symbol.dispose]();
          }),
        );
        await proxy.stop();
        const seconds = (performance.now() - from) / 1_000;
        const most = workers * (BUDGET.burst + BUDGET.perSecond * (seconds + 1)) + 100;
        expect(debug()).toBeLessThanOrEqual(most);
      },
      LIMIT_MS,
    );
  });
}

describe("the log file", () => {
  it("has said before why a start fails what was said on the way, in the log file, too", async () => {
    const [home, file] = [join(folder, "home"), join(folder, "log")];
    mkdirSync(home, { mode: 0o700 });
    writeFileSync(join(home, "routes.json"), "{");
    using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const args = ["--port", String(taken.port), "--log-file", file];
    await using program = new Program({ args, home });
    expect(await program.exited()).toBe(1);
    expect(program.stderr).toMatch(/^\S+ warn {2}what was learned [^\n]*\ntgws: Cannot listen on /);
    expect(readFileSync(file, "utf8")).toContain("what was learned");
  });

  it(
    "ends the program with a hint when it cannot be written",
    async () => {
      writeFileSync(join(folder, "file"), "");
      const args = ["--port", "0", "--log-file", join(folder, "file", "log")];
      await using program = new Program({ args });
      expect(await program.exited()).toBe(1);
      expect(program.stderr).toMatch(/Cannot write the log file \S+\/file\/log: .*\nhint: .*--log-file/);
    },
    LIMIT_MS,
  );

  it.skipIf(process.platform !== "linux")(
    "is given up while it cannot be opened, without anybody noticing but the log",
    async () => {
      const own = join(folder, "own");
      mkdirSync(own);
      await using proxy = await start(1, ["--log-file", join(own, "log")]);
      await visit(proxy, 1);
      rmSync(own, { recursive: true });
      writeFileSync(own, "");
      proxy.signal("SIGUSR1");
      await proxy.logged(/Cannot write the log file/);
      expect(proxy.stderr).not.toMatch(/has been opened again/);
      await visit(proxy, 2);
      rmSync(own);
      proxy.signal("SIGUSR1");
      await proxy.logged(/the log file is written again/);
      await visit(proxy, 1);
      expect(await proxy.stop()).toBe(0);
      expect(readFileSync(join(own, "log"), "utf8")).toMatch(
        /the log file is written again; \d+ lines are not in it/,
      );
    },
    LIMIT_MS,
  );
});

/** Comes as a stranger again and again for so long and so often at least, some at a time. */
async function flood(
  port: number,
  ms: number,
  times: number,
): Promise<{ readonly count: number; readonly seconds: number }> {
  const from = performance.now();
  let count = 0;
  const visits = Array.from({ length: 16 }, async () => {
    while (performance.now() - from < ms || count < times) {
      await comeAndGo(port);
      count += 1;
    }
  });
  await Promise.all(visits);
  return { count, seconds: (performance.now() - from) / 1_000 };
}

function comeAndGo(port: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const socket = connect({ host: "127.0.0.1", port });
  socket.on("connect", () => socket.end(randomBytes(INIT_LENGTH)));
  socket.on("error", () => {});
  socket.on("close", () => resolve());
  socket.setTimeout(SOON_MS, () => socket.destroy());
  socket.resume();
  return promise;
}

/** What a program and its workers have used so far, in milliseconds. Linux only, 0 elsewhere. */
function processorTime(proxy: ProxyProcess): number {
  if (process.platform !== "linux") return 0;
  return [proxy.pid, ...childrenOf(proxy.pid)].reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return sum + (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }, 0);
}
