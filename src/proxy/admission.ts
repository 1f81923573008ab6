import type { RefusedError } from "../core/errors.ts";
import type { MaskReason } from "../core/events.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import type { Grant } from "./gate.ts";

/** What a ClientHello turned out to be. */
export type Admission =
  | {
      readonly kind: "client";
      readonly secret: NamedSecret;
      /** The server's first flight, ready to be sent. */
      readonly flight: Uint8Array;
      /** What its user may do. */
      readonly grant: Grant;
    }
  | {
      readonly kind: "stranger";
      readonly why: MaskReason;
      /** The name that was asked for, where it is known. */
      readonly serverName: string | undefined;
      /** For the log. */
      readonly detail: string;
    };

type Stranger = Extract<Admission, { kind: "stranger" }>;

/** What is shown to a client that is over a limit. */
export function refused(error: RefusedError, serverName: string | undefined): Stranger {
  return strange("refused", serverName, error.code);
}

/** Somebody who is shown the cover site. @param detail For the log. */
export function strange(why: MaskReason, serverName: string | undefined, detail: string): Stranger {
  return { kind: "stranger", why, serverName, detail };
}
