import { afterAll, beforeAll, beforeEach, describe, expect, it } from "bun:test";
import { randomBytes } from "node:crypto";
import { ConfigHome } from "../support/config-home.ts";
import { Program, ProxyProcess } from "../support/proxy.ts";
import { ending, eventually, isServed, openSession, ping } from "../support/sessions.ts";
import { StubDc } from "../support/stub-dc.ts";
import { Traffic } from "../support/traffic.ts";
import { keptUsage } from "../support/usage.ts";

const LIMIT_MS = 60_000;
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
        const useUp = async (): Promise<void> => {
          using client = await openSession({ port, secret: ANN });
          const traffic = new Traffic([client]);
          await ending(client);
          await traffic.stop();
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

    it(
      "sets the traffic of a user to zero, also what was not written down yet",
      async () => {
        const user = (name: string, key: Uint8Array): string =>
          `[users.${name}]\nsecret = "${key.toHex()}"\n`;
        using home = new ConfigHome(user("ann", ANN) + user("bob", BOB));
        const args = ["--workers", String(workers)];
        await using proxy = await ProxyProcess.start({ stub, secrets: [], home: home.path, args });
        const { port } = proxy;
        const open = () => openSession({ port, secret: ANN });
        const ofAnn = await Promise.all([open(), open(), open()]);
        using ofBob = await openSession({ port, secret: BOB });
        /** What moves now is in the database, and all that moved before. */
        const written = async (): Promise<void> => {
          const { up } = keptUsage(home, "bob");
          await ping(ofBob);
          await eventually(() => keptUsage(home, "bob").up > up, "what was moved in the database");
        };
        for (let round = 0; round < 2; round++) {
          const traffic = new Traffic(ofAnn);
          await written();
          await traffic.stop();
          await Promise.all(ofAnn.map((client) => ping(client)));
          await users(home, "reset", "ann");
          await written();
          await written(); // each worker has its own time to tell
          expect(keptUsage(home, "ann")).toEqual({ up: 0, down: 0 });
        }
        const before = keptUsage(home, "ann").up;
        await Promise.all(ofAnn.map((client) => ping(client)));
        await eventually(() => keptUsage(home, "ann").up > before, "what moves from then on");
        for (const client of ofAnn) client[Symbol.dispose]();
      },
      LIMIT_MS,
    );
  });
}
