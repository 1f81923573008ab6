import { generateKeyPairSync, randomBytes } from "node:crypto";
import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import { HandshakeError } from "../core/errors.ts";
import { makeX25519Key } from "../crypto/key-share.ts";
import { GROUP, type KeyShare } from "../protocol/tls/client-hello.ts";
import { encodeClientHello, type GreaseEch } from "../protocol/tls/client-hello-writer.ts";
import {
  type CoverProfile,
  defaultProfile,
  normalizeFlightSize,
  TLS13_SUITES,
} from "../protocol/tls/cover-profile.ts";
import { CONTENT_TYPE, MAX_CIPHER_FRAGMENT, RECORD_HEADER_LENGTH } from "../protocol/tls/record.ts";
import { parseServerFlight, type ServerFlight } from "../protocol/tls/server-flight.ts";

/** For one answer, connecting not included, in milliseconds. */
const ANSWER_MS = 5_000;
/** A flight is over when nothing has come for so long, in milliseconds: the site waits for its client. */
const QUIET_MS = 400;
/** The length of a signature varies: one connection shows one length of several. */
const MORE_SAMPLES = 5;
/** Of hellos without ECH, as clients of some years ago send. */
const OLDER_SAMPLES = 4;
/** More than any certificate chain. */
const FLIGHT_LIMIT = 64 * 1024;
const TLS13 = 0x0304;

/** What {@link surveyCover} has found. */
export interface Survey {
  readonly profile: CoverProfile;
  readonly shortcomings: readonly Shortcoming[];
}

/**
 * In what a site cannot be imitated.
 *
 * - `records` its encrypted answer comes in so many, where clients accept one
 * - `too-long` that answer is longer than one record can be
 * - `key-exchange` it wants one that clients do not offer; `group` is `undefined` when it does not say which
 */
export type Shortcoming =
  | { readonly kind: "records"; readonly count: number }
  | { readonly kind: "too-long" }
  | { readonly kind: "key-exchange"; readonly group: number | undefined };

/**
 * Why a site that was connected to cannot be measured.
 *
 * - `old-tls` it does not speak TLS 1.3
 * - `not-tls` what it says is not TLS
 * - `refused` it answers with an alert
 * - `closed` it closed before it had answered
 * - `silent` it does not answer in time
 * - `garbled` its answer is TLS, but stops early, does not end, or cannot be read
 */
export type SurveyFault = "old-tls" | "not-tls" | "refused" | "closed" | "silent" | "garbled";

/** A site that does not answer as one with TLS 1.3 does: `BAD_SERVER_HELLO`. */
export class SurveyError extends HandshakeError {
  readonly why: SurveyFault;

  constructor(why: SurveyFault, message: string, cause?: unknown) {
    super("BAD_SERVER_HELLO", message, cause);
    this.why = why;
  }
}

/**
 * Measures how a web site answers ClientHellos like those of clients: a dozen connections that end before they begin.
 *
 * @param open Connects to the site.
 * @param onHello Hears the random of each hello before it is sent.
 * @throws {SurveyError} When it does not speak TLS 1.3, or not at all.
 */
