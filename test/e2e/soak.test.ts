import { describe, expect, it } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const LINUX = process.platform === "linux";
if (!LINUX) console.warn("the soak is not tested: there is no /proc here");

const SOAK = resolve(import.meta.dir, "../../scripts/soak/main.ts");
const TEST_LIMIT_MS = 150_000;

interface Written {
  readonly figures: { readonly started: number; readonly messages: number };
  readonly faults: Readonly<Record<string, number>>;
  readonly criteria: readonly { readonly name: string; readonly holds: boolean }[];
}

describe.skipIf(!LINUX)("a short soak", () => {
  it(
    "finds nothing that should not be, whatever it does to the proxy",
    async () => {
      const folder = mkdtempSync(join(tmpdir(), "tgws-soak-test-"));
      try {
        const file = join(folder, "soak.json");
        const args = [
          "--minutes",
          "0.5",
          "--sessions",
          "80",
          "--workers",
          "2",
          "--seed",
          "1",
          "--json",
          file,
        ];
        await using soak = Bun.spawn([process.execPath, SOAK, ...args], { stdout: "pipe", stderr: "pipe" });
        const [report, progress] = await Promise.all([soak.stdout.text(), soak.stderr.text()]);
        if ((await soak.exited) !== 0) throw new Error(`${progress}\n${report}`);
        const { figures, faults, criteria } = JSON.parse(readFileSync(file, "utf8")) as Written;
        expect(criteria.length).toBeGreaterThan(7);
        expect(figures.started).toBeGreaterThan(80);
        expect(figures.messages).toBeGreaterThan(200);
        expect(Object.keys(faults)).toEqual(expect.arrayContaining(["kills", "restarts"]));
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
    TEST_LIMIT_MS,
  );
});
