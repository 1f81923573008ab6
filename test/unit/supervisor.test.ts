import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import { StartError } from "../../src/core/errors.ts";
import type { WorkerProcessEvents } from "../../src/workers/live-worker.ts";
import { PROTOCOL, type ToWorker } from "../../src/workers/messages.ts";
import { Supervisor } from "../../src/workers/supervisor.ts";
import { eventually } from "./frame-server.ts";

/** A process that a test decides for. */
interface FakeProcess {
  readonly index: number;
  readonly pid: number;
  readonly heard: ToWorker[];
  readonly events: WorkerProcessEvents;
  killed: boolean;
}

let processes: FakeProcess[];
let lines: string[];
const supervisors: Supervisor[] = [];
/** Why no process can be started. */
let obstacle: Error | undefined;

beforeEach(() => {
  processes = [];
  lines = [];
  obstacle = undefined;
});
afterEach(() => {
  for (const supervisor of supervisors.splice(0)) void supervisor.stop(0); // it starts none for the next test
  jest.useRealTimers();
});

function make(count: number, drainMs = 1_000): Supervisor {
  const log = (text: string): void => void lines.push(text);
  const supervisor = new Supervisor({
    count,
    spawn: (index, events) => {
      if (obstacle !== undefined) throw obstacle;
      const one: FakeProcess = { index, pid: processes.length + 1, heard: [], events, killed: false };
      processes.push(one);
      return {
        pid: one.pid,
        send: (batch) => void one.heard.push(...batch),
        kill: () => {
          one.killed = true;
        },
      };
    },
    listener: {
      onStarted: (worker) => ({ type: "adopt", index: worker.index }),
      onMessage() {},
      onGone() {},
    },
    log: { debug: log, info: log, warn: log, error: log },
    drainMs: () => drainMs,
  });
  supervisors.push(supervisor);
  return supervisor;
}

function at(index: number): FakeProcess {
  const one = processes[index];
  if (one === undefined) throw new Error(`process ${index} was not started`);
  return one;
}

function beReady(one: FakeProcess, protocol = PROTOCOL): void {
  one.events.onMessages([{ type: "ready", protocol }]);
}

async function started(count: number, drainMs?: number): Promise<Supervisor> {
  const supervisor = make(count, drainMs);
  const done = supervisor.start();
  for (const one of processes) beReady(one);
  await done;
  return supervisor;
}

