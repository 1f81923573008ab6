import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { StartError } from "../core/errors.ts";
import type { TlsTrust } from "../net/websocket-dial.ts";

/** Returns which certificates are trusted. @throws {StartError} `FILE` when `--tls-ca` cannot be used. */
export async function readTrust({ tlsVerify, tlsCaFile }: Config): Promise<TlsTrust> {
  const extra = tlsCaFile === undefined ? undefined : readCa(tlsCaFile);
  if (!tlsVerify || extra === undefined) return { verify: tlsVerify, ca: undefined };
  const { rootCertificates } = await import("node:tls"); // a MiB of text that few need
  return { verify: true, ca: [...rootCertificates, extra] };
}

function readCa(path: string): string {
  const hint = "--tls-ca takes a PEM file, with lines -----BEGIN CERTIFICATE-----";
  let text: string;
  try {
    text = readFileSync(path, "utf8");
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
