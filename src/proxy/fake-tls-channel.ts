import { randomBytes } from "node:crypto";
import type { Channel, ChannelSink, GatherChannel } from "../channel/channel.ts";
import { release } from "../core/bytes.ts";
import { HandshakeError } from "../core/errors.ts";
import {
  CONTENT_TYPE,
  MAX_CIPHER_FRAGMENT,
  MAX_PLAIN_FRAGMENT,
  RECORD_HEADER_LENGTH,
  RECORD_VERSION,
  writeRecordHeader,
} from "../protocol/tls/record.ts";

/**
 * Records grow by this many bytes each until they are 16 KiB, as those of many servers do: the first fit one TCP
 * segment each, so that a browser can begin early.
 */
const GROWTH = 1_369;
/** Up to this many bytes, copying them behind their header is cheaper than two pieces. Measured. */
const COPY_LIMIT = 4 * 1024;
const ALERT_LENGTH = 2;
/** An alert as TLS 1.3 encrypts it: with its content type and a tag of 16 bytes. */
const ENCRYPTED_ALERT_LENGTH = ALERT_LENGTH + 1 + 16;

/** Shared: what is written is only borrowed for the call. */
const scratch = new Uint8Array(RECORD_HEADER_LENGTH + COPY_LIMIT);
const FULL_HEADER = new Uint8Array(RECORD_HEADER_LENGTH);
writeRecordHeader(FULL_HEADER, 0, CONTENT_TYPE.applicationData, MAX_PLAIN_FRAGMENT);

/**
 * What follows the hellos of fake TLS: bytes wrapped in records of application data, both ways.
 *
 * In: records may be split anywhere and hold up to 16 KiB + 256; one change_cipher_spec may come before the first.
 * Anything else is what no client sends: it is answered as a server answers a record that does not decrypt, and
 * `onClose` has a {@link HandshakeError} `BAD_RECORD`. Out: each write becomes records of growing sizes.
 */
export class FakeTlsChannel implements Channel, ChannelSink {
  readonly #inner: GatherChannel;
  #early: Uint8Array | undefined;
  #sink: ChannelSink | undefined;
  /** The header that is being read. */
  readonly #header = new Uint8Array(RECORD_HEADER_LENGTH);
  #headerLength = 0;
  /** Bytes of the current record's fragment that have not come. */
  #left = 0;
  #changesCipher = false;
  /** Records that came. */
  #records = 0;
  #broken: HandshakeError | undefined;
  /** The longest fragment of the next record out. */
  #limit = GROWTH;

  /**
   * @param inner Connected; the hellos have crossed it.
   * @param early What came after the client's hello.
   */
  constructor(inner: GatherChannel, early: Uint8Array) {
    this.#inner = inner;
    this.#early = early.length > 0 ? early : undefined;
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink;
    const broken = this.#broken;
    if (broken !== undefined) {
      queueMicrotask(() => sink.onClose(broken));
      return;
    }
    const early = this.#early;
    this.#early = undefined;
    if (early !== undefined) queueMicrotask(() => this.onChunk(early));
    this.#inner.attach(this);
  }

