import { describe, expect, it, jest } from "bun:test";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lookAtFilesOf, Reloader } from "../../src/cli/reloader.ts";
import { type LoadedConfig, loadConfig } from "../../src/config/load-config.ts";
import { Condition } from "../support/waiting.ts";

const SILENT = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

describe("Reloader", () => {
  it("reads a file once more that has changed while it was being applied", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-reloader-"));
    const file = join(folder, "config.toml");
    const changes = new Condition();
    const applied: (number | undefined)[] = [];
    writeFileSync(file, "max-per-address = 1\n");
    const load = (): LoadedConfig =>
      loadConfig(["--config", file], { environment: {}, platform: process.platform });
    const current = load();
    const reloader = new Reloader({
      current,
      files: lookAtFilesOf(current),
      load,
      apply: async ({ config }) => {
        applied.push(config.maxPerAddress);
        if (applied.length === 1) appendFileSync(file, "address-rate = 5\n");
        await Bun.sleep(10);
        changes.changed();
      },
      log: SILENT,
    });
    try {
      writeFileSync(file, "max-per-address = 2\n");
      reloader.reload();
      await changes.until(() => applied.length === 2, "another look at the file");
      expect(readFileSync(file, "utf8")).toContain("address-rate");
      await Bun.sleep(0); // it counts as current once it has been applied
      expect(reloader.current.config.addressRate).toBe(5);
    } finally {
      reloader.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("notices a file that is made where there was none", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-reloader-"));
    const changes = new Condition();
    const applied: (number | undefined)[] = [];
    const environment = { TGWS_HOME: folder };
    const load = (): LoadedConfig => loadConfig([], { environment, platform: process.platform });
    const apply = async ({ config }: LoadedConfig): Promise<void> => {
      applied.push(config.maxPerAddress);
      changes.changed();
    };
    const current = load();
    const files = lookAtFilesOf(current);
    const reloader = new Reloader({ current, files, load, apply, log: SILENT });
    try {
      writeFileSync(join(folder, "config.toml"), "max-per-address = 7\n");
      await changes.until(() => applied.length === 1, "the new file");
      expect(applied).toEqual([7]);
    } finally {
      reloader.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("neither reads nor watches anything after it was stopped, also in the middle of a reload", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-reloader-"));
    const file = join(folder, "config.toml");
    writeFileSync(file, "max-per-address = 1\n");
    let loads = 0;
    const load = (): LoadedConfig => {
      loads += 1;
      return loadConfig(["--config", file], { environment: {}, platform: process.platform });
    };
    const { promise, resolve } = Promise.withResolvers<void>();
    const reloader = reloaderOf(load(), load, () => promise);
    try {
      reloader.reload();
      reloader.reload(); // once more, when that is done
      reloader.stop();
      resolve();
      await Bun.sleep(0);
      expect(loads).toBe(2);
      writeFileSync(file, "max-per-address = 2\n");
      jest.useFakeTimers();
      jest.advanceTimersByTime(10_000);
      expect(loads).toBe(2);
    } finally {
      jest.useRealTimers();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("reads a file once more that has changed since it was read for the start", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-reloader-"));
    const file = join(folder, "config.toml");
    writeFileSync(file, "max-per-address = 1\n");
    const load = (): LoadedConfig =>
      loadConfig(["--config", file], { environment: {}, platform: process.platform });
    const current = load();
    const files = lookAtFilesOf(current);
    writeFileSync(file, "max-per-address = 20\n"); // while workers start
    const applied = new Condition();
    const reloader = new Reloader({
      current,
      files,
      load,
      apply: async () => void setTimeout(() => applied.changed(), 10), // it is current once it has been applied
      log: SILENT,
    });
    try {
      await applied.until(() => reloader.current.config.maxPerAddress === 20, "another look at the file");
    } finally {
      reloader.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

function reloaderOf(
  current: LoadedConfig,
  load: () => LoadedConfig,
  apply: (loaded: LoadedConfig) => Promise<void>,
): Reloader {
  return new Reloader({ current, files: lookAtFilesOf(current), load, apply, log: SILENT });
}
