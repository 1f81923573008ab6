import { afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readAddressLists } from "../../src/cli/read-address-lists.ts";
import { ConfigError, type ConfigIssue } from "../../src/core/errors.ts";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function file(text: string | Uint8Array): string {
  const folder = mkdtempSync(join(tmpdir(), "tgws-lists-"));
  folders.push(folder);
  const path = join(folder, "list.txt");
  writeFileSync(path, text);
  return path;
}

async function issuesOf(lists: {
  readonly allow?: string[];
  readonly deny?: string[];
}): Promise<readonly ConfigIssue[]> {
  const error = await readAddressLists({ allow: [], deny: [], ...lists }).catch((thrown: unknown) => thrown);
  if (error instanceof ConfigError) return error.issues;
  throw new Error("it could be read");
}

describe("readAddressLists()", () => {
  test("lets everybody in without lists", async () => {
    expect(await readAddressLists({ allow: [], deny: [] })).toMatchObject({ lists: undefined, files: [] });
  });

  test("makes nothing anew while the entries and the texts are the same", async () => {
    const path = file("10.0.0.0/8\n");
    const given = { allow: [], deny: [path, "192.0.2.0/24"] };
    const first = await readAddressLists(given);
    expect(await readAddressLists(given, undefined, first)).toBe(first);
    expect(await readAddressLists({ ...given, deny: [path] }, undefined, first)).not.toBe(first);
    writeFileSync(path, "11.0.0.0/8\n");
    const second = await readAddressLists(given, undefined, first);
    expect(["10.0.0.1", "11.0.0.1"].map((address) => second.lists?.allows(address))).toEqual([true, false]);
  });

  test("reads networks and files, with comments, empty lines and any line ends; deny wins", async () => {
    const path = file("# ours\r\n10.0.0.0/8 # all of it\r\n\r\n  2001:db8::/32\n192.0.2.1");
    const { lists, files } = await readAddressLists({ allow: ["203.0.113.0/24", path], deny: ["10.6.6.6"] });
    expect(files).toEqual([path]);
    const addresses = [
      "203.0.113.9",
      "10.1.1.1",
      "10.6.6.6",
      "::ffff:10.6.6.6",
      "2001:db8::9",
      "192.0.2.1",
      "192.0.2.2",
    ];
    expect(addresses.map((address) => lists?.allows(address))).toEqual([
      true,
      true,
      false,
      false,
      true,
      true,
      false,
    ]);
  });

  test("with deny alone lets everybody else in; with an empty file to allow, nobody", async () => {
    const denying = await readAddressLists({ allow: [], deny: ["10.0.0.0/8"] });
    expect(["10.0.0.1", "11.0.0.1"].map((address) => denying.lists?.allows(address))).toEqual([false, true]);
    const closed = await readAddressLists({ allow: [file("")], deny: [] });
    expect(closed.lists?.allows("127.0.0.1")).toBe(false);
  });

  test("reports every line that cannot be read, with its number", async () => {
    const path = file("10.0.0.0/8\n10.0.0.1/8\n\nexample.org\n2001:db8::/200\n");
    const issues = await issuesOf({ deny: [path] });
    expect(issues.map(({ path: flag, message }) => [flag, message])).toEqual([
      ["--deny", `${path}, line 2, "10.0.0.1/8": bits are set after the first 8`],
      ["--deny", `${path}, line 4, "example.org": not an IP address or network`],
      ["--deny", `${path}, line 5, "2001:db8::/200": what stands after / is not a number from 0 to 128`],
    ]);
  });

  test("does not repeat what may be a secret: another file of ours may have been named", async () => {
    const [issue] = await issuesOf({ allow: [file("00112233445566778899aabbccddeeff\n")] });
    expect(issue?.message).toContain('line 1, "(a secret)": not an IP address');
    const [other] = await issuesOf({ allow: ["ABEiM0RVZneImaq7zN3u%2Fw%3D%3D"] });
    expect(other?.message).toBe("cannot read (a secret): no such file");
  });

  test("says of a file that is something else how many lines are wrong, and quotes little of them", async () => {
    const issues = await issuesOf({ allow: [file(`${"x".repeat(1_000)}\n`.repeat(1_000))] });
    expect(issues).toHaveLength(21);
    expect(issues[0]?.message.length).toBeLessThan(200);
    expect(issues.at(-1)?.message).toContain("980 more lines");
  });

  test.each([
    ["is not there", () => "/nowhere/list.txt", /cannot read .*ENOENT/],
    ["is a folder", () => tmpdir(), /it is no file|EISDIR/],
    ["is too large", () => file(new Uint8Array(4 * 1024 * 1024 + 1)), /4\.0 MB, more than 4\.0 MB/],
    ["has too many entries", () => file("10.0.0.0/8\n".repeat(100_001)), /100001 entries, more than 100000/],
  ])("refuses a file that %s", async (_, path, message) => {
    const issues = await issuesOf({ allow: [path()] });
    expect(issues).toHaveLength(1);
    expect(issues[0]?.message).toMatch(message);
  });
});
