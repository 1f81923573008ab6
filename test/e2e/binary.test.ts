import { afterAll, beforeAll, describe, expect, it } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { executableName } from "../../scripts/build.ts";
import { testAuthority } from "../support/certificates.ts";
import {
  BUILD_LIMIT_MS,
  BUILD_SCRIPT,
  buildExecutables,
  type Command,
  EMULATED,
  EMULATOR,
  type Executables,
  testPlatform,
  whatEmulationLacks,
} from "../support/executable.ts";
import { FakeTlsClient } from "../support/fake-tls-client.ts";
import { GROUPS } from "../support/fake-tls-hello.ts";
import { MtprotoServer, STUB_ERROR } from "../support/mtproto-server.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { RawClient } from "../support/raw-client.ts";
import { REAL_CLIENTS } from "../support/real-clients.ts";
import { StubDc } from "../support/stub-dc.ts";

/** For a step under emulation, which takes a second on a fast machine. */
const STEP_LIMIT_MS = 30_000;
const TEST_LIMIT_MS = 4 * STEP_LIMIT_MS;

const native = testPlatform();
const missing = whatEmulationLacks();
if (missing !== undefined) console.warn(`SKIPPED: the ${EMULATED} executable is not tested: ${missing}`);

let stub: StubDc;
let executables: Executables;

beforeAll(async () => {
  [stub, executables] = await Promise.all([StubDc.start(), buildExecutables()]);
}, BUILD_LIMIT_MS);

afterAll(() => stub[Symbol.asyncDispose]());

describe("bun run build", () => {
  it("writes a line for each executable into SHA256SUMS", () => {
    const { folder, platforms } = executables;
    const lines = platforms.map((platform) => {
      const path = join(folder, executableName(platform));
      return `${createHash("sha256").update(readFileSync(path)).digest("hex")}  ${basename(path)}\n`;
    });
    expect(readFileSync(join(folder, "SHA256SUMS"), "utf8")).toBe(lines.join(""));
  });

  it("names the targets when it is asked for one that there is not", async () => {
    await using build = new Program({ command: [process.execPath, BUILD_SCRIPT, "--target", "amiga-68k"] });
    expect(await build.exited()).toBe(1);
    expect(build.stderr).toContain("Cannot build for amiga-68k: the targets are native, linux-x64,");
  });
});

