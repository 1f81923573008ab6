import type { ChannelSink } from "../channel/channel.ts";
import type { Output } from "../channel/transform.ts";
import { concatBytes, formatBytes, release } from "../core/bytes.ts";
import type { Cancel } from "../core/cancel.ts";
import { FormatError, RouteError } from "../core/errors.ts";
import type { DcTarget } from "../protocol/mtproto/dc.ts";
import {
  clientMessageId,
  encodeReqPqMulti,
  NONCE_LENGTH,
  parseResPq,
  transportErrorOf,
} from "../protocol/mtproto/req-pq.ts";
import type { Upstream, Way } from "./route.ts";

/** How long the opening may take, and how long the answers may take after it, in milliseconds. */
const TIMEOUT_MS = { light: 5_000, deep: 20_000 } as const;
/** A deep probe without an answer for this long has met a freeze, in milliseconds. */
const STALL_MS = 5_000;
/** What must come back in a deep probe, in bytes: networks that freeze flows do so after 10-20 KB. */
const DEEP_BYTES = 64 * 1024;
/** Questions that are without an answer at a time in a deep probe. */
const WINDOW = 16;
/** The longest packet that is waited for, in bytes; a resPQ has about 100. */
const LONGEST_ANSWER = 4 * 1024;

/** What the transport errors mean that a probe can meet. */
const TRANSPORT_ERRORS: Readonly<Record<number, string>> = {
  [-404]: "it does not understand this connection",
  [-429]: "too many connections from this address",
  [-444]: "there is no such data centre at this address",
};

/** How a way is probed. */
export interface ProbeOptions {
  /** Go on until more than 64 KiB have come back, to find flows that freeze. */
  readonly deep: boolean;
  readonly signal: Cancel;
  /** For the opening, and anew for the answers, in milliseconds. 5 s, or 20 s for a deep probe. */
  readonly timeoutMs?: number | undefined;
  /** How long a deep probe waits for the next answer, in milliseconds. 5 s. */
  readonly stallMs?: number | undefined;
  /** Hears how many bytes have come back, after each answer. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
}

/** A data centre answered. */
export interface ProbeResult {
  /** Until the way was open; next to nothing for a connection that was opened ahead. */
  readonly openMs: number;
  /** From the first question to its answer. */
  readonly rttMs: number;
  /** What came back, decrypted. */
  readonly bytes: number;
}

/**
 * Opens `way`, asks the data centre `req_pq_multi` and waits for a `resPQ` that carries our nonce.
 *
 * A connection that opens proves nothing: Telegram answers a valid init with silence, and a Worker opens
 * before it has reached anybody. The connection is dropped in every case.
 *
 * @throws {RouteError} What the opening threw; `TIMEOUT` when it did not open, or when a deep probe is too
 * slow; `SILENT` when nothing came back; `STALLED` when it stopped after that; `CLOSED` when it closed first;
 * `PROTOCOL` when the answer is not ours; `ABORTED` when `signal` aborts.
 */
export async function probeWay(way: Way, target: DcTarget, options: ProbeOptions): Promise<ProbeResult> {
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS[options.deep ? "deep" : "light"];
  const startedAt = performance.now();
  const upstream = await openWithin(way, target, options.signal, timeoutMs);
  const openMs = performance.now() - startedAt;
  const exchange = new Exchange(upstream, {
    needed: options.deep ? DEEP_BYTES : 0,
    window: options.deep ? WINDOW : 1,
    timeoutMs,
    quietMs: options.deep ? (options.stallMs ?? STALL_MS) : timeoutMs,
    onProgress: options.onProgress ?? (() => {}),
  });
  const onAbort = (): void => exchange.fail(new RouteError("ABORTED", "given up"));
  options.signal.addEventListener("abort", onAbort, { once: true });
  try {
    if (options.signal.aborted) onAbort();
    return { openMs, ...(await exchange.run()) };
  } finally {
    options.signal.removeEventListener("abort", onAbort);
    upstream.channel.destroy();
  }
}

/** Opens the way; one that opens after it was given up is closed. */
function openWithin(way: Way, target: DcTarget, signal: Cancel, timeoutMs: number): Promise<Upstream> {
  const { promise, resolve, reject } = Promise.withResolvers<Upstream>();
  const giveUp = new AbortController();
  let settled = false;
  const settle = (): boolean => {
    if (settled) return false;
    settled = true;
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    return true;
  };
  const stop = (error: RouteError): void => {
    if (settle()) reject(error);
    giveUp.abort();
  };
  const onAbort = (): void => stop(new RouteError("ABORTED", "given up"));
  const timer = setTimeout(() => {
    stop(new RouteError("TIMEOUT", `not open within ${timeoutMs / 1000} s`));
  }, timeoutMs);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) {
    onAbort();
    return promise;
  }
  way.open({ ...target, transport: "intermediate" }, giveUp.signal).then(
    (upstream) => {
      if (settle()) resolve(upstream);
      else upstream.channel.destroy();
    },
    (error: unknown) => {
      if (settle()) reject(error);
    },
  );
  return promise;
}

interface ExchangeLimits {
  /** Bytes that must have come back, and one answer at least. */
  readonly needed: number;
  readonly window: number;
  /** For all answers. */
  readonly timeoutMs: number;
  /** For the next bytes. */
  readonly quietMs: number;
  readonly onProgress: (bytes: number) => void;
}

