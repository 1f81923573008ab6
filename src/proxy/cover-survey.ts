import { generateKeyPairSync, randomBytes } from "node:crypto";
import { ByteReader } from "../channel/byte-reader.ts";
import type { Channel } from "../channel/channel.ts";
import { HandshakeError } from "../core/errors.ts";
import { makeX25519Key } from "../crypto/key-share.ts";
import { GROUP, type KeyShare } from "../protocol/tls/client-hello.ts";
import { encodeClientHello } from "../protocol/tls/client-hello-writer.ts";
import {
  type CoverProfile,
  defaultProfile,
  normalizeFlightSize,
  TLS13_SUITES,
} from "../protocol/tls/cover-profile.ts";
import { MAX_CIPHER_FRAGMENT, RECORD_HEADER_LENGTH } from "../protocol/tls/record.ts";
import { parseServerFlight, type ServerFlight } from "../protocol/tls/server-flight.ts";

/** For one answer, connecting not included, in milliseconds. */
const ANSWER_MS = 5_000;
/** A flight is over when nothing has come for so long, in milliseconds: the site waits for its client. */
const QUIET_MS = 400;
/** More than any certificate chain. */
const FLIGHT_LIMIT = 64 * 1024;
const TLS13 = 0x0304;

/** What {@link surveyCover} has found. */
export interface Survey {
  readonly profile: CoverProfile;
  /** In what the site cannot be imitated; for a person. */
  readonly shortcomings: readonly string[];
}

/**
 * Measures how a web site answers ClientHellos like those of clients: a few connections that end before they begin.
 *
 * @param open Connects to the site.
 * @param onHello Hears the random of each hello before it is sent.
 * @throws {HandshakeError} When it does not speak TLS 1.3, or not at all.
 */
export async function surveyCover(
  serverName: string,
  open: () => Promise<Channel>,
  onHello: (random: Uint8Array) => void,
): Promise<Survey> {
  const [first, second, third] = TLS13_SUITES;
  const ask = async (suites: readonly number[]): Promise<ServerFlight> => {
    const random = randomBytes(32);
    onHello(random);
    return readFlight(await open(), encodeHello(serverName, random, suites));
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
  } else {
    flights.push(await ask([first, second, third]));
  }
  const shortcomings: string[] = [];
  const records = Math.max(...flights.map(({ encryptedRecords }) => encryptedRecords.length));
  if (records > 1) {
    shortcomings.push(
      `its encrypted answer comes in ${records} records, where clients accept one: ours is as long as all of them`,
    );
  }
  const answered = flights.filter(({ encryptedRecords }) => encryptedRecords.length > 0);
  const sizes = answered.map((flight) => normalizeFlightSize(flightSize(flight), flight.cipherSuite));
  if (sizes.some((size) => size >= MAX_CIPHER_FRAGMENT)) {
    shortcomings.push("its certificates are longer than one record can be");
  }
  if (
    flights.some(({ helloRetry }) => helloRetry) ||
    (group !== undefined && !KNOWN_GROUPS.includes(group))
  ) {
    shortcomings.push("it asks for a key exchange that clients do not offer");
  }
  const groups = group === GROUP.x25519MlKem768 ? [GROUP.x25519MlKem768, GROUP.x25519] : [GROUP.x25519];
  const usual = defaultProfile(serverName);
  const known =
    extensionOrder.length === 2 && usual.extensionOrder.every((type) => extensionOrder.includes(type));
  return {
    profile: {
      suites,
      groups,
      extensionOrder: known ? extensionOrder : usual.extensionOrder,
      flightSizes: sizes.length === 0 ? usual.flightSizes : sizes.map((size) => Math.min(size, LONGEST)),
    },
    shortcomings,
  };
}

/** With room for a suite with SHA-384. */
const LONGEST = MAX_CIPHER_FRAGMENT - 16;

/** A site may have a single suite, and refuse a hello without it. */
function refusalOf(error: unknown): undefined {
  if (!(error instanceof HandshakeError)) throw error;
}

const KNOWN_GROUPS: readonly number[] = [GROUP.x25519, GROUP.x25519MlKem768];

/** As one record that takes as many bytes on the wire as all records of the site did. */
function flightSize({ encryptedRecords }: ServerFlight): number {
  const headers = Math.max(0, encryptedRecords.length - 1) * RECORD_HEADER_LENGTH;
  return encryptedRecords.reduce((sum, length) => sum + length, headers);
}

function encodeHello(serverName: string, random: Uint8Array, cipherSuites: readonly number[]): Uint8Array {
  return encodeClientHello({
    serverName,
    random,
    sessionId: randomBytes(32),
    cipherSuites,
    keyShares: [makeHybridShare(), { group: GROUP.x25519, key: makeX25519Key() }],
    alpn: ["h2", "http/1.1"],
    grease: randomBytes(8),
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
      flight = parseServerFlight(bytes);
      if (flight !== undefined && flight.version !== TLS13) throw notTls13();
      if (flight?.helloRetry === true) return flight;
      if (bytes.length > FLIGHT_LIMIT)
        throw new HandshakeError("BAD_SERVER_HELLO", "its answer does not end");
    }
  } finally {
    channel.destroy();
  }
}

function notTls13(): HandshakeError {
  return new HandshakeError("BAD_SERVER_HELLO", "it does not speak TLS 1.3");
}

function answerError({ code }: HandshakeError, flight: ServerFlight | undefined): HandshakeError {
  const what = flight === undefined ? "with a ServerHello" : "to its end";
  const how = code === "TIMEOUT" ? `within ${ANSWER_MS / 1000} s` : "before it closed";
  return new HandshakeError("BAD_SERVER_HELLO", `it did not answer ${what} ${how}`);
}
