import { describe, expect, test } from "bun:test";
import { Writable } from "node:stream";
import { createProgress } from "../../src/cli/doctor-progress.ts";

describe("createProgress()", () => {
  /** A standard error that keeps what is written to it. */
  function fakeStderr(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
    let text = "";
    const writable = new Writable({
      write: (chunk, _, done) => {
        text += String(chunk);
        done();
      },
    });
    const stream = Object.assign(writable, { isTTY, columns: 80 }) as unknown as NodeJS.WriteStream;
    return { stream, text: () => text };
  }

  test("writes a plain line a data centre where nobody watches", async () => {
    const { stream, text } = fakeStderr(false);
    const progress = await createProgress(stream);
    progress.advanced(1, 2, 9_000);
    progress.finished("DC 2: direct-ws 45 ms", "good");
    progress.finished("DC 5: no working route", "bad");
    progress.stop();
    expect(text()).toBe("ok    DC 2: direct-ws 45 ms\nFAIL  DC 5: no working route\n");
  });

  test("counts in place on a terminal, and clears the count", async () => {
    const { stream, text } = fakeStderr(true);
    const progress = await createProgress(stream);
    progress.advanced(1, 2, 9_000);
    progress.finished("DC 2: direct-ws 45 ms", "good");
    progress.advanced(2, 2, 0);
    progress.stop();
    const written = text();
    expect(written).toStartWith("\r\u001b[K  1 of 2 ways, at most 9 s more\r\u001b[K");
    expect(Bun.stripANSI(written)).toContain("DC 2: direct-ws 45 ms\n");
    expect(written).toEndWith("  2 of 2 ways\r\u001b[K");
  });
});
