import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { LagWatch, readProcessFigures } from "../../src/observe/process-figures.ts";
import { eventually } from "../support/sessions.ts";

const LINUX = process.platform === "linux";

describe("readProcessFigures()", () => {
  test("tells what this process costs", () => {
    for (const end = performance.now() + 50; performance.now() < end; ); // the system counts in steps of 4 ms
    const { pid, startedAt, rssBytes, cpuUserSeconds, cpuSystemSeconds, loopLagMs } = readProcessFigures();
    expect(pid).toBe(process.pid);
    expect(startedAt).toBeLessThanOrEqual(Date.now());
    expect(startedAt).toBeGreaterThan(Date.now() - process.uptime() * 1_000 - 60_000);
    expect(rssBytes).toBeGreaterThan(1024 * 1024);
    expect(cpuUserSeconds).toBeGreaterThan(0);
    expect(cpuSystemSeconds).toBeGreaterThanOrEqual(0);
    expect(loopLagMs).toBe(0);
  });

  test.if(LINUX)("counts one descriptor more when one is opened", () => {
    const before = readProcessFigures();
    const descriptor = openSync("/dev/null", "r");
    const after = readProcessFigures();
    closeSync(descriptor);
    expect(after.openFds).toBe((before.openFds ?? 0) + 1);
    expect(readProcessFigures().openFds).toBe(before.openFds);
    expect(after.maxFds).toBeGreaterThan(after.openFds ?? 0);
  });

  test("leaves out what cannot be read", () => {
    const rss = spyOn(process.memoryUsage, "rss").mockImplementation(() => {
      throw new Error("Failed to get memory usage"); // no descriptor is left
    });
    const { pid, rssBytes } = readProcessFigures();
    rss.mockRestore();
    expect([pid, rssBytes]).toEqual([process.pid, undefined]);
  });

  test.if(LINUX)("knows the limit that the process was started with", async () => {
    const source = new URL("../../src/observe/process-figures.ts", import.meta.url).pathname;
    const script = `
      import { readProcessFigures } from ${JSON.stringify(source)};
      console.log(readProcessFigures().maxFds);
    `;
    const program = Bun.spawn(["sh", "-c", 'ulimit -n 64; exec "$0" -e "$1"', process.execPath, script], {
      stdout: "pipe",
    });
    expect(await program.stdout.text()).toBe("64\n");
  });
});

describe("LagWatch", () => {
  test("tells how long the event loop stood still, to everybody who asks", async () => {
    const lag = new LagWatch();
    Bun.sleepSync(700);
    expect(lag.maxMs).toBeGreaterThanOrEqual(150); // the timer was due after 500 ms
    await new Promise((resolve) => setTimeout(resolve, 1)); // the late timer has its turn
    for (let asked = 0; asked < 3; asked++) expect(lag.maxMs).toBeGreaterThanOrEqual(150);
    lag.stop();
  });

  test("forgets it after a while", async () => {
    const lag = new LagWatch(0); // at every second look
    Bun.sleepSync(2_000);
    expect(lag.maxMs).toBeGreaterThanOrEqual(1_450);
    await eventually(() => lag.maxMs < 1_400, "others in its place");
    lag.stop();
  });
});
