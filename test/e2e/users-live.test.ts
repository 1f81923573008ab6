import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { ConfigHome } from "../support/config-home.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { ending, eventually, isServed, openSession, ping } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Traffic } from "../support/traffic.ts";
import { keptUsage } from "../support/usage.ts";

const LIMIT_MS = 60_000;
/** What may still have been on its way when a session was ended, in bytes. */
const SLACK = 64 * 1024;
const ANN = new Uint8Array(randomBytes(16));
const BOB = new Uint8Array(randomBytes(16));

let stub: StubDc;

beforeAll(async () => {
  stub = await StubDc.start();
});

beforeEach(() => {
  stub.reset();
  stub.keepMessages = false;
  stub.onPacket = ({ payload }) => [payload];
});

afterAll(() => stub[Symbol.asyncDispose]());

/** Runs `tgws users ...`, and returns what it printed. */
async function users(home: ConfigHome, ...args: readonly string[]): Promise<string> {
  await using program = new Program({ args: ["users", ...args], home: home.path });
  const code = await program.exited();
  if (code !== 0) throw new Error(`users ${args.join(" ")} ended with ${code}:\n${program.stderr}`);
  return program.stdout;
}

for (const workers of process.platform === "linux" ? [1, 2] : [1]) {
  describe(`tgws users, while ${workers === 1 ? "one process serves" : `${workers} workers serve`},`, () => {
    it(
      "adds, disables and removes users without a signal",
      async () => {
        using home = new ConfigHome(`[users.ann]\nsecret = "${ANN.toHex()}"\n`);
        const args = ["--workers", String(workers), "--handshake-seconds", "1"];
        await using proxy = await ProxyProcess.start({ stub, secrets: [], home: home.path, args });
        const { port } = proxy;
        using ofAnn = await openSession({ port, secret: ANN });
        await users(home, "add", "bob", "--secret", BOB.toHex());
        await proxy.logged(/configuration reloaded: new users bob/);
        using ofBob = await openSession({ port, secret: BOB });
        await users(home, "disable", "bob");
        await ending(ofBob);
        expect(await isServed({ port, secret: BOB })).toBe(false);
        await users(home, "remove", "bob");
        await proxy.logged(/configuration reloaded: removed users bob/);
        await ping(ofAnn);
      },
      LIMIT_MS,
    );

    it(
      "gives a user a new quota, or the old one once more",
      async () => {
        using home = new ConfigHome(`[users.ann]\nsecret = "${ANN.toHex()}"\nquota-gb = 0.001\n`);
        const args = ["--workers", String(workers)];
        await using proxy = await ProxyProcess.start({ stub, secrets: [], home: home.path, args });
        const { port } = proxy;
        /** What is not written down when it is reset would count after it. */
        const useUp = async (): Promise<void> => {
          const { up: before } = keptUsage(home, "ann");
          using client = await openSession({ port, secret: ANN });
          const traffic = new Traffic([client]);
          await ending(client);
          await traffic.stop();
          const written = (): boolean => keptUsage(home, "ann").up >= before + client.received - SLACK;
          await eventually(written, "what was moved in the database");
        };
        await useUp();
        expect(await isServed({ port, secret: ANN })).toBe(false);
        await users(home, "reset", "ann");
        await eventually(() => isServed({ port, secret: ANN }), "the old quota once more");
        await useUp();
        expect(await users(home, "list")).toMatch(/ann/);
        await users(home, "set", "ann", "--quota-gb", "1");
        await eventually(() => isServed({ port, secret: ANN }), "the new quota");
      },
      LIMIT_MS,
    );
  });
}