describe(`the executable for ${native}`, () => {
  it("prints the version of package.json", async () => {
    await using program = new Program({ command: executables.native, args: ["--version"] });
    expect(await program.exited()).toBe(0);
    expect(program.stdout).toBe(`${packageJson.version}\n`);
    expect(program.stderr).toBe("");
  });

  it("prints its help", async () => {
    await using program = new Program({ command: executables.native, args: ["--help"] });
    expect(await program.exited()).toBe(0);
    expect(program.stdout).toContain("--port");
    expect(program.stdout).toContain("tgws");
    expect(program.stderr).toBe("");
  });

  it("takes neither code nor settings from the folder it is started in", () => {
    const folder = mkdtempSync(join(tmpdir(), "tgws-strange-"));
    const strange = join(folder, "strange");
    const trap = join(strange, "trap");
    const home = join(folder, "home");
    mkdirSync(strange);
    writeFileSync(join(strange, ".env"), `TGWS_HOME=${trap}\n`);
    writeFileSync(join(strange, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
    writeFileSync(join(strange, "preload.ts"), 'console.log("a stranger\'s code");\n');
    writeFileSync(join(strange, "tsconfig.json"), "{ not JSON");
    writeFileSync(join(strange, "package.json"), "{ not JSON");
    const { TGWS_HOME: _, ...inherited } = process.env;
    const { exitCode, stdout, stderr } = Bun.spawnSync([...executables.native, "link"], {
      cwd: strange,
      env: { ...inherited, HOME: home, XDG_CONFIG_HOME: home, APPDATA: home },
      timeout: STEP_LIMIT_MS,
    });
    expect(stderr.toString()).toBe("");
    expect(exitCode).toBe(0);
    expect(stdout.toString()).toContain("tg://proxy?");
    expect(stdout.toString()).not.toContain("a stranger");
    expect(existsSync(home)).toBe(true);
    expect(existsSync(trap)).toBe(false);
    rmSync(folder, { recursive: true });
  });

  it("serves a session", () => servesSession(executables.native), TEST_LIMIT_MS);

  it(
    "looks like a web site to strangers, and serves clients",
    () => disguises(executables.native),
    TEST_LIMIT_MS,
  );

  for (const client of REAL_CLIENTS) {
    it(
      `serves ${client.name}`,
      async () => {
        stub.reset();
        const server = new MtprotoServer();
        stub.onPacket = server.onPacket;
        await using proxy = await ProxyProcess.start({ stub, command: executables.native });
        const secret = `dd${proxy.secret.toHex()}`;
        await expect(client.call({ port: proxy.port, secret })).rejects.toThrow(STUB_ERROR);
        expect(server.progress.keys).toBeGreaterThan(0);
      },
      { timeout: 60_000, retry: 1 }, // of 256 keys one begins with a zero, which these clients drop
    );
  }
});

describe.skipIf(missing !== undefined)(`the executable for ${EMULATED} under ${EMULATOR}`, () => {
  it(
    "prints the version of package.json",
    async () => {
      await using program = new Program({ command: executables.emulated, args: ["--version"] });
      expect(await program.exited(STEP_LIMIT_MS)).toBe(0);
      expect(program.stdout).toBe(`${packageJson.version}\n`);
    },
    TEST_LIMIT_MS,
  );

  it("serves a session", () => servesSession(executables.emulated), TEST_LIMIT_MS);

  it(
    "looks like a web site to strangers, and serves clients",
    () => disguises(executables.emulated),
    TEST_LIMIT_MS,
  );
});

/** Starts the proxy, sends packets both ways through it, and stops it. */
async function servesSession(command: Command): Promise<void> {
  const [question, answer] = [randomBytes(40), randomBytes(84)];
  const [upload, download] = [randomBytes(512 * 1024), randomBytes(512 * 1024)];
  stub.reset();
  await using proxy = await ProxyProcess.start({ stub, command });
  using client = await RawClient.open({ port: proxy.port, secret: proxy.secret, transport: "padded" });
  client.sendPacket(question);
  const connection = await stub.next(STEP_LIMIT_MS);
  expect(connection.request.serverName).toBe("kws2.web.telegram.org");
  await connection.until(() => connection.packets.length === 1, "the question", STEP_LIMIT_MS);
  connection.sendPacket(answer);
  expect((await client.readPacket(STEP_LIMIT_MS)).payload).toEqual(new Uint8Array(answer));

  client.sendPacket(upload);
  await connection.until(() => connection.packets.length === 2, "the upload", STEP_LIMIT_MS);
  connection.sendPacket(download);
  expect(sha256((await client.readPacket(STEP_LIMIT_MS)).payload)).toBe(sha256(download));
  expect(connection.packets.map(({ payload }) => sha256(payload))).toEqual([question, upload].map(sha256));
  expect(connection.violations).toEqual([]);

  client.end();
  expect(await proxy.stop()).toBe(0);
  expect(proxy.stderr).not.toMatch(/\berror\b|a bug/);
}

/** Has fake TLS carry a packet each way, with the key exchange of a site that has ML-KEM, and a stranger see that site. */
async function disguises(command: Command): Promise<void> {
  const domain = "cover.example";
  const { certificate: cert, key } = await (await testAuthority()).issue([domain]);
  const page = "the page of the site";
  const site = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    tls: { cert, key },
    fetch: () => new Response(page),
  });
  stub.reset();
  try {
    const args = ["--fake-tls-domain", domain, "--mask-host", `127.0.0.1:${site.port}`, "-v"];
    await using proxy = await ProxyProcess.start({ stub, command, args });
    await proxy.logged(/the cover site cover\.example is measured/, STEP_LIMIT_MS);
    const { port, secret } = proxy;
    using client = await FakeTlsClient.open({ port, secret, hello: { shape: "tdlib", serverName: domain } });
    expect(client.flight?.group).toBe(GROUPS.x25519MlKem768);
    const [question, answer] = [randomBytes(400), randomBytes(40_000)];
    client.sendPacket(question);
    const connection = await stub.next(STEP_LIMIT_MS);
    await connection.until(() => connection.packets.length === 1, "the question", STEP_LIMIT_MS);
    connection.sendPacket(answer);
    expect(sha256((await client.readPacket(STEP_LIMIT_MS)).payload)).toBe(sha256(answer));
    const response = await fetch(`https://127.0.0.1:${port}/`, { tls: { rejectUnauthorized: false } });
    expect(await response.text()).toBe(page);
    expect(proxy.stderr).not.toMatch(/\berror\b|a bug/);
  } finally {
    await site.stop(true);
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
