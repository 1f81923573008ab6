import { describe, expect, test } from "bun:test";
import { concatBytes, formatBytes, release } from "../../src/core/bytes.ts";

describe("concatBytes()", () => {
  test("copies parts one after the other, views included", () => {
    const larger = Uint8Array.of(9, 1, 2, 9);
    const part = larger.subarray(1, 3);
    const joined = concatBytes([part, new Uint8Array(0), Uint8Array.of(3)]);
    expect(joined).toEqual(Uint8Array.of(1, 2, 3));
    larger.fill(0);
    expect(joined).toEqual(Uint8Array.of(1, 2, 3));
  });

  test("returns nothing for no parts", () => {
    expect(concatBytes([])).toEqual(new Uint8Array(0));
  });
});

describe("release()", () => {
  test("detaches a large buffer, so that every view of it is empty", () => {
    const bytes = new Uint8Array(8 * 1024);
    const view = bytes.subarray(10, 20);
    release(bytes);
    expect(bytes.length).toBe(0);
    expect(view.length).toBe(0);
  });

  test("leaves a small buffer to the collector", () => {
    const bytes = new Uint8Array(8 * 1024 - 1);
    release(bytes);
    expect(bytes.length).toBe(8 * 1024 - 1);
  });
});

describe("formatBytes()", () => {
  test.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.0 KB"],
    [1536, "1.5 KB"],
    [1024 ** 2, "1.0 MB"],
    [327_889_715, "312.7 MB"],
    [5 * 1024 ** 3, "5.0 GB"],
    [2 * 1024 ** 4, "2.0 TB"],
    [4096 * 1024 ** 4, "4096.0 TB"],
  ])("formats %d as %s", (count, text) => {
    expect(formatBytes(count)).toBe(text);
  });
});