  write(bytes: Uint8Array): void {
    if (this.#broken !== undefined) return;
    const { length } = bytes;
    if (length === 0) return;
    if (length <= COPY_LIMIT && length <= this.#limit) {
      writeRecordHeader(scratch, 0, CONTENT_TYPE.applicationData, length);
      scratch.set(bytes, RECORD_HEADER_LENGTH);
      this.#grow();
      this.#inner.write(scratch.subarray(0, RECORD_HEADER_LENGTH + length));
    } else {
      this.#inner.writeAll(this.#wrap(bytes));
    }
  }

  get congested(): boolean {
    return this.#inner.congested;
  }

  get queuedBytes(): number {
    return this.#inner.queuedBytes;
  }

  pause(): void {
    this.#inner.pause();
  }

  resume(): void {
    this.#inner.resume();
  }

  end(): void {
    this.#inner.end();
  }

  close(): void {
    this.#inner.close();
  }

  reset(): void {
    this.#inner.reset();
  }

  destroy(): void {
    this.#inner.destroy();
  }

  ping(): void {
    this.#inner.ping();
  }

  get answersPings(): boolean {
    return this.#inner.answersPings;
  }

  get unanswered(): boolean {
    return this.#inner.unanswered;
  }

  /** Ends the connection as a server does that cannot decrypt what it was sent: with an alert. */
  refuse(): void {
    const alert = randomBytes(RECORD_HEADER_LENGTH + ENCRYPTED_ALERT_LENGTH);
    writeRecordHeader(alert, 0, CONTENT_TYPE.applicationData, ENCRYPTED_ALERT_LENGTH);
    this.#inner.write(alert);
    this.#inner.end();
  }

  /** Takes the fragments out of `chunk`, which is changed: they move together, so that they leave as one piece. */
  onChunk(chunk: Uint8Array): void {
    if (this.#broken !== undefined) {
      release(chunk);
      return;
    }
    let start = 0;
    let end = 0;
    let at = 0;
    while (at < chunk.length) {
      if (this.#left === 0) {
        at = this.#readHeader(chunk, at);
        if (this.#broken !== undefined) break;
        continue;
      }
      const to = Math.min(at + this.#left, chunk.length);
      this.#left -= to - at;
      if (this.#changesCipher) {
        if (chunk[at] !== 1) {
          this.#break("a change_cipher_spec that is not 1");
          break;
        }
      } else if (end === start) {
        start = at;
        end = to;
      } else {
        chunk.copyWithin(end, at, to);
        end += to - at;
      }
      at = to;
    }
    if (end > start) this.#sink?.onChunk(chunk.subarray(start, end));
    else release(chunk);
    if (this.#broken !== undefined) this.#sink?.onClose(this.#broken);
  }

  onEnd(): void {
    if (this.#broken === undefined) this.#sink?.onEnd();
  }

  onDrain(): void {
    if (this.#broken === undefined) this.#sink?.onDrain();
  }

  onClose(error?: Error): void {
    if (this.#broken === undefined) this.#sink?.onClose(error);
  }

  /** Reads what `chunk` has of a header; returns where it goes on. */
  #readHeader(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length && this.#headerLength < RECORD_HEADER_LENGTH) {
      this.#header[this.#headerLength] = chunk[at] ?? 0;
      this.#headerLength += 1;
      at += 1;
    }
    if (this.#headerLength < RECORD_HEADER_LENGTH) return at;
    this.#headerLength = 0;
    const [type = 0, major = 0, minor = 0, high = 0, low = 0] = this.#header;
    const version = (major << 8) | minor;
    const length = (high << 8) | low;
    this.#changesCipher = type === CONTENT_TYPE.changeCipherSpec && this.#records === 0 && length === 1;
    const known = type === CONTENT_TYPE.applicationData || this.#changesCipher;
    if (type === CONTENT_TYPE.alert && version === RECORD_VERSION && length === ALERT_LENGTH) {
      // A client that gives up: a server has nothing to say to that.
      this.#broken = new HandshakeError("BAD_RECORD", "Cannot read record: the client sent an alert");
      this.#inner.end();
    } else if (!known || version !== RECORD_VERSION) {
      this.#break(`type ${type}, version ${version.toString(16)}`);
    } else if (length === 0 || length > MAX_CIPHER_FRAGMENT) {
      this.#break(`${length} bytes`);
    }
    this.#records += 1;
    this.#left = length;
    return at;
  }

  #break(what: string): void {
    this.#broken = new HandshakeError("BAD_RECORD", `Cannot read record: ${what}`);
    this.refuse();
  }

  /** Returns `bytes` as records: headers, and views of `bytes`. */
  #wrap(bytes: Uint8Array): Uint8Array[] {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(this.#limit, bytes.length - at);
      let header = FULL_HEADER;
      if (length < MAX_PLAIN_FRAGMENT) {
        header = new Uint8Array(RECORD_HEADER_LENGTH);
        writeRecordHeader(header, 0, CONTENT_TYPE.applicationData, length);
      }
      parts.push(header, bytes.subarray(at, at + length));
      this.#grow();
      at += length;
    }
    return parts;
  }

  #grow(): void {
    if (this.#limit < MAX_PLAIN_FRAGMENT) {
      this.#limit = Math.min(this.#limit + GROWTH, MAX_PLAIN_FRAGMENT);
    }
  }
}
