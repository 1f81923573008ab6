import { describe, expect, test } from "bun:test";
import { parseWorkerSettings } from "../../src/cli/worker-settings.ts";
import { defaultBufferBytes } from "../../src/net/memory-limit.ts";

const MIB = 1024 * 1024;
const KEPT = "00".repeat(16);

describe("parseWorkerSettings()", () => {
  test("gives each worker its part of what all of them may use together", () => {
    const raw = { bufferMb: ["64"], maskMax: ["10"] };
    const { config } = parseWorkerSettings({ raw, kept: KEPT }, 4);
    expect([config.bufferBytes, config.maskMax]).toEqual([16 * MIB, 3]);
    const { config: other } = parseWorkerSettings({ raw: {}, kept: KEPT }, 4);
    expect(other.bufferBytes).toBe(Math.ceil(defaultBufferBytes() / 4));
  });

  test("divides nothing that the supervisor counts", () => {
    const raw = { maxConnections: ["100"], maxPerAddress: ["8"], addressRate: ["5"] };
    const { config } = parseWorkerSettings({ raw, kept: KEPT }, 4);
    expect(config).toMatchObject({ maxConnections: 100, maxPerAddress: 8, addressRate: 5 });
  });

  test("takes the secret that is kept, and the files that were read", () => {
    const files = { "/etc/deny": "192.0.2.0/24" };
    const { secrets, files: passed } = parseWorkerSettings({ raw: {}, kept: "ab".repeat(16), files }, 2);
    expect(secrets.map(({ key }) => key.toHex())).toEqual(["ab".repeat(16)]);
    expect(passed).toEqual(files);
  });
});
