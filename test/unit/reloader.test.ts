import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { lookAtFilesOf, Reloader } from "../../src/cli/reloader.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import type { LoadedConfig } from "../../src/config/load-config.ts";
import { temporaryFolder } from "../support/temporary.ts";
import { eventually } from "./frame-server.ts";

const HEX = "00112233445566778899aabbccddeeff";
const FILE = "/nowhere/config.toml";

let written: RawConfig;
let file: string | undefined;
let blank: boolean;
let applied: LoadedConfig[];
let lines: string[];
let fault: Error | undefined;
let reloader: Reloader;

function load(): LoadedConfig {
  const config = parseConfig(written);
  return { config, raw: written, origins: new Map(), file, place: file, blank, warnings: config.warnings };
}

beforeEach(() => {
  written = { secret: [HEX], port: ["1443"] };
  file = FILE;
  blank = false;
  applied = [];
  lines = [];
  fault = undefined;
  const log = (text: string): void => void lines.push(text);
  reloader = new Reloader({
    current: load(),
    files: lookAtFilesOf(load()),
    load,
    apply: async (loaded) => {
      await Bun.sleep(1);
      if (fault !== undefined) throw fault;
      applied.push(loaded);
    },
    log: { debug: log, info: log, warn: log, error: log },
  });
});
afterEach(() => reloader.stop());

async function reload(): Promise<void> {
  const before = lines.length;
  reloader.reload();
  await eventually(() => lines.length > before);
  await Bun.sleep(2);
}

describe("Reloader", () => {
  test("applies what was read, and names what has changed but not its value", async () => {
    written = { ...written, cfproxyWorkerToken: ["hush-hush"], maxConnections: ["7"] };
    await reload();
    expect(applied).toHaveLength(1);
    expect(applied[0]?.config.maxConnections).toBe(7);
    expect(reloader.current).toBe(applied[0] as LoadedConfig);
    expect(lines[0]).toBe("configuration reloaded: changed cfproxy-worker-token, max-connections");
    expect(lines.join()).not.toContain("hush-hush");
  });

  test("says which users are new, gone, or other than before", async () => {
    const key = (digit: number): string => `${digit}`.repeat(32);
    const one = { name: "ann", settings: { secret: key(1) } };
    written = { ...written, users: [one, { name: "bob", settings: { secret: key(2) } }] };
    await reload();
    expect(lines[0]).toBe("configuration reloaded: new users ann, bob");
    written = {
      ...written,
      users: [
        { name: "ann", settings: { secret: key(1), enabled: "false" } },
        { name: "cid", settings: { secret: key(3) } },
      ],
    };
    await reload();
    expect(lines[1]).toBe("configuration reloaded: new users cid; removed users bob; changed users ann");
  });

  test("says which lists it has read again, whose names are the same", async () => {
    const folder = temporaryFolder("tgws-reloader-");
    const [denied, allowed] = [join(folder, "denied"), join(folder, "allowed")];
    for (const path of [denied, allowed]) writeFileSync(path, "192.0.2.0/24\n");
    written = { ...written, deny: [denied], allow: [allowed] };
    await reload();
    expect(lines.at(-1)).toBe("configuration reloaded: changed allow, deny");
    writeFileSync(denied, "192.0.2.0/24\n198.51.100.0/24\n");
    await reload();
    expect(lines.at(-1)).toBe(`configuration reloaded: read ${denied} again`);
    await reload();
    expect(lines.at(-1)).toBe("configuration reloaded: nothing has changed");
    fault = new Error("no");
    writeFileSync(allowed, "");
    await reload();
    fault = undefined;
    await reload();
    expect(lines.at(-1)).toBe(`configuration reloaded: read ${allowed} again`);
  });

  test("leaves what only a start can change as it is, and says so", async () => {
    written = { ...written, port: ["443"], workers: ["4"], maxConnections: ["7"] };
    await reload();
    expect(applied[0]?.config.port).toBe(1443);
    expect(applied[0]?.config.workers).toBe(1);
    expect(applied[0]?.config.maxConnections).toBe(7);
    expect(lines).toContain("takes effect at the next start only: port, workers");
    written = { ...written, port: ["8443"] };
    await reload();
    expect(lines.at(-2)).toBe("configuration reloaded: nothing that can change now");
  });

  test("keeps the old configuration when the new one is wrong, and gives every reason", async () => {
    written = { ...written, maxConnections: ["many"], poolSize: ["-1"] };
    await reload();
    expect(applied).toEqual([]);
    expect(reloader.current.config.maxConnections).toBeUndefined();
    expect(lines).toHaveLength(2);
    for (const line of lines) expect(line).toStartWith("the configuration stays as it was: --");
    expect(reloader.lastError).toContain("max-connections");
    written = { secret: [HEX], port: ["1443"] };
    await reload();
    expect(reloader.lastError).toBeUndefined();
  });

  test("keeps it when it cannot be used", async () => {
    fault = new Error("Cannot read the certificates");
    await reload();
    expect(lines).toEqual(["the configuration stays as it was: Cannot read the certificates"]);
    expect(reloader.current.raw).toEqual({ secret: [HEX], port: ["1443"] });
  });

  test("does not take a file that is gone for an empty one", async () => {
    file = undefined;
    await reload();
    expect(applied).toEqual([]);
    expect(lines).toEqual([`the configuration stays as it was: ${FILE} is gone`]);
  });

  test("does not take one that has been emptied for one that is meant so", async () => {
    blank = true;
    await reload();
    expect(applied).toEqual([]);
    expect(lines[0]).toStartWith(`the configuration stays as it was: there is nothing in ${FILE}`);
    blank = false; // with a comment
    await reload();
    expect(applied).toHaveLength(1);
  });

  test("does one at a time, and once more for those who ask meanwhile", async () => {
    for (let count = 0; count < 10; count++) reloader.reload();
    await eventually(() => applied.length === 1);
    for (let count = 0; count < 10; count++) reloader.reload();
    await Bun.sleep(20);
    expect(applied.length).toBeLessThanOrEqual(3);
    expect(applied.length).toBeGreaterThanOrEqual(2);
  });
});
