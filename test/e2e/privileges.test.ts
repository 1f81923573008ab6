import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { testCertificates } from "../support/certificates.ts";
import { ConfigHome } from "../support/config-home.ts";
import { childrenOf } from "../support/process-tree.ts";
import { Program, ProxyProcess, SOURCE } from "../support/proxy.ts";
import { eventually, isCut, openOnEach, openSession, ping } from "../support/sessions.ts";
import { StatusClient } from "../support/status.ts";
import { StubDc } from "../support/stub-dc.ts";

const LIMIT_MS = 60_000;
const NOBODY = "nobody";
/** What `setpriv` needs to run something as {@link NOBODY}. */
const AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups"] as const;
/** Ports below this one are root's. */
const FIRST_FREE_PORT = 1_024;
const ANN = new Uint8Array(randomBytes(16));

const missing = whatIsMissing();
if (missing !== undefined) console.warn(`SKIPPED: giving up privileges is not tested: ${missing}`);

let stub: StubDc;

beforeAll(async () => {
  stub = await StubDc.start();
  chmodSync(dirname((await testCertificates()).caFile), 0o755); // it is read again at a reload
});

beforeEach(() => {
  stub.reset();
  stub.onPacket = ({ payload }) => [payload];
});

afterAll(() => stub[Symbol.asyncDispose]());

/** A configuration that whoever the program becomes may read. */
function makeHome(...lines: readonly string[]): ConfigHome {
  const home = new ConfigHome("");
  rewrite(home, ...lines);
  return home;
}

function rewrite(home: ConfigHome, ...lines: readonly string[]): void {
  home.write(["[users.ann]", `secret = "${ANN.toHex()}"`, ...lines, ""].join("\n"));
  chownSync(home.file, 0, idsOf(NOBODY).gid);
  chmodSync(home.file, 0o640);
}

/** Starts a proxy that becomes nobody, on a port that only root can open. */
function start(
  home: Pick<ConfigHome, "path">,
  workers: number,
  args: readonly string[] = [],
): Promise<ProxyProcess> {
  const port = freeLowPort();
  const flags = ["--workers", String(workers), "--user", NOBODY];
  return ProxyProcess.start({ stub, secrets: [], port, home: home.path, args: [...flags, ...args] });
}

/** A program that is to end by itself, because it cannot become somebody. */
async function refuses(
  args: readonly string[],
  { home, as = [] }: { readonly home?: string; readonly as?: readonly string[] } = {},
): Promise<string> {
  const port = freeLowPort(FIRST_FREE_PORT + 20_000);
  const [executable = "", ...rest] = [...as, ...SOURCE];
  const command = [executable, ...rest] as const;
  const place = home === undefined ? {} : { home };
  await using program = new Program({ command, args: ["--port", String(port), ...args], ...place });
  expect(await program.exited()).toBe(1);
  expect(program.stdout).toBe("");
  Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true); // it has left it
  return program.stderr;
}

for (const workers of [1, 2]) {
  describe.skipIf(missing !== undefined)(workers === 1 ? "--user" : `--user with ${workers} workers`, () => {
    it(
      "leaves nothing of root to any thread of any process, and serves on a port of root's",
      async () => {
        using home = makeHome();
        await using proxy = await start(home, workers, ["--status", "0"]);
        expect(proxy.port).toBeLessThan(FIRST_FREE_PORT);
        const children = childrenOf(proxy.pid);
        expect(children).toHaveLength(workers === 1 ? 0 : workers);
        for (const pid of [proxy.pid, ...children]) {
          for (const task of readdirSync(`/proc/${pid}/task`)) expect(rightsOf(pid, task)).toEqual(NOTHING);
        }
        (await openSession({ port: proxy.port, secret: ANN }))[Symbol.dispose]();
        const scrape = await (await StatusClient.of(proxy)).scrape();
        expect(scrape.sum("tgws_connections_total")).toBe(1);
        expect(await proxy.stop()).toBe(0);
      },
      LIMIT_MS,
    );

    it(
      "can still read its configuration, and write its log and what it keeps",
      async () => {
        using home = makeHome("quota-gb = 1");
        const log = join(home.path, "log");
        {
          await using proxy = await start(home, workers, ["--log-file", log]);
          const { port } = proxy;
          // What is learned of routes is kept by one of the workers alone.
          const clients = await openOnEach(childrenOf(proxy.pid), 1, { port, secret: ANN });
          for (const client of clients) client[Symbol.dispose]();
          const ended = (): boolean => proxy.countLogged(/session ended/g) === clients.length;
          await eventually(ended, "the end of all sessions");
          const from = proxy.stderr.length;
          rewrite(home, "max-connections = 100");
          proxy.signal("SIGHUP");
          const [line] = await proxy.loggedSince(from, /configuration .*/);
          expect(line).toBe("configuration reloaded: changed users ann");
          rmSync(log);
          proxy.signal("SIGUSR1");
          await proxy.logged(/the log file has been opened again/);
          (await openSession({ port, secret: ANN }))[Symbol.dispose]();
          expect(await proxy.stop()).toBe(0);
          expect(proxy.stderr).not.toMatch(/Cannot|error /);
        }
        const { uid } = idsOf(NOBODY);
        for (const name of ["log", "usage.db", "routes.json"]) {
          expect(`${name} ${statSync(join(home.path, name)).uid}`).toBe(`${name} ${uid}`);
        }
        expect(readFileSync(log, "utf8")).toMatch(/session ended .*user=ann/);
        await using again = await start(home, workers); // what root had made is nobody's now
        expect(again.stderr).not.toMatch(/Cannot/);
      },
      LIMIT_MS,
    );
  });
}

