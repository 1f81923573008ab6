import type { ByteReader } from "../channel/byte-reader.ts";
import { CipherTransform, type Link } from "../channel/transform.ts";
import type { Cancel } from "../core/cancel.ts";
import { HandshakeError } from "../core/errors.ts";
import { type OpenedInit, openClientInit } from "../crypto/obfuscated2-ciphers.ts";
import { parseDcId, type Target } from "../protocol/mtproto/dc.ts";
import { INIT_LENGTH } from "../protocol/mtproto/obfuscated2.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";

/** What a connection's first 64 bytes turned out to be. */
export type Handshake =
  | {
      readonly kind: "client";
      readonly secret: string;
      readonly target: Target;
      /** Decrypts what the client sends, encrypts what it receives. */
      readonly link: Link;
    }
  | { readonly kind: "stranger" };

/** Which inits are let in besides those inside of fake TLS. */
export interface AcceptedForms {
  /** Abridged and intermediate. */
  readonly plain: boolean;
  /** Padded intermediate, which is what a `dd` secret asks a client for. */
  readonly padded: boolean;
}

/** Whatever comes: inside of fake TLS the secret has been proved already. */
export const ANY_FORM: AcceptedForms = { plain: true, padded: true };

/**
 * Reads a client's init and finds the secret that it was made with. A stranger's bytes stay with the reader.
 *
 * @throws {HandshakeError} `CLOSED` or `TIMEOUT` when 64 bytes did not come.
 */
export async function readClientHandshake(
  reader: ByteReader,
  secrets: readonly NamedSecret[],
  forms: AcceptedForms,
  signal: Cancel,
): Promise<Handshake> {
  const bytes = (await reader.peek(INIT_LENGTH, signal)).subarray(0, INIT_LENGTH);
  for (const { name, key } of secrets) {
    const opened = tryOpen(bytes, key);
    if (opened === undefined) continue;
    const { init, outbound, inbound } = opened;
    if (!(init.transport === "padded" ? forms.padded : forms.plain)) continue;
    reader.take(INIT_LENGTH);
    return {
      kind: "client",
      secret: name,
      target: { ...parseDcId(init.dcId), transport: init.transport },
      link: { up: new CipherTransform(outbound), down: new CipherTransform(inbound) },
    };
  }
  return { kind: "stranger" };
}

/** A tag that names no transport means "another secret, or none": try the next. */
function tryOpen(bytes: Uint8Array, key: Uint8Array): OpenedInit | undefined {
  try {
    return openClientInit(bytes, key);
  } catch (error) {
    if (error instanceof HandshakeError) return undefined;
    throw error;
  }
}
