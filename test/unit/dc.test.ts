import { describe, expect, test } from "bun:test";
import { describeTarget, formatDcId, parseDcId } from "../../src/protocol/mtproto/dc.ts";

const FALLBACK = { dc: 2, media: false, test: false };

describe("parseDcId()", () => {
  test.each([1, 2, 3, 4, 5, 203])("reads %d as that data centre, and its negative as media", (dc) => {
    expect(parseDcId(dc)).toEqual({ dc, media: false, test: false });
    expect(parseDcId(-dc)).toEqual({ dc, media: true, test: false });
  });

  test.each([1, 2, 3])("reads 10000 + %d as the test environment, and its negative as test media", (dc) => {
    expect(parseDcId(10_000 + dc)).toEqual({ dc, media: false, test: true });
    expect(parseDcId(-(10_000 + dc))).toEqual({ dc, media: true, test: true });
  });

  test.each([0, 6, -6, 202, 204, -204, 9_999, -9_999, 10_000, -10_000, 10_004, 10_203, 32_767, -32_768])(
    "reads the unknown id %d as the default data centre",
    (id) => {
      expect(parseDcId(id)).toEqual(FALLBACK);
    },
  );
});

describe("formatDcId()", () => {
  test.each([1, 5, 203, -1, -5, -203, 10_001, 10_003, -10_001, -10_003])(
    "is the inverse of parseDcId for %d",
    (id) => {
      expect(formatDcId(parseDcId(id))).toBe(id);
    },
  );
});

describe("describeTarget()", () => {
  test("names number, media and test environment", () => {
    expect(describeTarget({ dc: 4, media: false, test: false })).toBe("DC 4");
    expect(describeTarget({ dc: 203, media: true, test: false })).toBe("DC 203 media");
    expect(describeTarget({ dc: 2, media: true, test: true })).toBe("test DC 2 media");
  });
});
