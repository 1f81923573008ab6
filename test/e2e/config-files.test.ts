import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { Home } from "../support/home.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { StubDc } from "../support/stub-dc.ts";

const TEST_LIMIT_MS = 60_000;
const MAIN = resolve(import.meta.dir, "../../src/main.ts");
const EDIT_FILE = resolve(import.meta.dir, "../../src/config/edit-file.ts");
const TOGETHER = 6;
const KILLS = 8;
/** Lines of the file that is written over and over, all alike: half of one file and half of another show. */
const LINES = 2_000;

let stub: StubDc;
beforeAll(async () => {
  stub = await StubDc.start();
  stub.onPacket = ({ payload }) => [payload];
});
afterAll(() => stub[Symbol.asyncDispose]());

/** Runs a command to its end. */
async function tgws(
  home: Home,
  ...args: readonly string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  await using program = new Program({ args, home: home.path });
  const code = await program.exited(TEST_LIMIT_MS);
  return { code, stdout: program.stdout, stderr: program.stderr };
}

describe("a proxy with a configuration file", () => {
  it(
    "serves the users of the file, with a flag and a variable that count more",
    async () => {
      using home = new Home();
      const key = new Uint8Array(randomBytes(16));
      const added = await tgws(home, "users", "add", "alice", "--secret", key.toHex());
      expect(added).toMatchObject({ code: 0, stderr: "" });
      const file = join(home.path, "config.toml");
      writeFileSync(file, `log-level = "error"\npool-size = 99\n${readFileSync(file, "utf8")}`);
      await using proxy = await ProxyProcess.start({
        stub,
        secrets: [],
        home: home.path,
        command: ["env", "TGWS_LOG_LEVEL=info", process.execPath, "run", MAIN],
      });
      expect(proxy.secret.toHex()).toBe(key.toHex());
      using client = await RawClient.open({ port: proxy.port, secret: key });
      client.sendPacket(Uint8Array.of(1, 2, 3, 4));
      expect((await client.readPacket()).payload.toHex()).toBe("01020304");
      client[Symbol.dispose]();
      await proxy.logged(/session ended .*user=alice/);
    },
    TEST_LIMIT_MS,
  );

  it(
    "does not start with a file that is wrong, and says all that is",
    async () => {
      using home = new Home();
      const file = join(home.path, "config.toml");
      writeFileSync(file, 'port = 1\nprot = 2\n[users.a]\nsecret = "x"\n');
      const { code, stdout, stderr } = await tgws(home);
      expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
      expect(stderr).toContain(`tgws: ${file}:2: prot: unknown setting\nhint: did you mean port?\n`);
      expect(stderr).toContain(`tgws: ${file}:4: users.a.secret: Cannot use secret`);
      expect(await tgws(home, "config", "check")).toEqual({ code, stdout, stderr });
    },
    TEST_LIMIT_MS,
  );
});

describe("edits of the configuration file", () => {
  it(
    "do not lose one another when they come at once",
    async () => {
      using home = new Home();
      const names = Array.from({ length: TOGETHER }, (_, at) => `user${at}`);
      const outcomes = await Promise.all(names.map((name) => tgws(home, "users", "add", name)));
      expect(outcomes.map(({ code, stderr }) => `${code}${stderr}`)).toEqual(names.map(() => "0"));
      const { stdout } = await tgws(home, "users", "list", "--json");
      const listed = (JSON.parse(stdout) as { name: string }[]).map(({ name }) => name);
      expect(listed.toSorted()).toEqual(names);
      expect(readdirSync(home.path)).toEqual(["config.toml"]);
    },
    TEST_LIMIT_MS,
  );

  it(
    "leave the old file or the new one when they are killed, and the next one goes on",
    async () => {
      using home = new Home();
      const file = join(home.path, "config.toml");
      const program = `
        import { editFile } from ${JSON.stringify(EDIT_FILE)};
        for (;;) {
          await editFile(${JSON.stringify(file)}, (text = "0") => {
            const next = Number(text.split("\\n")[0]) + 1;
            return Array(${LINES}).fill(next).join("\\n");
          });
          process.stdout.write("x");
        }`;
      for (let kill = 0; kill < KILLS; kill++) {
        const child = Bun.spawn([process.execPath, "-e", program], { stdout: "pipe" });
        let edits = 0;
        for await (const chunk of child.stdout) {
          edits += chunk.length;
          if (edits > kill) child.kill("SIGKILL");
        }
        await child.exited;
        const lines = readFileSync(file, "utf8").split("\n");
        expect(lines).toHaveLength(LINES);
        expect(new Set(lines).size).toBe(1);
        expect(Number(lines[0])).toBeGreaterThanOrEqual(edits);
      }
    },
    TEST_LIMIT_MS,
  );
});
