import "reflect-metadata";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

/** A server certificate with its key, and the CA that signed it. All PEM. */
export interface Certificates {
  readonly ca: string;
  /** The CA certificate as a file, for options that take one. Removed when the process ends. */
  readonly caFile: string;
  readonly certificate: string;
  readonly key: string;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 60 * 60 * 1000;

let shared: Promise<Certificates> | undefined;

/** Returns the certificate for Telegram's WebSocket names and loopback; made once per process. */
export function testCertificates(): Promise<Certificates> {
  shared ??= makeCertificates(["*.web.telegram.org", "localhost"]);
  return shared;
}

/** Makes a CA and a server certificate for `names` and 127.0.0.1, valid around now. */
export async function makeCertificates(names: readonly string[]): Promise<Certificates> {
  const caKeys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const validity = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) };
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: "01",
    name: "CN=tgws test CA",
    signingAlgorithm: ALGORITHM,
    keys: caKeys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  const certificate = await x509.X509CertificateGenerator.create({
    ...validity,
    serialNumber: "02",
    subject: "CN=tgws test data centre",
    issuer: ca.subject,
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        ...names.map((value) => ({ type: "dns" as const, value })),
        { type: "ip", value: "127.0.0.1" },
      ]),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  });
  const privateKey = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  const caPem = ca.toString("pem");
  return {
    ca: caPem,
    caFile: writeTemporary("ca.pem", caPem),
    certificate: certificate.toString("pem"),
    key: x509.PemConverter.encode(privateKey, "PRIVATE KEY"),
  };
}

function writeTemporary(name: string, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), "tgws-test-"));
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}
