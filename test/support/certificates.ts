import "reflect-metadata";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { temporaryFolder } from "./temporary.ts";

/** A server certificate with its key, and the CA that signed it. All PEM. */
export interface Certificates {
  readonly ca: string;
  /** The CA certificate as a file, for options that take one. Removed at the end. */
  readonly caFile: string;
  readonly certificate: string;
  readonly key: string;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 60 * 60 * 1000;
const TELEGRAM_NAMES = ["*.web.telegram.org", "localhost"];

let sharedAuthority: Promise<Authority> | undefined;
let shared: Promise<Certificates> | undefined;

/** Returns the CA that the tests trust; made once for a test file. */
export function testAuthority(): Promise<Authority> {
  sharedAuthority ??= Authority.create();
  return sharedAuthority;
}

/** Returns the certificate for Telegram's WebSocket names and loopback; made once for a test file. */
export function testCertificates(): Promise<Certificates> {
  shared ??= testAuthority().then((authority) => authority.issue(TELEGRAM_NAMES));
  return shared;
}

/** Makes a certificate for `names` and 127.0.0.1, signed by a CA that nobody knows yet. */
export async function makeCertificates(names: readonly string[]): Promise<Certificates> {
  return (await Authority.create()).issue(names);
}

/** A certificate authority, valid around now. */
export class Authority {
  readonly #keys: CryptoKeyPair;
  readonly #certificate: x509.X509Certificate;
  readonly #file: string;

  private constructor(keys: CryptoKeyPair, certificate: x509.X509Certificate) {
    this.#keys = keys;
    this.#certificate = certificate;
    this.#file = writeTemporary("ca.pem", certificate.toString("pem"));
  }

  /** Makes a CA that nobody knows yet. */
  static async create(): Promise<Authority> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      ...validity(),
      serialNumber: "01",
      name: "CN=tgws test CA",
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ],
    });
    return new Authority(keys, certificate);
  }

  /** Makes a server certificate for `names` and 127.0.0.1. */
  async issue(names: readonly string[] = TELEGRAM_NAMES): Promise<Certificates> {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity(),
      serialNumber: "02",
      subject: "CN=tgws test data centre",
      issuer: this.#certificate.subject,
      signingAlgorithm: ALGORITHM,
      publicKey: keys.publicKey,
      signingKey: this.#keys.privateKey,
      extensions: [
        new x509.SubjectAlternativeNameExtension([
          ...names.map((value) => ({ type: "dns" as const, value })),
          { type: "ip", value: "127.0.0.1" },
        ]),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      ],
    });
    const privateKey = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
    return {
      ca: this.#certificate.toString("pem"),
      caFile: this.#file,
      certificate: certificate.toString("pem"),
      key: x509.PemConverter.encode(privateKey, "PRIVATE KEY"),
    };
  }
}

function validity(): { readonly notBefore: Date; readonly notAfter: Date } {
  return { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) };
}

function writeTemporary(name: string, text: string): string {
  const file = join(temporaryFolder("tgws-test-"), name);
  writeFileSync(file, text);
  return file;
}
