import { describe, expect, test } from "bun:test";
import { listTargets, shorten, wrap } from "../../src/cli/doctor-text.ts";
import type { DcTarget } from "../../src/protocol/mtproto/dc.ts";

describe("wrap()", () => {
  test("breaks at spaces, and keeps words that are too long whole", () => {
    const lines = wrap("one two  three extraordinarily four", { width: 12, first: "- ", others: "  " });
    expect(lines).toEqual(["- one two", "  three", "  extraordinarily", "  four"]);
  });
});

describe("shorten()", () => {
  test("keeps both ends, within the length", () => {
    expect(shorten("abcdefgh", 8)).toBe("abcdefgh");
    expect(shorten("abcdefgh", 7)).toBe("abc…fgh");
    expect(shorten("abcdefgh", 6)).toBe("abc…gh");
    expect(shorten("abcdefgh", 1)).toBe("…");
  });
});

describe("listTargets()", () => {
  const target = (dc: number, media: boolean, test = false): DcTarget => ({ dc, media, test });

  test("names each data centre once", () => {
    expect(listTargets([target(1, false), target(1, true), target(1, true)])).toBe("DC 1 with media");
    expect(listTargets([target(4, true), target(2, false), target(3, false)])).toBe("DC 2 and 3, DC 4 media");
    expect(listTargets([target(2, false, true)])).toBe("test DC 2");
    expect(listTargets([])).toBe("");
  });
});
