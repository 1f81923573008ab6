import { afterEach, beforeEach, describe, expect, jest, test } from "bun:test";
import type { ChannelSink } from "../../src/channel/channel.ts";
import { CipherTransform } from "../../src/channel/transform.ts";
import { RouteError } from "../../src/core/errors.ts";
import { sealServerInit } from "../../src/crypto/obfuscated2-ciphers.ts";
import { type DcTarget, formatDcId, type Target } from "../../src/protocol/mtproto/dc.ts";
import { TransportError } from "../../src/protocol/mtproto/req-pq.ts";
import { PacketFramer, Scratch } from "../../src/upstream/packet-framer.ts";
import { type ProbeOptions, type ProbeResult, probeWay } from "../../src/upstream/probe.ts";
import type { Upstream, Way } from "../../src/upstream/route.ts";
import { type MemoryChannel, memoryChannelPair, settle } from "../support/memory-channel.ts";
import { openInit, type Streams } from "../support/obfuscated2.ts";
import { concat, encodePacket, takePacket } from "../support/packets.ts";
import { TlReader, tlBytes, tlInt, tlLong } from "../support/tl.ts";

const TARGET: DcTarget = { dc: 4, media: true, test: false };
const never = new AbortController().signal;

/** What a data centre does with a question: answers with plaintext, or does something to its channel. */
type Manners = (question: Question, dc: FakeDc) => Uint8Array | undefined;

interface Question {
  readonly nonce: Uint8Array;
  readonly messageId: bigint;
  /** Counted from 1. */
  readonly number: number;
}

function resPq(nonce: Uint8Array): Uint8Array {
  const fingerprints = concat(tlInt(0x1cb5c415), tlInt(1), tlLong(0xc3b42b026ce86b21n));
  const pq = tlBytes(Uint8Array.fromHex("17ed48941a08f981"));
  const body = concat(tlInt(0x05162463), nonce, new Uint8Array(16).fill(7), pq, fingerprints);
  const message = concat(tlLong(0n), tlLong(0x51e57ac91e83c801n), tlInt(body.length), body);
  return encodePacket("intermediate", message);
}

const honest: Manners = ({ nonce }) => resPq(nonce);
const silent: Manners = () => undefined;

/** Answers until so many bytes are out. */
const freezeAfter = (limit: number): Manners => {
  let sent = 0;
  return ({ nonce }) => {
    if (sent >= limit) return undefined;
    const answer = resPq(nonce);
    sent += answer.length;
    return answer;
  };
};

/** The far end of a way: opens the init with keys of its own and answers what it is asked. */
class FakeDc implements ChannelSink {
  readonly channel: MemoryChannel;
  init: { readonly transport: string; readonly dcId: number } | undefined;
  readonly questions: Question[] = [];
  closed = false;
  readonly #manners: Manners;
  readonly #chunkSize: number;
  #streams: Streams | undefined;
  #bytes: Uint8Array = new Uint8Array(0);
  #toAnswer: Question[] = [];

  constructor(channel: MemoryChannel, manners: Manners, chunkSize = Number.POSITIVE_INFINITY) {
    this.channel = channel;
    this.#manners = manners;
    this.#chunkSize = chunkSize;
    channel.attach(this);
  }

  onChunk(chunk: Uint8Array): void {
    if (this.#streams === undefined) {
      const { up, down, transport, dcId } = openInit(chunk, undefined);
      this.#streams = { up, down };
      this.init = { transport, dcId };
      return;
    }
    this.#bytes = concat(this.#bytes, this.#streams.up.update(chunk));
    for (;;) {
      const taken = takePacket("intermediate", this.#bytes);
      if (taken === undefined) break;
      this.#bytes = this.#bytes.slice(taken.size);
      this.#onQuestion(taken.packet.payload);
    }
    this.#answer();
  }

  onEnd(): void {}

  onDrain(): void {}

  onClose(): void {
    this.closed = true;
  }

  send(plain: Uint8Array): void {
    const bytes = this.#streams?.down.update(plain) ?? plain;
    for (let at = 0; at < bytes.length; at += this.#chunkSize) {
      this.channel.write(bytes.subarray(at, at + this.#chunkSize));
    }
  }

  #onQuestion(payload: Uint8Array): void {
    const reader = new TlReader(payload);
    expect(reader.long()).toBe(0n);
    const messageId = reader.long();
    expect([reader.int(), reader.int()]).toEqual([20, 0xbe7e8ef1]);
    const question = { nonce: reader.raw(16), messageId, number: this.questions.length + 1 };
    this.questions.push(question);
    this.#toAnswer.push(question);
  }

  #answer(): void {
    const questions = this.#toAnswer;
    this.#toAnswer = [];
    for (const question of questions) {
      const answer = this.#manners(question, this);
      if (answer !== undefined) this.send(answer);
    }
  }
}

/** A way that opens at once, with the link that real WebSocket routes have. */
class MemoryWay implements Way {
  readonly route = "direct-ws";
  readonly endpoint = "memory";
  readonly group = "memory";
  readonly address = { host: "127.0.0.1", port: 443, webSocket: undefined };
  channel: MemoryChannel | undefined;
  dc: FakeDc | undefined;
  readonly #manners: Manners;
  readonly #chunkSize: number | undefined;

