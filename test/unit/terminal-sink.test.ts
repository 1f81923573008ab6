import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { eventually } from "../support/sessions.ts";
import { Condition } from "../support/waiting.ts";

const SOURCE = resolve(import.meta.dir, "../../src/observe/log.ts");
const LINUX = process.platform === "linux";
/** More than a pipe, a terminal and the log itself keep. */
const FLOOD = 3_000;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-terminal-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/**
 * A program that, once there is a file `go`, logs a flood over many turns of its event loop, and then makes a file
 * `alive`. When there is a file `end`, it logs its counts and ends.
 */
function flood(format: "plain" | "pretty", before = ""): string {
  return `
    import { existsSync, writeFileSync } from "node:fs";
    import { createLogger } from ${JSON.stringify(SOURCE)};
    const file = (name) => ${JSON.stringify(folder)} + "/" + name;
    const wait = async (name) => { while (!existsSync(file(name))) await Bun.sleep(5); };
    const log = await createLogger({ level: "debug", format: ${JSON.stringify(format)}, file: undefined });
    ${before}
    log.warn("begin");
    await wait("go");
    for (let at = 0; at < ${FLOOD}; at += 1) {
      log.write({ time: Date.now(), level: "info", message: "x".repeat(100) + at, fields: undefined });
      if (at % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    writeFileSync(file("alive"), "");
    await wait("end");
    await Bun.sleep(60);
    log.warn("last");
    await log.close();
  `;
}

function make(name: string): void {
  writeFileSync(join(folder, name), "");
}

describe("the log on a terminal", () => {
  test.if(LINUX).each(["pretty", "plain"] as const)(
    "does not wait for one that was stopped with Ctrl-S: %s",
    async (format) => {
      let shown = "";
      const heard = new Condition();
      const decoder = new TextDecoder();
      const program = Bun.spawn([process.execPath, "-e", flood(format)], {
        terminal: {
          data(_, bytes) {
            shown += decoder.decode(bytes, { stream: true });
            heard.changed();
          },
        },
      });
      try {
        await heard.until(() => shown.includes("begin"), "its first line");
        program.terminal?.write("\x13");
        make("go");
        await eventually(() => existsSync(join(folder, "alive")), "the end of the flood, nobody reading");
        program.terminal?.write("\x11");
        await heard.until(() => /\d+ lines were dropped here/.test(shown), "what was dropped");
        make("end");
        await heard.until(() => shown.includes("last"), "its last line");
        expect(await program.exited).toBe(0);
      } finally {
        program.kill("SIGKILL");
        program.terminal?.close();
      }
    },
  );
});

describe("the log on standard error", () => {
  test.if(LINUX)("waits for a pipe that says it is full, and says what it has dropped", async () => {
    // Whoever shares a pipe can have made it one that does not block.
    const unblock = `
      const { dlopen } = await import("bun:ffi");
      const { symbols } = dlopen("libc.so.6", { fcntl: { args: ["int", "int", "int"], returns: "int" } });
      symbols.fcntl(2, 4, 2048); // F_SETFL, O_NONBLOCK
    `;
    const reader = `while [ ! -e '${folder}/alive' ]; do sleep 0.02; done; : > '${folder}/end'; cat`;
    const script = `"$0" -e "$1" 2>&1 >/dev/null | { ${reader}; }`;
    const program = Bun.spawn(["sh", "-c", script, process.execPath, flood("plain", unblock)], {
      stdout: "pipe",
    });
    make("go");
    const lines = (await program.stdout.text()).trimEnd().split("\n");
    const notes = [...lines.join("\n").matchAll(/(\d+) lines were dropped here/g)];
    const dropped = notes.reduce((sum, [, count]) => sum + Number(count), 0);
    const kept = lines.filter((line) => /(?:info {2}x{100}\d+|warn {2}(?:begin|last))$/.test(line)).length;
    expect(kept + dropped).toBe(FLOOD + 2);
    expect(dropped).toBeGreaterThan(0);
    expect(lines.length).toBe(kept + notes.length);
  });

  test.if(LINUX)("says how many lines a full disk did not take once it takes some again", async () => {
    // A limit on the size of files is the nearest to a full disk that needs no disk.
    const file = join(folder, "log");
    const script = `
      import { truncateSync } from "node:fs";
      import { createLogger } from ${JSON.stringify(SOURCE)};
      const log = await createLogger({ level: "info", format: "plain", file: undefined });
      const say = async (message) => {
        log.write({ time: Date.now(), level: "info", message, fields: undefined });
        await Bun.sleep(10);
      };
      for (let at = 0; at < 20; at += 1) await say("x".repeat(1_000));
      truncateSync(${JSON.stringify(file)}, 0);
      await say("one");
      await say("two");
      await log.close();
    `;
    const command = `trap "" XFSZ; ulimit -f 16; exec "$0" -e "$1" 2>>'${file}'`;
    expect(await Bun.spawn(["sh", "-c", command, process.execPath, script]).exited).toBe(0);
    const said = readFileSync(file, "utf8");
    expect(said).toMatch(/ info {2}one\n/);
    expect(said).toMatch(/ info {2}two\n/);
    const [, dropped] = /(\d+) lines were dropped/.exec(said) ?? [];
    expect(Number(dropped)).toBeGreaterThan(3);
  });

  test.if(LINUX)("counts as dropped what a full disk did not take", async () => {
    const script = `
      import { createLogger } from ${JSON.stringify(SOURCE)};
      const log = await createLogger({ level: "info", format: "plain", file: undefined });
      log.info("one");
      log.info("two");
      await log.close();
      console.log(JSON.stringify(log.counts));
    `;
    const program = Bun.spawn(["sh", "-c", '"$0" -e "$1" 2>/dev/full', process.execPath, script], {
      stdout: "pipe",
    });
    expect(await program.stdout.json()).toEqual({ written: 0, folded: 0, dropped: 2 });
  });
});
