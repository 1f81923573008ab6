import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LazyHellos } from "../../src/cli/lazy-hellos.ts";
import { openState } from "../../src/cli/state.ts";
import { AppendFile } from "../../src/config/append-file.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-hellos-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A file that cannot be read so many times. */
class Unreadable extends AppendFile {
  #left: number;

  constructor(path: string, times: number) {
    super(path, () => {});
    this.#left = times;
  }

  override read(): Uint8Array {
    if (this.#left > 0) {
      this.#left -= 1;
      throw new Error("EMFILE");
    }
    return super.read();
  }
}

describe("LazyHellos", () => {
  test("knows a hello again", async () => {
    const hellos = new LazyHellos({
      ...openState(() => {}),
      hellos: new Unreadable(join(folder, "hellos"), 0),
    });
    const random = new Uint8Array(32).fill(7);
    expect(await hellos.claim(random, 1)).toBeTrue();
    expect(await hellos.claim(random, 2)).toBeFalse();
  });

  test("tries again after it could not read those that were kept", async () => {
    const hellos = new LazyHellos({
      ...openState(() => {}),
      hellos: new Unreadable(join(folder, "hellos"), 1),
    });
    const random = new Uint8Array(32).fill(7);
    const first = await Promise.resolve(hellos.claim(random, 1)).catch((error: unknown) => error);
    expect(first).toBeInstanceOf(Error);
    expect(await hellos.claim(random, 2)).toBeTrue();
    expect(await hellos.claim(random, 3)).toBeFalse();
  });
});
