import { createHmac } from "node:crypto";
import type { Socket } from "node:net";
import { openTcp } from "./client-stream.ts";
import { CoverSite, type CoverSiteOptions } from "./cover-site.ts";
import { LostTime } from "./lost-time.ts";
import { concat } from "./packets.ts";
import { type ProxyOptions, ProxyProcess } from "./proxy.ts";
import { Condition } from "./waiting.ts";

/** How a connection ends for who looks at it: the other side's FIN, its reset, or not at all. */
export type End = "fin" | "reset" | "open";

/** What somebody gets to see who connects and does something. */
export interface Look {
  readonly received: Uint8Array;
  readonly end: End;
  /** From the connection to its end, or until the visitor's patience was over, in milliseconds. */
  readonly lastedMs: number;
  /** From the connection to the first byte. */
  readonly firstByteMs: number | undefined;
  /** How much of that was lost here, for lack of a processor. */
  readonly lostMs: number;
}

/** What somebody does who has connected. */
export type Visit = (visitor: Visitor) => Promise<void> | void;

/** A TLS record, as far as everybody sees it. */
export interface SeenRecord {
  readonly type: number;
  readonly version: number;
  readonly length: number;
  /** Its first bytes; all of them, where it is not encrypted and short. */
  readonly fragment: Uint8Array;
}

const RECORD_HEADER = 5;
const SERVER_HELLO = 2;
const ALERT = 21;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
/** After a FIN, so long it is waited whether a reset follows it by itself, in milliseconds. */
const AFTERMATH_MS = 250;
/** How much later one of two may end, or begin to answer, on a machine that keeps up, in milliseconds. */
const SAME_TIME_MS = 1_000;
/** An ECDSA signature's length changes from one connection to the next by this many bytes, to either side. */
const SIGNATURE_SPREAD = 6;
/** Shorter records hold no signature, so that their lengths say what is in them. */
const SIGNED_FROM = 60;
/** In a record: the header, the message's header, the version. */
const SERVER_RANDOM = RECORD_HEADER + 4 + 2;
const RANDOM_LENGTH = 32;