describe.skipIf(missing !== undefined)("--user", () => {
  it(
    "starts a killed worker again on the same port, without being root any more",
    async () => {
      using home = makeHome();
      await using proxy = await start(home, 2);
      const { port } = proxy;
      const before = childrenOf(proxy.pid);
      const [victim = 0] = before;
      const sessions = await Promise.all(Array.from({ length: 8 }, () => openSession({ port, secret: ANN })));
      process.kill(victim, "SIGKILL");
      await proxy.logged(/was killed by SIGKILL: another one starts/);
      await eventually(() => childrenOf(proxy.pid).length === 2, "another worker");
      const more = await Promise.all(Array.from({ length: 12 }, () => openSession({ port, secret: ANN })));
      const pid = childrenOf(proxy.pid).find((one) => !before.includes(one)) ?? 0;
      expect(rightsOf(pid, String(pid))).toEqual(NOTHING);
      for (const client of sessions) if (!isCut(client)) await ping(client);
      for (const client of [...sessions, ...more]) client[Symbol.dispose]();
    },
    LIMIT_MS,
  );

  it(
    "says so when it may not read its configuration any more, and keeps what it has",
    async () => {
      using home = makeHome();
      await using proxy = await start(home, 1);
      chmodSync(home.file, 0o600);
      proxy.signal("SIGHUP");
      const [line] = await proxy.logged(/the configuration stays as it was: .*/);
      expect(line).toContain(home.file);
      expect(line).toMatch(/permission|EACCES/);
      (await openSession({ port: proxy.port, secret: ANN }))[Symbol.dispose]();
    },
    LIMIT_MS,
  );

  it(
    "gives away what root has made in the folder, and nothing else",
    async () => {
      using home = makeHome();
      home.add("mine", "not the program's");
      home.add("hellos", "");
      {
        await using proxy = await start(home, 1);
        expect(proxy.stderr).not.toMatch(/Cannot/);
      }
      expect(statSync(join(home.path, "mine")).uid).toBe(0);
      expect(statSync(home.file).uid).toBe(0);
      expect(statSync(join(home.path, "hellos")).uid).toBe(idsOf(NOBODY).uid);
    },
    LIMIT_MS,
  );

  it("gives away no folder in which there is more of root's", async () => {
    for (const make of [
      (home: string) => mkdirSync(join(home, "ssh")),
      (home: string) => writeFileSync(join(home, ".bashrc"), ""),
      (home: string) => writeFileSync(join(home, "tgws"), "", { mode: 0o755 }),
    ]) {
      const home = mkdtempSync(join(tmpdir(), "tgws-shared-"));
      try {
        chmodSync(home, 0o755);
        make(home);
        const text = await refuses(["--user", NOBODY], { home });
        expect(text).toMatch(/Cannot give \S+ to nobody: there is more in it .*\n.*hint: .*TGWS_HOME/s);
        expect(statSync(home).uid).toBe(0);
      } finally {
        rmSync(home, { recursive: true, force: true });
      }
    }
  });

  it(
    "does not take for root's what a disk and an editor leave in its folder",
    async () => {
      using home = makeHome();
      mkdirSync(join(home.path, "lost+found"));
      writeFileSync(join(home.path, ".config.toml.swp"), "");
      await using proxy = await start(home, 1);
      expect(statSync(home.path).uid).toBe(idsOf(NOBODY).uid);
      (await openSession({ port: proxy.port, secret: ANN }))[Symbol.dispose]();
    },
    LIMIT_MS,
  );

  it(
    "gives away no folder that a link leads to, and uses one that the user has",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "tgws-links-"));
      try {
        chmodSync(folder, 0o755);
        const [home, target] = [join(folder, "home"), join(folder, "target")];
        mkdirSync(target);
        symlinkSync(target, home);
        const text = await refuses(["--user", NOBODY], { home });
        expect(text).toMatch(
          /Cannot give \S+home to nobody: it is a link\n.*hint: .*chown nobody \S+target/s,
        );
        expect([home, target].map((path) => lstatSync(path).uid)).toEqual([0, 0]);
        const { uid, gid } = idsOf(NOBODY);
        chownSync(target, uid, gid);
        await using _proxy = await start({ path: home }, 1);
        expect(statSync(join(target, "secret")).uid).toBe(uid);
        expect(lstatSync(home).uid).toBe(0);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    LIMIT_MS,
  );

  it(
    "says when its configuration is where the user can replace it, and root would follow",
    async () => {
      using home = makeHome();
      {
        await using proxy = await start(home, 1);
        const [, file] = await proxy.logged(/nobody can replace (\S+), and root does what it says/);
        expect(file).toBe(home.file);
      }
      using place = makeHome();
      using other = new ConfigHome("");
      await using proxy = await start(other, 1, ["--config", place.file]);
      expect(proxy.stderr).not.toMatch(/can replace/);
    },
    LIMIT_MS,
  );

  it(
    "starts with a log file that is full in a folder of root's, and says that it cannot be rotated",
    async () => {
      using home = makeHome();
      const folder = mkdtempSync(join(tmpdir(), "tgws-root-"));
      try {
        chmodSync(folder, 0o755);
        const log = join(folder, "log");
        writeFileSync(log, "x".repeat(2 * 1024 * 1024));
        await using proxy = await start(home, 1, ["--log-file", log, "--log-max-mb", "1"]);
        const [, named] = await proxy.logged(/cannot be rotated: nobody may not make files in (\S+);/);
        expect(named).toBe(folder);
        expect(proxy.stderr).toMatch(/error Cannot write the log file, which is tried again .* rename/);
        (await openSession({ port: proxy.port, secret: ANN }))[Symbol.dispose]();
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    LIMIT_MS,
  );

  it("names a user that there is not", async () => {
    expect(await refuses(["--user", "no-such-user"])).toMatch(/no-such-user: there is no such user\n.*hint/s);
  });

  it("cannot be root, nor in the group root", async () => {
    expect(await refuses(["--user", "root"])).toMatch(/--user root keeps them all\n.*hint/s);
    expect(await refuses(["--user", NOBODY, "--group", "root"])).toMatch(/group root keeps some\n.*hint/s);
    expect(await refuses(["--user", "0"])).toMatch(/Cannot give up privileges/);
    expect(await refuses(["--group", "daemon"])).toMatch(
      /Cannot become group daemon alone\n.*hint: .*--user/s,
    );
  });

  it.skipIf(Bun.which("setpriv") === null)("cannot become somebody without being root", async () => {
    const home = mkdtempSync(join(tmpdir(), "tgws-nobody-"));
    try {
      chmodSync(home, 0o777);
      const text = await refuses(["--user", "daemon"], { home, as: AS_NOBODY });
      expect(text).toMatch(/Cannot become daemon: only root can\n.*hint: start it with sudo/s);
      expect(readdirSync(home)).toEqual([]);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

  it.skipIf(!canKeep("setuid"))("is not content to be that user with a way back to root", async () => {
    const home = mkdtempSync(join(tmpdir(), "tgws-nobody-"));
    try {
      chmodSync(home, 0o777);
      for (const [right, way] of [
        ["setuid", /Cannot stay nobody: it can become root again\n.*hint/s],
        ["setgid", /Cannot stay nobody: it can join the group root again\n.*hint/s],
      ] as const) {
        expect(await refuses(["--user", NOBODY], { home, as: [...AS_NOBODY, ...keeping(right)] })).toMatch(
          way,
        );
      }
      // Another right is no way back: to open low ports, for example.
      const [executable = "", ...rest] = [...AS_NOBODY, ...keeping("net_bind_service"), ...SOURCE];
      const port = freeLowPort();
      const args = ["--user", NOBODY];
      const options = { command: [executable, ...rest] as const, stub, secrets: [], home, port, args };
      await using proxy = await ProxyProcess.start(options);
      expect(proxy.port).toBe(port);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

  it("does not start where its folder is closed to the user", async () => {
    const closed = mkdtempSync(join(tmpdir(), "tgws-closed-"));
    try {
      const home = join(closed, "home");
      mkdirSync(home);
      const text = await refuses(["--user", NOBODY], { home });
      expect(text).toMatch(
        /Cannot use \S+home as nobody: a folder above it is closed to that user\n.*TGWS_HOME/s,
      );
    } finally {
      rmSync(closed, { recursive: true, force: true });
    }
  });

  it("makes no file that its log file is a link to", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-link-"));
    try {
      symlinkSync(join(folder, "target"), join(folder, "log"));
      chmodSync(folder, 0o755);
      const text = await refuses(["--user", NOBODY, "--log-file", join(folder, "log")]);
      expect(text).toMatch(/log/);
      expect(existsSync(join(folder, "target"))).toBe(false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it.skipIf(Bun.which("setpriv") === null)("is not content to be that user in the group root", async () => {
    const home = mkdtempSync(join(tmpdir(), "tgws-nobody-"));
    try {
      chmodSync(home, 0o777);
      for (const groups of [
        ["--regid=0", "--clear-groups"],
        ["--regid=65534", "--groups=0"],
      ]) {
        const as = ["setpriv", "--reuid=nobody", ...groups];
        const text = await refuses(["--user", NOBODY], { home, as });
        expect(text).toMatch(/Cannot stay nobody: it is in the group root\n.*hint: .* in another group/s);
      }
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

  it.skipIf(Bun.which("setpriv") === null)("cannot join another group without being root", async () => {
    const home = mkdtempSync(join(tmpdir(), "tgws-nobody-"));
    try {
      chmodSync(home, 0o777);
      const text = await refuses(["--user", NOBODY, "--group", "daemon"], { home, as: AS_NOBODY });
      expect(text).toMatch(/Cannot join the group daemon: only root can\n.*hint/s);
    } finally {
      rmSync(home, { recursive: true, force: true });
    }
  });

  it("does not give away a file that its log file is a link to", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-link-"));
    try {
      const target = join(folder, "target");
      writeFileSync(target, "");
      const { exitCode } = Bun.spawnSync(["ln", target, join(folder, "log")]);
      expect(exitCode).toBe(0);
      chmodSync(folder, 0o755);
      await refuses(["--user", NOBODY, "--log-file", join(folder, "log")]);
      expect(statSync(target).uid).toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

/** What a thread may do, as the kernel has it. */
interface Rights {
  readonly uids: readonly number[];
  readonly gids: readonly number[];
  readonly groups: readonly number[];
  readonly capabilities: readonly string[];
}

/** What is left for {@link NOBODY}: its own, and no capability. */
const NOTHING: Rights = (() => {
  const { uid, gid } = missing === undefined ? idsOf(NOBODY) : { uid: 0, gid: 0 };
  const none = "0".repeat(16);
  return {
    uids: [uid, uid, uid, uid],
    gids: [gid, gid, gid, gid],
    groups: [gid],
    capabilities: [none, none, none, none],
  };
})();

function rightsOf(pid: number, task: string): Rights {
  const status = readFileSync(`/proc/${pid}/task/${task}/status`, "utf8");
  const read = (name: string): string[] =>
    new RegExp(`^${name}:(.*)$`, "m").exec(status)?.[1]?.trim().split(/\s+/).filter(Boolean) ?? [];
  return {
    uids: read("Uid").map(Number),
    gids: read("Gid").map(Number),
    groups: read("Groups").map(Number),
    capabilities: ["CapInh", "CapPrm", "CapEff", "CapAmb"].flatMap(read),
  };
}

function idsOf(user: string): { readonly uid: number; readonly gid: number } {
  const row = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .find((line) => line.startsWith(`${user}:`));
  const [, , uid, gid] = row?.split(":").map(Number) ?? [];
  if (uid === undefined || gid === undefined) throw new Error(`There is no user ${user}`);
  return { uid, gid };
}

/** A port below 1024, or from `first` on, that nobody listens on. */
function freeLowPort(first = 600): number {
  for (let port = first; port < first + 400; port++) {
    try {
      Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
      return port;
    } catch {} // taken
  }
  throw new Error(`There is no free port from ${first} on`);
}

/** Has `setpriv` leave a program one right of root's. */
function keeping(right: string): readonly string[] {
  return [`--inh-caps=+${right}`, `--ambient-caps=+${right}`];
}

function canKeep(right: string): boolean {
  if (missing !== undefined || Bun.which("setpriv") === null) return false;
  const [executable = "", ...args] = [...AS_NOBODY, ...keeping(right), "true"];
  return Bun.spawnSync([executable, ...args], { stdout: "ignore", stderr: "ignore" }).success;
}

/** Why this cannot be tested here; `undefined`: it can. */
function whatIsMissing(): string | undefined {
  if (process.platform !== "linux") return "it is about Linux";
  if (process.getuid?.() !== 0) return "only root can give up anything";
  if (!existsSync("/etc/passwd") || !readFileSync("/etc/passwd", "utf8").includes(`\n${NOBODY}:`))
    return `there is no user ${NOBODY}`;
  if (Bun.which("setpriv") === null) return undefined;
  const [executable = "", ...args] = [...AS_NOBODY, ...SOURCE, "--version"];
  const { success } = Bun.spawnSync([executable, ...args], { stdout: "ignore", stderr: "ignore" });
  return success ? undefined : `${NOBODY} may read neither the sources nor Bun where they are`;
}
