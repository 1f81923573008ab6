import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { StartError } from "../core/errors.ts";
import type { TlsTrust } from "../net/websocket-dial.ts";
import type { ReadText } from "./named-files.ts";

/**
 * Returns which certificates are trusted.
 *
 * @param readText Reads a file.
 * @throws {StartError} `FILE` when `--tls-ca` cannot be used.
 */
export async function readTrust(
  { tlsVerify, tlsCaFile }: Pick<Config, "tlsVerify" | "tlsCaFile">,
  readText: ReadText = readPem,
): Promise<TlsTrust> {
  const extra = tlsCaFile === undefined ? undefined : readCa(tlsCaFile, readText);
  if (!tlsVerify || extra === undefined) return { verify: tlsVerify, ca: undefined };
  const { rootCertificates } = await import("node:tls"); // a MiB of text that few need
  return { verify: true, ca: [...rootCertificates, extra] };
}

/** Reads a file with certificates. */
export function readPem(path: string): string {
  return readFileSync(path, "utf8");
}

function readCa(path: string, readText: ReadText): string {
  const hint = "--tls-ca takes a PEM file, with lines -----BEGIN CERTIFICATE-----";
  let text: string;
  try {
    text = readText(path);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError("FILE", `Cannot read the certificates in ${path}: ${reason}`, hint, error);
  }
  try {
    new X509Certificate(text); // the first one; Bun would only fail at the first connection
    return text;
  } catch (error) {
    throw new StartError(
      "FILE",
      `Cannot use the certificates in ${path}: there are none that can be read`,
      hint,
      error,
    );
  }
}