/** Questions and answers over one open way. */
class Exchange implements ChannelSink, Output {
  readonly #upstream: Upstream;
  readonly #limits: ExchangeLimits;
  readonly #result = Promise.withResolvers<Omit<ProbeResult, "openMs">>();
  /** Nonces of the questions that are open. */
  readonly #asked = new Set<string>();
  #questions = 0;
  #firstAskedAt = 0;
  #rttMs: number | undefined;
  /** Decrypted bytes of a packet that is not whole. */
  #held: Uint8Array = new Uint8Array(0);
  #bytes = 0;
  #settled = false;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #quiet: ReturnType<typeof setTimeout> | undefined;

  constructor(upstream: Upstream, limits: ExchangeLimits) {
    this.#upstream = upstream;
    this.#limits = limits;
  }

  run(): Promise<Omit<ProbeResult, "openMs">> {
    if (this.#settled) return this.#result.promise;
    this.#deadline = setTimeout(() => this.#onDeadline(), this.#limits.timeoutMs);
    this.#upstream.channel.attach(this);
    this.#restartQuiet();
    this.#firstAskedAt = performance.now();
    try {
      this.#ask();
    } catch (error) {
      this.fail(error);
    }
    return this.#result.promise;
  }

  fail(error: unknown): void {
    if (this.#settle()) this.#result.reject(error);
  }

  onChunk(chunk: Uint8Array): void {
    if (!this.#settled) {
      this.#bytes += chunk.length;
      this.#restartQuiet();
      try {
        this.#upstream.link.down.push(chunk, this);
        this.#ask();
      } catch (error) {
        this.fail(error);
      }
    }
    release(chunk);
  }

  /** Takes what the link has decrypted, which is only borrowed. */
  write(plain: Uint8Array): void {
    let rest = concatBytes([this.#held, plain]);
    while (!this.#settled && rest.length >= 4) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(0, true);
      if (length === 0 || length > LONGEST_ANSWER) {
        throw new RouteError("PROTOCOL", "the answer is not Telegram's: it has no length of a packet");
      }
      if (rest.length < 4 + length) break;
      this.#onAnswer(rest.subarray(4, 4 + length));
      rest = rest.subarray(4 + length);
    }
    this.#held = rest;
  }

  onEnd(): void {
    this.#onClosed(undefined);
  }

  onDrain(): void {}

  onClose(error?: Error): void {
    this.#onClosed(error);
  }

  #onAnswer(payload: Uint8Array): void {
    const nonce = readNonce(payload).toHex();
    if (!this.#asked.delete(nonce)) {
      throw new RouteError("PROTOCOL", "the answer is not ours: it carries another nonce");
    }
    this.#rttMs ??= performance.now() - this.#firstAskedAt;
    this.#limits.onProgress(this.#bytes);
    if (this.#bytes <= this.#limits.needed) return;
    const result = { rttMs: this.#rttMs, bytes: this.#bytes };
    if (this.#settle()) this.#result.resolve(result);
  }

  /** Fills the window. */
  #ask(): void {
    const { channel, link } = this.#upstream;
    while (!this.#settled && this.#asked.size < this.#limits.window) {
      const nonce = crypto.getRandomValues(new Uint8Array(NONCE_LENGTH));
      const messageId = clientMessageId(Date.now(), this.#questions++);
      const payload = encodeReqPqMulti({ nonce, messageId });
      this.#asked.add(nonce.toHex());
      link.up.push(concatBytes([Uint8Array.of(payload.length, 0, 0, 0), payload]), channel);
    }
  }

  #restartQuiet(): void {
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.fail(this.#stopped(this.#limits.quietMs)), this.#limits.quietMs);
  }

  #onDeadline(): void {
    const { timeoutMs, needed } = this.#limits;
    const came = `${formatBytes(this.#bytes)} of ${formatBytes(needed)}`;
    const slow = new RouteError("TIMEOUT", `too slow: ${came} within ${timeoutMs / 1000} s`);
    this.fail(this.#rttMs === undefined ? this.#stopped(timeoutMs) : slow);
  }

  #stopped(afterMs: number): RouteError {
    if (this.#bytes > 0) return new RouteError("STALLED", `stopped after ${formatBytes(this.#bytes)}`);
    return new RouteError("SILENT", `it opened, but nothing came back within ${afterMs / 1000} s`);
  }

  #onClosed(cause: Error | undefined): void {
    const when = this.#bytes === 0 ? "before it carried anything back" : `after ${formatBytes(this.#bytes)}`;
    this.fail(new RouteError("CLOSED", `closed ${when}`, { cause }));
  }

  /** Whether this is the first end. */
  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    clearTimeout(this.#deadline);
    clearTimeout(this.#quiet);
    return true;
  }
}

/** @throws {RouteError} `PROTOCOL` when `payload` is no resPQ. */
function readNonce(payload: Uint8Array): Uint8Array {
  const refusal = transportErrorOf(payload);
  if (refusal !== undefined) {
    const meaning = TRANSPORT_ERRORS[refusal.answer];
    const text = meaning === undefined ? refusal.message : `${refusal.message}: ${meaning}`;
    throw new RouteError("PROTOCOL", text, { cause: refusal });
  }
  try {
    return parseResPq(payload).nonce;
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new RouteError("PROTOCOL", `the answer is not Telegram's: ${error.message}`, { cause: error });
  }
}
