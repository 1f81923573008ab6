import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openState } from "../../src/cli/state.ts";
import { DEFAULT_CF_LIST_URL } from "../../src/config/config.ts";
import type { StateFileError } from "../../src/config/state-file.ts";
import type { Way } from "../../src/upstream/route.ts";

const WAY: Way = {
  route: "direct-ws",
  endpoint: "kws2",
  group: "direct-ws",
  address: { host: "192.0.2.1", port: 443, webSocket: undefined },
  open: () => Promise.reject(new Error("not called")),
};

let folder: string;
let homeBefore: string | undefined;
let failures: StateFileError[];
const onFailed = (error: StateFileError): void => void failures.push(error);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-state-"));
  homeBefore = process.env["TGWS_HOME"];
  process.env["TGWS_HOME"] = folder;
  failures = [];
});
afterEach(() => {
  if (homeBefore === undefined) delete process.env["TGWS_HOME"];
  else process.env["TGWS_HOME"] = homeBefore;
  rmSync(folder, { recursive: true, force: true });
});

describe("openState()", () => {
  test("starts with nothing where nothing was kept, and writes nothing by itself", () => {
    const state = openState(onFailed);
    expect(state.standings.failureOf("DC 2", WAY)).toBeUndefined();
    expect(state.standings.changed).toBe(false);
    expect(state.damaged).toBe(false);
    expect(state.domainsOf(DEFAULT_CF_LIST_URL).read()).toBeUndefined();
    expect(readdirSync(folder)).toEqual([]);
    expect(failures).toEqual([]);
  });

  test("gives back what was learned and kept", () => {
    const before = openState(onFailed);
    before.standings.failedToCarry("DC 2", WAY, "SILENT");
    before.routes.write(before.standings.save());
    const after = openState(onFailed);
    expect(after.standings.failureOf("DC 2", WAY)).toEqual({ code: "SILENT", cooling: true });
    expect(after.standings.changed).toBe(false);
    expect(readdirSync(folder)).toEqual(["routes.json"]);
  });

  test.each(["", "{", "[]", "null", '{"version":99}', '{"version":1,"targets":7}'])(
    "learns anew when the file holds %j",
    (text) => {
      writeFileSync(join(folder, "routes.json"), text);
      const state = openState(onFailed);
      expect(state.damaged).toBe(text !== '{"version":1,"targets":7}'); // one part is left out
      expect(state.standings.failureOf("DC 2", WAY)).toBeUndefined();
      state.standings.proved("DC 2", WAY);
      state.routes.write(state.standings.save());
      expect(openState(onFailed).standings.good("DC 2", WAY)).toBe(true);
      expect(failures).toEqual([]);
    },
  );

  test("says why it cannot read what was kept, and learns anew", () => {
    mkdirSync(join(folder, "routes.json"));
    const state = openState(onFailed);
    expect(state.standings.failureOf("DC 2", WAY)).toBeUndefined();
    expect(failures).toMatchObject([{ code: "READ" }]);
    expect(failures[0]?.message).toContain(join(folder, "routes.json"));
  });

  test("says why it cannot keep anything, once", () => {
    writeFileSync(join(folder, "file"), "");
    process.env["TGWS_HOME"] = join(folder, "file");
    const state = openState(() => {});
    state.routes.write("one");
    const fresh = openState(onFailed);
    failures = [];
    fresh.routes.write("one");
    fresh.routes.write("two");
    expect(failures).toMatchObject([{ code: "WRITE" }]);
  });

  test("keeps each list of domains in a file of its own", () => {
    const usual = openState(onFailed).domainsOf(DEFAULT_CF_LIST_URL);
    const other = openState(onFailed).domainsOf("https://example.org/list.txt");
    usual.write("usual");
    other.write("other");
    expect(readFileSync(join(folder, "cf-domains.txt"), "utf8")).toBe("usual");
    expect(readdirSync(folder)).toHaveLength(2);
    const again = openState(onFailed);
    expect(again.domainsOf(DEFAULT_CF_LIST_URL).read()).toBe("usual");
    expect(again.domainsOf("https://example.org/list.txt").read()).toBe("other");
    expect(again.domainsOf("https://example.org/list.txt?2").read()).toBeUndefined();
  });
});