/** Lets what was posted go out. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

describe("Supervisor", () => {
  test("starts a worker in each slot, and is ready when all are", async () => {
    const supervisor = make(3);
    let done = false;
    const start = supervisor.start().then(() => {
      done = true;
    });
    beReady(at(0));
    beReady(at(1));
    await settle();
    expect(done).toBeFalse();
    beReady(at(2));
    await start;
    expect(supervisor.workers.map(({ index, state, restarts }) => [index, state, restarts])).toEqual([
      [0, "ready", 0],
      [1, "ready", 0],
      [2, "ready", 0],
    ]);
  });

  test("gives each worker its first message before anything else", async () => {
    const supervisor = await started(2);
    supervisor.broadcast({ type: "revoke", users: ["ann"] });
    await settle();
    for (const one of processes) expect(one.heard.map(({ type }) => type)).toEqual(["adopt", "revoke"]);
  });

  test("fails to start with what a worker says, and ends the others", async () => {
    const supervisor = make(2);
    const start = supervisor.start();
    beReady(at(0));
    at(1).events.onMessages([{ type: "failed", message: "Cannot do it", hint: "do something else" }]);
    at(1).events.onExit(1, null);
    await settle();
    expect(at(0).heard.map(({ type }) => type)).toContain("stop");
    at(0).events.onExit(0, null);
    const error = await start.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StartError);
    expect(error).toMatchObject({ code: "WORKER", message: "Cannot do it", hint: "do something else" });
    expect(processes).toHaveLength(2);
  });

  test("starts another one at once when a worker dies", async () => {
    const supervisor = await started(2);
    at(0).events.onExit(null, "SIGKILL");
    await Bun.sleep(1);
    expect(at(2)).toMatchObject({ index: 0 });
    expect(lines.join("\n")).toContain("worker 0 (1) was killed by SIGKILL: another one starts");
    beReady(at(2));
    expect(supervisor.workers[0]).toMatchObject({ pid: 3, state: "ready", restarts: 1 });
  });

  test("waits longer before each try while a worker keeps dying, and half a minute at most", async () => {
    await started(1);
    jest.useFakeTimers();
    const waits: number[] = [];
    for (let death = 0; death < 10; death++) {
      const before = processes.length;
      at(before - 1).events.onExit(1, null);
      let waited = 0;
      while (processes.length === before && waited < 60_000) {
        jest.advanceTimersByTime(waited === 0 ? 0 : 250);
        if (processes.length === before) waited += 250;
      }
      waits.push(waited);
    }
    expect(waits[0]).toBe(0);
    expect(waits.slice(1, 7)).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000]);
    expect(Math.max(...waits)).toBe(30_000);
  });

  test("has another worker accept for one that keeps dying, until there is one again", async () => {
    await started(2);
    at(0).events.onExit(1, null);
    await Bun.sleep(1);
    at(2).events.onExit(1, null); // now its slot waits for half a second
    await settle();
    expect(at(1).heard.at(-1)).toEqual({ type: "adopt", index: 0 });
    await eventually(() => processes.length === 4);
    expect(at(3)).toMatchObject({ index: 0 });
    beReady(at(3));
    await settle();
    expect(at(1).heard.at(-1)).toEqual({ type: "abandon", index: 0 });
  });

  test("has somebody else accept when the one who stood in for a dead worker ends, too", async () => {
    await started(3);
    at(2).events.onExit(1, null);
    await Bun.sleep(1);
    at(3).events.onExit(1, null); // its slot waits for half a second
    await settle();
    expect(at(0).heard.at(-1)).toEqual({ type: "adopt", index: 2 });
    at(0).events.onMessages([{ type: "leaving" }]); // with sessions that may go on for minutes
    await settle();
    expect(at(1).heard.at(-1)).toEqual({ type: "adopt", index: 2 });
  });

  test("has the first that is ready accept for those that keep dying", async () => {
    await started(2);
    for (const one of [at(0), at(1)]) one.events.onExit(1, null);
    await Bun.sleep(1);
    at(2).events.onExit(1, null);
    at(3).events.onMessages([{ type: "ready", protocol: PROTOCOL }]);
    await settle();
    expect(at(3).heard.at(-1)).toEqual({ type: "adopt", index: 0 });
    await eventually(() => processes.length === 5);
    expect(at(4)).toMatchObject({ index: 0 });
    beReady(at(4));
    await settle();
    expect(at(3).heard.at(-1)).toEqual({ type: "abandon", index: 0 });
  });

  test("has others accept for a dead worker after they were replaced themselves", async () => {
    const supervisor = await started(2);
    at(1).events.onExit(1, null);
    await Bun.sleep(1);
    at(2).events.onExit(1, null);
    const done = supervisor.restart();
    beReady(at(3)); // in the place of the first
    await done;
    await settle();
    expect(at(3).heard.at(-1)).toEqual({ type: "adopt", index: 1 });
  });

  test("tries again when no process can be started", async () => {
    await started(1);
    obstacle = new Error("posix_spawn: no such file");
    at(0).events.onExit(null, "SIGKILL");
    await eventually(() => lines.some((line) => line.includes("another one starts in 0.5 s")));
    expect(lines.at(-1)).toContain("worker 0 cannot be started: posix_spawn: no such file");
    obstacle = undefined;
    await eventually(() => processes.length === 2);
  });

  test("fails to start where no process can be started", async () => {
    const supervisor = make(2);
    obstacle = new Error("no memory");
    const error = await supervisor.start().catch((reason: unknown) => reason);
    expect(error).toMatchObject({
      code: "WORKER",
      message: "Cannot start worker 0: no memory",
      hint: expect.stringContaining("execute"),
    });
  });

  test.each([
    ["EMFILE", "LimitNOFILE"],
    ["EAGAIN", "fewer --workers"],
  ])("says what to do where %s keeps it from starting a process", async (code, hint) => {
    const supervisor = make(1);
    obstacle = Object.assign(new Error("no"), { code });
    const error = await supervisor.start().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ hint: expect.stringContaining(hint) });
  });

  test("says nothing of workers that are not replaced because everything ends", async () => {
    const supervisor = await started(1);
    const restart = supervisor.restart();
    const stop = supervisor.stop(1_000);
    for (const one of [at(0), at(1)]) one.events.onExit(0, null);
    await Promise.all([restart, stop]);
    expect(lines).toEqual([]);
  });

  test("replaces workers one after the other, each when the next one listens", async () => {
    const supervisor = await started(2, 5_000);
    const done = supervisor.restart();
    await settle();
    expect(processes).toHaveLength(3); // the second slot waits
    expect(at(0).heard.map(({ type }) => type)).not.toContain("drain");
    beReady(at(2));
    await settle();
    expect(at(0).heard.at(-1)).toEqual({ type: "drain", ms: 5_000 });
    expect(at(1).heard.map(({ type }) => type)).not.toContain("drain");
    beReady(at(3));
    await done;
    await settle();
    expect(at(1).heard.at(-1)).toEqual({ type: "drain", ms: 5_000 });
    at(0).events.onExit(0, null);
    at(1).events.onExit(0, null);
    await Bun.sleep(1);
    expect(processes).toHaveLength(4); // those that have drained are not missed
    expect(supervisor.workers.map(({ pid }) => pid)).toEqual([3, 4]);
  });

  test("keeps the old workers when a new one cannot start", async () => {
    const supervisor = await started(2);
    const done = supervisor.restart();
    await settle();
    at(2).events.onExit(127, null);
    await done;
    expect(lines.join("\n")).toContain("the workers are not replaced, those that there are go on");
    expect(supervisor.workers.map(({ pid, state }) => [pid, state])).toEqual([
      [1, "ready"],
      [2, "ready"],
    ]);
  });

  test("refuses a new worker that speaks another protocol", async () => {
    const supervisor = await started(1);
    const done = supervisor.restart();
    await settle();
    beReady(at(1), PROTOCOL + 1);
    expect(at(1).killed).toBeTrue();
    at(1).events.onExit(null, "SIGKILL");
    await done;
    expect(lines.join("\n")).toContain("do not understand each other");
    expect(supervisor.workers).toHaveLength(1);
  });

  test("does not restart twice at a time", async () => {
    const supervisor = await started(1);
    const done = supervisor.restart();
    await supervisor.restart();
    expect(lines.join("\n")).toContain("being replaced already");
    await settle();
    beReady(at(1));
    await done;
  });

  test("takes a worker for gone that was told to end by somebody else", async () => {
    const supervisor = await started(1);
    at(0).events.onMessages([{ type: "leaving" }]);
    expect(at(1).index).toBe(0);
    beReady(at(1));
    at(0).events.onExit(0, null);
    await Bun.sleep(1);
    expect(processes).toHaveLength(2);
    expect(supervisor.workers).toMatchObject([{ pid: 2, restarts: 0 }]);
  });

  test("ends all of them, those that drain included, and starts none any more", async () => {
    const supervisor = await started(2);
    const restarting = supervisor.restart();
    await settle();
    beReady(at(2));
    await settle();
    const stopped = supervisor.stop(1_000);
    await settle();
    for (const one of processes) expect(one.heard.at(-1)).toEqual({ type: "stop", graceMs: 1_000 });
    for (const one of [...processes]) one.events.onExit(0, null);
    await stopped;
    await restarting;
    expect(supervisor.live).toEqual([]);
    const count = processes.length;
    await Bun.sleep(5);
    expect(processes).toHaveLength(count);
  });

  test("kills one that does not end", async () => {
    const supervisor = await started(1);
    jest.useFakeTimers();
    const stopped = supervisor.stop(100);
    jest.advanceTimersByTime(9_000);
    expect(at(0).killed).toBeFalse();
    jest.advanceTimersByTime(2_000);
    expect(at(0).killed).toBeTrue();
    jest.useRealTimers();
    at(0).events.onExit(null, "SIGKILL");
    await stopped;
  });

  test("kills one that became ready after it was told to end, and does not", async () => {
    const supervisor = await started(1);
    void supervisor.restart();
    jest.useFakeTimers();
    const stop = supervisor.stop(1_000);
    beReady(at(1));
    at(0).events.onExit(0, null);
    jest.advanceTimersByTime(12_100);
    expect(at(1).killed).toBeTrue();
    jest.useRealTimers();
    at(1).events.onExit(null, "SIGKILL");
    await stop;
  });

  test("kills one that says nothing for more than a minute, and nobody who does", async () => {
    jest.useFakeTimers();
    const supervisor = make(2);
    const done = supervisor.start();
    for (const one of processes) beReady(one);
    await done;
    const talk = (): void =>
      at(1).events.onMessages([{ type: "figures", id: 0, figures: {}, process: undefined }]);
    for (let second = 0; second < 60; second += 5) {
      jest.advanceTimersByTime(5_000);
      talk();
    }
    expect(processes.map(({ killed }) => killed)).toEqual([false, false]);
    for (let second = 0; second < 25; second += 5) {
      jest.advanceTimersByTime(5_000);
      talk();
    }
    expect(processes.map(({ killed }) => killed)).toEqual([true, false]);
    expect(lines.join("\n")).toContain("worker 0 (1) has said nothing for a minute: it is killed");
  });

  test("has another one accept, too, for one that says nothing for a while, until it does", async () => {
    jest.useFakeTimers();
    const supervisor = make(3);
    const done = supervisor.start();
    for (const one of processes) beReady(one);
    await done;
    const pass = async (talking: readonly number[]): Promise<void> => {
      for (let second = 0; second < 20; second += 5) {
        jest.advanceTimersByTime(5_000);
        for (const one of talking)
          at(one).events.onMessages([{ type: "figures", id: 0, figures: {}, process: undefined }]);
      }
      await settle();
    };
    await pass([0, 1, 2]);
    await pass([1, 2]);
    expect(at(1).heard.at(-1)).toEqual({ type: "adopt", index: 0 });
    await pass([0, 2]); // now the one who stands in is silent itself
    expect(at(1).heard.slice(-1)).toEqual([{ type: "abandon", index: 0 }]);
    expect(at(0).heard.at(-1)).toEqual({ type: "adopt", index: 1 });
    await pass([0, 1, 2]);
    expect(at(0).heard.at(-1)).toEqual({ type: "abandon", index: 1 });
    expect(processes.map(({ killed }) => killed)).toEqual([false, false, false]);
  });

  test("kills one that does not become ready", async () => {
    await started(1);
    jest.useFakeTimers();
    at(0).events.onExit(1, null);
    jest.advanceTimersByTime(0);
    expect(processes).toHaveLength(2);
    jest.advanceTimersByTime(29_000);
    expect(at(1).killed).toBeFalse();
    jest.advanceTimersByTime(2_000);
    expect(at(1).killed).toBeTrue();
  });
});