export async function surveyCover(
  serverName: string,
  open: () => Promise<Channel>,
  onHello: (random: Uint8Array) => void,
): Promise<Survey> {
  const [first, second, third] = TLS13_SUITES;
  const ask = async (
    suites: readonly number[],
    ech: GreaseEch | typeof NO_ECH = makeEch(),
  ): Promise<ServerFlight> => {
    const random = randomBytes(32);
    onHello(random);
    return readFlight(await open(), encodeHello(serverName, random, suites, ech));
  };
  const flights: [ServerFlight, ServerFlight, ...ServerFlight[]] = await Promise.all([
    ask([first, second, third]),
    ask([third, second, first]),
  ]);
  const [{ cipherSuite: best, extensionOrder, group }, other] = flights;
  let suites: CoverProfile["suites"] = "client";
  if (best === other.cipherSuite) {
    const next = await ask(TLS13_SUITES.filter((suite) => suite !== best)).catch(refusalOf);
    if (next !== undefined) flights.push(next);
    suites = [...new Set([best, next?.cipherSuite ?? best, ...TLS13_SUITES])];
  }
  const more = Array.from({ length: MORE_SAMPLES }, () => ask([first, second, third]));
  const older = Array.from({ length: OLDER_SAMPLES }, () => ask([first, second, third], NO_ECH));
  const [moreFlights, olderFlights] = await Promise.all([answersTo(more), answersTo(older)]);
  flights.push(...moreFlights);
  const shortcomings: Shortcoming[] = [];
  const count = Math.max(...flights.map(({ encryptedRecords }) => encryptedRecords.length));
  if (count > 1) shortcomings.push({ kind: "records", count });
  const sizes = sizesOf(flights);
  const seenSizes = sizes.length > 0 ? sizes : defaultProfile(serverName).flightSizes;
  const olderSizes = sizesOf(olderFlights);
  if (sizes.some((size) => size >= MAX_CIPHER_FRAGMENT)) shortcomings.push({ kind: "too-long" });
  const foreign = flights.find(wantsAnotherGroup);
  if (foreign !== undefined) shortcomings.push({ kind: "key-exchange", group: foreign.group });
  const groups = group === GROUP.x25519MlKem768 ? [GROUP.x25519MlKem768, GROUP.x25519] : [GROUP.x25519];
  const usual = defaultProfile(serverName);
  const known =
    extensionOrder.length === 2 && usual.extensionOrder.every((type) => extensionOrder.includes(type));
  return {
    profile: {
      suites,
      groups,
      extensionOrder: known ? extensionOrder : usual.extensionOrder,
      flightSizes: seenSizes.map(limited),
      olderFlightSizes: (olderSizes.length > 0 ? olderSizes : seenSizes).map(limited),
    },
    shortcomings,
  };
}

/** A site may have enough of us. */
async function answersTo(asked: readonly Promise<ServerFlight>[]): Promise<ServerFlight[]> {
  const settled = await Promise.allSettled(asked);
  return settled.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
}

function sizesOf(flights: readonly ServerFlight[]): number[] {
  const answered = flights.filter(({ encryptedRecords }) => encryptedRecords.length > 0);
  return answered.map((flight) => normalizeFlightSize(flightSize(flight), flight.cipherSuite));
}

/** What one record can be, with room for a suite with SHA-384. */
function limited(size: number): number {
  return Math.min(size, MAX_CIPHER_FRAGMENT - 16);
}

/** A site may have a single suite, and refuse a hello without it. */
function refusalOf(error: unknown): undefined {
  if (!(error instanceof HandshakeError)) throw error;
}

const KNOWN_GROUPS: readonly number[] = [GROUP.x25519, GROUP.x25519MlKem768];

function wantsAnotherGroup({ helloRetry, group }: ServerFlight): boolean {
  return helloRetry || (group !== undefined && !KNOWN_GROUPS.includes(group));
}

/** As one record that takes as many bytes on the wire as all records of the site did. */
function flightSize({ encryptedRecords }: ServerFlight): number {
  const headers = Math.max(0, encryptedRecords.length - 1) * RECORD_HEADER_LENGTH;
  return encryptedRecords.reduce((sum, length) => sum + length, headers);
}

const NO_ECH = "none";

/** As long as that of most clients. */
function makeEch(): GreaseEch {
  const [configId = 0] = randomBytes(1);
  return { configId, enc: makeX25519Key(), payload: randomBytes(208) };
}

