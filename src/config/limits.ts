import { FormatError } from "../core/errors.ts";
import { IpNetwork } from "../core/ip-network.ts";
import type { FieldReader } from "./field-reader.ts";
import type { FieldName } from "./fields.ts";
import { parseInteger, parseNumber } from "./numbers.ts";
import { parsePath } from "./texts.ts";

/** What keeps the proxy alive when many come. */
export interface Limits {
  /** Connections of clients at a time. `undefined`: what the system's limits leave room for. */
  readonly maxConnections: number | undefined;
  /** Connections of one IP address at a time. */
  readonly maxPerAddress: number | undefined;
  /** New connections of one IP address per second; may be less than one. */
  readonly addressRate: number | undefined;
  readonly handshakeTimeoutMs: number;
  /** Bytes queued in one direction of a session from which on its source is paused. */
  readonly queueBytes: number;
  /** Bytes queued in all sessions. `undefined`: a quarter of the memory. */
  readonly bufferBytes: number | undefined;
  /** Networks in CIDR notation, or names of files with one a line. Empty: everybody. */
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

const MOST = 10_000_000;
const MIB = 1024 * 1024;
const NETWORK_HINT = "for example 10.0.0.0/8, ::1 or a file with one a line";

/** Reads the limits of the proxy as a whole. */
export function readLimits(reader: FieldReader): Limits {
  const count = (name: FieldName): number | undefined =>
    reader.value<number | undefined>(name, undefined, (text) => parseInteger(text, 1, MOST));
  const megabytes = (text: string): number => Math.round(parseNumber(text, 1, 1024 * 1024) * MIB);
  return {
    maxConnections: count("maxConnections"),
    maxPerAddress: count("maxPerAddress"),
    addressRate: reader.value<number | undefined>("addressRate", undefined, (text) =>
      parseNumber(text, 0.01, MOST),
    ),
    handshakeTimeoutMs: Math.round(
      reader.value("handshakeSeconds", 10, (text) => parseNumber(text, 0.1, 600)) * 1000,
    ),
    queueBytes: reader.value("bufKb", 256, (text) => parseInteger(text, 4, 16_384)) * 1024,
    bufferBytes: reader.value<number | undefined>("bufferMb", undefined, megabytes),
    allow: readNetworks(reader, "allow"),
    deny: readNetworks(reader, "deny"),
  };
}

/** Each text may hold several, with commas between. One that is there twice counts once. */
function readNetworks(reader: FieldReader, name: FieldName): string[] {
  const found = new Set<string>();
  for (const text of reader.raw[name] ?? []) {
    const parts = text.split(",").map((part) => part.trim());
    for (const part of parts) reader.attempt(name, part, () => void found.add(parseNetworkOrFile(part)));
  }
  return [...found];
}

/** What has only characters of addresses is meant as one. */
function parseNetworkOrFile(text: string): string {
  if (/^\[?[0-9a-f.:]*[.:][0-9a-f.:]*\]?(?:\/[^/]*)?$/i.test(text) && /\d|::/.test(text))
    return IpNetwork.parse(text).toString();
  if (/^\d+$/.test(text))
    throw new FormatError("BAD_ADDRESS", "neither a network nor a file name", NETWORK_HINT);
  return parsePath(text);
}
