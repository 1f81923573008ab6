import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { readTrust } from "../../src/cli/trust.ts";
import { parseConfig } from "../../src/config/config.ts";
import type { RawConfig } from "../../src/config/fields.ts";
import { StartError } from "../../src/core/errors.ts";
import { testCertificates } from "../support/certificates.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "tgws-trust-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const trustOf = (raw: RawConfig): ReturnType<typeof readTrust> => readTrust(parseConfig(raw));

describe("readTrust()", () => {
  test("verifies with the built-in roots, which it does not name", async () => {
    expect(await trustOf({})).toEqual({ verify: true, ca: undefined });
  });

  test("adds the certificates of a file to the built-in roots", async () => {
    const { ca, caFile } = await testCertificates();
    const trust = await trustOf({ tlsCa: [caFile] });
    expect(trust.verify).toBe(true);
    expect(trust.ca).toHaveLength(rootCertificates.length + 1);
    expect(trust.ca).toContain(ca);
    expect(trust.ca).toContain(rootCertificates[0] ?? "");
  });

  test("trusts anybody when told to, and needs no certificates then", async () => {
    const { caFile } = await testCertificates();
    expect(await trustOf({ noTlsVerify: [""] })).toEqual({ verify: false, ca: undefined });
    expect(await trustOf({ noTlsVerify: [""], tlsCa: [caFile] })).toEqual({ verify: false, ca: undefined });
  });

  test.each([
    { name: "missing", text: undefined, message: "Cannot read the certificates in" },
    { name: "empty", text: "", message: "there are none that can be read" },
    {
      name: "damaged",
      text: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
      message: "there are none that can be read",
    },
  ])(
    "throws FILE for a file that is $name, also where nothing is verified",
    async ({ name, text, message }) => {
      const path = join(folder, name);
      if (text !== undefined) writeFileSync(path, text);
      for (const raw of [{ tlsCa: [path] }, { tlsCa: [path], noTlsVerify: [""] }]) {
        const error = await trustOf(raw).then(
          () => undefined,
          (thrown: unknown) => thrown,
        );
        expect(error).toBeInstanceOf(StartError);
        expect(error).toMatchObject({
          code: "FILE",
          message: expect.stringContaining(message),
          hint: expect.stringContaining("PEM"),
        });
      }
    },
  );
});
