import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { configFolder, generateSecret, loadOrCreateSecret } from "../../src/config/secret-store.ts";
import { StartError } from "../../src/core/errors.ts";

const HEX = "00112233445566778899aabbccddeeff";
const SOURCE = resolve(import.meta.dir, "../../src/config/secret-store.ts");
const onPosix = test.skipIf(process.platform === "win32");

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-secret-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function startErrorOf(load: () => unknown): StartError {
  try {
    load();
  } catch (error) {
    if (error instanceof StartError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

const modeOf = (path: string): number => statSync(path).mode & 0o777;

describe("loadOrCreateSecret()", () => {
  test("makes 16 bytes, and returns the same at the next start", () => {
    const secret = loadOrCreateSecret(folder);
    expect(secret).toHaveLength(16);
    expect(loadOrCreateSecret(folder).toHex()).toBe(secret.toHex());
    expect(readFileSync(join(folder, "secret"), "utf8")).toBe(`${secret.toHex()}\n`);
  });

  test("makes another one elsewhere", () => {
    const others = ["a", "b"].map((name) => loadOrCreateSecret(join(folder, name)).toHex());
    expect(new Set(others).size).toBe(2);
  });

  test("leaves nothing but the secret behind", () => {
    loadOrCreateSecret(folder);
    loadOrCreateSecret(folder);
    expect(readdirSync(folder)).toEqual(["secret"]);
  });

  onPosix("makes the folders that are missing, and lets only the owner in", () => {
    const nested = join(folder, "a", "b");
    loadOrCreateSecret(nested);
    expect(modeOf(nested)).toBe(0o700);
    expect(modeOf(join(nested, "secret"))).toBe(0o600);
  });

  onPosix("shuts a file that others could read", () => {
    const path = join(folder, "secret");
    writeFileSync(path, HEX);
    chmodSync(path, 0o644);
    loadOrCreateSecret(folder);
    expect(modeOf(path)).toBe(0o600);
  });

  test.each([`${HEX}\n`, ` dd${HEX}\r\n`, Buffer.from(HEX, "hex").toString("base64")])(
    "reads one that a person has put there: %j",
    (text) => {
      writeFileSync(join(folder, "secret"), text);
      expect(loadOrCreateSecret(folder).toHex()).toBe(HEX);
    },
  );

  test.each(["", "\n", HEX.slice(1), `${HEX}\n${HEX}`, "?", "\0".repeat(16)])(
    "refuses a damaged file and keeps it: %j",
    (text) => {
      const path = join(folder, "secret");
      writeFileSync(path, text);
      const error = startErrorOf(() => loadOrCreateSecret(folder));
      expect(error).toMatchObject({
        code: "FILE",
        message: `Cannot use the secret in ${path}: it is damaged`,
        hint: expect.stringContaining("delete the file"),
      });
      expect(error.cause).toBeInstanceOf(Error);
      expect(readFileSync(path, "utf8")).toBe(text);
    },
  );

  test("does not quote a damaged secret", () => {
    writeFileSync(join(folder, "secret"), `${HEX}00`);
    const error = startErrorOf(() => loadOrCreateSecret(folder));
    expect(Bun.inspect(error)).not.toContain(HEX);
  });

  test("says so when the folder cannot be made", () => {
    const file = join(folder, "file");
    writeFileSync(file, "");
    expect(startErrorOf(() => loadOrCreateSecret(join(file, "tgws")))).toMatchObject({
      code: "FILE",
      message: expect.stringContaining(join(file, "tgws", "secret")),
      hint: "set TGWS_HOME to a folder of your own, or give one with --secret",
    });
  });

  test("says so when the secret is a folder", () => {
    mkdirSync(join(folder, "secret"));
    expect(startErrorOf(() => loadOrCreateSecret(folder))).toMatchObject({
      code: "FILE",
      message: `Cannot read the secret: ${join(folder, "secret")} (EISDIR)`,
    });
  });

  onPosix("says so when it may not write there", () => {
    if (process.getuid?.() === 0) return; // root may
    chmodSync(folder, 0o500);
    expect(startErrorOf(() => loadOrCreateSecret(folder)).message).toContain("Cannot write the secret");
    expect(existsSync(join(folder, "secret"))).toBe(false);
  });

  test("gives every one of several programs that start at once the same", async () => {
    const home = join(folder, "new");
    const script = `
      import { loadOrCreateSecret } from ${JSON.stringify(SOURCE)};
      await Bun.sleep(Number(process.argv[1]) - Date.now());
      console.log(loadOrCreateSecret(${JSON.stringify(home)}).toHex());
    `;
    const start = String(Date.now() + 400);
    const programs = Array.from({ length: 4 }, () =>
      Bun.spawn([process.execPath, "-e", script, start], { stdout: "pipe", stderr: "inherit" }),
    );
    const printed = await Promise.all(programs.map(({ stdout }) => stdout.text()));
    expect(new Set(printed)).toEqual(new Set([`${loadOrCreateSecret(home).toHex()}\n`]));
    expect(readdirSync(home)).toEqual(["secret"]);
  });

  // In a container every start has the same process id.
  test("starts although one that was cut off has left its temporary file", () => {
    writeFileSync(join(folder, `secret.${process.pid}.tmp`), "0011");
    expect(loadOrCreateSecret(folder)).toHaveLength(16);
  });
});

describe("generateSecret()", () => {
  test("makes 16 bytes, different ones each time", () => {
    const made = Array.from({ length: 20 }, () => generateSecret());
    expect(made.every(({ length }) => length === 16)).toBe(true);
    expect(new Set(made.map((bytes) => bytes.toHex())).size).toBe(20);
  });
});

describe("configFolder()", () => {
  const HOME = "/home/ann";

  test.each([
    ["linux", { HOME }, join(HOME, ".config", "tgws")],
    ["linux", { HOME, XDG_CONFIG_HOME: "/data" }, join("/data", "tgws")],
    ["linux", { HOME, XDG_CONFIG_HOME: "" }, join(HOME, ".config", "tgws")],
    ["linux", { HOME, APPDATA: "/appdata" }, join(HOME, ".config", "tgws")],
    ["freebsd", { HOME }, join(HOME, ".config", "tgws")],
    ["darwin", { HOME }, join(HOME, "Library", "Application Support", "tgws")],
    ["darwin", { HOME, XDG_CONFIG_HOME: "/data" }, join(HOME, "Library", "Application Support", "tgws")],
    ["win32", { HOME, APPDATA: "/appdata" }, join("/appdata", "tgws")],
    ["win32", { HOME }, join(HOME, "AppData", "Roaming", "tgws")],
    ["linux", { HOME, TGWS_HOME: "/own", XDG_CONFIG_HOME: "/data" }, "/own"],
    ["darwin", { HOME, TGWS_HOME: "/own" }, "/own"],
    ["win32", { HOME, TGWS_HOME: "/own", APPDATA: "/appdata" }, "/own"],
    ["linux", { HOME, TGWS_HOME: "" }, join(HOME, ".config", "tgws")],
    ["linux", {}, join(homedir(), ".config", "tgws")],
  ] as const)("is on %s with %j: %s", (platform, environment, expected) => {
    expect(configFolder(environment, platform)).toBe(expected);
  });
});
