import { afterEach, beforeEach, describe, expect, jest, spyOn, test } from "bun:test";
import { Rounds } from "../../src/net/rounds.ts";
import { DescriptorWatch, type Strained } from "../../src/proxy/descriptor-watch.ts";

const LOOK_MS = 500;
let watch: DescriptorWatch;
let processorMs = 0;
let undo = (): void => {};

beforeEach(() => {
  jest.useFakeTimers();
  processorMs = 0;
  const usage = spyOn(process, "cpuUsage").mockImplementation((before) => ({
    user: processorMs * 1_000 - (before?.user ?? 0),
    system: 0,
  }));
  const now = spyOn(performance, "now").mockImplementation(() => clock);
  clock = 0;
  undo = () => {
    usage.mockRestore();
    now.mockRestore();
  };
});
afterEach(() => {
  watch.stop();
  undo();
  jest.useRealTimers();
});

let clock = 0;

/** A server that has `spare` descriptors left, and two for each connection. */
class Server implements Strained {
  size = 20;
  accepted = 0;
  spare = 100;
  waits: boolean | undefined = false;
  paused = false;
  canPause = true;
  readonly calls: string[] = [];

  waiting(): Promise<boolean | undefined> {
    this.calls.push("waiting");
    return Promise.resolve(this.waits);
  }

  pause(): Promise<boolean> {
    this.calls.push("pause");
    this.paused = this.canPause;
    return Promise.resolve(this.canPause);
  }

  resume(): void {
    this.calls.push("resume");
    this.paused = false;
  }

  relieve(): void {
    this.calls.push("relieve");
  }

  shedWhile(isShort: () => boolean): number {
    let count = 0;
    while (isShort() && this.size > 0) {
      this.size -= 1;
      this.spare += 2;
      count += 1;
    }
    return count;
  }
}

function start(server: Server): void {
  watch = new DescriptorWatch(server, new Rounds(), (count) => server.spare >= count);
}

/** Lets `looks` pass, with the processor as busy as `load` says. */
async function pass(looks: number, load = 0): Promise<void> {
  for (let look = 0; look < looks; look += 1) {
    clock += LOOK_MS;
    processorMs += LOOK_MS * load;
    jest.advanceTimersByTime(LOOK_MS);
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  }
}

describe("DescriptorWatch", () => {
  test("asks the kernel nothing while all is well, or nobody is accepted, or there is much to do", async () => {
    const server = new Server();
    start(server);
    await pass(10);
    for (let look = 0; look < 10; look += 1) {
      server.accepted += 1;
      await pass(1, 0.9);
    }
    expect(server.calls).toEqual([]);
    expect(watch.ceiling).toBe(Number.POSITIVE_INFINITY);
  });

  test("sheds until there is room when no file can be opened, pauses, and goes on with fewer connections", async () => {
    const server = new Server();
    server.spare = 0;
    start(server);
    await pass(1);
    expect(server.size).toBe(16);
    expect(watch.ceiling).toBe(16);
    expect(server.paused).toBe(true);
    expect(server.calls).toContain("relieve");
    await pass(1);
    expect(server.paused).toBe(true);
    await pass(1);
    expect(server.paused).toBe(false);
    await pass(20);
    expect(watch.ceiling).toBe(17);
    await pass(20 * 60);
    expect(watch.ceiling).toBeGreaterThan(100);
  });

  test("stays paused while none can be had, and lets as many come again as there is room for", async () => {
    const server = new Server();
    server.size = 0;
    server.spare = 0;
    start(server);
    await pass(60);
    expect([server.paused, watch.ceiling]).toEqual([true, 3]); // it rises by one each 10 s
    expect(server.calls).not.toContain("resume");
    server.spare = 200;
    await pass(1);
    expect([server.paused, watch.ceiling]).toEqual([false, 16]);
    for (; server.spare > 100; server.spare -= 2) server.size += 1;
    await pass(1);
    expect(watch.ceiling).toBe(50 + 16);
    for (; server.spare > 50; server.spare -= 2) server.size += 1;
    await pass(1);
    expect(watch.ceiling).toBe(50 + 16);
  });

  test("pauses when somebody waits twice in a row, nobody is accepted and the processor is busy; sessions stay", async () => {
    const server = new Server();
    server.waits = true;
    start(server);
    await pass(1, 1);
    expect(server.paused).toBe(false);
    await pass(1, 1);
    expect([server.paused, server.size]).toEqual([true, 20]);
  });

  test("waits longer each time while it goes on, 10 s at most, and a second again once somebody was accepted", async () => {
    const server = new Server();
    server.waits = true;
    start(server);
    const pauses: number[] = [];
    for (let round = 0; round < 7; round += 1) {
      if (round === 6) server.accepted += 1;
      while (!server.paused) await pass(1, 1);
      const from = clock;
      while (server.paused) await pass(1);
      pauses.push((clock - from) / 1_000);
    }
    expect(pauses).toEqual([1, 2, 4, 8, 10, 10, 1]);
  });

  test("looks once a second when nobody has come for two seconds, and twice again once somebody has", async () => {
    const server = new Server();
    let looks = 0;
    watch = new DescriptorWatch(server, new Rounds(), () => {
      looks += 1;
      return true;
    });
    await pass(4);
    expect(looks).toBe(4);
    await pass(6);
    expect(looks).toBe(7);
    server.accepted += 1;
    await pass(6);
    expect(looks).toBe(12);
  });

  test("takes a busy processor alone for work", async () => {
    const server = new Server();
    start(server);
    await pass(10, 1);
    expect(server.paused).toBe(false);
    server.waits = undefined;
    await pass(10, 1);
    expect(server.paused).toBe(false);
  });

  test("goes on when it could not pause, tries again, and does nothing once it was stopped", async () => {
    const server = new Server();
    server.spare = 0;
    server.canPause = false;
    start(server);
    await pass(1);
    expect(server.calls.at(-1)).toBe("pause");
    server.spare = 8;
    await pass(1);
    expect(server.calls.at(-1)).toBe("resume"); // or those who come would be closed for good
    server.spare = 0;
    server.canPause = true;
    await pass(1);
    expect(server.paused).toBe(true);
    watch.stop();
    await pass(10);
    expect(server.paused).toBe(true);
  });
});