  constructor(manners: Manners, chunkSize?: number) {
    this.#manners = manners;
    this.#chunkSize = chunkSize;
  }

  open(target: Target): Promise<Upstream> {
    const [channel, far] = memoryChannelPair();
    this.channel = channel;
    this.dc = new FakeDc(far, this.#manners, this.#chunkSize);
    const { bytes, outbound, inbound } = sealServerInit({
      transport: target.transport,
      dcId: formatDcId(target),
    });
    channel.write(bytes);
    const up = new PacketFramer(outbound, target.transport, new Scratch());
    return Promise.resolve({ channel, link: { up, down: new CipherTransform(inbound) }, warm: false });
  }
}

/** A way whose opening the test settles. */
class ManualWay implements Way {
  readonly route = "direct-tcp";
  readonly endpoint = "manual";
  readonly group = "manual";
  readonly address = { host: "127.0.0.1", port: 443, webSocket: undefined };
  readonly opening = Promise.withResolvers<Upstream>();
  givenUp = false;
  started = false;

  open(
    _: Target,
    signal: { addEventListener(type: "abort", listener: () => void): void },
  ): Promise<Upstream> {
    this.started = true;
    signal.addEventListener("abort", () => {
      this.givenUp = true;
    });
    return this.opening.promise;
  }
}

type Outcome = ProbeResult | RouteError;

interface Run {
  readonly outcome: Promise<Outcome>;
  /** What it came to, if it has. */
  known: Outcome | undefined;
}

function start(way: Way, options: Partial<ProbeOptions> = {}): Run {
  const caught = probeWay(way, TARGET, { deep: false, signal: never, ...options }).catch((error: unknown) => {
    if (error instanceof RouteError) return error;
    throw error;
  });
  const run: Run = { outcome: caught, known: undefined };
  void caught.then(
    (outcome) => {
      run.known = outcome;
    },
    () => {},
  );
  return run;
}

const codeOf = (outcome: Outcome | undefined): string =>
  outcome instanceof RouteError
    ? `${outcome.code} ${outcome.message}`
    : outcome === undefined
      ? "pending"
      : "ok";

/** Everything that a probe holds must be gone when it is over. */
async function expectNothingLeft({ channel, dc }: MemoryWay): Promise<void> {
  await settle();
  expect(channel?.closed).toBe(true);
  expect(dc?.closed).toBe(true);
  expect(jest.getTimerCount()).toBe(0);
}

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

describe("probeWay(), light", () => {
  test("asks once over the intermediate transport, and measures the answer", async () => {
    const way = new MemoryWay(honest);
    const heard: number[] = [];
    const result = await start(way, { onProgress: (bytes) => heard.push(bytes) }).outcome;
    if (result instanceof RouteError) throw result;
    expect(result.bytes).toBe(resPq(new Uint8Array(16)).length);
    expect(result.openMs).toBeGreaterThanOrEqual(0);
    expect(result.rttMs).toBeGreaterThanOrEqual(0);
    expect(heard).toEqual([result.bytes]);
    expect(way.dc?.init).toEqual({ transport: "intermediate", dcId: -4 });
    expect(way.dc?.questions).toHaveLength(1);
    const { messageId = 1n } = way.dc?.questions[0] ?? {};
    expect(messageId % 4n).toBe(0n);
    expect(Math.abs(Number(messageId >> 32n) - Date.now() / 1000)).toBeLessThan(10);
    await expectNothingLeft(way);
  });

  test.each([1, 3, 50])("understands an answer in chunks of %d bytes", async (size) => {
    const way = new MemoryWay(honest, size);
    expect(codeOf(await start(way).outcome)).toBe("ok");
    await expectNothingLeft(way);
  });

  test("fails as SILENT when nothing comes back in time", async () => {
    const way = new MemoryWay(silent);
    const run = start(way);
    await settle();
    jest.advanceTimersByTime(4_999);
    await settle();
    expect(codeOf(run.known)).toBe("pending");
    jest.advanceTimersByTime(1);
    expect(codeOf(await run.outcome)).toBe("SILENT it opened, but nothing came back within 5 s");
    await expectNothingLeft(way);
  });

  test("takes another time limit", async () => {
    const run = start(new MemoryWay(silent), { timeoutMs: 700 });
    await settle();
    jest.advanceTimersByTime(700);
    expect(codeOf(await run.outcome)).toBe("SILENT it opened, but nothing came back within 0.7 s");
  });

  test("fails as STALLED when an answer stops in the middle", async () => {
    const way = new MemoryWay(({ nonce }) => resPq(nonce).subarray(0, 30));
    const run = start(way);
    await settle();
    jest.advanceTimersByTime(5_000);
    expect(codeOf(await run.outcome)).toBe("STALLED stopped after 30 B");
    await expectNothingLeft(way);
  });

  test("fails as CLOSED when the other side closes, ends or breaks", async () => {
    const before = "CLOSED closed before it carried anything back";
    const ways: readonly [(far: MemoryChannel) => void, string][] = [
      [(far) => far.close(), before],
      [(far) => far.end(), before],
      [(far) => far.destroy(), before],
    ];
    for (const [act, expected] of ways) {
      const way = new MemoryWay((_, { channel }) => {
        act(channel);
        return undefined;
      });
      expect(codeOf(await start(way).outcome)).toBe(expected);
      await expectNothingLeft(way);
    }
  });

  test("keeps what broke the connection as the cause", async () => {
    const way = new MemoryWay((_, { channel }) => {
      channel.destroy();
      return undefined;
    });
    const error = await start(way).outcome;
    expect(error).toBeInstanceOf(RouteError);
    if (error instanceof RouteError) expect(String(error.cause)).toContain("reset by peer");
  });

  test("says what Telegram answered instead of a message", async () => {
    for (const [answer, text] of [
      [-404, "PROTOCOL Telegram answered -404: it does not understand this connection"],
      [-429, "PROTOCOL Telegram answered -429: too many connections from this address"],
      [-7, "PROTOCOL Telegram answered -7"],
    ] as const) {
      const way = new MemoryWay(() => encodePacket("intermediate", tlInt(answer)));
      const error = await start(way).outcome;
      expect(codeOf(error)).toBe(text);
      if (error instanceof RouteError) expect(error.cause).toBeInstanceOf(TransportError);
      await expectNothingLeft(way);
    }
  });

  test.each<[string, Manners, string]>([
    [
      "another nonce",
      ({ nonce }) => resPq(nonce.toReversed()),
      "PROTOCOL the answer is not ours: it carries another nonce",
    ],
    [
      "another message",
      () => encodePacket("intermediate", new Uint8Array(84)),
      "PROTOCOL the answer is not Telegram's: Cannot parse resPQ: its length says 0 of 64 bytes",
    ],
    [
      "noise",
      () => new Uint8Array(64).fill(0xa5),
      "PROTOCOL the answer is not Telegram's: it has no length of a packet",
    ],
    [
      "a length of 0",
      () => new Uint8Array(8),
      "PROTOCOL the answer is not Telegram's: it has no length of a packet",
    ],
  ])("fails as PROTOCOL on %s", async (_, manners, expected) => {
    const way = new MemoryWay(manners);
    expect(codeOf(await start(way).outcome)).toBe(expected);
    await expectNothingLeft(way);
  });

  test("is over once, whatever comes after the answer", async () => {
    const way = new MemoryWay(({ nonce }, dc) => {
      dc.send(concat(resPq(nonce), resPq(new Uint8Array(16)), new Uint8Array(100)));
      dc.channel.destroy();
      return undefined;
    });
    const run = start(way);
    await settle();
    expect(["ok", "CLOSED closed before it carried anything back"]).toContain(codeOf(await run.outcome));
    await expectNothingLeft(way);
  });
});

describe("probeWay(), opening", () => {
  test("passes on why the way did not open", async () => {
    const way = new ManualWay();
    const run = start(way);
    const error = new RouteError("REFUSED", "connection refused");
    way.opening.reject(error);
    expect(await run.outcome).toBe(error);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("passes a bug on as it is", async () => {
    const way = new ManualWay();
    const run = start(way);
    const bug = new TypeError("a bug");
    way.opening.reject(bug);
    await expect(run.outcome).rejects.toBe(bug);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("fails as TIMEOUT when it never opens, gives it up, and closes what opens late", async () => {
    const way = new ManualWay();
    const run = start(way);
    jest.advanceTimersByTime(5_000);
    expect(codeOf(await run.outcome)).toBe("TIMEOUT not open within 5 s");
    expect(way.givenUp).toBe(true);
    expect(jest.getTimerCount()).toBe(0);
    const late = new MemoryWay(silent);
    way.opening.resolve(await late.open({ ...TARGET, transport: "intermediate" }));
    await expectNothingLeft(late);
  });

  test("gives the answer its own time after a slow opening", async () => {
    const way = new ManualWay();
    const run = start(way);
    jest.advanceTimersByTime(4_999);
    const memory = new MemoryWay(silent);
    way.opening.resolve(await memory.open({ ...TARGET, transport: "intermediate" }));
    await settle();
    jest.advanceTimersByTime(4_999);
    await settle();
    expect(codeOf(run.known)).toBe("pending");
    jest.advanceTimersByTime(1);
    expect(codeOf(await run.outcome)).toStartWith("SILENT");
  });

  test("meets a channel that is closed already", async () => {
    const way = new MemoryWay(honest);
    const upstream = await way.open({ ...TARGET, transport: "intermediate" });
    upstream.channel.destroy();
    const manual = new ManualWay();
    manual.opening.resolve(upstream);
    expect(codeOf(await start(manual).outcome)).toBe("CLOSED closed before it carried anything back");
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe("probeWay(), given up", () => {
  test("does not open anything for a signal that has aborted", async () => {
    const way = new ManualWay();
    expect(codeOf(await start(way, { signal: AbortSignal.abort() }).outcome)).toBe("ABORTED given up");
    expect(way.started).toBe(false);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("gives an opening up", async () => {
    const caller = new AbortController();
    const way = new ManualWay();
    const run = start(way, { signal: caller.signal });
    caller.abort();
    expect(codeOf(await run.outcome)).toBe("ABORTED given up");
    expect(way.givenUp).toBe(true);
    expect(jest.getTimerCount()).toBe(0);
  });

  test("drops an open connection", async () => {
    const caller = new AbortController();
    const way = new MemoryWay(silent);
    const run = start(way, { signal: caller.signal, deep: true });
    await settle();
    caller.abort();
    expect(codeOf(await run.outcome)).toBe("ABORTED given up");
    await expectNothingLeft(way);
  });

  test("notices a signal that aborts just when the way opens", async () => {
    const caller = new AbortController();
    const way = new ManualWay();
    const run = start(way, { signal: caller.signal });
    const memory = new MemoryWay(honest);
    way.opening.resolve(await memory.open({ ...TARGET, transport: "intermediate" }));
    caller.abort();
    expect(codeOf(await run.outcome)).toBe("ABORTED given up");
    await expectNothingLeft(memory);
  });
});

describe("probeWay(), deep", () => {
  test("goes on until more than 64 KiB have come back, each question with its own nonce", async () => {
    const way = new MemoryWay(honest);
    const heard: number[] = [];
    const result = await start(way, { deep: true, onProgress: (bytes) => heard.push(bytes) }).outcome;
    if (result instanceof RouteError) throw result;
    expect(result.bytes).toBeGreaterThan(64 * 1024);
    expect(result.bytes).toBeLessThan(66 * 1024);
    expect(heard).toEqual(heard.toSorted((a, b) => a - b));
    expect(heard.at(-1)).toBe(result.bytes);
    const { questions = [] } = way.dc ?? {};
    expect(questions.length).toBeGreaterThan(700);
    const ids = questions.map(({ messageId }) => messageId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(new Set(questions.map(({ nonce }) => nonce.toHex())).size).toBe(ids.length);
    await expectNothingLeft(way);
  });

  test("has no more than 16 questions open", async () => {
    const way = new MemoryWay(silent);
    const run = start(way, { deep: true });
    await settle(100);
    expect(way.dc?.questions).toHaveLength(16);
    way.dc?.send(resPq(way.dc.questions[3]?.nonce ?? new Uint8Array(16)));
    await settle(100);
    expect(way.dc?.questions).toHaveLength(17);
    jest.advanceTimersByTime(5_000);
    expect(codeOf(await run.outcome)).toBe("STALLED stopped after 88 B");
    await expectNothingLeft(way);
  });

  test("understands answers in small chunks, many in one, and out of order", async () => {
    const small = new MemoryWay(honest, 37);
    expect(codeOf(await start(small, { deep: true }).outcome)).toBe("ok");

    let held: Uint8Array[] = [];
    const turned = new MemoryWay(({ nonce, number }) => {
      held.unshift(resPq(nonce));
      if (number % 16 !== 0) return undefined;
      const all = concat(...held);
      held = [];
      return all;
    });
    expect(codeOf(await start(turned, { deep: true }).outcome)).toBe("ok");
    await expectNothingLeft(turned);
  });

  test("fails as STALLED on a flow that freezes after 16 KiB", async () => {
    const way = new MemoryWay(freezeAfter(16 * 1024));
    const run = start(way, { deep: true });
    await settle(4_000);
    expect(codeOf(run.known)).toBe("pending");
    jest.advanceTimersByTime(4_999);
    await settle();
    expect(codeOf(run.known)).toBe("pending");
    jest.advanceTimersByTime(1);
    expect(codeOf(await run.outcome)).toMatch(/^STALLED stopped after 16\.\d KB$/);
    await expectNothingLeft(way);
  });

  test("a light probe does not notice that flow", async () => {
    expect(codeOf(await start(new MemoryWay(freezeAfter(16 * 1024))).outcome)).toBe("ok");
  });

  test("fails as SILENT after the stall limit when nothing comes back", async () => {
    const run = start(new MemoryWay(silent), { deep: true, stallMs: 300 });
    await settle();
    jest.advanceTimersByTime(300);
    expect(codeOf(await run.outcome)).toBe("SILENT it opened, but nothing came back within 0.3 s");
  });

  test("fails as TIMEOUT on a flow that goes on too slowly", async () => {
    let queue: (() => void)[] = [];
    const way = new MemoryWay(({ nonce }, dc) => {
      queue.push(() => dc.send(resPq(nonce)));
      return undefined;
    });
    const run = start(way, { deep: true });
    for (let second = 0; second < 20; second += 1) {
      await settle(60);
      const answers = queue;
      queue = [];
      for (const answer of answers) answer();
      await settle(60);
      jest.advanceTimersByTime(1_000);
    }
    expect(codeOf(await run.outcome)).toMatch(/^TIMEOUT too slow: 2\d\.\d KB of 64\.0 KB within 20 s$/);
    await expectNothingLeft(way);
  });

  test("fails on an answer that is not ours, and on a close, in the middle", async () => {
    const stranger = new MemoryWay(({ nonce, number }) => resPq(number === 100 ? nonce.toReversed() : nonce));
    expect(codeOf(await start(stranger, { deep: true }).outcome)).toBe(
      "PROTOCOL the answer is not ours: it carries another nonce",
    );
    await expectNothingLeft(stranger);

    const repeated = new MemoryWay(({ nonce, number }) =>
      number === 100 ? concat(resPq(nonce), resPq(nonce)) : resPq(nonce),
    );
    expect(codeOf(await start(repeated, { deep: true }).outcome)).toStartWith(
      "PROTOCOL the answer is not ours",
    );

    const closing = new MemoryWay(({ nonce, number }, { channel }) => {
      if (number !== 200) return resPq(nonce);
      channel.close();
      return undefined;
    });
    expect(codeOf(await start(closing, { deep: true }).outcome)).toMatch(/^CLOSED closed after 1\d\.\d KB$/);
    await expectNothingLeft(closing);
  });
});
