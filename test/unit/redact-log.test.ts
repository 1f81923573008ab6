import { describe, expect, it } from "bun:test";
import { redactLog } from "../../src/cli/redact-log.ts";

describe("redactLog()", () => {
  it("leaves the names of files as they are, but for a secret among them", () => {
    const text = "/tmp/tgws-home-Ab12Cd/config.toml:1: not TOML";
    expect(redactLog(text)).toBe(text);
    expect(redactLog("/var/lib/AbCd1234AbCd1234AbCd12/x")).toBe("/var/lib/(a secret)/x");
    expect(redactLog("AbCd1234/AbCd12+4AbCd12")).toBe("(a secret)");
  });
});
