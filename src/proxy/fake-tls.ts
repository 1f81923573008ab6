import { randomBytes, randomInt } from "node:crypto";
import { HandshakeError, RefusedError } from "../core/errors.ts";
import { findSigner, type HelloSignature, signFlight } from "../crypto/fake-tls-digest.ts";
import { answerKeyShare, makeX25519Key } from "../crypto/key-share.ts";
import type { NamedSecret } from "../protocol/mtproto/secret.ts";
import { type ClientHello, GROUP, parseClientHello } from "../protocol/tls/client-hello.ts";
import { type HelloProgress, zeroRandom } from "../protocol/tls/client-hello-records.ts";
import {
  type CoverProfile,
  chooseFlightSize,
  chooseKeyShare,
  chooseSuite,
} from "../protocol/tls/cover-profile.ts";
import { encodeFirstFlight } from "../protocol/tls/server-hello.ts";
import { type Admission, refused, strange } from "./admission.ts";
import type { Grant } from "./gate.ts";

/** How far a client's clock may be off, in seconds. */
const MAX_SKEW_S = 120;
const SIZE_STEPS = 2 ** 20;

/** A ClientHello that is whole. */
export type WholeHello = Extract<HelloProgress, { kind: "whole" }>;

/** Remembers which hellos were answered, over all processes. */
export interface HelloClaims {
  /**
   * Takes a hello for the caller alone.
   *
   * @param random Its 32 bytes.
   * @param now In seconds since the start, of a clock that only goes forward.
   * @returns `false` when it was taken before.
   */
  claim(random: Uint8Array, now: number): boolean | Promise<boolean>;
}

/** What {@link FakeTls} needs. */
export interface FakeTlsDeps {
  readonly secrets: readonly NamedSecret[];
  readonly seen: HelloClaims;
  /** How the site of a name looks; `undefined` for a name that is none of ours. */
  readonly profileOf: (serverName: string) => CoverProfile | undefined;
  /** Resolves after the first survey of a name's site, or when that takes too long. */
  readonly measured: (serverName: string) => Promise<void>;
  /** Hears the random of every hello that was not made with a secret: a measurement of ours that came back, maybe. */
  readonly onStranger: (random: Uint8Array) => void;
  /** Seconds since 1970. */
  readonly now: () => number;
}

/** Decides by its ClientHello who is a client, and makes the answer. */
export class FakeTls {
  readonly #deps: FakeTlsDeps;

  constructor(deps: FakeTlsDeps) {
    this.#deps = deps;
  }

  /**
   * Reads a ClientHello and answers it, or says why not.
   *
   * A wrong digest, a wrong time and a hello that was there before take the same steps, so that the time it takes
   * does not tell them apart. A hello that is answered is remembered before there is a byte of the answer, and before
   * its user is asked for: whoever sends recorded ones must not use up the connections of somebody else.
   *
   * @param enter Lets the user in, whose secret it is; a {@link RefusedError} makes it a stranger.
   */
  async admit(
    bytes: Uint8Array,
    whole: WholeHello,
    enter: (user: string) => Grant | Promise<Grant>,
  ): Promise<Admission> {
    const { secrets, seen, profileOf, measured, now, onStranger } = this.#deps;
    const hello = parseHello(whole.message);
    if (hello === undefined) return strange("bad-hello", undefined, "its lengths do not fit");
    const { random, serverName } = hello;
    const signature = findSigner(
      zeroRandom(bytes.subarray(0, whole.length), whole.randomParts),
      random,
      secrets,
    );
    const skew = signature === undefined ? 0 : signature.time - now();
    const profile = serverName === undefined ? undefined : profileOf(serverName);
    const suite = profile && chooseSuite(hello, profile);
    if (signature === undefined) {
      onStranger(random);
      return strange("digest", serverName, "not made with a secret of ours");
    }
    if (Math.abs(skew) > MAX_SKEW_S) return strange("skew", serverName, describeSkew(skew));
    if (profile === undefined) return strange("server-name", serverName, `for ${serverName ?? "no name"}`);
    if (suite === undefined)
      return strange("unsupported", serverName, "it offers no cipher suite of TLS 1.3");
    if (!(await seen.claim(random, performance.now() / 1000)))
      return strange("replay", serverName, "it was here before");
    const grant = await admitUser(signature.secret.name, enter);
    if (grant instanceof RefusedError) return refused(grant, serverName);
    await measured(serverName ?? "");
    const look = profileOf(serverName ?? "") ?? profile;
    const flight = await makeFlight(hello, look, chooseSuite(hello, look) ?? suite, signature);
    return { kind: "client", secret: signature.secret, flight, grant };
  }
}

async function makeFlight(
  hello: ClientHello,
  profile: CoverProfile,
  suite: number,
  { secret }: HelloSignature,
): Promise<Uint8Array> {
  const share = chooseKeyShare(hello, profile);
  const answered = share && (await answerKeyShare(share));
  const size = chooseFlightSize(hello, profile, suite, randomInt(SIZE_STEPS) / SIZE_STEPS);
  const flight = encodeFirstFlight({
    sessionId: hello.sessionId,
    cipherSuite: suite,
    extensionOrder: profile.extensionOrder,
    keyShare: answered ?? { group: GROUP.x25519, key: makeX25519Key() },
    encrypted: randomBytes(size),
  });
  signFlight(flight, hello.random, secret.key);
  return flight;
}

function parseHello(message: Uint8Array): ClientHello | undefined {
  try {
    return parseClientHello(message);
  } catch (error) {
    if (error instanceof HandshakeError) return undefined;
    throw error;
  }
}

async function admitUser(
  user: string,
  enter: (user: string) => Grant | Promise<Grant>,
): Promise<Grant | RefusedError> {
  try {
    return await enter(user);
  } catch (error) {
    if (error instanceof RefusedError) return error;
    throw error;
  }
}

function describeSkew(skew: number): string {
  const seconds = Math.abs(skew);
  const hours = seconds / 3_600;
  const long = hours < 48 ? `${Math.round(hours)} hours` : `${Math.round(hours / 24)} days`;
  return `its clock is ${hours < 2 ? `${seconds} s` : long} ${skew > 0 ? "ahead of" : "behind"} ours`;
}
