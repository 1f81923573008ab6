import { describe, expect, test } from "bun:test";
import { hasSpareDescriptors, processDescriptors } from "../../src/net/descriptors.ts";
import { defaultBufferBytes } from "../../src/net/memory-limit.ts";
import { connectionLimitOf } from "../../src/proxy/connection-limit.ts";

describe("connectionLimitOf()", () => {
  test.each([
    [undefined, undefined, undefined, undefined],
    [500, undefined, 500, undefined],
    [undefined, { most: 1_048_576, open: 12 }, 524_154, undefined],
    [undefined, { most: 4_096, open: 12 }, 1_914, undefined],
    [undefined, { most: 1_024, open: 12 }, 442, /room for 442 connections only, with 1024 open files/],
    [undefined, { most: 64, open: 7 }, 20, /room for 20 /],
    [undefined, { most: 8, open: 7 }, 1, /room for 1 /],
    [300, { most: 1_024, open: 12 }, 300, undefined],
    [5_000, { most: 1_024, open: 12 }, 442, /--max-connections 5000 is more than there is room for: 442/],
  ] as const)("of %p with %j is %p", (wanted, descriptors, most, warning) => {
    const limit = connectionLimitOf(wanted, descriptors);
    expect(limit.maxConnections).toBe(most);
    if (warning === undefined) expect(limit.warning).toBeUndefined();
    else expect(limit.warning).toMatch(warning);
  });
});

describe("processDescriptors()", () => {
  test.skipIf(process.platform === "win32")("reads what the system allows, and what is open", () => {
    const { most = 0, open = 0 } = processDescriptors() ?? {};
    expect(most).toBeGreaterThan(open);
    expect(open).toBeGreaterThan(3);
  });

  test.skipIf(process.platform !== "linux")(
    "says when none can be opened, in a process with few of them",
    () => {
      const code = `
      import { openSync } from "node:fs";
      import { hasSpareDescriptors, processDescriptors } from "${import.meta.dir}/../../src/net/descriptors.ts";
      const before = [processDescriptors().most, hasSpareDescriptors(8)];
      try { for (;;) openSync("/dev/null", "r"); } catch {}
      console.log(JSON.stringify([...before, hasSpareDescriptors(1)]));`;
      const { stdout } = Bun.spawnSync([
        "/bin/sh",
        "-c",
        'ulimit -n 60; exec "$0" -e "$1"',
        process.execPath,
        code,
      ]);
      expect(stdout.toString().trim()).toBe("[60,true,false]");
      expect(hasSpareDescriptors(4)).toBe(true);
    },
  );
});

describe("defaultBufferBytes()", () => {
  test("is a part of the memory", () => {
    expect(defaultBufferBytes()).toBeGreaterThan(16 * 1024 * 1024);
    expect(defaultBufferBytes()).toBeLessThanOrEqual(process.constrainedMemory() / 4);
  });
});