/** A TCP client with its own will. */
export class Visitor implements Disposable {
  received = 0;
  end: End = "open";
  endedAt: number | undefined;
  firstByteAt: number | undefined;
  readonly startedAt = performance.now();
  readonly #socket: Socket;
  readonly #chunks: Uint8Array[] = [];
  readonly #changes = new Condition();

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.firstByteAt ??= performance.now();
      this.#chunks.push(chunk);
      this.received += chunk.length;
      this.#changes.changed();
    });
    socket.on("end", () => this.#onEnd("fin"));
    socket.on("error", () => this.#onEnd("reset"));
    socket.on("close", () => this.#onEnd("fin"));
  }

  static async connect(port: number): Promise<Visitor> {
    return new Visitor(await openTcp(port));
  }

  /** All that has come. */
  get bytes(): Uint8Array {
    return concat(...this.#chunks);
  }

  /** There is nobody to write to. */
  get over(): boolean {
    return this.end !== "open";
  }

  write(bytes: Uint8Array | string): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  /** Writes `bytes` in pieces of `size`, `periodMs` apart, until they or the connection end. */
  async drip(bytes: Uint8Array, size: number, periodMs: number): Promise<void> {
    for (let at = 0; at < bytes.length && !this.over; at += size) {
      this.write(bytes.subarray(at, at + size));
      await Bun.sleep(periodMs);
    }
  }

  /** Keeps what is written, until {@link Visitor.uncork} sends it as one. */
  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  /** Sends a FIN, and goes on reading. */
  finish(): void {
    this.#socket.end();
  }

  reset(): void {
    this.#socket.resetAndDestroy();
  }

  stopReading(): void {
    this.#socket.pause();
  }

  startReading(): void {
    this.#socket.resume();
  }

  until(holds: () => boolean, what: string, limitMs?: number): Promise<void> {
    return this.#changes.until(holds, what, limitMs);
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #onEnd(end: End): void {
    // After a FIN, a reset may come for what was written since: that is the other side's last word, too.
    if (this.end === "open") this.endedAt = performance.now();
    if (this.end === "open" || end === "reset") this.end = end;
    this.#changes.changed();
  }
}

/** The name of the site. */
export const COVER_DOMAIN = "cover.example";

/** How a {@link Pair} is set up. */
export interface PairOptions {
  readonly site?: Omit<CoverSiteOptions, "names">;
  readonly proxy?: ProxyOptions;
}

/** A web site, and the proxy behind which it is. */
export class Pair implements AsyncDisposable {
  readonly site: CoverSite;
  readonly proxy: ProxyProcess;

  private constructor(site: CoverSite, proxy: ProxyProcess) {
    this.site = site;
    this.proxy = proxy;
  }

  /** Starts both, and waits until the proxy has measured the site. */
  static async start({ site: options, proxy: proxyOptions = {} }: PairOptions = {}): Promise<Pair> {
    const site = await CoverSite.start({ names: [COVER_DOMAIN], ...options });
    try {
      const mask = ["--fake-tls-domain", COVER_DOMAIN, "--mask-host", `127.0.0.1:${site.port}`];
      const args = [...mask, "--verbose", ...(proxyOptions.args ?? [])];
      const proxy = await ProxyProcess.start({ ...proxyOptions, args });
      await proxy.logged(/is measured|cannot be measured/);
      return new Pair(site, proxy);
    } catch (error) {
      await site[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.proxy[Symbol.asyncDispose]();
    await this.site[Symbol.asyncDispose]();
  }
}

/** How long somebody looks. */
export interface LookLimits {
  readonly patienceMs: number;
  /** How long it is waited for a reset after a FIN. */
  readonly aftermathMs?: number;
}

/** Connects, does what `visit` does, and stays until the end, or its patience is over. */
export async function look(port: number, visit: Visit, limits: number | LookLimits): Promise<Look> {
  const { patienceMs, aftermathMs = AFTERMATH_MS } =
    typeof limits === "number" ? { patienceMs: limits } : limits;
  using lost = new LostTime();
  using visitor = await Visitor.connect(port);
  const { startedAt } = visitor;
  await visit(visitor);
  const left = Math.max(1, startedAt + patienceMs - performance.now());
  await visitor.until(() => visitor.over, "the end", left).catch(() => {}); // then it is open
  if (visitor.end === "fin" && aftermathMs > 0) {
    await visitor.until(() => visitor.end === "reset", "a reset", aftermathMs).catch(() => {}); // none
  }
  const { bytes, end, endedAt = performance.now(), firstByteAt } = visitor;
  return {
    received: bytes,
    end,
    lastedMs: endedAt - startedAt,
    firstByteMs: firstByteAt === undefined ? undefined : firstByteAt - startedAt,
    lostMs: lost.ms,
  };
}

/** Reads TLS records; `undefined` when the bytes are something else. One that is cut off counts, too. */
export function readRecords(bytes: Uint8Array): SeenRecord[] | undefined {
  const records: SeenRecord[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; ) {
    if (at + RECORD_HEADER > bytes.length) return undefined;
    const type = view.getUint8(at);
    const version = view.getUint16(at + 1);
    const length = view.getUint16(at + 3);
    if (type < 20 || type > 24 || version >> 8 !== 3) return undefined;
    const from = at + RECORD_HEADER;
    records.push({ type, version, length, fragment: bytes.subarray(from, from + length) });
    at = from + length;
  }
  return records;
}

/** Says in what `tgws` differs from `site`; the empty list when nobody could tell them apart. */
export function differences(site: Look, tgws: Look, sameTimeMs = SAME_TIME_MS): string[] {
  const found = compareBytes(site.received, tgws.received);
  if (site.end !== tgws.end) found.push(`the site ends with ${site.end}, tgws with ${tgws.end}`);
  const spread = sameTimeMs + Math.max(site.lostMs, tgws.lostMs);
  const late = Math.round(tgws.lastedMs - site.lastedMs);
  if (Math.abs(late) > spread) found.push(`tgws ends ${late} ms after the site`);
  const slow = Math.round((tgws.firstByteMs ?? 0) - (site.firstByteMs ?? 0));
  if (Math.abs(slow) > spread) found.push(`tgws answers ${slow} ms after the site`);
  return found;
}

/** A line that shows what a look was like, for tables of what is expected. */
export function describeLook({ received, end }: Pick<Look, "received" | "end">): string {
  const records = readRecords(received);
  if (received.length === 0) return `nothing, ${end}`;
  if (records === undefined)
    return `${JSON.stringify(new TextDecoder().decode(received.subarray(0, 15)))}, ${end}`;
  return `${records.map(describeRecord).join(" ")}, ${end}`;
}

/** Whether a flight, or its first three records, proves that its sender knows `secret`. */
export function isSigned(received: Uint8Array, clientRandom: Uint8Array, secret: Uint8Array): boolean {
  const records = readRecords(received);
  if (records === undefined || records[0]?.type !== HANDSHAKE) return false;
  const random = received.slice(SERVER_RANDOM, SERVER_RANDOM + RANDOM_LENGTH).toHex();
  const zeroed = received.slice();
  zeroed.fill(0, SERVER_RANDOM, SERVER_RANDOM + RANDOM_LENGTH);
  let end = 0;
  for (const { length } of records) {
    end += RECORD_HEADER + length;
    const hmac = createHmac("sha256", secret).update(clientRandom).update(zeroed.subarray(0, end));
    if (hmac.digest("hex") === random) return true;
  }
  return false;
}

function compareBytes(site: Uint8Array, tgws: Uint8Array): string[] {
  const [ofSite, ofTgws] = [readRecords(site), readRecords(tgws)];
  if (ofSite === undefined || ofTgws === undefined) {
    const [a, b] = [site, tgws].map((bytes) => withoutDate(bytes));
    return a === b ? [] : [`the site says ${JSON.stringify(a)}, tgws ${JSON.stringify(b)}`];
  }
  const [a, b] = [ofSite, ofTgws].map((records) => records.map(describeRecord).join(" "));
  const same = ofSite.length === ofTgws.length && ofSite.every((record, at) => isSame(record, ofTgws[at]));
  return same ? [] : [`the site sends ${a}, tgws ${b}`];
}

function isSame(record: SeenRecord, other: SeenRecord | undefined): boolean {
  if (other === undefined || record.type !== other.type || record.version !== other.version) return false;
  if (record.type === ALERT && record.length === 2) return record.fragment.toHex() === other.fragment.toHex();
  const signed = record.length >= SIGNED_FROM && !isServerHello(record);
  return Math.abs(record.length - other.length) <= (signed ? SIGNATURE_SPREAD : 0);
}

function isServerHello({ type, fragment }: SeenRecord): boolean {
  return type === HANDSHAKE && fragment[0] === SERVER_HELLO;
}

function describeRecord({ type, length, fragment }: SeenRecord): string {
  if (type === ALERT && length === 2) return `alert(${fragment[1]})`;
  if (type === HANDSHAKE) return `handshake(${fragment[0]}, ${length})`;
  return `${type === APPLICATION_DATA ? "data" : type === ALERT ? "alert" : type}(${length})`;
}

function withoutDate(bytes: Uint8Array): string {
  return new TextDecoder("latin1").decode(bytes).replace(/^Date: .*$/gm, "Date: ...");
}