function encodeHello(
  serverName: string,
  random: Uint8Array,
  cipherSuites: readonly number[],
  ech: GreaseEch | typeof NO_ECH,
): Uint8Array {
  return encodeClientHello({
    serverName,
    random,
    sessionId: randomBytes(32),
    cipherSuites,
    keyShares: [makeHybridShare(), { group: GROUP.x25519, key: makeX25519Key() }],
    alpn: ["h2", "http/1.1"],
    grease: randomBytes(8),
    ech: ech === NO_ECH ? undefined : ech,
  });
}

/** A client's share for X25519MLKEM768: an encapsulation key, and an X25519 key after it. */
function makeHybridShare(): KeyShare {
  const { publicKey } = generateKeyPairSync("ml-kem-768" as "x25519");
  const encapsulationKey = publicKey.export({ format: "der", type: "spki" }).subarray(-1184);
  return {
    group: GROUP.x25519MlKem768,
    key: Uint8Array.from([...encapsulationKey, ...makeX25519Key()]),
  };
}

/** Sends a hello and reads what comes until the site waits for an answer; closes `channel`. */
async function readFlight(channel: Channel, hello: Uint8Array): Promise<ServerFlight> {
  try {
    const reader = new ByteReader(channel);
    channel.write(hello);
    const deadline = performance.now() + ANSWER_MS;
    let flight: ServerFlight | undefined;
    for (;;) {
      const over = flight !== undefined && flight.rest === 0 && flight.encryptedRecords.length > 0;
      const waitMs = over ? QUIET_MS : Math.max(1, deadline - performance.now());
      let bytes: Uint8Array;
      try {
        bytes = await reader.peek(reader.heldBytes + 1, AbortSignal.timeout(waitMs));
      } catch (error) {
        if (over && flight !== undefined) return flight;
        throw error instanceof HandshakeError ? answerError(error, flight) : error;
      }
      flight = parseAnswer(bytes);
      if (flight !== undefined && flight.version !== TLS13) throw notTls13();
      if (flight?.helloRetry === true) return flight;
      if (bytes.length > FLIGHT_LIMIT) throw new SurveyError("garbled", "its answer does not end");
    }
  } finally {
    channel.destroy();
  }
}

function parseAnswer(bytes: Uint8Array): ServerFlight | undefined {
  try {
    return parseServerFlight(bytes);
  } catch (error) {
    throw error instanceof HandshakeError ? refusalIn(bytes, error) : error;
  }
}

const PROTOCOL_VERSION = 70;
/** Alerts by which a site refuses a hello like ours. @see https://www.rfc-editor.org/rfc/rfc8446#section-6 */
const ALERT_NAMES: Readonly<Record<number, string>> = {
  40: "handshake_failure",
  80: "internal_error",
  112: "unrecognized_name",
};

/** What `bytes`, which cannot be parsed, are. */
function refusalIn(bytes: Uint8Array, error: HandshakeError): SurveyError {
  const [type = 0, major = 3, , , length, , description] = bytes;
  if (major !== 3 || !Object.values<number>(CONTENT_TYPE).includes(type)) {
    return new SurveyError("not-tls", error.message, error);
  }
  if (type !== CONTENT_TYPE.alert || length !== 2 || description === undefined) {
    return new SurveyError("garbled", error.message, error);
  }
  if (description === PROTOCOL_VERSION) return notTls13();
  const name = ALERT_NAMES[description];
  const alert = `the TLS alert ${description}${name === undefined ? "" : `, ${name}`}`;
  return new SurveyError("refused", `it answered with ${alert}`, error);
}

function notTls13(): SurveyError {
  return new SurveyError("old-tls", "it does not speak TLS 1.3");
}

function answerError({ code }: HandshakeError, flight: ServerFlight | undefined): SurveyError {
  const silent = code === "TIMEOUT";
  const how = silent ? `within ${ANSWER_MS / 1000} s` : "before it closed";
  if (flight !== undefined) return new SurveyError("garbled", `it did not answer to its end ${how}`);
  return new SurveyError(silent ? "silent" : "closed", `it did not answer with a ServerHello ${how}`);
}
